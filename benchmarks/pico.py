"""The weights that ship: KAT, ViT, ViT + KAN and KArAt of pico size, distilled alike on Fashion-MNIST.

    python benchmarks/pico.py --jobs 2                # teacher, rates and seeds; hours of two cores
    python benchmarks/pico.py --report                # the table from the checked-in results alone
    python benchmarks/pico.py --ship                  # besides, the best seeds' weights go into the package

Every family has the recipe kat_pico_distilled_fmnist: length, augmentation, averaged weights and a teacher, the ResNet of
resnet_pico_fmnist. Its rate is its own: that of .0006, .0012, .0024, and .0003 where the first is the best, which does best on a held-out
tenth of the training images after one epoch, without the teacher; no larger one is tried, for so short a run flatters them. The seeds are
then trained on all 60,000 images and evaluated on the 10,000 test images. The seed that ships is the one with the best test accuracy,
which flatters it: the mean and the spread are the claim.

A run has one thread. It can be stopped at any moment and called again: what has a row in the results is finished, and a run goes on
from its last checkpoint. Writes benchmarks/results/pico/{sweep,runs}.csv, and the teacher, which is trained once, to teacher beside them.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
from accelerate import Accelerator
from dense_runs import counted, cpu_minutes, read_table, write_table
from parallel import in_processes
from safetensors.torch import load_file

from kat_zoo.hub import registry
from kat_zoo.models._builder import WEIGHTS
from kat_zoo.train.classification.datasets import open_splits
from kat_zoo.train.classification.evaluate import evaluate
from kat_zoo.train.classification.loader import data_config, eval_loader
from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import DataConfig, Recipe
from kat_zoo.train.core.checkpoint import save_weights
from kat_zoo.train.core.config import parse

RESULTS = Path(__file__).parent / "results" / "pico"
FAMILIES = {
    "KAT": "kat_pico_patch4_28", "ViT": "vit_mlp_pico_patch4_28", "ViT + KAN": "vit_kan_pico_patch4_28", "KArAt": "karat_pico_patch4_28",
}  # fmt: skip
XAVIER = {"weight_init": "moco"}  # timm's name for Xavier's
# KArAt has timm's default: Xavier's larger queries and keys wrap around its Fourier series.
INITIAL = {"KAT": {"weight_init": "kan"}, "ViT": XAVIER, "ViT + KAN": XAVIER, "KArAt": {}}
RATES = (0.0003, 0.0006, 0.0012, 0.0024)
SWEEP = [
    "--data.holdout=0.1",
    "--distill.teacher=null",
    "--schedule.epochs=1",
    "--schedule.warmup_epochs=0.1",
    "--schedule.decay_epochs=0.5",
]
Row = dict[str, str]


class Stopped(Exception):
    """A signal stopped a run, which has written its checkpoint."""


def run(arguments: Sequence[str], folder: Path) -> Row:
    """Train, or go on; the rate, the figures of the last evaluation and the CPU minutes of all sessions."""
    plan: Recipe = parse(Recipe, [*arguments, f"--output={folder}", "--data.workers=0", "--system.trackers=[]"], "pico")[0]
    if not (folder / "result.json").exists():
        with counted(folder):
            if train(plan, "auto") is None:
                raise Stopped(folder.name)
    result = json.loads((folder / "result.json").read_text())
    return {
        "lr": f"{plan.optimizer.lr:g}",
        "top1": f"{result['top1']:.2f}",
        "loss": f"{result['loss']:.4f}",
        "cpu_minutes": f"{cpu_minutes(folder):.1f}",
    }


def student(family: str, lr: float, seed: int) -> list[str]:
    """Arguments of a run of a family."""
    model = [f"--model.name={FAMILIES[family]}", f"--model.kwargs={INITIAL[family]}"]
    return ["--config=kat_pico_distilled_fmnist", *model, f"--optimizer.lr={lr}", f"--seed={seed}"]


def sweep(family: str, lr: float, work: Path) -> Row:
    """A run of the search for a family's rate, without its teacher."""
    figures = run([*student(family, lr, 1000), *SWEEP], work / f"sweep_{FAMILIES[family]}_{lr:g}")
    return {"family": family} | {key: figures[key] for key in ("lr", "top1", "loss")}


def distill(family: str, lr: float, seed: int, work: Path) -> Row:
    """A run of the recipe."""
    figures = run([*student(family, lr, seed), f"--distill.teacher={RESULTS / 'teacher'}"], work / f"{FAMILIES[family]}_{seed}")
    return {"family": family, "seed": str(seed), **figures}


def teach(work: Path) -> Row:
    """The teacher's own run, of one seed; its folder, with weights as float16, goes to the results."""
    figures = run(["--config=resnet_pico_fmnist"], work / "teacher")
    (RESULTS / "teacher").mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "teacher" / "config.json", RESULTS / "teacher")
    save_half(work / "teacher" / "model.safetensors", RESULTS / "teacher" / "model.safetensors")
    return {"family": "teacher", "seed": "0", **figures}


def save_half(source: Path, path: Path) -> None:
    """Write weights as float16; counters stay integers."""
    save_weights({name: value.half() if value.is_floating_point() else value for name, value in load_file(source).items()}, path)


def rows_of(name: str) -> list[Row]:
    path = RESULTS / f"{name}.csv"
    return read_table(path) if path.exists() else []


def add(table: str, row: Row) -> None:
    """Put a row into its table, for the one of the same two first columns if there is one."""
    others = [each for each in rows_of(table) if list(each.values())[:2] != list(row.values())[:2]]
    rows = sorted([*others, row], key=lambda each: ([*FAMILIES, "teacher"].index(each["family"]), float([*each.values()][1])))
    write_table(RESULTS / f"{table}.csv", list(row), [list(each.values()) for each in rows])


def scores(family: str) -> dict[float, tuple[float, float]]:
    """Rate -> (accuracy, -loss) on the held-out images."""
    return {float(row["lr"]): (float(row["top1"]), -float(row["loss"])) for row in rows_of("sweep") if row["family"] == family}


def rates(family: str) -> list[float]:
    """The rates of a family's search: three, and the smallest where the next one is the best of them."""
    found, first = scores(family), RATES[1:]
    return [*RATES] if all(lr in found for lr in first) and max(first, key=found.__getitem__) == first[0] else [*first]


def execute(function: Callable[..., Row], tasks: Sequence[tuple[Any, ...]], table: str, options: argparse.Namespace) -> None:
    """Train what a table lacks, and put each run into it as it ends."""
    for number, (_, row) in enumerate(in_processes(function, tasks, options.jobs), 1):
        add(table, row)
        print(f"[{number}/{len(tasks)}] {row}", flush=True)


def ship(work: Path) -> None:
    """Write the weights of each family's best seed as float16 into the package, and the figures of all seeds into its results.

    A family whose best run is not in `work` keeps its weights, and lists its new seeds if the one that ships is still the best.
    """
    known = json.loads(registry.RESULTS.read_text())
    for family, model in FAMILIES.items():
        seeds = {row["seed"]: float(row["top1"]) for row in rows_of("runs") if row["family"] == family}
        names = [name for name in known if name.startswith(f"{model}.fmnist")]
        source = work / f"{model}_{max(seeds, key=seeds.__getitem__, default='none')}" / "model.safetensors"
        figures: dict[str, Any] = {"seeds": list(seeds.values())}
        if source.exists():
            path = WEIGHTS / f"{model}.fmnist.safetensors"
            save_half(source, path)
            figures["top1"] = round(test_accuracy(f"{model}.fmnist"), 2)
            print(f"{path}: {path.stat().st_size:,} bytes, {figures['top1']} % top-1", flush=True)
        elif not seeds or any(max(row["seeds"]) != max(seeds.values()) for name in names for row in known[name]):
            continue
        for name in names:
            known[name] = [{**row, **figures} for row in known[name]]
    entries = [f"  {json.dumps(name)}: [\n    " + ",\n    ".join(map(json.dumps, rows)) + "\n  ]" for name, rows in known.items()]
    registry.RESULTS.write_text("{\n" + ",\n".join(entries) + "\n}\n")


def test_accuracy(name: str) -> float:
    """Top-1 of weights in the package on the test images, in percent, in float32."""
    model, data = timm.create_model(name, pretrained=True), DataConfig(batch_size=500, workers=0)
    return evaluate(Accelerator(cpu=True), model, eval_loader(open_splits(data, 0).test, data, data_config(data, model))).top1


def report() -> None:
    """Print the table."""
    for family in [*FAMILIES, "teacher"]:
        these = [row for row in rows_of("runs") if row["family"] == family]
        if these:
            top1 = [float(row["top1"]) for row in these]
            spread = f" +- {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
            minutes = statistics.median(float(row["cpu_minutes"]) for row in these)
            each = ", ".join(row["top1"] for row in these)
            told = f"(seeds: {each}), rate {these[0]['lr']}, {minutes:.0f} CPU minutes a run, median"
            print(f"{family}: {statistics.mean(top1):.2f}{spread} % top-1 {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="only the table, from the checked-in results")
    parser.add_argument("--ship", action="store_true", help="write the weights of a family's best seed into the package")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="families (default: all)")
    parser.add_argument("--work", type=Path, default=Path("runs/pico"), help="folder of the runs (default: %(default)s)")
    options = parser.parse_args()
    if not options.report:
        work, families = options.work, options.families
        for _ in range(2):  # the second time, the smallest
            tasks = [(each, lr, work) for each in families for lr in rates(each) if lr not in scores(each)]
            execute(sweep, tasks, "sweep", options)
        done = {(row["family"], row["seed"]) for row in rows_of("runs")}
        best = {each: max(scores(each), key=scores(each).__getitem__) for each in families}
        tasks = [(each, best[each], seed, work) for seed in range(options.seeds) for each in families if (each, str(seed)) not in done]
        if tasks and not (RESULTS / "teacher" / "model.safetensors").exists():
            execute(teach, [(work,)], "runs", options)
        execute(distill, tasks, "runs", options)
        if options.ship:
            ship(work)
    report()


if __name__ == "__main__":
    main()
