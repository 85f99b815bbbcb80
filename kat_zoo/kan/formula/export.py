"""Formulas as code: NumPy and torch functions, and C."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Container, Iterable, Sequence
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import sympy
from sympy.printing.latex import greek_letters_set, translate

# Functions that torch and SymPy call by the same name.
_TORCH = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "erf", "sinh", "cosh", "asin", "acos", "atan", "atanh")

_READABLE = re.compile(r"([A-Za-z]+)\d*(?:_([A-Za-z0-9]+))?", re.ASCII)  # SymPy sets these well: x_1, alpha, v_max
_LATEX = {c: f"\\{c}" for c in "%#&$_{}"} | {"\\": r"\backslash{}", "^": r"\hat{}", "~": r"\sim{}", " ": r"\ ", "\n": r"\ "}

_MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh drem erf erfc exp exp10 exp2 expm1 fabs fdim finite floor fma
    fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan
    nearbyint nextafter nexttoward pow remainder remquo rint round scalb scalbln scalbn significand sin sincos sinh sqrt tan tanh
    tgamma trunc y0 y1 yn
""".split()  # noqa: SIM905 (a list literal takes a screen)
C_NAMES = frozenset(  # keywords of C, names that math.h declares, and main
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return
    short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof main signgam float_t double_t
    fpclassify isfinite isgreater isgreaterequal isinf isless islessequal islessgreater isnan isnormal isunordered signbit
    isinff isinfl isnanf isnanl lgamma_r lgammaf_r lgammal_r math_errhandling linux unix NAN INFINITY HUGE HUGE_VAL HUGE_VALF HUGE_VALL
    """.split()  # noqa: SIM905
) | {name + kind for name in _MATH for kind in ("", "f", "l")}
_C_RESERVED = re.compile("_[A-Z_]|M_|FP_|MATH_")  # beginnings of names that belong to the compiler and to math.h


def to_numpy(expression: sympy.Expr, variables: Sequence[str]) -> Callable[..., Any]:
    """NumPy function of the variables, in the given order (special functions from SciPy); integers count as float64.

    Args:
        expression: formula of the variables.
        variables: names of the function's arguments, in their order.

    Raises:
        ValueError: the expression holds other variables, or numeric edges (phi_l_i_j).
    """
    function: Callable[..., Any] = sympy.lambdify(*_anonymous(expression, variables), modules=["scipy", "numpy"])

    def compute(*values: Any) -> Any:
        return function(*(np.asarray(value, float) if np.asarray(value).dtype.kind in "biu" else value for value in values))

    return compute


def to_torch(expression: sympy.Expr, variables: Sequence[str]) -> Callable[..., Any]:
    """Function of torch tensors, differentiable; integers count as float64.

    Args:
        expression: formula of the variables.
        variables: names of the function's arguments, in their order.

    Raises:
        ValueError: the expression holds other variables, or numeric edges (phi_l_i_j).
    """
    import torch

    from ..library import get_function

    def bessel(n: int, x: Any) -> Any:
        if n not in (0, 1):
            raise ValueError(f"besselj({n}, x): expected besselj(0, x) or besselj(1, x), which torch has")
        return get_function(f"J{n}").torch(x)

    def of_numbers_too(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        # A constant such as sqrt(6) comes as a plain number.
        return lambda x: function(x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64))

    functions = {name: getattr(torch, name) for name in _TORCH}
    functions |= {"Abs": torch.abs, "gamma": get_function("gamma").torch, "sgn": torch.sign}
    names: dict[str, Any] = {name: of_numbers_too(function) for name, function in functions.items()}
    names["besselj"] = lambda n, x: of_numbers_too(lambda x: bessel(n, x))(x)
    symbols, expression = _anonymous(expression, variables)
    expression = expression.replace(sympy.sign, sympy.Function("sgn"))  # SymPy would print sign as code for one number
    function: Callable[..., Any] = sympy.lambdify(symbols, expression, modules=[names, "math"])

    def compute(*values: Any) -> Any:
        inexact = (value.is_floating_point() or value.is_complex() if isinstance(value, torch.Tensor) else True for value in values)
        return function(*(value if keep else value.to(torch.float64) for value, keep in zip(values, inexact, strict=True)))

    return compute


def c_expression(expression: sympy.Expr) -> str:
    """A formula as an expression of C (math.h, POSIX j0 and j1 for Bessel functions).

    Args:
        expression: the formula.

    Raises:
        ValueError: a function that C lacks.
    """
    orders = {bessel.args[0] for bessel in expression.atoms(sympy.besselj)}
    if not orders <= {0, 1}:
        raise ValueError(f"besselj({max(orders - {0, 1}, key=str)}, x): expected besselj(0, x) or besselj(1, x), which C has")
    bessel = [(lambda n, x: n == 0, lambda n, x: f"j0({x})"), (lambda n, x: n == 1, lambda n, x: f"j1({x})")]
    # SymPy passes the arguments as text to the second function of a pair, as expressions to the first.
    functions = {"besselj": bessel, "gamma": "tgamma", "sgn": [(lambda x: True, _c_sign)]}
    try:
        text: str = sympy.ccode(expression.replace(sympy.sign, sympy.Function("sgn")), user_functions=functions)
    except NotImplementedError as error:  # SymPy's, of a function that C lacks
        raise ValueError(f"expression={expression}: expected functions that C has ({str(error).splitlines()[0]})") from None
    return text


def _c_sign(x: str) -> str:
    """The sign of an argument; SymPy's own code would take NaN for 0."""
    return f"(isnan({x}) ? {x} : (({x}) > 0) - (({x}) < 0))"


def to_c(expression: sympy.Expr, variables: Sequence[str], name: str = "formula") -> str:
    """A C function `double name(double x_1, ...)` (math.h, POSIX j0 and j1 for Bessel functions).

    Args:
        expression: formula of the variables.
        variables: names of the function's arguments, in their order; a comment tells those that C does not allow, and are replaced.
        name: name of the function.

    Raises:
        ValueError: the expression holds other variables, numeric edges (phi_l_i_j) or a function that C lacks; a name of the
            function that C does not allow.
    """
    _symbols(expression, variables)
    check_c_name(name)
    safe = safe_names(variables, {name})
    renamed = {sympy.Symbol(v): sympy.Symbol(s) for v, s in zip(variables, safe, strict=True)}
    body = c_expression(expression.xreplace(renamed))
    told = [f"{s}: {comment(v)}" for v, s in zip(variables, safe, strict=True) if v != s]
    head = f"/* {', '.join(told)} */\n" if told else ""
    return f"{head}double {name}({', '.join(f'double {s}' for s in safe)}) {{\n    return {body};\n}}\n"


def check_c_name(name: str, taken: Container[str] = ()) -> None:
    """Check the name of a function in C.

    Args:
        name: the name.
        taken: names that the source uses for something else.

    Raises:
        ValueError: C does not allow it, or it is taken.
    """
    if not _is_free_in_c(name) or name in taken:
        raise ValueError(f"name={name!r}: expected a name that is free in C: letters, digits and underscores")


def safe_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Names that C, Python and SymPy all read as variables: those that are, and others made from those that are not.

    Args:
        names: any distinct texts.
        taken: names that mean something else.
    """
    used = {*taken, *(name for name in names if _is_free(name))}
    found = []
    for name in names:
        safe = name if _is_free(name) and name not in taken else ""
        if not safe:
            stem = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "x"
            stem = stem if stem[0].isalpha() else f"x_{stem}"
            number = 0
            while not safe or safe in used or not _is_free(safe):
                safe = stem if number == 0 and stem != name else f"{stem}_{number}"
                number += 1
            used.add(safe)
        found.append(safe)
    return found


def _is_free(name: str) -> bool:
    """Whether a text is a name, and means nothing in C, Python or SymPy."""
    builtin = isinstance(getattr(builtins, name, None), BuiltinFunctionType)  # SymPy reads max and sum as functions
    return _is_free_in_c(name) and not keyword.iskeyword(name) and not hasattr(sympy, name) and not builtin


def _is_free_in_c(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)) and name not in C_NAMES and not _C_RESERVED.match(name)


def to_text(expression: sympy.Expr) -> tuple[str, dict[str, str]]:
    """A formula as text that SymPy reads back, whatever its variables are called.

    `sympy.sympify(text)` has the safe names as symbols.

    Args:
        expression: the formula.

    Returns:
        The text, and the name of each variable by the safe name that stands for it.
    """
    names = sorted(str(symbol) for symbol in expression.free_symbols)
    safe = safe_names(names)
    renamed = {sympy.Symbol(v): sympy.Symbol(s) for v, s in zip(names, safe, strict=True)}
    return sympy.sstr(expression.xreplace(renamed)), dict(zip(safe, names, strict=True))


def comment(name: str) -> str:
    """A name as part of a comment in C."""
    return "".join(c if c.isprintable() else " " for c in name).replace("*/", "* /").replace("\\", "/")


def _anonymous(expression: sympy.Expr, variables: Sequence[str]) -> tuple[list[sympy.Symbol], sympy.Expr]:
    """Symbols without a meaning, and the expression in them: lambdify would take a variable pi for the number."""
    symbols = _symbols(expression, variables)
    found: list[sympy.Symbol] = [sympy.Symbol(f"_{number}_variable") for number in range(len(symbols))]
    return found, sympy.sympify(expression).xreplace(dict(zip(symbols, found, strict=True)))


def _symbols(expression: sympy.Expr, variables: Sequence[str]) -> list[sympy.Symbol]:
    symbols = [sympy.Symbol(v) for v in variables]
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"variables={list(variables)}: expected distinct names")
    unknown = expression.free_symbols - set(symbols)
    if unknown:
        raise ValueError(f"variables={list(variables)}: expected {', '.join(sorted(map(str, unknown)))} of the expression, too")
    numeric = expression.atoms(sympy.core.function.AppliedUndef)
    if numeric:
        raise ValueError(f"the expression holds numeric edges, {', '.join(sorted({str(f.func) for f in numeric}))}: expected none")
    return symbols


def to_latex(expression: Any) -> str:
    """LaTeX of a formula; names that LaTeX would not set as they are become upright text, their special characters escaped.

    Args:
        expression: SymPy expression, or a list of them.
    """
    listed = expression if isinstance(expression, list) else [expression]
    symbols = set().union(*(one.free_symbols for one in listed)) if listed else set()
    names = {symbol: latex_name(str(symbol)) for symbol in symbols if not _is_readable(str(symbol))}
    text: str = sympy.latex(expression, symbol_names=names)
    return text


def _is_readable(name: str) -> bool:
    """Whether SymPy sets a name as one reads it: rmag would become the absolute value of r, local a calligraphic lo."""
    found = _READABLE.fullmatch(name)
    return found is not None and all(part.lower() in greek_letters_set or "{" not in translate(part) for part in found.groups("x"))


def latex_name(name: str) -> str:
    """A name as upright text of LaTeX, its special characters escaped."""
    return f"\\mathrm{{{''.join(_LATEX.get(c, c) for c in name)}}}"
