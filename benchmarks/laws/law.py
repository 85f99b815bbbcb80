"""A law: how its rows are drawn, its units, and how long it is."""

import ast
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FUNCTIONS = {
    "sin": np.sin, "cos": np.cos, "exp": np.exp, "sqrt": np.sqrt, "tanh": np.tanh, "log": np.log, "asin": np.arcsin,
    "arcsin": np.arcsin, "neg": np.negative, "pi": math.pi,
}  # fmt: skip
BASES = ("m", "s", "kg", "K", "V")  # of the exponents in FastSRB's format
CONSTANTS = {  # numbers of the catalogue's formulas that a scientist knows by name
    "c": "2.99792458e8 m/s",
    "G": "6.6743e-11 m^3/kg/s^2",
    "eps0": "8.854e-12 F/m",
    "h": "6.626e-34 J*s",
    "hbar": "1.054571817e-34 J*s",
    "k_B": "1.380649e-23 J/K",
    "g": "9.80665 m/s^2",
    "g_E": "9.81 m/s^2",
    "m_e": "9.10938356e-31 kg",
    "R": "8.314 J/mol/K",
    "F_A": "96485 C/mol",
    "sigma_SB": "5.670374e-8 W/m^2/K^4",
    "k_C": "8.98755e9 N*m^2/C^2",
}


@dataclass
class Law:
    """A law of science.

    Attributes:
        formula: The formula, in Python.
        inputs: Lowest and highest value, sampling (uni, log, int) and sign (pos, neg, pos_neg) of each input.
        units: Unit of each input.
        target: Unit of the value.
        constants: Names, values and units of the constants that a scientist knows.
        conditions: What rows have to meet.
        source: Where it stands.
    """

    formula: str
    inputs: dict[str, tuple[float, float, str, str]]
    units: dict[str, str]
    target: str
    constants: dict[str, str] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)
    source: str = ""

    def sample(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows that meet the conditions and have a finite value."""
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < n:
            columns = {symbol: _draw(*about, n, generator) for symbol, about in self.inputs.items()}
            with np.errstate(all="ignore"):
                y = eval(self.formula, {**FUNCTIONS}, columns) + np.zeros(n)
                good = np.isfinite(y)
                for condition in self.conditions:
                    try:
                        good &= np.asarray(eval(condition, {**FUNCTIONS}, columns))
                    except NameError:  # some published conditions name inputs that the law lacks
                        continue
            parts.append(np.column_stack([*columns.values(), y])[good])
        rows = np.concatenate(parts)[:n]
        return rows[:, :-1], rows[:, -1]


def _draw(low: float, high: float, kind: str, sign: str, n: int, generator: np.random.Generator) -> np.ndarray:
    if kind == "log":
        x = np.exp(generator.uniform(math.log(low), math.log(high), n))
    elif kind == "int" and low > 0:
        x = np.floor(np.exp(generator.uniform(math.log(low), math.log(high + 1), n)))
    elif kind == "int":
        x = generator.integers(int(low), int(high) + 1, n).astype(float)
    else:
        x = generator.uniform(low, high, n)
    return x * {"pos": 1, "neg": -1}[sign] if sign != "pos_neg" else x * generator.choice([-1.0, 1.0], n)


def known_constants(formula: str) -> dict[str, str]:
    """The constants of `CONSTANTS` whose numbers stand in a formula."""
    numbers = {float(text) for text in re.findall(r"(?<![\w.])\d+\.?\d*(?:e[+-]?\d+)?", formula)}
    return {name: text for name, text in CONSTANTS.items() if float(text.split()[0]) in numbers}


def read_catalogue(path: Path) -> dict[str, Law]:
    """Laws of a YAML file in FastSRB's format."""
    import yaml

    laws = {}
    for name, entry in yaml.safe_load(path.read_text()).items():
        formula = entry["prepared"].replace("^", "**")
        units = {
            symbol: "*".join(f"{base}**{power}" for base, power in zip(BASES, about["units"], strict=True) if power) or "1"
            for symbol, about in entry["vars"].items()
        }
        target = units.pop("v0")
        inputs = {
            symbol: (*map(float, about["sample_range"]), *about["sample_type"]) for symbol, about in entry["vars"].items() if symbol != "v0"
        }
        conditions = [text.replace("^", "**") for text in entry.get("constraints") or []]
        laws[name] = Law(formula, inputs, units, target, known_constants(formula), conditions, "; ".join(entry["sources"]))
    return laws


def length(text: str) -> int | None:
    """Operators and operands of a formula, a part without inputs counted as one; None where it cannot be read."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
    except SyntaxError:
        return None
    return _length(tree)


def _length(node: ast.expr) -> int:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - set(FUNCTIONS)
    if not names or isinstance(node, ast.Name):
        return 1
    if isinstance(node, ast.BinOp):
        return 1 + _length(node.left) + _length(node.right)
    if isinstance(node, ast.UnaryOp):
        return _length(node.operand)
    if isinstance(node, ast.Call):
        return 1 + sum(map(_length, node.args))
    raise ValueError(f"{ast.unparse(node)}: expected operators, functions, names and numbers")
