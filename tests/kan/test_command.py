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
    "line 5, the column without a name='nan'": (",b\n1,2\n\n\nnan,2\n", ["--target", "b"]),
    "line 2 of 1 cells: expected 2": ("a,b\n1\n", ["--target", "b"]),
    "expected cells separated by commas": ("a;b\n1;2\n", ["--target", "b"]),
    "has no name: expected --inputs": (",a,b\n0,1,2\n", ["--target", "b"]),
    "--seed -1": ("a,b\n1,2\n", ["--target", "b", "--seed", "-1"]),
    "--max-seconds -1": ("a,b\n1,2\n", ["--target", "b", "--max-seconds", "-1"]),
    "expected a text file in UTF-8": ("\udcb5,b\n1,2\n", ["--target", "b"]),
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
