"""CSV files as people have them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_zoo.explore import example_table, parse_table, read_table
from kat_zoo.explore.examples import EXAMPLES
from kat_zoo.explore.tables import MAX_COLUMNS, MAX_ROWS


def test_a_plain_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b [kg],c (m)\n1,2,3\n4,5,6\n")
    table = read_table(path)
    assert [(c.name, c.unit) for c in table.columns] == [("a", ""), ("b [kg]", "kg"), ("c (m)", "m")]
    X, y = table.numbers(["c (m)", "a"], "b [kg]")
    assert X.tolist() == [[3, 1], [6, 4]] and y.tolist() == [2, 5] and table.notes == ()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_a_target_and_inputs(name):
    table = example_table(name)
    *inputs, target = table.numeric
    X, y = table.numbers(inputs, target)
    assert np.isfinite(X).all() and len(y) >= 9 and np.ptp(y) > 0


def test_the_messy_example_tells_all_of_its_faults():
    table = example_table("messy")
    text = " ".join(table.notes)
    for part in ("Windows-1252", "semicolons", "decimal commas", "line 52", "'place' holds words", "is empty", "without a number"):
        assert part in text, part
    assert [c.text for c in table.columns] == [False, False, False, True, True]
    assert table.columns[0].unit == "°C" and len(table.numbers(table.numeric[:2], "density")[1]) == 152


@pytest.mark.parametrize(
    "data, note",
    [
        (b"1,2\n3,4\n", "no header: columns are called x_1 to x_2"),
        (b"a\tb\n1\t2\n3\t4\n", "separated by tabs"),
        (b"a,a,\n1,2,3\n4,5,6\n", "called 'a (2)', 'column 3'"),
        (b"a,b\n1,2\n1,3\n", "Column 'a' is always 1"),
        (b"a,b\n1,2\n1,2\n3,4\n", "1 row repeats another row"),
        (b"a,b\n1,nan\n2,3\n3,inf\n4,5\n5,6\n", "Column 'b' has 2 cells without a number (lines 2, 4)"),
        ("a,b\n1,2\n3,4\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_guesses_are_told(data, note):
    assert note in " ".join(parse_table(data).notes)


def test_text_of_a_file_is_never_read_as_anything_but_numbers():
    name = '__import__("os").system("touch /tmp/x")'
    table = parse_table(f'"{name.replace(chr(34), chr(34) * 2)}",b\n1_0,2\n3,4\n5,6\n'.encode())
    assert table.columns[0].name == name and np.isnan(table.columns[0].values[0])


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\x89PNG\0\0", "not a text file"),
        (b"a,b\n", "no rows"),
        (b"a,b\nx,y\nz,w\n", "no column of numbers"),
        (b",,\n", "empty cells"),
        (b"a," * MAX_COLUMNS + b"b\n1\n", "columns"),
        (b"a\n" + b"1\n" * (MAX_ROWS + 1), "rows"),
    ],
)
def test_refusals(data, message):
    with pytest.raises(ValueError, match=message):
        parse_table(data)


def test_decimal_commas_may_begin_late():
    rows = [f"{i};{i}" for i in range(60)] + [f"{i},5;{i},25" for i in range(60)]
    table = parse_table("\n".join(["a;b", *rows]).encode())
    assert table.columns[0].values[60:].tolist() == [i + 0.5 for i in range(60)] and table.rows == 120
    assert table.notes == ("Cells are separated by semicolons.", "Numbers have decimal commas.")


@pytest.mark.parametrize(
    "first, value", [("1,,3", np.nan), ("1,nan,3", np.nan), ("NA,2,3", 2.0), ("1;2,5;3", 2.5)], ids=["gap", "nan", "NA", "comma"]
)
def test_a_first_line_of_numbers_and_gaps_is_a_row(first, value):
    rows = ["4;5,5;6", "7;8;9"] if ";" in first else ["4,5,6", "7,8,9"]
    table = parse_table("\n".join([first, *rows]).encode())
    assert [column.name for column in table.columns] == ["x_1", "x_2", "x_3"] and table.rows == 3
    np.testing.assert_equal(table.columns[1].values[0], value)


def test_refused_columns():
    table = parse_table(b"a,b,c\n1,2,x\n3,,y\n5,6,z\n")
    for inputs, target, message in (([], "a", "at least one"), (["a"], "a", "at least one"), (["q"], "a", "'q'"), (["c"], "a", "words")):
        with pytest.raises(ValueError, match=message):
            table.numbers(inputs, target)
    assert len(table.numbers(["a"], "b")[1]) == 2


@given(st.one_of(st.binary(max_size=80), st.text('ab1.,;\t|"\n-e ', max_size=80).map(str.encode)))
def test_any_bytes_are_a_table_or_refused(data):
    try:
        table = parse_table(data)
    except ValueError as error:
        assert "expected" in str(error)
    else:
        assert table.numeric and len({column.name for column in table.columns}) == len(table.columns)
