"""benchmarks/kan_paper.py: an interrupted command goes on where it was."""

from pathlib import Path

import pytest


def test_what_has_ended_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from paper.common import Runs

    calls = []

    def job(key, interrupted=False):
        def run():
            calls.append(key)
            if interrupted:
                raise KeyboardInterrupt
            return key * 2

        return run

    path = tmp_path / "kan_x_full.runs"
    with pytest.raises(KeyboardInterrupt):
        Runs(path)({"a": job("a"), "b": job("b", interrupted=True), "c": job("c")})
    runs = Runs(path)
    assert runs({"a": job("a"), "b": job("b"), "c": job("c")}) == {"a": "aa", "b": "bb", "c": "cc"}
    assert calls == ["a", "b", "b", "c"] and "1 of 3 runs are in" in capsys.readouterr().out
    runs.finish()
    assert not list(tmp_path.iterdir())
