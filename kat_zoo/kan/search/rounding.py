"""Constants as a physicist would write them, and no more terms than the data ask for.

A term or factor without which the form is as good goes. A constant that the data cannot tell from a fraction of small numbers or
a multiple of pi becomes it. Each step is tried on the form with its other constants fitted again, the roundest number first,
and stays where the description length on the rows that judge does not grow: a round number saves the digits of a constant, and
an error that grows costs more than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import sympy

from .judge import Form, Judge
from .tree import LEAVES, Tree, constants, gathered, with_constants

WITHIN, WITHIN_EXACT = 0.04, 1e-5  # relative distances within which a round number is tried: with noise, and without
EXACT = 1e-6  # relative error below which a form has no noise
# What a round number may be a multiple of, and the nats that it costs. The last is the normal distribution's.
UNITS = [
    (float(symbol), symbol, nats)
    for symbol, nats in ((sympy.S.One, 0.0), (sympy.pi, 4.0), (1 / sympy.pi, 5.0), (1 / sympy.sqrt(2 * sympy.pi), 6.0))
]
BIT = 1.0  # nats that a bit of a round number costs
OPTIONS = 8  # round numbers tried for a constant
STEPS = 12  # Levenberg-Marquardt steps of a trial


def round_numbers(value: float, within: float) -> list[tuple[float, Tree]]:
    """Round numbers near a value with the nats that they cost, cheap ones first.

    Args:
        value: The number.
        within: Largest distance, relative to the value.
    """
    found: dict[float, tuple[float, Tree]] = {}
    for factor, symbol, nats in UNITS:
        for denominator in (1, 2, 3, 4, 5, 6, 8, 10):
            numerator = round(value / factor * denominator) if abs(value / factor) < 1000 else 0
            close = numerator / denominator * factor
            if numerator and abs(close - value) <= within * abs(value):
                fraction = Fraction(numerator, denominator)
                cost = nats + BIT * (math.log2(abs(fraction.numerator)) + math.log2(fraction.denominator))
                if close not in found or cost < found[close][0]:
                    exact = sympy.Rational(fraction.numerator, fraction.denominator) * symbol
                    found[close] = cost, ("n", float(fraction)) if factor == 1 else ("s", close, exact)
    if 1e3 <= abs(value) < 1e6:  # a round large number, as 1200
        close = float(f"{value:.2g}")
        if abs(close - value) <= within * abs(value):
            found.setdefault(close, (3.0, ("n", close)))
    return sorted(found.values(), key=lambda pair: pair[0])[:OPTIONS]


def _shorter(tree: Tree) -> Iterator[Tree]:
    """The tree without one term of a sum, or without one factor that holds a constant."""
    head = tree[0]
    if head in LEAVES:
        return
    if head == "^":
        for inner in _shorter(tree[1]):
            yield ("^", inner, tree[2])
        return
    parts = tree[1:]
    if head == "+" or head == "*":
        for k, part in enumerate(parts):
            if len(parts) > 1 and (head == "+" or (part[0] not in ("c", "n", "x") and constants(part))):
                rest = (*parts[:k], *parts[k + 1 :])
                yield rest[0] if len(rest) == 1 else (head, *rest)
    for k, part in enumerate(parts):
        for inner in _shorter(part):
            yield (head, *parts[:k], inner, *parts[k + 1 :])


def _pruned(judge: Judge, form: Form) -> Form:
    """The form without the terms and factors that are not needed."""
    again = True
    while again:
        again = False
        for tree in _shorter(form.tree):
            judge.data.clock.check()
            trial = judge.measure(judge.fit(gathered(tree), STEPS))
            if trial.cost < form.cost:
                form, again = judge.measure(judge.fit(trial.tree, STEPS, thorough=True)), True
                break
    return form


def _rounded_once(judge: Judge, form: Form, paid: float) -> tuple[Form, float] | None:
    """The form with one more constant rounded, and the nats that its round numbers cost, or None."""
    values = constants(form.tree)
    within = WITHIN if form.error > EXACT else WITHIN_EXACT
    trials = sorted((nats, k, tree) for k, value in enumerate(values) for nats, tree in round_numbers(value, within))
    for nats, k, tree in trials:
        judge.data.clock.check()
        changed: list[float | Tree] = list(values)
        changed[k] = tree
        trial_tree = gathered(with_constants(form.tree, changed))
        trial = judge.measure(judge.fit(trial_tree, STEPS, thorough=len(values) > 1))
        if trial.cost + paid + nats < form.cost + paid:
            return trial, paid + nats
    return None


def rounded(judge: Judge, tree: Tree) -> Form:
    """The form with its constants fitted again and rounded where the description length allows it.

    Args:
        judge: The judge of the table in its own units.
        tree: The form.
    """
    start = judge.measure(tree)
    form = judge.measure(judge.fit(gathered(tree), 60, thorough=True))
    if not form.cost <= start.cost:
        form = start
    form = _pruned(judge, form)
    paid = 0.0
    while (step := _rounded_once(judge, form, paid)) is not None:
        form, paid = step
    form = _pruned(judge, form)
    return Form(form.tree, form.error, form.cost + paid)
