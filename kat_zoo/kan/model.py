"""KAN: a network with its operations as methods."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from .migration import answers_words
from .network import Network
from .operations import edit, files, grids, pruning, symbolic, training
from .operations import plot as pictures

KANT = TypeVar("KANT", bound="KAN")


class KAN(Network):
    """A Kolmogorov-Arnold network (Liu et al., arXiv 2404.19756; products: KAN 2.0, arXiv 2408.10205).

    An ordinary nn.Module. Methods that change the shape (`prune`, `expand_width`, ...) return a new network; methods
    that keep it (`fit`, `refine`, `update_grid`, `fix_symbolic`, ...) work in place. Layers, inputs and outputs of an edge
    are counted as (l, i, j): layer l, from node i to sub-node j.

    Args:
        width: nodes of each layer, inputs first; an entry [n_sum, n_mult] has n_mult product nodes after its sums.
        grid_size: number of intervals of the splines.
        spline_order: degree of the splines' pieces, 0 to 7.
        base: function added to each spline: "silu", "identity", "sin", "zero" or a callable; each layer has a copy of a module.
        mult_arity: number of factors of a product node, at least 2.
        grid_range: (low, high) of the initial grids.
        extrapolate: continuation of the splines outside their grid, "linear" or "zero".
        noise_scale: standard deviation of the initial splines.
        seed: seed of the initial values; torch's global generator is left alone.
        device: device of the parameters.
        dtype: type of the parameters.
        **unknown: any other argument, which is refused; pykan's are answered with the words to write.

    Raises:
        ValueError: a width, size or option that makes no sense.
        TypeError: an argument that is not there.
    """

    # Functions whose first argument is the network: help() and editors show all of their arguments.
    fit = training.fit
    refine = grids.refine
    update_grid = grids.update_grid
    attribute = pruning.attribute
    prune = pruning.prune
    prune_inputs = pruning.prune_inputs
    remove_edge = pruning.remove_edge
    restore_edge = pruning.restore_edge
    remove_node = pruning.remove_node
    expand_width = edit.expand_width
    expand_depth = edit.expand_depth
    suggest_symbolic = symbolic.suggest_symbolic
    fix_symbolic = symbolic.fix_symbolic
    unfix = symbolic.unfix
    auto_symbolic = symbolic.auto_symbolic
    plot = pictures.plot
    save = files.save

    @classmethod
    def load(cls: type[KANT], path: str | Path) -> KANT:
        """Read a file that `save` wrote.

        Args:
            path: the safetensors file.

        Raises:
            ValueError: not such a file, or it uses functions that are not registered here.
        """
        return files.load(cls, path)

    # The formula room needs SymPy, which a network that is only trained does not.

    @answers_words
    def formula(self, variables: Sequence[str] | None = None, round: int | None = 4, X: Any = None) -> list[Any]:
        """SymPy expression of each output, as `kat_zoo.kan.formula.expression.formula` describes.

        Args:
            variables: names of the inputs, x_1 ... x_n by default.
            round: number of decimals of the coefficients, where multiples of pi print as such; None for all digits.
            X: (N, inputs) samples that say how large the inputs are; the range of the first layer's grids by default.

        Raises:
            ValueError: not one distinct name per input, negative decimals, or X of another shape or not finite.
        """
        from .formula.expression import formula

        return formula(self, variables, round, X)

    def latex(self, variables: Sequence[str] | None = None, round: int | None = 4, X: Any = None) -> list[str]:
        """LaTeX of each output's formula; arguments and errors as in `formula`."""
        from .formula.export import to_latex

        return [to_latex(expression) for expression in self.formula(variables, round, X)]

    def explore(self, X: Any, y: Any = None, **options: Any) -> Any:
        """Open the page of `kat-zoo explore` on this network of one output and its data.

        Args:
            X: (N, inputs) samples.
            y: (N,) targets; the network's own values by default.
            **options: further arguments of `kat_zoo.explore.explore`, such as names of the inputs.

        Returns:
            The page, with `url` and `close`.

        Raises:
            ValueError: several outputs, or data that do not fit the network.
        """
        # By name: the page stands above this room, which knows nothing of it.
        page = importlib.import_module("kat_zoo.explore.command")
        x = self.tensor(X)
        with torch.no_grad():
            y = self(x)[:, 0] if y is None else y
        return page.explore(self, x.cpu(), torch.as_tensor(y).cpu(), **options)

    @classmethod
    def from_formula(
        cls: type[KANT],
        expressions: Any,
        variables: Sequence[str] | None = None,
        *,
        grid_size: int = 3,
        dtype: torch.dtype = torch.float64,
        **options: Any,
    ) -> KANT:
        """Compile formulas into a network of symbolic edges and product nodes that computes them.

        Args:
            expressions: a SymPy expression or text, or a list of them, one per output.
            variables: names of the inputs in their order; the expressions' own symbols, sorted, by default. In text they are
                variables even where SymPy knows the name as something else, as it does E, I, N, S, beta and gamma.
            grid_size: number of intervals of the splines, which are unused until an edge becomes numeric.
            dtype: type of the parameters.
            **options: further arguments of `KAN`.

        Raises:
            ValueError: a function or power outside the library, a number that is complex or too large, symbols that `variables`
                lacks, a name twice, or text that SymPy cannot read.
        """
        from .formula.compiler import compile_formulas

        return compile_formulas(cls, expressions, variables, grid_size=grid_size, dtype=dtype, **options)


from_formula = KAN.from_formula
