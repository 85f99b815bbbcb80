"""Pictures of an additive model: the effect of each column with its bands and the density of the rows, a map for each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..gam.basis import splines
from ..model import KAN
from ..operations.plot import NUMERIC, SYMBOLIC, new_figure, plain
from .columns import Category, Column, Columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bands = tuple[np.ndarray, list[np.ndarray]]
POINTS = 200  # of a curve
SIDE = 60  # of a map
BAND = 1.645  # standard deviations of a band of 90 %
SMALL = 0.005  # effect, relative to the strongest, that is not drawn
SHOWN = (0.002, 0.998)  # quantiles of the rows between which a curve is drawn


def plot_shapes(network: KAN, columns: Columns, bands: Bands | None, output: int, most: int) -> Figure:
    """Matplotlib figure of the effects of columns and pairs on one output, in units of y (logarithms of rates, logits of classes).

    The shade at a curve is its bootstrap band of 90 %, the gray bars count rows.

    Args:
        network: network [inputs, outputs] or [inputs, [outputs, products], outputs].
        columns: scales of the table.
        bands: columns of the model and changes of their spline coefficients under the bootstrap.
        output: number of the output.
        most: number of panels at most.

    Raises:
        ValueError: a network with hidden layers, whose effects are not separate.
    """
    if bands is None:
        raise ValueError(f"network_ of nodes {network.nodes} has a hidden layer: expected an additive model, as hidden=() gives one")
    spread = float(columns.spread[output])
    with torch.no_grad():
        edges = network.layers[0].edges(columns.sample).numpy()
    owners = columns.owners
    panels: list[tuple[float, Any]] = []
    for number in range(len(columns.columns)):
        own = np.flatnonzero(owners == number)
        effect = edges[:, output, own].sum(1) * spread
        if effect.std() > 1e-9 * spread:
            panels.append((float(effect.std()), number))
    for pair, nodes in _pairs(network, output).items():
        effect = sum(edges[:, a, pair[0]] * edges[:, a + 1, pair[1]] for a in nodes) * spread
        panels.append((float(np.std(effect)), (pair, nodes)))
    strongest = max((size for size, _ in panels), default=0.0)
    panels = sorted((panel for panel in panels if panel[0] > SMALL * strongest), key=lambda panel: -panel[0])[:most]
    if not panels:
        figure = new_figure(3.2, 2.6)
        figure.text(0.5, 0.5, "no column has an effect", ha="center")
        return figure
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    figure = new_figure(3.3 * across, 2.7 * down)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for panel, (_, what) in zip(axes, panels, strict=False):
        if isinstance(what, tuple):
            _draw_pair(panel, figure, network, columns, what, spread)
        else:
            _draw_column(panel, network, columns, bands, what, output)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    return figure


def _pairs(network: KAN, output: int) -> dict[tuple[int, int], list[int]]:
    """First sub-node of the products of each pair of inputs that go to an output."""
    if len(network.layers) < 2:
        return {}
    first, last = network.layers
    active = first.active.numpy()
    found: dict[tuple[int, int], list[int]] = {}
    for number in range(first.n_mult):
        if int(last.function[output, first.n_sum + number]) >= 0:
            node = first.n_sum + 2 * number
            pair = int(np.flatnonzero(active[node])[0]), int(np.flatnonzero(active[node + 1])[0])
            found.setdefault(pair, []).append(node)
    return found


def _effect(network: KAN, column: int, node: int, x: np.ndarray) -> np.ndarray:
    values: np.ndarray = network.edge(0, column, node)[0](torch.from_numpy(x)).numpy()
    return values


def _changes(network: KAN, bands: Bands, column: int, output: int, x: np.ndarray) -> np.ndarray:
    """Changes (N, repeats) of an effect under the bootstrap; zeros (N, 1) of an input that does not vary."""
    at = np.flatnonzero(bands[0] == column)
    if not len(at):
        return np.zeros((len(x), 1))
    knots = network.layers[0].spline.knots[[column]].numpy()
    found: np.ndarray = splines(x[:, None], knots)[:, 0] @ bands[1][output][:, at[0]].T
    return found


def _draw_column(axes: Axes, network: KAN, columns: Columns, bands: Bands, number: int, output: int) -> None:
    column, own = columns.columns[number], np.flatnonzero(columns.owners == number)
    spread, sample = float(columns.spread[output]), columns.sample[:, own].numpy()
    if isinstance(column, Category):
        at, ends = np.arange(len(own)), np.array([0.0, 1.0])
        height = [float(np.diff(_effect(network, int(i), output, ends))[0]) * spread for i in own]
        doubt = [float(np.diff(_changes(network, bands, int(i), output, ends), axis=0).std()) * BAND * spread for i in own]
        axes.bar(at, height, yerr=doubt, color=NUMERIC, width=0.7, ecolor="0.3", capsize=2)
        axes.set_xticks(
            at, plain([name.removeprefix(f"{column.name}=")[:14] for name in column.names]), rotation=40, ha="right", fontsize=7
        )
    else:
        _draw_curve(axes, network, column, bands, own, sample, output, spread)
    axes.set_xlabel(plain([column.name[:40]])[0])
    axes.set_ylabel("effect")


def _draw_curve(
    axes: Axes, network: KAN, column: Column, bands: Bands, own: np.ndarray, sample: np.ndarray, output: int, spread: float
) -> None:
    known = sample[sample[:, 1] == 0, 0] if column.missing else sample[:, 0]
    low, high = np.quantile(known, SHOWN)
    x = np.linspace(low, high if high > low else low + 1, POINTS)
    units = column.center + column.half * x
    y = _effect(network, int(own[0]), output, x) * spread
    band = BAND * spread * _changes(network, bands, int(own[0]), output, x).std(1)
    axes.fill_between(units, y - band, y + band, color=NUMERIC, alpha=0.25, lw=0)
    axes.plot(units, y, color=NUMERIC)
    density = axes.twinx()
    counts, _, _ = density.hist(column.center + column.half * known[(known >= low) & (known <= high)], 30, color="0.75", zorder=0)
    density.set(ylim=(0, 5 * max(float(np.max(counts)), 1.0)), yticks=[])
    axes.set_zorder(density.get_zorder() + 1)
    axes.patch.set_visible(False)
    if column.missing:
        fill = _effect(network, int(own[0]), output, np.array([column.fill]))
        gone = fill + np.diff(_effect(network, int(own[1]), output, np.array([0.0, 1.0])))
        axes.plot(units[-1:], gone * spread, "o", color=SYMBOLIC, label="missing")
        axes.legend(fontsize=7, frameon=False)


def _draw_pair(axes: Axes, figure: Figure, network: KAN, columns: Columns, what: Any, spread: float) -> None:
    (i, j), nodes = what
    sample, names = columns.sample.numpy(), columns.names
    sides, units, flags = [], [], []
    for k in (i, j):
        low, high = np.quantile(sample[:, k], (0.01, 0.99))
        sides.append(np.linspace(low, high if high > low else low + 1, SIDE))
        column = columns.columns[columns.owners[k]]
        is_number = isinstance(column, Column) and names[k] == column.name
        units.append((column.center, column.half) if isinstance(column, Column) and is_number else (0.0, 1.0))
        flags.append(not is_number)
    values = sum(np.outer(_effect(network, j, a + 1, sides[1]), _effect(network, i, a, sides[0])) for a in nodes) * spread
    largest = float(np.abs(values).max()) or 1.0
    (ci, hi), (cj, hj) = units
    mesh = axes.pcolormesh(
        ci + hi * sides[0], cj + hj * sides[1], values, cmap="RdBu_r", vmin=-largest, vmax=largest, shading="gouraud", rasterized=True
    )
    axes.plot(ci + hi * sample[:300, i], cj + hj * sample[:300, j], ".", color="0.2", ms=1.5)
    axes.set(
        xlim=(ci + hi * sides[0][0], ci + hi * sides[0][-1]),
        ylim=(cj + hj * sides[1][0], cj + hj * sides[1][-1]),
        xlabel=plain([names[i][:40]])[0],
        ylabel=plain([names[j][:40]])[0],
    )
    for flag, axis in zip(flags, (axes.xaxis, axes.yaxis), strict=True):
        if flag:  # an input of a category, or of what is missing, is 0 or 1
            axis.set_ticks([0, 1], labels=["no", "yes"])
    figure.colorbar(mesh, ax=axes, label="effect")
