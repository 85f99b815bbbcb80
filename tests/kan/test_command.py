"""kat-zoo formula: a table in, a formula out; bad input is refused before the search."""

import numpy as np
import pytest

from kat_zoo.cli import main as cli
from kat_zoo.kan import KANRegressor


def test_command(tmp_path, capsys):
    X = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    lines = ["mass,speed,momentum", *(f"{a!r},{b!r},{c!r}" for (a, b), c in zip(X.tolist(), X.prod(1).tolist(), strict=True))]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert cli.main(["formula", str(tmp_path / "data.csv"), "--target", "momentum", "--plot", str(tmp_path / "net.svg")]) == 0
    out = capsys.readouterr().out
    assert "momentum = mass*speed   (exact on 60 held-out rows)" in out and (tmp_path / "net.svg").stat().st_size > 1000
    assert "  held-out RMSE  momentum" in out


def test_command_with_units_and_a_page(tmp_path, capsys):
    generator = np.random.default_rng(0)
    X = generator.uniform(1, 10, (100, 3))
    y = 6.674e-11 * X[:, 0] * X[:, 1] / X[:, 2] ** 2
    lines = [
        "mass,other,distance,note,force",
        *(f"{a!r},{b!r},{c!r},text,{f!r}" for (a, b, c), f in zip(X.tolist(), y.tolist(), strict=True)),
    ]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    command = ["formula", str(tmp_path / "data.csv"), "--target", "force", "--inputs", "mass", "other", "distance", "--quiet"]
    units = ["--units", "mass=kg, other=kg, distance=m", "--target-units", "N", "--max-seconds", "30", "--explain", str(tmp_path / "page")]
    assert cli.main([*command, *units, "--constants", "G=6.674e-11 m^3/kg/s^2"]) == 0
    out = capsys.readouterr().out
    assert "force = G*mass*other/distance**2   (exact on 20 held-out rows)" in out and "           RMSE  force" in out
    assert "y = G*mass*other/distance**2" in (tmp_path / "page" / "explanation.txt").read_text()
    assert cli.main([*command, *units[:4]]) == 0
    assert "6.674e-11 is in m**2*N/kg**2" in capsys.readouterr().out


REFUSED = {
    "line 3": ("a,b\n1,2\n1,x\n", ["--target", "b"]),
    "column 'z' is not in": ("a,b\n1,2\n", ["--target", "z"]),
    "not the target 'b'": ("a,b\n1,2\n", ["--target", "b", "--inputs", "a", "b"]),
    "expected each column once": ("a,b\n1,2\n", ["--target", "b", "--inputs", "a", "a"]),
    "several columns named 'a'": ("a,a,b\n1,2,3\n", ["--target", "b"]),
    "expected a header, a first line of column names": ("1,2\n3,4\n", ["--target", "2"]),
    "at least one input": ("a\n1\n", ["--target", "a"]),
    "ends in .svg, .pdf, .png": ("a,b\n1,2\n", ["--target", "b", "--plot", "net.txt"]),
    "line 2, a='1_0': expected a finite number": ("a,b\n1_0,2\n", ["--target", "b"]),
    "line 5, a='nan'": ("a,b\n1,2\n\n\nnan,2\n", ["--target", "b"]),
    "line 2 of 1 cells: expected 2": ("a,b\n1\n", ["--target", "b"]),
    "expected cells separated by commas": ("a;b\n1;2\n", ["--target", "b"]),
    "has no name: expected --inputs": (",a,b\n0,1,2\n", ["--target", "b"]),
    "--seed -1": ("a,b\n1,2\n", ["--target", "b", "--seed", "-1"]),
    "--max-seconds -1": ("a,b\n1,2\n", ["--target", "b", "--max-seconds", "-1"]),
    "expected a text file in UTF-8": ("\udcb5,b\n1,2\n", ["--target", "b"]),
    "a finite number; 2 of 3 rows have none in columns 'a', 'b' (lines 3, 4)": (
        "a,b\n1,2\n,nan\n,2\n",
        ["--target", "b"],
    ),
    "--units 'a': expected names and units": ("a,b\n1,2\n", ["--target", "b", "--units", "a"]),
    "--units without --target-units": ("a,b\n1,2\n", ["--target", "b", "--units", "a=m"]),
    "--units and inputs differ in 'a', 'z'": ("a,b\n1,2\n", ["--target", "b", "--units", "z=m", "--target-units", "m"]),
    "--constants: expected --units": ("a,b\n1,2\n", ["--target", "b", "--constants", "c=1 m"]),
    "--constants a: expected names that are not": (
        "a,b\n1,2\n",
        ["--target", "b", "--units", "a=m", "--target-units", "m", "--constants", "a=1 m"],
    ),
    "no folder nowhere": ("a,b\n1,2\n", ["--target", "b", "--plot", "nowhere/net.svg"]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_command_refuses_before_it_searches(message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(KANRegressor, "fit", lambda *_: pytest.fail("a search was begun"))
    text, arguments = REFUSED[message]
    (tmp_path / "data.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert cli.main(["formula", str(tmp_path / "data.csv"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_reads_excels_files_and_says_that_two_rows_verify_nothing(tmp_path, capsys):
    (tmp_path / "data.csv").write_text("x_2,x_1,y\n1,5,3\n2,5,5\n", encoding="utf-8-sig")
    assert cli.main(["formula", str(tmp_path / "data.csv"), "--target", "y", "--inputs", "x_2", "x_1"]) == 0
    out = capsys.readouterr().out
    assert "y = 2*x_2 + 1   (not verified" in out and "training RMSE" in out and "exact" not in out
