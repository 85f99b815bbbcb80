"""Formulas as code: NumPy and torch functions, and C."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import sympy

# Functions that torch and SymPy call by the same name.
_TORCH = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "erf", "sinh", "cosh", "asin", "acos", "atan", "atanh")

C_NAMES = frozenset(  # keywords of C and names that math.h declares
    """
    acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 fabs floor fmax fmin fmod frexp gamma hypot
    j0 j1 jn ldexp lgamma log log10 log1p log2 modf pow rint round sin sinh sqrt tan tanh tgamma trunc y0 y1 yn auto break case
    char const continue default do double else enum extern float for goto if inline int long register restrict return short signed
    sizeof static struct switch typedef union unsigned void volatile while
    """.split()  # noqa: SIM905 (a list literal takes a screen)
)


def to_numpy(expression: sympy.Expr, variables: Sequence[str]) -> Callable[..., Any]:
    """NumPy function of the variables, in the given order (special functions from SciPy).

    Args:
        expression: formula of the variables.
        variables: names of the function's arguments, in their order.

    Raises:
        ValueError: the expression holds other variables, or numeric edges (phi_l_i_j).
    """
    function: Callable[..., Any] = sympy.lambdify(_symbols(expression, variables), expression, modules=["scipy", "numpy"], dummify=True)
    return function


def to_torch(expression: sympy.Expr, variables: Sequence[str]) -> Callable[..., Any]:
    """Function of torch tensors, differentiable.

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
    symbols = _symbols(expression, variables)
    expression = expression.replace(sympy.sign, sympy.Function("sgn"))  # SymPy would print sign as code for one number
    function: Callable[..., Any] = sympy.lambdify(symbols, expression, modules=[names, "math"], dummify=True)
    return function


def c_expression(expression: sympy.Expr) -> str:
    """A formula as an expression of C (math.h, POSIX j0 and j1 for Bessel functions).

    Args:
        expression: the formula.
    """
    bessel = [(lambda n, x: n == 0, lambda n, x: f"j0({x})"), (lambda n, x: n == 1, lambda n, x: f"j1({x})")]
    # SymPy passes the arguments as text to the second function of a pair, as expressions to the first.
    text: str = sympy.ccode(expression, user_functions={"besselj": bessel, "gamma": "tgamma"})
    return text


def to_c(expression: sympy.Expr, variables: Sequence[str], name: str = "formula") -> str:
    """A C function `double name(double x_1, ...)` (math.h, POSIX j0 and j1 for Bessel functions).

    Args:
        expression: formula of the variables.
        variables: names of the function's arguments, in their order.
        name: name of the function.

    Raises:
        ValueError: the expression holds other variables, or numeric edges (phi_l_i_j); a name that C does not allow, or that
            the formula uses for something else.
    """
    symbols = _symbols(expression, variables)
    body = c_expression(expression)
    taken = C_NAMES | set(re.findall(r"[a-z]\w*(?=\()", body))
    for text in (name, *map(str, symbols)):
        if not re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII):
            raise ValueError(f"{text!r} is not a name in C: expected letters, digits and underscores")
        if text in taken or text.startswith("M_") or (text == name and name in variables):
            raise ValueError(f"{text!r} means something else in C: expected another name")
    arguments = ", ".join(f"double {symbol}" for symbol in symbols)
    return f"double {name}({arguments}) {{\n    return {body};\n}}\n"


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
    """LaTeX of a formula.

    Args:
        expression: SymPy expression, or a list of them.
    """
    text: str = sympy.latex(expression)
    return text
