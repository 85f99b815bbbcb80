"""Section 3.4: Poisson's equation on [-1, 1]^2, u = sin(pi x) sin(pi y^2), by physics-informed KANs and MLPs."""

from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kat_zoo.kan import KAN
from kat_zoo.kan.operations.structure import hessian

from .common import KAN_COLOR, MLP_COLOR, PI, Rows, Runs, mlp, parameters, train_lbfgs, uniform

MODELS = {
    "KAN [2,5,1] G=5": lambda: KAN([2, 5, 1], 5, 3),
    "KAN [2,10,1] G=10": lambda: KAN([2, 10, 1], 10, 3),
    "MLP [2,10,10,1]": lambda: mlp([2, 10, 10, 1], activation=nn.Tanh),
    "MLP [2,18,18,1]": lambda: mlp([2, 18, 18, 1], activation=nn.Tanh),
    "MLP [2,50,50,50,1]": lambda: mlp([2, 50, 50, 50, 1], activation=nn.Tanh),
}


def _solution(z: Tensor) -> Tensor:
    return torch.sin(PI * z[:, :1]) * torch.sin(PI * z[:, 1:] ** 2)


def _row(name: str, side: int, steps: int) -> dict:
    """Train one network; its squared L2 and H1 errors on 2000 fresh points."""
    t = torch.linspace(-1, 1, side, dtype=torch.float64)
    inside = torch.cartesian_prod(t[1:-1], t[1:-1])
    one = torch.ones_like(t)
    edge = torch.cat([torch.stack(p, 1) for p in ((t, one), (t, -one), (one, t), (-one, t))])
    source = hessian(_solution, inside)[:, 0].diagonal(dim1=1, dim2=2).sum(1)
    model = MODELS[name]()

    def loss() -> Tensor:
        laplacian = hessian(model, inside, create_graph=True)[:, 0].diagonal(dim1=1, dim2=2).sum(1)
        return 0.01 * (laplacian - source).square().mean() + model(edge).square().mean()

    train_lbfgs(model, loss, steps)
    z = uniform(2000, 2, -1, 1, 0).requires_grad_()
    difference = model(z) - _solution(z)
    (slope,) = torch.autograd.grad(difference.sum(), z)
    l2, h1 = float(difference.detach().square().mean()), float(slope.square().sum(1).mean())
    return {"model": name, "parameters": parameters(model), "L2_squared": f"{l2:.2e}", "H1_squared": f"{l2 + h1:.2e}"}


def poisson(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """L2^2 and H1^2 on fresh points, against MLPs of the same number of parameters and a larger one."""
    side, steps = (24, 10) if small else (50, 50)
    rows = list(runs({name: partial(_row, name, side, steps) for name in list(MODELS)[: 4 if small else 5]}).values())
    return rows, picture(rows)


def picture(rows: Rows) -> Figure:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for shift, key, alpha in ((-0.2, "L2_squared", 1.0), (0.2, "H1_squared", 0.5)):
        colors = [KAN_COLOR if "KAN" in row["model"] else MLP_COLOR for row in rows]
        bars = axes.bar([n + shift for n in range(len(rows))], [float(r[key]) for r in rows], 0.38, color=colors, alpha=alpha)
        axes.bar_label(bars, [row[key] for row in rows], size=7)
    labels = [f"{row['model'].replace(' G', chr(10) + 'G')}\n{row['parameters']} parameters" for row in rows]
    axes.set(title="Poisson: L2² error (solid), H1² (pale)", yscale="log", ylabel="squared error", xlabel="network")
    axes.set_xticks(range(len(rows)), labels, size=7)
    axes.margins(y=0.15)
    return figure
