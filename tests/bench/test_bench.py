"""kat-zoo bench: a dry run of all of it on the CPU; what is wrong is not reported; what is measured is not measured again."""

import csv
import functools

import pytest
import torch

from kat_zoo.bench import operators, run, table, timing
from kat_zoo.bench.task import DRY, FULL, WrongResult, checked
from kat_zoo.cli import main as cli
from kat_zoo.cli import parsers
from kat_zoo.kernels.bspline_torch import spline_contract_reference

PASSES = {("copy", "forward"), ("GELU", "forward"), ("GELU", "backward"), ("rational", "forward"), ("rational", "backward")}


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@pytest.fixture
def bench(tmp_path):
    """The command on two files, and the rows that it has written."""
    path = tmp_path / "gpu.csv"

    def call(*arguments):
        code = cli.main(["bench", "--device", "cpu", "--csv", str(path), "--page", str(tmp_path / "gpu.md"), *arguments])
        with path.open() as file:
            return code, list(csv.DictReader(file)), (tmp_path / "gpu.md").read_text()

    return call


def test_a_dry_run_of_the_kernels(bench, monkeypatch, capsys):
    parts = "ceilings,rational,attention,splines"
    code, rows, page = bench("--parts", parts)
    assert code == 0 and page == capsys.readouterr().out
    expected = {task.key for part in parts.split(",") for task in run.PARTS[part](DRY, "cpu")}
    assert {table.key(row) for row in rows} == expected and len(rows) == len(expected)
    assert all(float(row["us"]) > 0 and float(row["host_us"]) > 0 and float(row["error"]) < 0.02 for row in rows)
    assert {(row["what"], row["pass"]) for row in rows if row["part"] == "rational"} >= PASSES
    assert all(int(row["launches"]) > 0 for row in rows if row["part"] == "splines")
    assert table.DRY_NOTE in page and "FlashKAT" in page and all(table.TITLES[part] in page for part in parts.split(","))
    monkeypatch.setattr(timing.HostTimer, "measure", None)  # nothing is measured again
    assert bench("--parts", parts)[1] == rows


def test_a_dry_run_of_the_models(bench):
    code, rows, page = bench("--parts", "models")
    assert code == 0 and {row["what"] for row in rows} == {"ViT", "KAT", "KArAt", "KAT + KArAt"}
    assert {row["case"].split(", ")[2] for row in rows} == {"eager", "graph", "compiled"} and len(rows) == 4 * 2 * 3
    assert {row["pass"] for row in rows} == {"inference", "training"} and "images/s" in page


def test_a_ratio_is_of_the_same_pass():
    row = dict.fromkeys(table.FIELDS, "") | {"part": "splines", "case": "x", "amount": "1"}
    ours = [row | {"what": "KANLinear", "pass": name, "us": us} for name, us in (("forward", "50"), ("backward", "100"))]
    usual = row | {"what": "usual formula", "pass": "forward", "us": "100"}
    assert [table.ratio(each, "usual formula", [*ours, usual]) for each in ours] == ["2.00", ""]
    copy = row | {"what": "copy", "pass": "forward", "us": "80"}
    assert table.ratio(ours[1], "copy", [*ours, copy]) == "0.80"


def test_a_wrong_result_has_no_figure_and_is_measured_again(bench, monkeypatch, caplog):
    right = operators.rational
    monkeypatch.setattr(operators, "rational", lambda x, a, b: right(x, a, b) + 0.05 * x)
    code, rows, page = bench("--parts", "rational")
    wrong = [row for row in rows if not row["us"]]
    assert code == 1 and {row["what"] for row in wrong} == {"rational"} and len(wrong) == 4
    assert all("WrongResult: relative error" in row["note"] for row in wrong) and "## Without a figure" in page
    assert "rational" in caplog.text
    monkeypatch.undo()
    code, rows, page = bench("--parts", "rational")
    assert code == 0 and all(row["us"] for row in rows) and "Without a figure" not in page


def test_the_time_ends_and_the_most_important_comes_first(bench, tmp_path, caplog):
    timer = timing.HostTimer()
    rows, left = run.measure(timer, ["splines", "ceilings"], 0)
    assert rows == [] and left == 14 and "14 figures are left" in caplog.text
    rows, _ = run.measure(timer, ["splines", "ceilings"], 3.0)  # those that are expected to take six seconds are not begun
    order = [row["part"] for row in rows]
    assert order[:2] == ["ceilings", "ceilings"] and "compiled" not in str(rows)


def test_the_next_call_takes_what_is_left(bench):
    _, first, page = bench("--parts", "ceilings,splines", "--seconds", "3")
    assert 0 < len(first) < 14 and f"{14 - len(first)} figures have not been taken yet" in page
    _, rows, page = bench("--parts", "ceilings,splines")
    assert rows[: len(first)] == first and len(rows) == 14 and "not been taken" not in page


def test_a_file_of_another_device_is_refused(bench, tmp_path, capsys):
    bench("--parts", "ceilings")
    path = tmp_path / "gpu.csv"
    path.write_text(path.read_text().replace("CPU,", "TPU,"))
    assert cli.main(["bench", "--device", "cpu", "--csv", str(path)]) == 2
    assert "holds rows of TPU" in capsys.readouterr().err


def test_the_usual_formula_is_the_spline(generator):
    """Cox-de Boor with dense bases against the reference of the operator, in float64, inside the grid."""
    x = 1.8 * torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.9
    coef, weight = torch.randn(3, 8, 4, generator=generator).double(), torch.zeros(4, 3, dtype=torch.float64)
    knots = torch.arange(-3, 9, dtype=torch.float64) * 0.4 - 1
    expected = spline_contract_reference(x, knots[None], coef, None, 3, 0)
    torch.testing.assert_close(operators.dense_kan_layer(x, knots, coef, weight), expected)


def test_the_oracle_in_chunks_is_the_oracle(generator):
    x, w = torch.randn(7, 3, generator=generator), torch.randn(3, 2, generator=generator)
    g = torch.randn(7, 2, generator=generator)
    for grad in (None, g):
        parts, whole = (operators.oracle(torch.matmul, ((x,), (w,)), grad, chunk) for chunk in (2, 100))
        torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(whole, [(g @ w.T).double(), (x.T @ g).double()])


def test_what_is_not_a_number_is_wrong():
    one = torch.ones(1)
    assert checked([one], [one], 0.0) == 0
    with pytest.raises(WrongResult, match="relative error nan: expected"):
        checked([one, one * torch.nan], [one, one], 1.0)


def test_operands_fill_the_cache_four_times(monkeypatch):
    timer = timing.HostTimer()
    monkeypatch.setattr(timer, "cache_bytes", lambda: 50_000_000)
    assert timer.copies(10_000_000) == 20 and timer.copies(10**9) == 2 and timer.copies(8) == 64


def test_the_results_of_all_copies_are_kept_and_checked():
    """Both ends of a turn: the graph that is timed is the one that is checked."""
    made, seen = [], []

    def make():
        made.append(len(made))
        return functools.partial(int, made[-1])

    timing.HostTimer().measure(make, lambda result: seen.append(result) or 0.0, copies=3)
    assert seen == [made[-3], made[-1]]


def test_shapes_are_those_of_the_models():
    import timm

    assert tuple(run.PARTS) == parsers.BENCH_PARTS
    widths = {timm.create_model(f"kat_{size}_patch16_224", depth=1).embed_dim for size in FULL.sizes}
    assert widths | {4 * width for width in widths} == set(FULL.widths) and FULL.rows == 128 * 197


def row(what, direction, us, amount):
    return dict.fromkeys(table.FIELDS, "") | {
        "part": "rational", "case": "x", "what": what, "pass": direction, "us": str(us), "amount": str(amount)
    }  # fmt: skip


def test_ratios():
    rows = [row("copy", "forward", 10, 200), row("GELU", "backward", 20, 300), row("rational", "backward", 25, 300)]
    assert table.ratio(rows[2], "copy", rows) == "0.60"  # 12 bytes in the time of the copy's 20
    assert table.ratio(rows[2], "GELU", rows) == "0.80"
    assert table.ratio(rows[2], "SDPA", rows) == ""
