"""The experiments of the KAN paper (Liu et al., arXiv 2404.19756), one command each.

    python benchmarks/kan_paper.py toy          # section 3.1: grid extension, RMSE against G, exponent (theory 4)
    python benchmarks/kan_paper.py special      # table 1 on U[0, 1]^2, KAN and MLP at equal parameters
    python benchmarks/kan_paper.py feynman      # table 2 (dimensionless forms), KAN and MLP at equal parameters
    python benchmarks/kan_paper.py poisson      # section 3.4: u = sin(pi x) sin(pi y^2), KAN and MLP PINNs
    python benchmarks/kan_paper.py continual    # section 3.5: five peaks one after another
    python benchmarks/kan_paper.py lan          # appendix B: image fitting, SIREN MLP, LAN, LAN from the MLP
    python benchmarks/kan_paper.py mobility     # section 4.4: mobility edges of three tight-binding models

Each writes kan_NAME.csv and kan_NAME.png into benchmarks/results (--out). --small is the size for continuous
integration.
The paper does not state the domain of its special functions; we take U[0, 1]^2 with 1000 + 1000 samples throughout.
"""

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.special as sp
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn

from kat_zoo.kan import KAN, LAN
from kat_zoo.kan.structure import hessian
from kat_zoo.scaling import fit_power_law

Rows = list[dict]
PI = math.pi


def uniform(n: int, d: int, low: float, high: float, seed: int) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (high - low) + low


def rmse(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - y).square().mean().sqrt())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def mlp(width: list[int], seed: int = 0, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [m for a, b in zip(width, width[1:], strict=False) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1]).double()


def matched_mlp(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """Two hidden layers of the width that gives about `count` parameters."""
    hidden = max(2, round((-(inputs + 2 + outputs) + math.sqrt((inputs + 2 + outputs) ** 2 + 4 * count)) / 2))
    return mlp([inputs, hidden, hidden, outputs])


def train_lbfgs(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe")
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)


def axes_of(title: str, **options) -> tuple[Figure, object]:
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, **options)
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels between decades overlap
    return figure, axes


TOYS = {
    "J0(20x)": ([1, 1], lambda x: torch.special.bessel_j0(20 * x)),
    "exp(sin(pi x)+y^2)": ([2, 1, 1], lambda x: torch.exp(torch.sin(PI * x[:, :1]) + x[:, 1:] ** 2)),
    "xy": ([2, 2, 1], lambda x: x[:, :1] * x[:, 1:]),
    "100-d": ([100, 1, 1], lambda x: torch.exp(torch.sin(PI * x / 2).square().mean(1, keepdim=True))),
    "4-d": (
        [4, 2, 1, 1],
        lambda x: torch.exp((torch.sin(PI * x[:, :2].square().sum(1)) + torch.sin(PI * x[:, 2:].square().sum(1)))[:, None] / 2),
    ),
}


def toy(small: bool) -> tuple[Rows, Figure]:
    rows: Rows = []
    grids = (3, 5, 10, 20) if small else (3, 5, 10, 20, 50, 100)
    figure, axes = axes_of("grid extension", xscale="log", yscale="log", xlabel="G", ylabel="test RMSE")
    for name, (width, function) in TOYS.items():
        if small and name == "100-d":
            continue
        x, x_test = uniform(3000, width[0], -1, 1, 0), uniform(1000, width[0], -1, 1, 1)
        y, y_test = function(x), function(x_test)
        best: dict[int, tuple[float, int]] = {}
        for seed in range(2 if small else 3):
            model = KAN(width, grids[0], seed=seed)
            for grid in grids:
                if sum(1 for _ in model.edges()) * (grid + 3) > 3000:
                    continue
                model.fit(x, y, grid_schedule=[grid], steps=20 if small else 60, coef_smoothness=1e-11)
                best[grid] = min(best.get(grid, (math.inf, 0)), (rmse(model, x_test, y_test), parameters(model)))
        errors = [best[grid][0] for grid in best]
        law = fit_power_law(list(best), errors, constant=False, bootstrap=50)
        low, high = law.intervals["alpha"]
        axes.plot(list(best), errors, "o-", markersize=3, label=f"{name}: {law.alpha:.1f}")
        rows += [
            {"function": name, "shape": width, "G": g, "parameters": p, "test_rmse": f"{e:.3e}", 
             "alpha": f"{law.alpha:.2f}",
             "alpha_90": f"{low:.2f}..{high:.2f}"} for g, (e, p) in best.items()
        ]  # fmt: skip
    axes.plot(grids, [errors[0] * (grids[0] / g) ** 4 for g in grids], "k:", linewidth=0.8, label="theory: 4")
    axes.legend(frameon=False, fontsize=7)
    return rows, figure


SPECIAL = {
    "ellipj (sn)": ([2, 2, 1], lambda x, y: sp.ellipj(x, y)[0]),
    "ellipkinc": ([2, 2, 1, 1], sp.ellipkinc),
    "ellipeinc": ([2, 2, 1, 1], sp.ellipeinc),
    "jv": ([2, 2, 1], sp.jv),
    "yv": ([2, 3, 1], lambda x, y: sp.yv(x, y + 0.1)),
    "kv": ([2, 1, 1], lambda x, y: sp.kv(x, y + 0.1)),
    "iv": ([2, 2, 1], sp.iv),
    "lpmv m=0": ([2, 2, 1], lambda x, y: sp.lpmv(0, x, y)),
    "lpmv m=1": ([2, 4, 1], lambda x, y: sp.lpmv(1, x, y)),
    "lpmv m=2": ([2, 2, 1], lambda x, y: sp.lpmv(2, x, y)),
    **{
        f"sph m={m} n={n}": ([2, 2, 1], lambda x, y, m=m, n=n: sp.sph_harm_y(n, m, y, x).real)
        for m, n in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
    },
}
FEYNMAN = {
    "I.6.2": ([2, 2, 1], lambda t, s: np.exp(-(t**2) / (2 * (s + 0.5) ** 2)) / np.sqrt(2 * PI * (s + 0.5) ** 2)),
    "I.12.11": ([2, 2, 1], lambda a, t: 1 + a * np.sin(t)),
    "I.13.12": ([2, 2, 1], lambda a, b: a * (1 / (b + 0.5) - 1)),
    "I.16.6": ([2, 2, 1], lambda a, b: (a + b) / (1 + a * b)),
    "I.18.4": ([2, 2, 1], lambda a, b: (1 + a * b) / (1 + a)),
    "I.26.2": ([2, 2, 1], lambda n, t: np.arcsin(n * np.sin(t))),
    "I.27.6": ([2, 2, 1], lambda a, b: 1 / (1 + a * b)),
    "I.29.16": ([3, 2, 2, 1], lambda a, t, s: np.sqrt(1 + a**2 - 2 * a * np.cos(t - s))),
    "I.30.3": ([2, 3, 2, 1], lambda n, t: np.sin((n + 1) * (t + 0.5) / 2) ** 2 / np.sin((t + 0.5) / 2) ** 2),
    "I.37.4": ([2, 2, 1], lambda a, d: 1 + a + 2 * np.sqrt(a + 0.01) * np.cos(d)),
    "I.40.1": ([2, 1, 1], lambda n, a: n * np.exp(-a)),
    "I.44.4": ([2, 2, 1], lambda n, a: n * np.log(a + 0.5)),
    "I.50.26": ([2, 2, 1], lambda a, b: np.cos(a) + b * np.cos(a) ** 2),
    "II.2.42": ([2, 2, 1], lambda a, b: (a - 1) * b),
    "II.6.15a": ([3, 2, 1, 1], lambda a, b, c: c / (4 * PI) * np.sqrt(a**2 + b**2)),
    "II.11.7": ([3, 3, 1, 1], lambda n, a, t: n * (1 + a * np.cos(t))),
    "II.11.27": ([2, 2, 1], lambda n, a: n * a / (1 - n * a / 3)),
    "II.35.18": ([2, 2, 1], lambda n, a: n / (np.exp(a) + np.exp(-a))),
    "II.36.38": ([3, 3, 1], lambda a, b, c: a + b * c),
    "II.38.3": ([2, 1, 1], lambda a, b: a / (b + 0.5)),
    "III.10.19": ([2, 1, 1], lambda a, b: np.sqrt(1 + a**2 + b**2)),
    "III.17.37": ([3, 3, 1], lambda b, a, t: b * (1 + a * np.cos(t))),
}


def against_mlp(table: dict, small: bool, title: str) -> tuple[Rows, Figure]:
    """KANs with grid extension and MLPs of the same number of parameters; points for the Pareto front."""
    rows: Rows = []
    names = list(table)[::4] if small else list(table)
    grids, seeds = ((3, 5, 10), range(1)) if small else ((3, 5, 10, 20), range(3))
    for name in names:
        width, function = table[name]
        x, x_test = uniform(1000, width[0], 0, 1, 0), uniform(1000, width[0], 0, 1, 1)
        y, y_test = (torch.from_numpy(np.asarray(function(*z.T.numpy()))[:, None]) for z in (x, x_test))
        scores: dict[tuple[str, int], float] = {}
        for seed in seeds:
            model = KAN(width, grids[0], seed=seed, grid_range=(0, 1))
            for grid in grids:
                model.fit(x[:800], y[:800], x[800:], y[800:], grid_schedule=[grid], steps=40, coef_smoothness=1e-10)
                key = ("KAN", parameters(model))
                scores[key] = min(scores.get(key, math.inf), rmse(model, x_test, y_test))
        for _, count in list(scores):
            network = matched_mlp(width[0], 1, count)
            train_lbfgs(network, lambda n=network, x=x, y=y: (n(x) - y).square().mean(), 20 if small else 60)
            scores["MLP", parameters(network)] = rmse(network, x_test, y_test)
        rows += [
            {
                "function": name,
                "model": m,
                "shape": width if m == "KAN" else "",
                "parameters": p,
                "test_rmse": f"{e:.2e}",
            }
            for (m, p), e in scores.items()
        ]
        print(name, {f"{m} {p}": f"{e:.1e}" for (m, p), e in scores.items()}, flush=True)
    figure, axes = axes_of(title, xscale="log", yscale="log", xlabel="parameters", ylabel="test RMSE")
    for model, colour in (("KAN", "#c1440e"), ("MLP", "#1f2933")):
        points = [(r["parameters"], float(r["test_rmse"])) for r in rows if r["model"] == model]
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=4, label=model, alpha=0.7)
    axes.legend(frameon=False)
    return rows, figure


def poisson(small: bool) -> tuple[Rows, Figure]:
    def solution(z: Tensor) -> Tensor:
        return torch.sin(PI * z[:, :1]) * torch.sin(PI * z[:, 1:] ** 2)

    side = 24 if small else 50
    t = torch.linspace(-1, 1, side, dtype=torch.float64)
    inside = torch.cartesian_prod(t[1:-1], t[1:-1])
    one = torch.ones_like(t)
    edge = torch.cat([torch.stack(p, 1) for p in ((t, one), (t, -one), (one, t), (-one, t))])
    source = hessian(solution, inside)[:, 0].diagonal(dim1=1, dim2=2).sum(1)
    check = uniform(2000, 2, -1, 1, 0)
    rows: Rows = []
    for name, model in (
        ("KAN [2,5,1] G=5", KAN([2, 5, 1], 5, 3)),
        ("KAN [2,10,1] G=10", KAN([2, 10, 1], 10, 3)),
        ("MLP [2,20,20,1]", mlp([2, 20, 20, 1], activation=nn.Tanh)),
        ("MLP [2,50,50,50,1]", mlp([2, 50, 50, 50, 1], activation=nn.Tanh)),
    ):

        def loss(model=model) -> Tensor:
            laplacian = hessian(model, inside, create_graph=True)[:, 0].diagonal(dim1=1, dim2=2).sum(1)
            return 0.01 * (laplacian - source).square().mean() + model(edge).square().mean()

        train_lbfgs(model, loss, 10 if small else 50)
        z = check.clone().requires_grad_()
        difference = model(z) - solution(z)
        (slope,) = torch.autograd.grad(difference.sum(), z)
        l2, h1 = float(difference.detach().square().mean()), float(slope.square().sum(1).mean())
        rows.append({"model": name, "parameters": parameters(model), "L2_squared": f"{l2:.2e}", "H1_squared": f"{l2 + h1:.2e}"})
        print(rows[-1], flush=True)
    figure, axes = axes_of("Poisson, PINN", xscale="log", yscale="log", xlabel="parameters", ylabel="squared error")
    for key, marker in (("L2_squared", "o"), ("H1_squared", "s")):
        for row in rows:
            colour = "#c1440e" if "KAN" in row["model"] else "#1f2933"
            axes.plot(row["parameters"], float(row[key]), marker, color=colour, label=f"{row['model']}, {key}")
    axes.legend(frameon=False, fontsize=6)
    return rows, figure


def continual(small: bool) -> tuple[Rows, Figure]:
    centres = [0.4 * (n - 2) for n in range(5)]
    grid = torch.linspace(-1, 1, 500, dtype=torch.float64)[:, None]

    def peaks(x: Tensor) -> Tensor:
        return sum(torch.exp(-300 * (x - c) ** 2) for c in centres)

    rows: Rows = []
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(2, 5, sharex=True, sharey=True)
    kan = KAN([1, 1], 200, base="zero", noise_scale=0.0)
    network = mlp([1, 32, 32, 1], activation=nn.Tanh)
    for phase, centre in enumerate(centres):
        x = torch.linspace(centre - 0.2, centre + 0.2, 100, dtype=torch.float64)[:, None]
        for row, (name, model) in enumerate((("KAN", kan), ("MLP", network))):
            if name == "KAN":
                model.fit(x, peaks(x), steps=5, update_grid=False, early_stopping=False)
            else:
                train_lbfgs(model, lambda m=model, x=x: (m(x) - peaks(x)).square().mean(), 5 if small else 20)
            seen = grid[(grid[:, 0] > -1.0) & (grid[:, 0] < centre + 0.2)]
            rows.append({"phase": phase + 1, "model": name, "rmse_all_seen": f"{rmse(model, seen, peaks(seen)):.2e}",
                         "rmse_new": f"{rmse(model, x, peaks(x)):.2e}"})  # fmt: skip
            axes = panels[row][phase]
            axes.plot(grid, peaks(grid), color="#c9cfd6")
            with torch.no_grad():
                axes.plot(grid, model(grid), color="#c1440e" if name == "KAN" else "#1f2933", linewidth=1)
            axes.set(ylim=(-0.5, 1.5), title=f"{name}, phase {phase + 1}")
    return rows, figure


def lan(small: bool) -> tuple[Rows, Figure]:
    from skimage import data
    from skimage.transform import resize

    side = 48 if small else 128
    image = torch.from_numpy(resize(data.camera(), (side, side), anti_aliasing=True)).float()
    t = torch.linspace(-1, 1, side)
    x, y = torch.cartesian_prod(t, t), image.reshape(-1, 1) * 2 - 1
    width = [2, 64, 64, 64, 1] if small else [2, 128, 128, 128, 128, 1]
    steps = 200 if small else 1500

    def train(model: LAN, steps: int, rate: float) -> None:
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            pick = torch.randperm(len(x), generator=generator)[:4096]
            optimizer.zero_grad()
            (model(x[pick]) - y[pick]).square().mean().backward()
            optimizer.step()

    def frozen() -> LAN:
        model = LAN(width, base="sin")
        for activation in model.activations:
            activation.coef.requires_grad_(False)
        return model

    siren, fresh, continued = frozen(), LAN(width, base="sin"), frozen()
    for model in (siren, fresh):
        train(model, steps, 1e-3)
        train(model, steps // 2, 1e-4)
    train(continued, steps, 1e-3)
    for activation in continued.activations:
        activation.coef.requires_grad_(True)
    train(continued, steps // 2, 1e-4)
    rows: Rows = []
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    panels[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("photograph", fontsize=9)
    for panel, (name, model) in zip(panels[1:], (("SIREN MLP", siren), ("LAN", fresh), ("LAN from MLP", continued)), strict=True):
        with torch.no_grad():
            guess = ((model(x) + 1) / 2).clamp(0, 1).reshape(side, side)
        psnr = -10 * math.log10(float((guess - image).square().mean()))
        rows.append(
            {
                "model": name,
                "shape": width,
                "parameters": parameters(model),
                "steps": steps * 3 // 2,
                "psnr_db": f"{psnr:.2f}",
            }
        )
        panel.imshow(guess, cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: {psnr:.1f} dB", fontsize=9)
    for panel in panels:
        panel.axis("off")
    return rows, figure


GOLDEN = (math.sqrt(5) - 1) / 2


def spectrum(model: str, strength: float, second: float, phase: float, sites: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies and whether each eigenstate is extended (fractal dimension of its participation ratio above 1/2)."""
    n = np.arange(sites)
    wave = np.cos(2 * PI * n * GOLDEN + phase)
    hops = np.eye(sites, k=1) + np.eye(sites, k=-1)
    if model == "mosaic":
        potential = np.where(n % 2 == 0, 2 * strength * wave, 0)
    elif model == "GAAM":
        potential = 2 * strength * wave / (1 - second * wave)
    else:
        potential = strength * wave
        distance = np.abs(n[:, None] - n)
        hops = np.where(distance > 0, np.exp(-second * (distance - 1.0)), 0)
    energies, states = np.linalg.eigh(hops + np.diag(potential))
    dimension = -np.log((states**4).sum(0)) / np.log(sites)
    return energies, dimension > 0.5


# The exact mobility edges in these units; positive where states are extended.
EDGES = {
    "mosaic": lambda e, v, s: 1 - np.abs(e * v),
    "GAAM": lambda e, v, s: 2 - 2 * v - s * e,
    "MAAM": lambda e, v, s: e + np.exp(s) - v * np.cosh(s),
}


def mobility(small: bool) -> tuple[Rows, Figure]:
    rows: Rows = []
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    generator = np.random.default_rng(0)
    for panel, name in zip(panels, EDGES, strict=True):
        samples = []
        for _ in range(30 if small else 120):
            v, s = (
                generator.uniform(0.2, 1.5) * (2 if name == "MAAM" else 1),
                generator.uniform(0.2, 0.7) * (3 if name == "MAAM" else 1),
            )
            e, extended = spectrum(name, v, s, generator.uniform(0, 2 * PI), 120 if small else 300)
            pick = generator.choice(len(e), 20, replace=False)
            samples += [(e[p], v, s, extended[p]) for p in pick]
        table = np.array(samples, dtype=float)
        x, label = torch.from_numpy(table[:, :3]), torch.from_numpy(table[:, 3:])
        scale = x.std(0)
        half = len(x) // 2

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]

        scores = {}
        kan = KAN([3, [1, 1], 1], 5)
        options = {"optimizer": "lbfgs", "loss": loss, "steps": 5 if small else 20, "l1": 1e-3, "coef_smoothness": 1e-3}
        kan.fit(x[:half] / scale, label[:half], x[half:] / scale, label[half:], **options)
        scores["KAN [3,[1,1],1]"] = ((kan(x[half:] / scale) > 0) == (label[half:] > 0)).double().mean().item()
        network = mlp([3, 16, 16, 1])
        train_lbfgs(
            network,
            lambda n=network, x=x, s=scale, y=label, h=half: loss(n(x[:h] / s), y[:h]).mean(),
            5 if small else 20,
        )
        scores["MLP [3,16,16,1]"] = ((network(x[half:] / scale) > 0) == (label[half:] > 0)).double().mean().item()
        exact = EDGES[name](*table[half:, :3].T) > 0
        scores["exact edge"] = float((exact == (table[half:, 3] > 0)).mean())
        rows += [{"model": name, "classifier": c, "test_accuracy": f"{a:.4f}"} for c, a in scores.items()]
        print(name, scores, flush=True)
        for extended, colour in ((1, "#c1440e"), (0, "#1f2933")):
            chosen = table[table[:, 3] == extended]
            panel.scatter(chosen[:, 1], chosen[:, 0], s=3, color=colour, alpha=0.5, label="extended" if extended else "localised")
        panel.set(
            title=f"{name}: KAN {scores['KAN [3,[1,1],1]']:.3f}, exact {scores['exact edge']:.3f}",
            xlabel="potential",
            ylabel="energy",
        )
        panel.title.set_size(8)
    panels[0].legend(frameon=False, fontsize=7)
    return rows, figure


EXPERIMENTS: dict[str, Callable[[bool], tuple[Rows, Figure]]] = {
    "toy": toy,
    "special": lambda small: against_mlp(SPECIAL, small, "special functions"),
    "feynman": lambda small: against_mlp(FEYNMAN, small, "Feynman equations"),
    "poisson": poisson,
    "continual": continual,
    "lan": lan,
    "mobility": mobility,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--small", action="store_true", help="minutes instead of hours")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows, figure = EXPERIMENTS[options.name](options.small)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"kan_{options.name}{'_small' if options.small else ''}"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    figure.savefig(stem.with_suffix(".png"), dpi=130)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
