"""benchmarks/karat_ablations.py: a call that is killed loses nothing, and what has not run is said."""

import csv
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def call(monkeypatch, tmp_path, data_root):
    """Calls the script's main on tiny data; `call.script` is the module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    import karat_ablations

    def call(*arguments):
        folders = ["--root", data_root, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "table.csv")]
        return karat_ablations.main(["--only", "baseline", "--images", "64", "--epochs", "1", *folders, *arguments])

    call.script = karat_ablations
    yield call
    sys.modules.pop("karat_ablations")


def rows(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_call_goes_on(call, tmp_path, monkeypatch):
    train, trained = call.script.train, []

    def killed_at_the_second(recipe, resume):
        trained.append(recipe.model.kwargs)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(recipe, resume)

    monkeypatch.setattr(call.script, "train", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        call()
    first = rows(tmp_path)
    assert [row["variant"] for row in first] == ["softmax"] and float(first[0]["top1"]) >= 0
    with pytest.raises(SystemExit):  # rows are never overwritten unasked
        call()
    assert call("--resume") == 0
    assert trained == [{"layers": []}, {}, {}]
    assert [row["variant"] for row in rows(tmp_path)] == ["softmax", "fourier G3 r8"] and rows(tmp_path)[0] == first[0]
    table = (tmp_path / "table.md").read_text()
    assert "64 training images" in table and table.count("not run") == sum(len(v) for _, v in call.script.GROUPS.values()) - 2
    assert (tmp_path / "table.png").stat().st_size > 5000 and not list((tmp_path / "work").iterdir())


def test_a_stopped_training_keeps_its_minutes_and_other_budgets_stay_apart(call, tmp_path, monkeypatch):
    monkeypatch.setattr(call.script, "train", lambda recipe, resume: None)
    folder = tmp_path / "work" / "baseline_softmax-0-64-1"
    folder.mkdir(parents=True)
    (folder / "cpu_minutes").write_text("7")
    assert call() == 130
    assert float((folder / "cpu_minutes").read_text()) >= 7
    other = dict(zip(call.script.FIELDS, ["baseline", "softmax", "0", "128", "1", "90.00", "0.3", "2.0"], strict=True))
    call.script.write_rows([other], tmp_path / "table.csv")
    assert call("--resume") == 130
    assert rows(tmp_path) == [other] and "90.00" not in (tmp_path / "table.md").read_text()


def test_what_diverged_is_said_and_the_budget_is_in_the_picture(call, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    values = [("softmax", 0, 65.0, 0.9), ("softmax", 1, 66.0, 0.8), ("fourier G3 r8", 0, 2.7, 2.75)]
    budget = {"group": "baseline", "images": 64, "epochs": 1, "cpu_minutes": 1.5}
    rows = [{**budget, "variant": v, "seed": s, "top1": t, "loss": loss} for v, s, t, loss in values]
    table = call.script.summary(rows, 64, 1)
    call.script.write_table(table, tmp_path / "table.md", 64, 1)
    last = (tmp_path / "table.md").read_text().splitlines()[-2:]
    assert last == ["", "fourier G3 r8 diverged: its test loss ended at 2.75; guessing among ten classes has 2.30."]
    drawn = []
    monkeypatch.setattr(plt.Figure, "savefig", lambda figure, path, dpi: drawn.append(figure.axes[0]))
    call.script.plot(table, tmp_path / "table.png", 64, 1)
    assert drawn[0].get_title() == "karat_pico_patch4_28, 1 to 2 seeds per variant, 4.5 CPU minutes in all"
    assert [text.get_text() for text in drawn[0].texts] == ["65.5", "2.7 (diverged)"]
    plt.close("all")
