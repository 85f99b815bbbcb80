"""Six example tables; the last is messy on purpose."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._checks import choice
from .tables import Table, parse_table

Draw = Callable[[np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Example:
    """An example.

    Attributes:
        title: name on the page.
        text: a sentence about it.
        draw: function from a random generator to columns, the last of which is the target.
    """

    title: str
    text: str
    draw: Draw


def _toy(g: np.random.Generator) -> dict[str, np.ndarray]:
    x, y = g.uniform(-1, 1, (2, 1000))
    return {"x": x, "y": y, "z": np.exp(np.sin(np.pi * x) + y**2)}


def _product(g: np.random.Generator) -> dict[str, np.ndarray]:
    a, b = g.uniform(-1, 1, (2, 400))
    return {"a": a, "b": b, "area": a * b}


def _gravity(g: np.random.Generator) -> dict[str, np.ndarray]:
    m, M, r = g.uniform(1, 10, 300), g.uniform(1, 10, 300), g.uniform(1, 4, 300)
    return {"m [kg]": m, "M [kg]": M, "r [m]": r, "F [N]": 6.674e-11 * m * M / r**2}


def _decay(g: np.random.Generator) -> dict[str, np.ndarray]:
    t = np.linspace(0, 12, 120)
    return {"t [h]": t, "counts": 1000 * np.exp(-t / 3.2) * (1 + 0.01 * g.normal(size=120))}


def _planets(g: np.random.Generator) -> dict[str, np.ndarray]:
    axis = np.array([0.3871, 0.7233, 1.0, 1.5237, 5.2028, 9.5388, 19.1914, 30.0611, 39.529])
    period = np.array([0.2408, 0.6152, 1.0, 1.8809, 11.862, 29.458, 84.01, 164.79, 248.54])
    return {"axis [AU]": axis, "period [yr]": period}


def _messy(g: np.random.Generator) -> dict[str, np.ndarray]:
    t, p = g.uniform(-5, 30, 160), g.uniform(980, 1040, 160)
    return {"temperature [°C]": t, "pressure [hPa]": p, "density": p / (2.8705 * (t + 273.15)) * (1 + 0.002 * g.normal(size=160))}


EXAMPLES = {
    "toy": Example("Toy function", "exp(sin πx + y²), the first example of the KAN paper", _toy),
    "product": Example("Product", "a·b, which a sum of functions cannot be at once", _product),
    "gravity": Example("Gravity", "the force between two masses, with units", _gravity),
    "decay": Example("Decay", "counts that fall, with noise of one per cent", _decay),
    "planets": Example("Planets", "nine rows: Kepler's third law", _planets),
    "messy": Example("Messy file", "semicolons, decimal commas, gaps, words", _messy),
}


def example_csv(name: str) -> bytes:
    """The file of an example.

    Args:
        name: one of "toy", "product", "gravity", "decay", "planets" and "messy".

    Raises:
        ValueError: an unknown name.
    """
    columns = EXAMPLES[choice("name", name, tuple(EXAMPLES))].draw(np.random.default_rng(0))
    messy = name == "messy"
    separator = ";" if messy else ","
    out = io.StringIO()
    out.write(separator.join([*columns, *(["place", ""] if messy else [])]) + "\n")
    for n, row in enumerate(np.column_stack(list(columns.values())).tolist()):
        cells = [repr(value) for value in row]
        if messy:
            cells = [f"{value:.4f}".replace(".", ",") for value in row] + [("Bern", "Zürich", "Genève")[n % 3], ""]
            if n % 23 == 7:
                cells[n % 3] = ("", "n/a", "broken")[n % 3]
            if n == 50:
                cells = cells[:2]
        out.write(separator.join(cells) + "\n")
    return out.getvalue().encode("cp1252" if messy else "utf-8")


def example_table(name: str) -> Table:
    """The table of an example, as its file is read.

    Args:
        name: one of "toy", "product", "gravity", "decay", "planets" and "messy".

    Raises:
        ValueError: an unknown name.
    """
    return parse_table(example_csv(name), f"{name}.csv")
