"""Is a KAN better here? ViT, KAT, KArAt and ViT + KAN of one size, trained alike on Fashion-MNIST.

    python benchmarks/compare.py --resume                    # sweeps, three seeds of the main rows, one of the extra rows
    python benchmarks/compare.py --resume --rows main        # the main rows, and the sweeps they need
    python benchmarks/compare.py --measure                   # time and memory of a training step; on a quiet machine
    python benchmarks/compare.py --report                    # tables and figures from the checked-in results alone

It can be stopped at any moment and called again with --resume: what is finished stays, a run goes on from its last checkpoint.
Every family has a learning-rate sweep of its own under one budget, judged on images held out of the training split: three rates,
and the next one where the best is at an edge; so have the ViTs whose activation is learned node by node. A run has one thread;
--jobs 2 trains two at a time. Budgets are in compare_rows.py; --scale small takes about 3 CPU minutes a run, on a CPU with
bfloat16 instructions (without them, 20).

Writes benchmarks/results/compare/SCALE/{sizes,sweep,runs,curves,measure}.csv, tables.md and *.png.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_evaluate import RUN_FIELDS, evaluate_run
from compare_measure import SIZE_FIELDS, measure_all, sizes
from compare_report import report
from compare_rows import EXTRA, MAIN, RATES, SCALES, SWEEP_OF, Run, Scale, chosen_rate, recipe, sweep_rates, sweep_run, write_csv
from parallel import in_processes, one_thread

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.log import read_log

HERE = Path(__file__).parent
GROUPS = ("sweep", "main", "extra")
SWEEP_FIELDS = ["row", "lr", "seed", "top1", "loss"]
CURVE_FIELDS = ["row", "seed", "update", "images", "loss"]


class Stopped(Exception):
    """A signal stopped a run, which has written its checkpoint."""


def train_recipe(plan: Recipe) -> dict[str, Any]:
    """Train, or go on training; return the figures, which evaluation.json in the run folder keeps."""
    run = Path(plan.output)
    if not (run / "evaluation.json").exists():
        if not (run / "result.json").exists() and train(plan, "auto") is None:
            raise Stopped(run.name)
        evaluate_run(plan)
    return json.loads((run / "evaluation.json").read_text())


def train_and_evaluate(run: Run, scale: Scale, folder: Path, root: str | None) -> None:
    train_recipe(recipe(run, scale, folder, root))


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The figures of a run, None if it is not finished."""
    path = folder / run.name / "evaluation.json"
    return json.loads(path.read_text()) if path.exists() else None


def sweep_scores(row: str, folder: Path) -> dict[float, tuple[float, float]]:
    """Rate -> (accuracy, -loss) on the held-out images, of the runs of a sweep that are finished."""
    found = {lr: finished(sweep_run(row, lr), folder) for lr in RATES}
    return {lr: (figures["top1"], -figures["loss"]) for lr, figures in found.items() if figures is not None}


def keys_of(groups: Sequence[str]) -> list[str]:
    return [key for group, rows in (("main", MAIN), ("extra", EXTRA)) if group in groups for key in rows]


def swept(groups: Sequence[str]) -> list[str]:
    """Rows with a sweep: those that the rows asked for need, or all."""
    return list(dict.fromkeys(SWEEP_OF[key] for key in keys_of(groups) or SWEEP_OF))


def wanted(groups: Sequence[str], scale: Scale, folder: Path) -> list[Run]:
    """The runs whose learning rate is known; seed by seed, so that a partial result is a paired one."""
    runs = []
    for seed in range(scale.seeds):
        for key in keys_of(groups):
            rate = chosen_rate(sweep_scores(SWEEP_OF[key], folder))
            if rate is not None and (key in MAIN or seed == 0):
                runs.append(Run("main", key, seed, rate))
    return runs


def execute(runs: Sequence[Run], scale: Scale, folder: Path, root: str | None, jobs: int, update: Any) -> None:
    """Train what is not finished, and bring the CSV files up to date after every run."""
    todo = [run for run in runs if finished(run, folder) is None]
    if jobs == 1:
        for i, run in enumerate(todo, 1):
            print(f"[{i}/{len(todo)}] {run.name}", flush=True)
            train_and_evaluate(run, scale, folder, root)
            update()
        return
    ended = in_processes(train_and_evaluate, [(run, scale, folder, root) for run in todo], jobs)
    for i, ((run, *_), _) in enumerate(ended, 1):
        print(f"[{i}/{len(todo)}] {run.name}", flush=True)
        update()


def collect(scale: Scale, folder: Path, out: Path) -> None:
    """Write sizes.csv once, and sweep.csv, runs.csv and curves.csv from the run folders."""
    sweeps, results, curves = [], [], []
    for row in swept(GROUPS):
        for lr in RATES:
            run = sweep_run(row, lr)
            if (found := finished(run, folder)) is not None:
                sweeps.append({"row": row, "lr": run.lr, "seed": run.seed, **found})
    for run in wanted(GROUPS, scale, folder):
        found = finished(run, folder)
        if found is None:
            continue
        results.append({"row": run.row, "seed": run.seed, "lr": run.lr, **found})
        for record in read_log(folder / run.name / "metrics.jsonl"):
            if "loss" in record:
                images = record["update"] * scale.batch_size
                curves.append({"row": run.row, "seed": run.seed, "update": record["update"], "images": images, "loss": record["loss"]})
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "sizes.csv").exists():
        write_csv(out / "sizes.csv", sizes(), SIZE_FIELDS)
    write_csv(out / "sweep.csv", sweeps, SWEEP_FIELDS)
    write_csv(out / "runs.csv", results, RUN_FIELDS)
    write_csv(out / "curves.csv", curves, CURVE_FIELDS)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(GROUPS), help="of sweep, main, extra; rows come with the sweeps they need")
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call stopped")
    parser.add_argument("--measure", action="store_true", help="measure time and memory instead of training")
    parser.add_argument("--report", action="store_true", help="write tables and figures only")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="run folders; default: %(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "compare", help="default: %(default)s")
    parser.add_argument("--data", help="folder of Fashion-MNIST")
    options = parser.parse_args(argv)
    groups = options.rows.split(",")
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"--rows {unknown[0]!r}: expected some of {', '.join(GROUPS)}")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected 1 or more")
    scale, folder, out = SCALES[options.scale], options.runs / options.scale, options.out / options.scale
    if options.measure:
        out.mkdir(parents=True, exist_ok=True)
        measure_all(out / "measure.csv", scale.batch_size)
    elif not options.report:
        if folder.exists() and not options.resume:
            parser.error(f"{folder} holds runs of an earlier call; add --resume, or give another --runs")
        one_thread()

        def update() -> None:
            collect(scale, folder, out)

        try:
            for _ in range(2):  # the second time, the rates beyond an edge
                sweeps = [sweep_run(row, lr) for row in swept(groups) for lr in sweep_rates(sweep_scores(row, folder))]
                execute(sweeps, scale, folder, options.data, options.jobs, update)
            execute(wanted(groups, scale, folder), scale, folder, options.data, options.jobs, update)
        except (Stopped, KeyboardInterrupt) as error:
            print(f"stopped ({error or 'interrupted'}); --resume goes on")
        update()
    report(out, options.scale, scale)


if __name__ == "__main__":
    main()
