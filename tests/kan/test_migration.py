"""pykan's words: each is answered by name."""

import numpy as np
import pytest
import sympy

from kat_zoo.kan import KAN, LAN
from kat_zoo.kan.formula.export import safe_names, to_c, to_latex, to_text
from kat_zoo.kan.migration import ARGUMENTS, NAMES

X = np.linspace(-1, 1, 20)[:, None]


@pytest.mark.parametrize("name", ["grid", "k", "auto_save"])
def test_words_of_the_constructor(name):
    with pytest.raises(TypeError, match=f"{name}= is pykan's: expected {ARGUMENTS[name].split('=')[0].split('(')[0]}"):
        KAN(width=[2, 1], **{name: 3})


def test_words_of_fit():
    with pytest.raises(TypeError, match=r"X is a dict: expected fit\(dataset\['train_input'\]"):
        KAN([1, 1]).fit({"train_input": X}, opt="LBFGS", steps=2)
    with pytest.raises(TypeError, match="opt= is pykan's: expected optimizer="):
        KAN([1, 1]).fit(X, X, opt="LBFGS")
    with pytest.raises(TypeError, match="unexpected argument stepz=: expected steps="):
        KAN([1, 1]).fit(X, X, stepz=2)
    with pytest.raises(TypeError, match=r"expected fit\(X, y\)"):
        KAN([1, 1]).fit(X)
    with pytest.raises(TypeError, match=r"expected plot\(X\)"):
        KAN([1, 1]).plot()


def test_words_of_other_methods():
    model = KAN([1, 1])
    for call in (
        lambda: model.plot(X, in_vars=["a"]),
        lambda: model.auto_symbolic(X, lib=["x"]),
        lambda: model.suggest_symbolic(0, 0, 0, X, lib=["x"]),
        lambda: model.fix_symbolic(0, 0, 0, "x", a_range=(-1, 1)),
        lambda: model.formula(var=["a"]),
    ):
        with pytest.raises(TypeError, match="(in_vars|lib|a_range|var)= is pykan's: expected (variables=|library=|nothing)"):
            call()
    with pytest.raises(TypeError, match="unexpected argument variable=: expected variables="):
        model.plot(X, variable=["a"])


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_model(name):
    with pytest.raises(AttributeError, match=f"{name} is pykan's: expected"):
        getattr(KAN([1, 1]), name)
    assert not hasattr(KAN([1, 1]), "no_such_name")


def test_lan_says_that_it_has_no_edges():
    with pytest.raises(AttributeError, match="prune belongs to activations on edges: expected a KAN"):
        LAN([1, 2, 1]).prune(X)


NASTY = ["a+b", "E", "I", "lambda", "1", "temp_Annual_%", "x^2", "naïve", "int", "r (cm) */", "x"]


def test_any_name_is_safe():
    safe = safe_names(NASTY)
    assert len(set(safe)) == len(NASTY) and safe[-1] == "x"
    expression = sum(n * sympy.Symbol(name) ** 2 for n, name in enumerate(NASTY, 1))
    text, names = to_text(expression)
    back = sympy.sympify(text)
    assert back.xreplace({sympy.Symbol(s): sympy.Symbol(n) for s, n in names.items()}) == expression
    latex = to_latex(expression)
    assert r"\mathrm{temp\_Annual\_\%}" in latex and "%" not in latex.replace(r"\%", "")
    source = to_c(expression, NASTY)
    assert source.count("*/") == 1 and "/* x_1" not in source.splitlines()[1]
    assert to_latex(sympy.Symbol("x_1")) == "x_{1}"
