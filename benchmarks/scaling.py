"""Scaling of KAT and ViT on Fashion-MNIST: three widths x three data sizes, one seed; loss against parameters, data, compute.

    python benchmarks/scaling.py --resume            # 18 runs, about 40 CPU minutes at one thread; stop and resume at will
    python benchmarks/scaling.py --report            # fits and figures from the checked-in runs.csv alone

Fits L(x) = L_inf + (x0 / x)^alpha (arXiv 2010.14701) with `kat_zoo.analysis.scaling.fit_power_law`. What so small a scale cannot
tell: three widths or three data sizes do not determine L_inf (it is fixed at 0 there), one seed says nothing of the spread
between runs, and the learning rate is that of the recipe for every size, 1.2e-3, where the sweep of `compare.py` chose 3.6e-3
for both families at width 96. The intervals are 90 % bootstraps over the points: they hold the scatter about the law, not the seeds.

Writes benchmarks/results/scaling/SCALE/{runs.csv,fits.csv,scaling.png,n_opt.png}.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import timm
from compare import Stopped, one_thread, train_recipe, write_csv
from compare_rows import ROWS, SCALES, Run, Scale, recipe
from matplotlib.ticker import NullFormatter, ScalarFormatter

from kat_zoo.analysis.scaling import PowerLaw, fit_power_law
from kat_zoo.hub.registry import measure
from kat_zoo.train.classification.recipe import Recipe

HERE = Path(__file__).parent
FAMILIES = ("vit", "kat")
MARKERS = {"vit": "o", "kat": "s"}
WIDTHS = (24, 48, 96)
RATE = 1.2e-3  # of the recipe of kat_pico_patch4_28
IMAGES = {"toy": (32, 48, 64), "small": (3_000, 9_000, 27_000)}
AGAINST = {"params": "parameters", "images": "images", "pflops": "compute"}
FIELDS = ["family", "width", "params", "images", "pflops", "loss", "top1"]
FIT_FIELDS = ["family", "against", "points", "l_inf", "alpha", "alpha_low", "alpha_high"]


def plan(family: str, width: int, images: int, scale: Scale, folder: Path, root: str | None) -> Recipe:
    """The recipe of a run: that of `compare.py` at another width and data size."""
    base = recipe(Run("main", family, 0, RATE), scale, folder, root)
    return replace(
        base,
        output=str(folder / f"{family}-width{width}-images{images}"),
        model=replace(base.model, kwargs={**ROWS[family].kwargs, "embed_dim": width}),
        data=replace(base.data, train_images=images),
    )


def costs(family: str, width: int) -> tuple[int, float]:
    """(parameters, floating-point operations of one training image: three passes of two operations a multiply-add)."""
    row = ROWS[family]
    size = measure(timm.create_model(row.model, device="meta", **{**row.kwargs, "embed_dim": width}), (1, 28, 28))
    return size.params, 6e9 * (size.gmacs + size.attention_gmacs)


def frontier(compute: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Indices, in order of compute, of the runs that no run of less compute equals or beats."""
    order = np.argsort(compute, kind="stable")
    best = np.minimum.accumulate(np.concatenate([[np.inf], loss[order][:-1]]))
    return order[loss[order] < best]


@dataclass(frozen=True)
class Fit:
    """A power law of a family and the points it went through."""

    family: str
    against: str
    x: np.ndarray
    law: PowerLaw


def fits(rows: Sequence[dict[str, str]]) -> list[Fit]:
    """A power law of each family in parameters (at most data), data (at most parameters) and compute (of the frontier)."""
    found = []
    for family in FAMILIES:
        own = [r for r in rows if r["family"] == family]
        if len(own) < len(WIDTHS) * len({r["images"] for r in rows}):
            continue
        n, d, c, loss = (np.array([float(r[key]) for r in own]) for key in ("params", "images", "pflops", "loss"))
        cases = {"parameters": (n, np.flatnonzero(d == d.max())), "images": (d, np.flatnonzero(n == n.max()))}
        cases["compute"] = (c, frontier(c, loss))
        for against, (x, pick) in cases.items():
            if len(pick) < 2:
                continue
            with np.errstate(invalid="ignore"):  # a resample whose loss rises has x0 = inf; alpha, which we report, has not
                law = fit_power_law(x[pick], loss[pick], constant=len(pick) > 4)
            found.append(Fit(family, against, x[pick], law))
    return found


def fit_row(fit: Fit) -> dict[str, Any]:
    low, high = fit.law.intervals["alpha"]
    values = {"l_inf": fit.law.l_inf, "alpha": fit.law.alpha, "alpha_low": low, "alpha_high": high}
    return {"family": fit.family, "against": fit.against, "points": len(fit.x)} | {k: f"{v:.4f}" for k, v in values.items()}


def draw(rows: Sequence[dict[str, str]], laws: Sequence[Fit], path: Path) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
    colors = {"vit": "C0", "kat": "C1"}
    labels = {"params": "parameters", "images": "training images (3 passes)", "pflops": "training compute (PFLOP)"}
    for axes, (key, label) in zip(panels, labels.items(), strict=True):
        for family, marker in MARKERS.items():
            for shade, width in zip(np.linspace(0.35, 1, len(WIDTHS)), WIDTHS, strict=True):
                own = [r for r in rows if r["family"] == family and int(r["width"]) == width]
                x, y = [float(r[key]) for r in own], [float(r["loss"]) for r in own]
                line = "none" if key == "params" else "-"
                axes.plot(x, y, marker, color=colors[family], alpha=shade, linestyle=line, label=f"{ROWS[family].label}, width {width}")
        for fit in laws:
            if fit.against == AGAINST[key]:
                x = np.geomspace(fit.x.min(), fit.x.max(), 50)
                axes.plot(x, fit.law(x), ":", color=colors[fit.family], linewidth=2, label=f"{ROWS[fit.family].label}, fit")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_yticks([0.7, 0.8, 1.0, 1.2, 1.5, 1.8], minor=False)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        if key != "pflops":
            ticks = sorted({float(r[key]) for r in rows if r["family"] == rows[0]["family"]})
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            axes.minorticks_off()
    panels[0].set_ylabel("test loss (nats)")
    panels[2].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_optimum(rows: Sequence[dict[str, str]], path: Path) -> None:
    """N_opt against C: the size of the best model that a budget of compute has paid for."""
    figure, axes = plt.subplots(figsize=(5, 3.8), layout="constrained")
    for family, marker in MARKERS.items():
        own = [r for r in rows if r["family"] == family]
        if not own:
            continue
        n, c, loss = (np.array([float(r[key]) for r in own]) for key in ("params", "pflops", "loss"))
        best = frontier(c, loss)
        axes.step(c[best], n[best], where="post", marker=marker, label=ROWS[family].label)
    axes.set(xscale="log", yscale="log", xlabel="training compute (PFLOP)", ylabel="parameters of the best model so far")
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(out: Path) -> None:
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    laws = fits(rows)
    write_csv(out / "fits.csv", [fit_row(fit) for fit in laws], FIT_FIELDS)
    if rows:
        draw(rows, laws, out / "scaling.png")
        draw_optimum(rows, out / "n_opt.png")
    print(f"{out}: {len(rows)} of {len(FAMILIES) * len(WIDTHS) ** 2} runs" + ("" if len(rows) == 18 else ", partial"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(IMAGES), default="small")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call stopped")
    parser.add_argument("--report", action="store_true", help="write fits and figures only")
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling"), help="run folders; default: %(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scaling", help="default: %(default)s")
    parser.add_argument("--data", help="folder of Fashion-MNIST")
    options = parser.parse_args(argv)
    folder, out = options.runs / options.scale, options.out / options.scale
    if not options.report:
        if folder.exists() and not options.resume:
            parser.error(f"{folder} holds runs of an earlier call; add --resume, or give another --runs")
        one_thread()
        scale, rows = SCALES[options.scale], []
        out.mkdir(parents=True, exist_ok=True)
        try:
            for images, width, family in ((i, w, f) for i in IMAGES[options.scale] for w in WIDTHS for f in FAMILIES):
                params, flops = costs(family, width)
                figures = train_recipe(plan(family, width, images, scale, folder, options.data))
                pflops = flops * images * scale.epochs / 1e15
                sizes = {"family": family, "width": width, "params": params, "pflops": f"{pflops:.6g}"}
                rows.append({**figures, **sizes, "images": images})
                write_csv(out / "runs.csv", rows, FIELDS)
        except (Stopped, KeyboardInterrupt) as error:
            print(f"stopped ({error or 'interrupted'}); --resume goes on")
    report(out)


if __name__ == "__main__":
    main()
