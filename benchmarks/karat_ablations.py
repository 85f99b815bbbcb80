"""Ablations of Fourier-KArAt at pico scale on Fashion-MNIST: the shape of the paper's Tables 7, 8 and 15-20.

Every row is `karat_pico_patch4_28` trained by the shared trainer (recipe karat_pico_fmnist, without the averaged weights)
with one thing changed and evaluated on all test images. The budget (images, epochs, seed) is in the row, as are the CPU
minutes of all threads. The table and the picture hold the rows of one budget; what has not run in it says "not run", and a note
names what ended with a loss above that of guessing. A row is
written when its training ends, and a training that was killed goes on at its last epoch: call again with --resume.

    python benchmarks/karat_ablations.py --images 60000 --epochs 10 --seeds 3 --resume          # days of CPU
    python benchmarks/karat_ablations.py --resume                                              # what is checked in

Writes benchmarks/results/karat_ablations.csv, .md and .png.
"""

import argparse
import csv
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import parse

HERE = Path(__file__).parent
BUDGET = ["images", "epochs"]
GUESSING = math.log(10)  # loss of equal probabilities for the ten classes
FIELDS = ["group", "variant", "seed", *BUDGET, "top1", "loss", "cpu_minutes"]
GROUPS: dict[str, tuple[str, dict[str, dict]]] = {
    "baseline": ("softmax and the default operator", {"softmax": {"layers": []}, "fourier G3 r8": {}}),
    "bases": (
        "basis of the edges (Table 8)",
        {b: {"basis": b} for b in ("rational", "mexican_hat", "morlet", "dog", "meyer", "shannon")},
    ),
    "base_function": ("base function b(x) (Table 15)", {b: {"base_function": b} for b in ("identity", "silu", "gelu")}),
    "grid": ("grid size G (Table 16)", {f"G = {g}": {"grid_size": g} for g in (1, 5, 7, 9, 11)}),
    "rank": ("rank r (Table 17)", {f"r = {r}": {"rank": r} for r in (2, 4, 12, 24)}),
    "order": ("order of the operator (Table 18)", {o: {"operator_order": o} for o in ("phi_w", "phi_phi")}),
    "mode": ("sharing", {"universal": {"mode": "universal"}}),
    "hybrid": ("heads that keep softmax (Table 7)", {f"{n} of 3": {"hybrid_heads": n} for n in (1, 2)}),
    "placement": ("layers that learn (Table 19)", {p: {"layers": p} for p in ("early", "middle", "late")}),
    "projection": ("projection of the rows (Table 20)", {"simplex": {"projection": "simplex"}}),
    "init": ("initialization", {"normal": {"operator_init": "normal"}}),
}


def run(kwargs: dict, seed: int, images: int, epochs: int, folder: Path, root: str | None) -> tuple[float, float, float] | None:
    """Train one variant, or go on with it; (top-1 in percent, loss, CPU minutes), None when a signal stopped it."""
    recipe: Recipe = parse(Recipe, ["--config", "karat_pico_fmnist"], "karat_ablations")[0]
    warmup = min(1, epochs / 4) if epochs > 1 else 0  # a decay of one epoch must fit behind it
    recipe = replace(
        recipe,
        output=str(folder / "run"),
        seed=seed,
        model=replace(recipe.model, kwargs=kwargs),
        data=replace(recipe.data, root=root, train_images=images, workers=0),
        schedule=replace(recipe.schedule, epochs=epochs, warmup_epochs=warmup, decay_epochs=max(1, epochs // 3)),
        ema=replace(recipe.ema, decay=0.0),
        system=replace(recipe.system, eval_every=epochs, log_every=20, keep_checkpoints=1, trackers=()),
    )
    clock = folder / "cpu_minutes"  # of the calls that were stopped
    before = float(clock.read_text()) if clock.exists() else 0.0
    start = time.process_time()
    result = train(recipe, resume="auto")
    minutes = before + (time.process_time() - start) / 60
    if result is None:
        clock.write_text(str(minutes))
        return None
    return result.top1, result.loss, minutes


def read_rows(path: Path) -> list[dict]:
    """Rows of earlier calls, all budgets."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def write_rows(rows: list[dict], path: Path) -> None:
    """Replace the table in one step: a call killed here leaves the old one or the new one."""
    new = path.with_suffix(".new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    new.replace(path)


def summary(rows: list[dict], images: int, epochs: int) -> list[dict]:
    """A row per variant of every group: top-1 over the seeds with this budget, None where there is none."""
    table = []
    rows = [r for r in rows if [int(r[key]) for key in BUDGET] == [images, epochs]]
    for group, (title, variants) in GROUPS.items():
        for variant in variants:
            found = [r for r in rows if (r["group"], r["variant"]) == (group, variant)]
            scores, losses = ([float(r[key]) for r in found] for key in ("top1", "loss"))
            table.append(
                {
                    "group": group,
                    "title": title,
                    "variant": variant,
                    "top1": sum(scores) / len(scores) if scores else None,
                    "low": min(scores, default=None),
                    "high": max(scores, default=None),
                    "diverged": [loss for loss in losses if not loss <= GUESSING],  # NaN is none
                    "seeds": len(scores),
                    "minutes": sum(float(r["cpu_minutes"]) for r in found),
                }
            )
    return table


def totals(table: list[dict]) -> tuple[str, float]:
    """(Seeds of the variants that have run: "1 seed", "2 seeds", "1 to 3 seeds"; CPU minutes of all)."""
    counts = [r["seeds"] for r in table if r["seeds"]]
    low, high = min(counts, default=0), max(counts, default=0)
    seeds = "1 seed" if low == high == 1 else f"{high} seeds" if low == high else f"{low} to {high} seeds"
    return seeds, sum(r["minutes"] for r in table)


def write_table(table: list[dict], path: Path, images: int, epochs: int) -> None:
    """A Markdown table with the budget above it, and below it what diverged."""
    minutes = totals(table)[1]
    lines = [
        f"karat_pico_patch4_28 on {images} training images of Fashion-MNIST, {epochs} epochs; top-1 on the 10,000 test images; "
        f"{minutes:.1f} CPU minutes in all.",
        "",
        "| ablation | variant | top-1 % | seeds | CPU minutes |",
        "|---|---|---|---|---|",
    ]
    for r in table:
        measured = ["not run", "0", ""] if r["top1"] is None else [f"{r['top1']:.2f}", str(r["seeds"]), f"{r['minutes']:.1f}"]
        lines.append(f"| {r['title']} | {r['variant']} | {' | '.join(measured)} |")
    for r in table:
        if r["diverged"]:
            ended = ", ".join(f"{loss:.2f}" for loss in r["diverged"])
            lines += ["", f"{r['variant']} diverged: its test loss ended at {ended}; guessing among ten classes has {GUESSING:.2f}."]
    path.write_text("\n".join(lines) + "\n")


def plot(table: list[dict], path: Path, images: int, epochs: int) -> None:
    """Bars of what has run."""
    import matplotlib.pyplot as plt

    done = [r for r in table if r["top1"] is not None]
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.26 * len(done)), layout="constrained")
    names = list(GROUPS)
    for i, r in enumerate(done):
        axis.barh(i, r["top1"], color=f"C{names.index(r['group']) % 10}")
        axis.plot([r["low"], r["high"]], [i, i], color="black", linewidth=1)
        text = f"{r['top1']:.1f}" + (" (diverged)" if r["diverged"] else "")
        axis.annotate(text, (r["top1"], i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    low = min(r["low"] for r in done)
    axis.set(xlim=(max(0, low - 5), min(100, max(r["high"] for r in done) + 5)), yticks=range(len(done)))
    axis.set(xlabel=f"Fashion-MNIST top-1 (%), {images} training images, {epochs} epochs", ylabel="what is changed")
    seeds, minutes = totals(table)
    axis.set_title(f"karat_pico_patch4_28, {seeds} per variant, {minutes:.1f} CPU minutes in all", fontsize=9)
    axis.set_yticklabels([f"{r['group']}: {r['variant']}" for r in done], fontsize=7)
    axis.invert_yaxis()
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups: " + ", ".join(GROUPS))
    parser.add_argument("--images", type=int, default=6000, help="of the training split, chosen by the seed")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="CPU minutes after which no further training begins")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", help="folder of Fashion-MNIST")
    parser.add_argument("--resume", action="store_true", help="keep the rows of earlier calls and train what is missing")
    parser.add_argument("--work", type=Path, default=Path("runs/karat_ablations"), help="run folders of unfinished trainings")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "karat_ablations.csv")
    arguments = parser.parse_args(argv)
    wanted = arguments.only.split(",")
    if unknown := [g for g in wanted if g not in GROUPS]:
        parser.error(f"--only {unknown[0]!r}: expected some of {', '.join(GROUPS)}")
    rows = read_rows(arguments.out)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if rows and not arguments.resume:
        parser.error(f"--out {arguments.out}: holds {len(rows)} rows of an earlier call; expected --resume, or another file")
    torch.set_num_threads(arguments.threads)
    budget = [arguments.images, arguments.epochs]
    keys = [(group, variant, str(seed)) for seed in range(arguments.seeds) for group in wanted for variant in GROUPS[group][1]]
    done = {(r["group"], r["variant"], r["seed"], *(int(r[key]) for key in BUDGET)) for r in rows}
    missing = [key for key in keys if (*key, *budget) not in done]
    code = 0
    for group, variant, seed in tqdm(missing, desc="ablations", disable=None):
        if arguments.minutes is not None and time.process_time() > 60 * arguments.minutes:
            break
        folder = arguments.work / "-".join(("_".join((group, *variant.replace("=", "").split())), seed, *map(str, budget)))
        result = run(GROUPS[group][1][variant], int(seed), *budget, folder, arguments.root)
        if result is None:
            code = 130
            break
        top1, loss, minutes = result
        values = [group, variant, seed, *budget, f"{top1:.2f}", f"{loss:.4f}", f"{minutes:.2f}"]
        rows.append(dict(zip(FIELDS, values, strict=True)))
        write_rows(rows, arguments.out)
        shutil.rmtree(folder)
    table = summary(rows, *budget)
    write_table(table, arguments.out.with_suffix(".md"), *budget)
    if any(r["top1"] is not None for r in table):
        plot(table, arguments.out.with_suffix(".png"), *budget)
    return code


if __name__ == "__main__":
    sys.exit(main())
