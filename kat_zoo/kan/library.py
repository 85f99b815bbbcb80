"""The functions that an edge can become: value, SymPy form, complexity and the starts of the search for c f(a x + b) + d."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Range = tuple[float, float]


def _bessel(n: int, x: Tensor) -> Tensor:
    """J0 or J1; torch's own are off by 1e-7 beyond x = 5, so the CPU asks SciPy."""
    if x.device.type != "cpu":
        on_device: Tensor = (torch.special.bessel_j0, torch.special.bessel_j1)[n](x)
        return on_device
    from scipy import special

    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))  # NumPy has no bfloat16
    return torch.from_numpy(np.asarray((special.j0, special.j1)[n](wide.numpy()))).to(x.dtype)


class _Elementwise(torch.autograd.Function):
    """An elementwise function with a derivative that torch does not know, for every mode of differentiation."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)


class _BesselJ0(_Elementwise):
    """J0 with its derivative -J1."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _bessel(0, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad * _j1(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return -tangent * _j1(*ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return _j0(x), in_dims[0]


class _BesselJ1(_Elementwise):
    """J1 with its derivative J0(x) - J1(x) / x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _bessel(1, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * _slope_of_j1(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * _slope_of_j1(*ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return _j1(x), in_dims[0]


def _j0(x: Tensor) -> Tensor:
    y: Tensor = _BesselJ0.apply(x)
    return y


def _j1(x: Tensor) -> Tensor:
    y: Tensor = _BesselJ1.apply(x)
    return y


def _slope_of_j1(x: Tensor) -> Tensor:
    small = x.abs() < 1e-6
    ratio = torch.where(small, 0.5, _j1(x) / torch.where(small, 1.0, x))
    return _j0(x) - ratio


def _gamma(x: Tensor) -> Tensor:
    inside, nearest = x > 0, x.round()
    positive = torch.lgamma(torch.where(inside, x, 1 - x)).exp()
    # The reflection formula, with the sine of the distance to the nearest pole; branches not taken are free of NaN for the gradient.
    sine = torch.sin(math.pi * torch.where(inside, 0.5, x - nearest)) * (1 - 2 * torch.remainder(nearest, 2))
    return torch.where((x < 0) & (x == nearest), math.nan, torch.where(inside, positive, math.pi / (sine * positive)))


def _power(p: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.pow(x, p)


# Starting images (low, high) of the data's range [min, max] under a x + b; c and d are linear and need no start.


def _shifts() -> list[Range]:
    """For homogeneous functions only b / a matters: the zero in, beside or far from the data."""
    inside = [(-t, 1 - t) for t in np.linspace(0, 1, 21)]
    beside = [(s, s + 1) for s in np.geomspace(0.01, 10, 13)]
    return [*inside, *beside, *[(-high, -low) for low, high in beside]]


def _half_line() -> list[Range]:
    starts = [(s, s + 1) for s in [1e-9, *np.geomspace(1e-4, 10, 26)]]
    return [*starts, *[(high, low) for low, high in starts]]


def _both_sides() -> list[Range]:
    right = [(s, s + 1) for s in np.geomspace(1e-3, 10, 21)]
    return [*right, *[(-high, -low) for low, high in right]]


def _scales() -> list[Range]:
    return [(0.0, s * w) for w in np.geomspace(0.1, 20, 20) for s in (1, -1)]


def _waves() -> list[Range]:
    widths = [*np.geomspace(0.3, 3, 8), *np.arange(3.5, 64, 0.75)]
    return [(p, p + w) for w in widths for p in np.arange(8) * math.pi / 8]


def _sigmoids() -> list[Range]:
    return [(w * (-t), w * (1 - t)) for w in np.geomspace(0.5, 40, 14) for t in np.linspace(-0.5, 1.5, 17)]


def _waves_about_zero() -> list[Range]:
    return [(-w * t, w * (1 - t)) for w in [*np.geomspace(0.5, 4, 6), *np.arange(5, 64, 1.0)] for t in np.linspace(0, 1, 13)]


def _interval(edge: float) -> Callable[[], list[Range]]:
    marks = edge * np.array([0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.985, 0.995, 0.999, 0.9999])
    marks = np.unique([-marks, marks])

    def images() -> list[Range]:
        return [(float(low), float(high)) for low in marks for high in marks if high - low > 0.15 * edge]

    return images


def _gamma_images() -> list[Range]:
    return [(low, low + w) for low in np.geomspace(0.05, 4, 10) for w in np.geomspace(0.3, 8, 8)]


@dataclass(frozen=True)
class Function:
    """One function of the library.

    Attributes:
        name: name by which users and files call it.
        torch: elementwise function of a float64 tensor, differentiable; NaN outside its domain.
        sympy: text of the SymPy expression in `x`, e.g. "1/x**2".
        complexity: price in a formula; 1 is linear.
        images: function that returns the starting images of the data's range.
        power: exponent p of a homogeneous function, f(m x) = m^p f(x) for m > 0, whose scale can be moved outside; else None.
    """

    name: str
    torch: Callable[[Tensor], Tensor]
    sympy: str
    complexity: float
    images: Callable[[], list[Range]]
    power: float | None = None

    def expression(self, argument: Any) -> Any:
        """SymPy expression of f(argument)."""
        import sympy

        x = sympy.Symbol("x")
        return sympy.sympify(self.sympy, locals={"x": x}).subs(x, argument)


_FUNCTIONS = [
    Function("0", torch.zeros_like, "0*x", 0.5, lambda: [(0.0, 1.0)]),
    Function("x", lambda x: x, "x", 1, lambda: [(0.0, 1.0)], 1),
    Function("x^2", _power(2), "x**2", 2, _shifts, 2),
    Function("x^3", _power(3), "x**3", 3, _shifts, 3),
    Function("x^4", _power(4), "x**4", 3, _shifts, 4),
    Function("x^5", _power(5), "x**5", 4, _shifts, 5),
    Function("1/x", _power(-1), "1/x", 2, _both_sides, -1),
    Function("1/x^2", _power(-2), "1/x**2", 3, _both_sides, -2),
    Function("1/x^3", _power(-3), "1/x**3", 4, _both_sides, -3),
    Function("1/x^4", _power(-4), "1/x**4", 4, _both_sides, -4),
    Function("1/x^5", _power(-5), "1/x**5", 5, _both_sides, -5),
    Function("sqrt", torch.sqrt, "sqrt(x)", 2, _half_line, 0.5),
    Function("x^1.5", _power(1.5), "x**(3/2)", 4, _half_line, 1.5),
    Function("1/sqrt(x)", torch.rsqrt, "1/sqrt(x)", 3, _half_line, -0.5),
    Function("exp", torch.exp, "exp(x)", 2, _scales),
    Function("log", torch.log, "log(x)", 2, _half_line),
    Function("abs", torch.abs, "Abs(x)", 3, _shifts, 1),
    Function("sin", torch.sin, "sin(x)", 2, _waves),
    Function("cos", torch.cos, "cos(x)", 2, _waves),
    Function("tan", torch.tan, "tan(x)", 3, _interval(math.pi / 2)),
    Function("tanh", torch.tanh, "tanh(x)", 3, _sigmoids),
    Function("sgn", torch.sign, "sign(x)", 3, _shifts, 0),
    Function("arcsin", torch.arcsin, "asin(x)", 4, _interval(1)),
    Function("arccos", torch.arccos, "acos(x)", 4, _interval(1)),
    Function("arctan", torch.arctan, "atan(x)", 4, _sigmoids),
    Function("arctanh", torch.arctanh, "atanh(x)", 4, _interval(1)),
    Function("gaussian", lambda x: torch.exp(-x * x), "exp(-x**2)", 3, _sigmoids),
    Function("J0", _j0, "besselj(0, x)", 4, _waves_about_zero),
    Function("J1", _j1, "besselj(1, x)", 5, _waves_about_zero),
    Function("erf", torch.erf, "erf(x)", 4, _sigmoids),
    Function("gamma", _gamma, "gamma(x)", 5, _gamma_images),
    Function("sinh", torch.sinh, "sinh(x)", 4, _sigmoids),
    Function("cosh", torch.cosh, "cosh(x)", 4, _sigmoids),
]
_INDEX = {function.name: i for i, function in enumerate(_FUNCTIONS)}
# The same functions under pykan's and everyday names.
ALIASES = {
    "x^0.5": "sqrt",
    "1/x^0.5": "1/sqrt(x)",
    "linear": "x",
    "identity": "x",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atanh": "arctanh",
    "sign": "sgn",
    "zero": "0",
}
# Functions that the automatic search tries unless told otherwise. Duplicates of one another (cos, arccos) and rare shapes are left out.
DEFAULT_LIBRARY = tuple(
    """
    0 x x^2 x^3 x^4 1/x 1/x^2 sqrt 1/sqrt(x) x^1.5 exp log abs sin tan tanh arcsin arctan arctanh gaussian J0 erf
    """.split()  # noqa: SIM905 (a list literal takes a screen)
)


def function_names() -> list[str]:
    """Names of all known functions, registered ones included."""
    return [function.name for function in _FUNCTIONS]


def function_index(name: str) -> int:
    """Position of a function in the library.

    Args:
        name: name or alias of the function.

    Raises:
        ValueError: the name is unknown.
    """
    name = ALIASES.get(name, name)
    if name not in _INDEX:
        raise ValueError(f"function={name!r}: expected one of {', '.join(_INDEX)}")
    return _INDEX[name]


def get_function(name: str | int) -> Function:
    """Look a function up by name, alias or position."""
    return _FUNCTIONS[function_index(name) if isinstance(name, str) else name]


def register_function(
    name: str,
    function: Callable[[Tensor], Tensor],
    sympy: str,
    *,
    complexity: float = 3,
    images: Sequence[Range] | None = None,
) -> None:
    """Add a function to the library.

    Args:
        name: name that is not taken yet.
        function: elementwise, differentiable function of a tensor; NaN outside its domain.
        sympy: SymPy expression of it in `x`, such as "airyai(x)".
        complexity: price in a formula; 1 is linear, sin is 2.
        images: starting images (low, high) of the data's range under a x + b; a general grid by default.

    Raises:
        ValueError: the name is taken, or the expression is not one in x.
    """
    from sympy import Symbol, SympifyError, sympify

    if name in _INDEX or name in ALIASES:
        raise ValueError(f"name={name!r}: expected a name that no function of the library has")
    try:
        symbols = sympify(sympy, locals={"x": Symbol("x")}).free_symbols
    except (SympifyError, TypeError) as error:
        raise ValueError(f"sympy={sympy!r}: expected an expression in x") from error
    if symbols != {Symbol("x")}:
        raise ValueError(f"sympy={sympy!r}: expected an expression in x alone")
    starts = list(images) if images is not None else [*_sigmoids(), *_waves_about_zero(), *_half_line()]
    _INDEX[name] = len(_FUNCTIONS)
    _FUNCTIONS.append(Function(name, function, sympy, complexity, lambda: starts))
