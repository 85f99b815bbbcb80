"""Loss landscape with the optimizer's path: the plane of the two main directions of a run's checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .output import NotApplicable, save


@dataclass(frozen=True)
class Plane:
    """A plane through the trained weights.

    Attributes:
        center: trainable parameters of the last checkpoint, by name.
        directions: two orthonormal directions (over all parameters together), by name.
        path: (checkpoints, 2) projections of the checkpoints; the last is the origin.
        explained: part of the path's variance that the plane holds, per direction.
    """

    center: dict[str, Tensor]
    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    path: Tensor
    explained: tuple[float, float]


def _unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pieces = flat.split([t.numel() for t in like.values()])
    return {name: piece.reshape(t.shape).to(t.dtype) for (name, t), piece in zip(like.items(), pieces, strict=True)}


def principal_plane(states: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> Plane:
    """Return the plane of the principal components of the differences to the last checkpoint.

    This is section 7 of Li et al. (arXiv 1712.09913). Directions are not rescaled per filter, because the path itself gives them
    a length. Only the parameters in `names` take part (trainable, so no buffers), so that the surface moves nothing that the
    optimizer did not move.

    Args:
        states: state dicts of the checkpoints, oldest first; at least 3.
        names: names of the parameters that span the space.

    Raises:
        NotApplicable: fewer than 3 checkpoints, or a path along a line.
    """
    if len(states) < 3:
        raise NotApplicable(f"{len(states)} checkpoints: expected at least 3 for a plane (system.keep_checkpoints of the recipe)")
    center = {name: states[-1][name].detach().float().cpu() for name in names}
    flat = torch.stack([torch.cat([state[n].detach().float().cpu().flatten() for n in names]) for state in states])
    path = flat - flat[-1]
    # Directions from the small Gram matrix; the parameters are many, the checkpoints few.
    values, vectors = torch.linalg.eigh((path @ path.T).double())
    if values[-2] <= 1e-12 * values[-1]:
        raise NotApplicable("checkpoints on a line: expected at least two independent directions")
    directions = [(vectors[:, -i].float() @ path) / values[-i].sqrt().float() for i in (1, 2)]
    total = values.clamp(min=0).sum()
    return Plane(
        center=center,
        directions=(_unflatten(directions[0], center), _unflatten(directions[1], center)),
        path=torch.stack([path @ d for d in directions], 1),
        explained=(float(values[-1] / total), float(values[-2] / total)),
    )


@torch.no_grad()
def loss_surface(
    model: nn.Module, plane: Plane, loss: Callable[[nn.Module], float], size: int = 15, margin: float = 0.3
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate a loss on a grid of the plane that holds the path.

    Args:
        model: model whose parameters are moved and put back.
        plane: result of `principal_plane`.
        loss: function of the model, e.g. its mean loss over some validation images.
        size: number of grid points per axis.
        margin: reach of the grid beyond the path, as a part of the path's extent.

    Returns:
        (x, y, values): (size,), (size,) and (size, size) with values[i, j] at y[i], x[j].
    """
    low, high = plane.path.amin(0), plane.path.amax(0)
    reach = (high - low).clamp(min=1e-6) * margin
    x, y = (torch.linspace(float(low[i] - reach[i]), float(high[i] + reach[i]), size) for i in (0, 1))
    parameters = {name: p for name, p in model.named_parameters() if name in plane.center}
    saved = {name: p.detach().clone() for name, p in parameters.items()}
    values = torch.empty(size, size)
    try:
        for i in range(size):
            for j in range(size):
                for name, p in parameters.items():
                    p.copy_(plane.center[name] + x[j] * plane.directions[0][name] + y[i] * plane.directions[1][name])
                values[i, j] = loss(model)
    finally:
        for name, p in parameters.items():
            p.copy_(saved[name])
    return x, y, values


def plot_landscape(surfaces: Mapping[str, tuple[Plane, tuple[Tensor, Tensor, Tensor]]], path: Path) -> Path:
    """Draw each surface in 3-D and as contours with the path on it.

    Args:
        surfaces: pairs (plane, result of `loss_surface`) by label.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2 * len(surfaces)), layout="constrained")
    rows: list[dict[str, Any]] = []
    for n, (label, (plane, (x, y, values))) in enumerate(surfaces.items()):
        log = values.clamp(min=1e-6).log10()
        solid = figure.add_subplot(len(surfaces), 2, 2 * n + 1, projection="3d")
        solid.plot_surface(*torch.meshgrid(x, y, indexing="xy"), log.numpy(), cmap="viridis")
        solid.set(xlabel="direction 1", ylabel="direction 2", zlabel="log10 loss", title=label)
        solid.set_box_aspect(None, zoom=0.8)  # the label of the vertical axis is not part of the layout
        solid.tick_params(labelsize=7)
        flat = figure.add_subplot(len(surfaces), 2, 2 * n + 2)
        lines = flat.contour(x, y, log, levels=18, cmap="viridis")
        figure.colorbar(lines, ax=flat, label="log10 loss")
        flat.plot(*plane.path.T, color="tab:red", marker="o", markersize=3, linewidth=1)
        flat.plot(*plane.path[-1], color="tab:red", marker="*", markersize=10)
        flat.set(
            xlabel=f"direction 1 ({plane.explained[0]:.0%} of the path)",
            ylabel=f"direction 2 ({plane.explained[1]:.0%})",
            title=f"{label}: path of the optimizer",
        )
        rows += [
            {"model": label, "kind": "surface", "x": float(x[j]), "y": float(y[i]), "loss": float(values[i, j])}
            for i in range(len(y))
            for j in range(len(x))
        ]
        rows += [{"model": label, "kind": "path", "x": float(p[0]), "y": float(p[1]), "loss": ""} for p in plane.path]
    return save(figure, rows, path)
