"""Files that are there as a whole or not at all."""

import pytest

from kat_zoo._files import replaced


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
    with replaced(path) as partial:
        partial.write_text("new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]
