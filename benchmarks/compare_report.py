"""Tables and figures of `compare.py`, drawn from its CSV files alone."""

import csv
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from compare_evaluate import CORRUPTIONS, ROBUST_IMAGES
from compare_rows import EXTRA, MAIN, RATES, ROWS, SWEEP_OF, Scale, chosen_rate, sweep_rates
from scipy.stats import t

REFERENCE = "vit"
COSTS: dict[str, Callable[[dict[str, str]], float | None]] = {
    "parameters (M)": lambda m: float(m["params"]) / 1e6 if "params" in m else None,
    "multiply-adds per image (M)": lambda m: float(m["mmacs"]) if "mmacs" in m else None,
    "training time per image (ms, one thread)": lambda m: float(m["ms_per_image"]) if "ms_per_image" in m else None,
}
Table = dict[str, dict[int, dict[str, float]]]  # row -> seed -> figures


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def by_row(rows: Sequence[dict[str, str]]) -> Table:
    table: Table = {}
    for row in rows:
        figures = {key: float(value) for key, value in row.items() if key not in ("row", "seed") and value}
        table.setdefault(row["row"], {})[int(row["seed"])] = figures
    return table


def paired(a: dict[int, dict[str, float]], b: dict[int, dict[str, float]], key: str) -> tuple[float, tuple[float, float] | None]:
    """Mean of a - b over the seeds they share, and its 95 % t-interval where there are two or more."""
    seeds = sorted(a.keys() & b.keys())
    left, right = [a[s][key] for s in seeds], [b[s][key] for s in seeds]
    differences = [x - y for x, y in zip(left, right, strict=True)]
    mean = statistics.fmean(differences)
    if len(seeds) < 2:
        return mean, None
    half = float(t.ppf(0.975, len(seeds) - 1)) * statistics.stdev(differences) / len(seeds) ** 0.5
    return mean, (mean - half, mean + half)


def spread(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def signed(mean: float, interval: tuple[float, float] | None) -> str:
    """A difference and its interval as text."""
    return f"{mean:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def difference(table: Table, key: str, reference: str) -> str:
    if key == reference or reference not in table or not table[key].keys() & table[reference].keys():
        return ""
    return signed(*paired(table[key], table[reference], "top1"))


def results_table(keys: Sequence[str], table: Table, measured: dict[str, dict[str, str]], own_reference: bool) -> list[str]:
    """Lines of Markdown, a row per model; one that has not run says so."""
    against = "own family" if own_reference else ROWS[REFERENCE].label
    columns = ["model", "params (M)", "MMACs", "ms / image", "peak MB", "rate", "seeds", "top-1 %", f"against {against}", "loss", "ECE %"]
    lines = [f"| {' | '.join([*columns, *CORRUPTIONS])} |", "|---" * (len(columns) + len(CORRUPTIONS)) + "|"]
    for key in keys:
        costs = measured.get(key, {})
        parameters = f"{float(costs['params']) / 1e6:.3f}" if "params" in costs else ""
        cells = [ROWS[key].label, parameters, costs.get("mmacs", "")]
        cells += [costs.get("ms_per_image", ""), costs.get("peak_mb", "")]
        runs = list(table.get(key, {}).values())
        if not runs:
            cells += ["", "0", "not run"] + [""] * (3 + len(CORRUPTIONS))
        else:
            reference = ROWS[key].family if own_reference else REFERENCE
            cells += [f"{runs[0]['lr']:g}", str(len(runs)), spread([r["top1"] for r in runs]), difference(table, key, reference)]
            cells += [spread([r["loss"] for r in runs], 3), spread([r["ece"] for r in runs])]
            cells += [f"{statistics.fmean(r[name] for r in runs):.1f}" for name in CORRUPTIONS]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def views(table: Table, measured: dict[str, dict[str, str]]) -> list[str]:
    """The models within 10 % of the ViT's cost, best first, for each cost that is known."""
    lines = []
    for name, cost in COSTS.items():
        known = {key: cost(measured[key]) for key in table if cost(measured.get(key, {})) is not None}
        if REFERENCE not in known:
            continue
        near = {key: value / known[REFERENCE] for key, value in known.items() if abs(value / known[REFERENCE] - 1) <= 0.1}
        means = {key: statistics.fmean(run["top1"] for run in table[key].values()) for key in near}
        order = sorted(near, key=lambda key: -means[key])
        lines.append(f"* equal {name}: " + "; ".join(f"{ROWS[key].label} {means[key]:.2f} (cost {near[key]:.2f})" for key in order) + ".")
    return lines or ["* not known yet."]


def verdicts(table: Table) -> list[str]:
    """What wins and what does not, from the intervals."""
    lines = []
    for key in MAIN:
        if key == REFERENCE or key not in table or REFERENCE not in table:
            continue
        mean, interval = paired(table[key], table[REFERENCE], "top1")
        if interval is None:
            said = "one seed, which decides nothing"
        elif interval[0] > 0:
            said = "better"
        elif interval[1] < 0:
            said = "worse"
        else:
            said = "not told apart by these seeds"
        lines.append(f"* {ROWS[key].label} against {ROWS[REFERENCE].label}: {mean:+.2f} points: {said}.")
    return lines


def sweep_table(rows: Sequence[dict[str, str]]) -> list[str]:
    lines = [f"| model | {' | '.join(f'{rate:g}' for rate in RATES)} | chosen |", "|---" * (len(RATES) + 2) + "|"]
    for key in dict.fromkeys(SWEEP_OF.values()):
        scores = {float(r["lr"]): (float(r["top1"]), -float(r["loss"])) for r in rows if r["row"] == key}
        needed = sweep_rates(scores)
        cells = [f"{scores[rate][0]:.2f}" if rate in scores else "not run" if rate in needed else "" for rate in RATES]
        best = chosen_rate(scores)
        edge = " (edge of the sweep)" if best in (RATES[0], RATES[-1]) else ""
        lines.append(f"| {ROWS[key].label} | {' | '.join(cells)} | {f'{best:g}' if best else ''}{edge} |")
    return lines


def mean_curve(rows: Sequence[dict[str, str]], key: str) -> tuple[list[float], list[float]]:
    """(images seen, training loss averaged over seeds)."""
    seen: dict[int, list[float]] = {}
    for row in rows:
        if row["row"] == key:
            seen.setdefault(int(row["images"]), []).append(float(row["loss"]))
    seeds = max((len(losses) for losses in seen.values()), default=0)
    points = sorted((images, statistics.fmean(losses)) for images, losses in seen.items() if len(losses) == seeds)
    return [float(images) for images, _ in points], [loss for _, loss in points]


def equal_time(curves: Sequence[dict[str, str]], measured: dict[str, dict[str, str]]) -> list[str]:
    """The main rows' training loss when the fastest of them has finished: wall-clock for models that are slower than the ViT, too."""
    ms = {key: float(measured[key]["ms_per_image"]) for key in MAIN if "ms_per_image" in measured.get(key, {})}
    found = {key: mean_curve(curves, key) for key in ms}
    found = {key: (images, losses) for key, (images, losses) in found.items() if images}
    if REFERENCE not in found:
        return []
    budget = min(images[-1] * ms[key] for key, (images, _) in found.items())
    losses = {key: float(np.interp(budget / ms[key], *curve)) for key, curve in found.items()}
    order = sorted(losses, key=lambda key: losses[key])
    return [
        f"Training loss (smoothed labels, mean of the seeds) after {budget / 1e3:.0f} seconds of one thread, when the fastest has finished "
        "its schedule and the others are in the middle of theirs, which is no help to them: "
        + "; ".join(f"{ROWS[key].label} {losses[key]:.3f}" for key in order)
        + "."
    ]


def draw_accuracy(table: Table, path: Path) -> None:
    keys = [key for key in ROWS if key in table]
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.3 * len(keys)), layout="constrained")
    for i, key in enumerate(keys):
        scores = [run["top1"] for run in table[key].values()]
        color = "C0" if key in MAIN else "0.5"
        axes.plot(scores, [i] * len(scores), "o", color=color, markersize=4, alpha=0.6)
        axes.plot(statistics.fmean(scores), i, "|", color=color, markersize=16)
    if REFERENCE in table:
        axes.axvline(statistics.fmean(run["top1"] for run in table[REFERENCE].values()), color="0.8", linewidth=1, zorder=0)
    axes.set(xlabel="Fashion-MNIST test top-1 (%); a dot per seed, a bar at the mean", yticks=range(len(keys)))
    axes.set_yticklabels([ROWS[key].label for key in keys], fontsize=8)
    axes.invert_yaxis()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_views(table: Table, measured: dict[str, dict[str, str]], path: Path) -> None:
    """The same runs against parameters, multiply-adds and training time."""
    keys = [key for key in table if key in measured and not key.endswith("mlp") and key != "mixer"]
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
    for axes, (label, cost) in zip(panels, COSTS.items(), strict=True):
        for i, key in enumerate(keys):
            scores = [run["top1"] for run in table[key].values()]
            x, mean = cost(measured[key]), statistics.fmean(scores)
            if x is not None and key in MAIN:
                error = statistics.stdev(scores) if len(scores) > 1 else 0
                axes.errorbar(x, mean, error, fmt="o", color=f"C{i}", capsize=2, label=ROWS[key].label, zorder=3)
            elif x is not None:
                first = key == next(k for k in keys if k not in MAIN)
                axes.plot(x, mean, "x", color="0.6", label="variants, one seed each" if first else None)
        axes.set(xlabel=label)
        if not axes.has_data():
            axes.set_title("not measured", fontsize=9)
    panels[0].set_ylabel("test top-1 (%), mean and sd")
    left_out = [f"{ROWS[key].label} {table[key][0]['top1']:.1f} %" for key in table if key not in keys and 0 in table[key]]
    if left_out:
        figure.supxlabel(f"not shown, far to the left, one seed each: {', '.join(left_out)}", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, ncols=7, loc="outside upper center")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_curves(curves: Sequence[dict[str, str]], measured: dict[str, dict[str, str]], path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for key in MAIN:
        images, losses = mean_curve(curves, key)
        panels[0].plot(images, losses, label=ROWS[key].label)
        if "ms_per_image" in measured.get(key, {}):
            panels[1].plot([n * float(measured[key]["ms_per_image"]) / 1e3 for n in images], losses)
    panels[0].set(xlabel="training images seen", ylabel="training loss (smoothed labels)")
    panels[1].set(xlabel="seconds: images x measured time per image, one thread")
    if not panels[1].has_data():
        panels[1].set_title("not measured", fontsize=9)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_robustness(table: Table, path: Path) -> None:
    keys = [key for key in MAIN if key in table]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for i, key in enumerate(keys):
        runs = table[key].values()
        heights = [statistics.fmean(run[name] for run in runs) for name in CORRUPTIONS]
        places = [x + (i - len(keys) / 2 + 0.5) * 0.8 / len(keys) for x in range(len(CORRUPTIONS))]
        axes.bar(places, heights, 0.8 / len(keys), label=ROWS[key].label)
    axes.set(ylabel="top-1 (%) on 2,000 changed test images", xticks=range(len(CORRUPTIONS)), xticklabels=list(CORRUPTIONS))
    figure.legend(fontsize=8, ncols=6, loc="outside upper center")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(out: Path, name: str, scale: Scale) -> None:
    """Write tables.md and the figures from the CSV files in `out`."""
    table, curves, sweep = by_row(read(out / "runs.csv")), read(out / "curves.csv"), read(out / "sweep.csv")
    measured: dict[str, dict[str, str]] = {}
    for row in read(out / "sizes.csv") + read(out / "measure.csv"):
        measured.setdefault(row["row"], {}).update(row)
    timed = (out / "measure.csv").exists()
    planned = scale.seeds * len(MAIN) + len(EXTRA)
    done = sum(len(seeds) for seeds in table.values())
    lines = [
        f"# Comparison at scale `{name}`",
        "",
        f"Every run: {scale.images:,} training images of Fashion-MNIST x {scale.epochs} epochs, batch {scale.batch_size}, AdamW, "
        "cosine, the recipe kat_pico_fmnist otherwise, no averaging of weights. Top-1, loss and ECE are of all 10,000 test images, noise, "
        f"blur, contrast and shift of {ROBUST_IMAGES:,} of them. Time and memory: forward and backward of a batch in bfloat16 autocast "
        "on one thread, without the optimizer.",
        f"Learning rates: {', '.join(f'{rate:g}' for rate in RATES[1:-1])}, the next one where an edge is best; "
        f"{scale.sweep_images:,} images x {scale.epochs} epochs, judged "
        f"on {scale.holdout:.1%} of the training split that no sweep trains on.",
        "" if done == planned else f"\n**Partial: {done} of {planned} runs are done.**",
        "",
        "## Main rows",
        "",
        *results_table(list(MAIN), table, measured, own_reference=False),
        "",
        "Differences are paired by seed (same images, order, augmentation); 95 % t-intervals, not corrected for there being several.",
        "",
        *verdicts(table),
        "",
        "Three views of the same runs, mean top-1 % and cost relative to ViT (GELU); multiply-adds of splines are counted with all bases:",
        "",
        *views(table, measured),
        "",
        *equal_time(curves, measured),
        "",
        "## One seed each: too few to rank what is close",
        "",
        *results_table(list(EXTRA), table, measured, own_reference=True),
        "",
        "## Learning rates (top-1 % on the held-out images)",
        "",
        *sweep_table(sweep),
    ]
    if not timed:
        lines += ["", "Time and memory: not measured yet (`--measure`, on a quiet machine)."]
    (out / "tables.md").write_text("\n".join(lines) + "\n")
    if table:
        draw_accuracy(table, out / "accuracy.png")
        draw_curves(curves, measured, out / "curves.png")
        draw_robustness(table, out / "robustness.png")
        draw_views(table, measured, out / "views.png")
    print(f"{out / 'tables.md'}: {done} of {planned} runs")
