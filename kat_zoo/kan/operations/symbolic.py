"""Edges as symbolic functions: suggested, fixed, freed and fixed automatically."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._checks import count, real
from ...layers.spline import KANLinear
from ..library import function_index, get_function
from ..migration import answers_words
from ..network import Edge, Network
from .fitting import Suggestion, fit_function, fit_library
from .grids import collocation, data_knots, refit
from .lm import LeastSquares

ROWS = 20_000  # samples at most for a suggestion, so that memory does not grow with their number
CANDIDATES = 5  # functions tried for an edge by auto_symbolic


def _samples(model: Network, layer: int, i: int, j: int, X: Any) -> tuple[Tensor, Tensor]:
    """Argument and value of an edge on data, or on its grid where X is None."""
    module = model.check_edge(layer, i, j)
    with torch.no_grad():
        if X is None:
            spline = module.spline
            h = collocation(spline.knots, spline.spline_order, 20).to(model.dtype)
        else:
            x = model.samples(X)
            h = model.finite_activations(x[:: -(-len(x) // ROWS)])[layer]
        return h[:, i].double(), module.edges(h)[:, j, i].double()


def check_library(library: Sequence[str] | None) -> None:
    """Raise a ValueError for an empty list of functions, or an unknown one.

    Args:
        library: names of the functions; None is right.
    """
    if library is not None and (isinstance(library, str) or not len(library)):
        raise ValueError(f"library={library!r}: expected a list of at least one name, or None for the default")
    for name in library or ():
        try:
            function_index(name)
        except ValueError as error:
            raise ValueError(f"library={list(library or ())!r} with {error}") from error


@answers_words
def suggest_symbolic(
    model: Network,
    layer: int,
    i: int,
    j: int,
    X: Any,
    top: int = 5,
    library: Sequence[str] | None = None,
    worth: float = 0.5,
) -> list[Suggestion]:
    """The functions that explain edge (l, i, j) best on the samples X, simple ones preferred.

    Args:
        model: the network.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        X: (N, inputs) samples, at least 2; more than 20,000 are thinned evenly.
        top: number of suggestions to return.
        library: names of the functions to try, `DEFAULT_LIBRARY` by default.
        worth: least R^2 of a function's best start; functions below it are left out.

    Returns:
        Suggestions, best score first.

    Raises:
        ValueError: there is no such edge or function, an empty library, top below 1, or X as in `attribute`.
    """
    top = count("top", top)
    check_library(library)
    return fit_library(*_samples(model, layer, i, j, X), library, worth)[:top]


@answers_words
def fix_symbolic(
    model: Network,
    layer: int,
    i: int,
    j: int,
    function: str,
    X: Any = None,
    affine: Sequence[float] | None = None,
) -> float:
    """Replace edge (l, i, j) by c f(a x + b) + d, in place.

    Args:
        model: the network, changed in place.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        function: name of the function in the library.
        X: (N, inputs) samples on which (a, b, c, d) are fitted to the present edge; its grid by default.
        affine: the constants (a, b, c, d), instead of a fit.

    Returns:
        R^2 of the fit (1 where `affine` is given).

    Raises:
        ValueError: no such edge or function, the function is undefined on the edge's arguments, or X as in `attribute`.
    """
    module = model.check_edge(layer, i, j)
    index, r2 = function_index(function), 1.0
    if affine is None:
        suggestion = fit_function(get_function(index).name, *_samples(model, layer, i, j, X))
        if suggestion is None:
            raise ValueError(f"function={function!r} cannot be fitted to edge ({layer}, {i}, {j})")
        affine, r2 = suggestion.affine, suggestion.r2
    elif len(affine) != 4 or not all(math.isfinite(v) for v in affine):
        raise ValueError(f"affine={tuple(affine)}: expected four finite numbers (a, b, c, d)")
    with torch.no_grad():
        module.affine[j, i] = torch.tensor(affine, dtype=model.dtype, device=model.device)
        module.function[j, i] = index
        module.spline.mask[j, i] = 0
    module.refresh()
    return r2


def unfix(model: Network, layer: int, i: int, j: int, X: Any = None) -> None:
    """Make a symbolic edge numeric again, in place, with the spline nearest to the function on its grid.

    Args:
        model: the network, changed in place.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        X: (N, inputs) samples. A grid of input i that does not hold its values there is moved to their range, and the other
            splines of input i are refitted to it. Without samples the grid stays, and the edge goes on linearly beyond it.

    Raises:
        ValueError: no such edge, or it is not symbolic.
    """
    module = model.check_edge(layer, i, j)
    if int(module.function[j, i]) < 0:
        raise ValueError(f"edge ({layer}, {i}, {j}) of kind {model.edge_kind(layer, i, j)!r}: expected a symbolic edge")
    spline = module.spline
    if X is not None:
        _hold(spline, i, model.finite_activations(X)[layer].detach())
    x, values = _samples(model, layer, i, j, None)
    known = torch.isfinite(values)
    with torch.no_grad():
        h = x[:, None].expand(-1, spline.in_features).to(model.dtype)
        basis = spline.basis(h)[:, i, : spline.coef.shape[1]].double()
        fitted = torch.linalg.lstsq(basis[known].cpu(), values[known, None].cpu(), driver="gelsd").solution[:, 0]
        spline.coef[i, :, j] = fitted.to(spline.coef)
        if spline.base_weight is not None:
            spline.base_weight[j, i] = 0
        module.function[j, i] = -1
        spline.mask[j, i] = 1
    module.refresh()


def _hold(spline: KANLinear, i: int, h: Tensor) -> None:
    """Move the grid of input i to the samples h (N, C_in), unless it holds them."""
    k = spline.spline_order
    knots, x = spline.knots.clone(), h[:, i : i + 1]
    if bool(x.min() >= knots[i, k]) and bool(x.max() <= knots[i, -k - 1]):
        return
    knots[i] = data_knots(x, spline.grid_size, k, adapt=0.0, margin=0.02)[0]
    coef = spline.coef.detach().clone()
    coef[i] = refit(spline, knots, torch.cat([h.double(), collocation(knots, k, 3)]))[i]
    spline.set_grid(knots, coef)


@answers_words
def auto_symbolic(
    model: Network,
    X: Any,
    y: Any = None,
    *,
    edges: Collection[Edge] | None = None,
    library: Sequence[str] | None = None,
    r2_threshold: float = 0.99,
    tolerance: float = 1.5,
    steps: int = 20,
) -> dict[Edge, Suggestion | None]:
    """Make every numeric edge symbolic that some function explains, in place.

    Without y each edge is judged alone, by R^2. With y the network is trained on (Levenberg-Marquardt, all parameters)
    after each replacement, and one that raises the root mean square error more than `tolerance` times is taken back.

    Args:
        model: the network, changed in place.
        X: (N, inputs) samples.
        y: (N, outputs) targets, or None.
        edges: (l, i, j) of the edges to try; all by default.
        library: names of the functions to try, `DEFAULT_LIBRARY` by default.
        r2_threshold: least R^2 of a function that is tried, at most 1.
        tolerance: largest growth of the error per edge, as a factor.
        steps: number of Levenberg-Marquardt steps after a replacement.

    Returns:
        For each edge that was numeric its function, or None where none fits: that edge stays numeric.

    Raises:
        ValueError: data or options that do not fit, or an unknown function.
    """
    check_library(library)
    r2_threshold, tolerance = real("r2_threshold", r2_threshold, most=1.0), real("tolerance", tolerance, above=0.0)
    steps = count("steps", steps)
    x = model.samples(X)
    target = None if y is None else model.tensor(y)
    if target is not None and target.shape != (len(x), model.nodes[-1]):
        raise ValueError(f"y of shape {tuple(target.shape)}: expected {(len(x), model.nodes[-1])}")
    model.finite_activations(x)
    result: dict[Edge, Suggestion | None] = {}
    for edge in edges or ():
        model.check_edge(*edge)
    wanted = list(model.edges()) if edges is None else sorted({*edges} & {*model.edges()})
    pending = [edge for edge in wanted if model.edge_kind(*edge) == "numeric"]
    error = math.inf if target is None else float((model(x) - target).detach().square().sum(1).mean().sqrt())
    while pending:
        found = {edge: suggest_symbolic(model, *edge, x, CANDIDATES, library) for edge in pending}
        options = {edge: [s for s in suggestions if s.r2 >= r2_threshold] for edge, suggestions in found.items()}
        # The clearest edge first: each exact function makes the rest easier to tell.
        edge = min(pending, key=lambda e: options[e][0].score if options[e] else math.inf)
        pending.remove(edge)
        result[edge] = None
        for suggestion in options[edge]:
            backup = copy.deepcopy(model.state_dict())
            fix_symbolic(model, *edge, suggestion.name, affine=suggestion.affine)
            if target is not None:
                new = LeastSquares(model, x, target).minimize(steps) ** 0.5
                if not new <= max(tolerance * error, 1e-12):
                    model.load_state_dict(backup)
                    continue
                error = min(error, new)
            result[edge] = suggestion
            break
    return result
