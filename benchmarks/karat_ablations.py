"""Ablations of Fourier-KArAt at pico scale on Fashion-MNIST: the shape of the paper's Tables 7, 8 and 15-20.

Every row is `karat_pico_patch4_28` trained by the shared trainer with one thing changed; the budget (epochs, seeds, images)
is in the row, as are the CPU minutes it took. Rows that were not trained say "not run".

    python benchmarks/karat_ablations.py --only grid,rank --epochs 2      # two groups, short
    python benchmarks/karat_ablations.py --resume                        # go on where an earlier call stopped

Writes benchmarks/results/karat_ablations.csv, .md and .png.
"""

import argparse
import csv
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from kat_zoo.train.classification import train
from kat_zoo.train.classification_config import Recipe
from kat_zoo.train.config import parse

HERE = Path(__file__).parent
FIELDS = ["group", "variant", "seed", "epochs", "top1", "loss", "cpu_minutes"]
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
    "init": ("initialisation", {"normal": {"operator_init": "normal"}}),
}


def run(kwargs: dict, seed: int, epochs: int) -> tuple[float, float, float]:
    """Train one variant; (top-1 in percent, loss, CPU minutes of all threads)."""
    recipe: Recipe = parse(Recipe, ["--config", "karat_pico_fmnist"], "karat_ablations")[0]
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(
            recipe,
            output=folder,
            seed=seed,
            model=replace(recipe.model, kwargs=kwargs),
            schedule=replace(recipe.schedule, epochs=epochs, warmup_epochs=min(1, epochs / 4), decay_epochs=max(1, epochs // 3)),
            system=replace(recipe.system, eval_every=epochs, keep_checkpoints=1, trackers=()),
        )
        start = time.process_time()
        result = train(recipe)
    if result is None:
        raise KeyboardInterrupt
    return result.top1, result.loss, (time.process_time() - start) / 60


def summary(rows: list[dict]) -> list[dict]:
    """A row per variant of every group: mean top-1 over seeds, or "not run"."""
    table = []
    for group, (title, variants) in GROUPS.items():
        for variant in variants:
            found = [r for r in rows if (r["group"], r["variant"]) == (group, variant)]
            scores = [float(r["top1"]) for r in found]
            table.append(
                {
                    "group": group,
                    "title": title,
                    "variant": variant,
                    "top1": sum(scores) / len(scores) if scores else None,
                    "low": min(scores, default=None),
                    "high": max(scores, default=None),
                    "seeds": len(scores),
                    "epochs": "/".join(sorted({r["epochs"] for r in found})),
                    "minutes": sum(float(r["cpu_minutes"]) for r in found),
                }
            )
    return table


def write_table(table: list[dict], path: Path) -> None:
    lines = ["| ablation | variant | top-1 % | seeds | epochs | CPU minutes |", "|---|---|---|---|---|---|"]
    for r in table:
        score = "not run" if r["top1"] is None else f"{r['top1']:.2f}"
        lines.append(f"| {r['title']} | {r['variant']} | {score} | {r['seeds']} | {r['epochs']} | {r['minutes']:.1f} |")
    path.write_text("\n".join(lines) + "\n")


def plot(table: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    done = [r for r in table if r["top1"] is not None]
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.26 * len(done)), layout="constrained")
    names = list(GROUPS)
    for i, r in enumerate(done):
        axis.barh(i, r["top1"], color=f"C{names.index(r['group']) % 10}")
        axis.plot([r["low"], r["high"]], [i, i], color="black", linewidth=1)
        axis.annotate(f"{r['top1']:.1f}", (r["top1"], i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    low = min(r["low"] for r in done)
    axis.set(xlim=(max(0, low - 3), 100), xlabel="Fashion-MNIST top-1 (%)", yticks=range(len(done)))
    axis.set_yticklabels([f"{r['group']}: {r['variant']}" for r in done], fontsize=7)
    axis.invert_yaxis()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups: " + ", ".join(GROUPS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep the rows of an earlier call and train what is missing")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "karat_ablations.csv")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := [g for g in wanted if g not in GROUPS]:
        parser.error(f"--only {unknown[0]!r}: expected some of {', '.join(GROUPS)}")
    rows: list[dict] = []
    if arguments.resume and arguments.out.exists():
        with arguments.out.open() as file:
            rows = list(csv.DictReader(file))
    for group in wanted:
        for variant, kwargs in GROUPS[group][1].items():
            for seed in range(arguments.seeds):
                key = [group, variant, str(seed), str(arguments.epochs)]
                if any([r[f] for f in FIELDS[:4]] == key for r in rows):
                    continue
                top1, loss, minutes = run(kwargs, seed, arguments.epochs)
                rows.append(dict(zip(FIELDS, [*key, f"{top1:.2f}", f"{loss:.4f}", f"{minutes:.2f}"], strict=True)))
                with arguments.out.open("w", newline="") as file:  # after every run: an interrupted call loses one at most
                    writer = csv.DictWriter(file, FIELDS)
                    writer.writeheader()
                    writer.writerows(rows)
    table = summary(rows)
    write_table(table, arguments.out.with_suffix(".md"))
    if rows:
        plot(table, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
