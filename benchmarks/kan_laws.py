"""Claim: KANRegressor(symbolic=True) finds the laws of science from tables of 1,000 rows in seconds.

    python benchmarks/kan_laws.py                                      # 40 laws of benchmarks/laws, half an hour
    python benchmarks/kan_laws.py --catalogue FILE --noise 0 0.01      # laws in the format of FastSRB (arXiv 2508.14481)
    python benchmarks/kan_laws.py --peers operon gplearn               # the same rows and CPU seconds for others
    python benchmarks/kan_laws.py --only kepler Planck --budget 10

A law is recovered when the formula with all digits has a relative squared error of at most 1.2e-7 on 2,000 fresh rows of the same
box and no undefined function; with noise s (a part of y's standard deviation), of at most (s / 5)^2. The measure is that of the
published comparisons, and a formula that is as good as the law without being it counts; the CSV has the formulas.

Each run is a process of its own on one thread; seconds are CPU seconds of the fit. Rows are added to --out as they come;
with --resume those that are there are not run again.
"""

import argparse
import csv
import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from laws import LAWS

FOUND, ROWS, FRESH = 1.2e-7, 1000, 2000
FUNCTIONS = {
    "sin": np.sin, "cos": np.cos, "exp": np.exp, "sqrt": np.sqrt, "tanh": np.tanh, "log": np.log, "asin": np.arcsin,
    "arcsin": np.arcsin, "neg": np.negative, "pi": math.pi,
}  # fmt: skip
FIELDS = ["law", "method", "noise", "seed", "recovered", "error", "cpu_seconds", "formula", "truth"]


def read_catalogue(path: Path) -> dict:
    """Laws of a YAML file in FastSRB's format, each as (formula, {input: (low, high, kind, sign)}, conditions)."""
    import yaml

    laws = {}
    for name, entry in yaml.safe_load(path.read_text()).items():
        inputs = {}
        for symbol, about in entry["vars"].items():
            if symbol != "v0":
                low, high = map(float, about["sample_range"])
                inputs[symbol] = (low, high, *about["sample_type"])
        conditions = [text.replace("^", "**") for text in entry.get("constraints") or []]
        laws[name] = entry["prepared"].replace("^", "**"), inputs, conditions
    return laws


def own_laws() -> dict:
    kinds = {"uniform": "uni", "log": "log", "integer": "int"}
    return {
        name: (formula, {symbol: (low, high, kinds[kind], "pos") for symbol, (_, low, high, kind) in inputs.items()}, [])
        for name, (formula, inputs, _) in LAWS.items()
    }


def draw(low: float, high: float, kind: str, sign: str, n: int, generator: np.random.Generator) -> np.ndarray:
    if kind == "log":
        x = np.exp(generator.uniform(math.log(low), math.log(high), n))
    elif kind == "int" and low > 0:
        x = np.floor(np.exp(generator.uniform(math.log(low), math.log(high + 1), n)))
    elif kind == "int":
        x = generator.integers(int(low), int(high) + 1, n).astype(float)
    else:
        x = generator.uniform(low, high, n)
    return x * {"pos": 1, "neg": -1}[sign] if sign != "pos_neg" else x * generator.choice([-1.0, 1.0], n)


def sample(law: tuple, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a law that meet its conditions and have a finite value."""
    formula, inputs, conditions = law
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < n:
        columns = {symbol: draw(*about, n, generator) for symbol, about in inputs.items()}
        with np.errstate(all="ignore"):
            y = eval(formula, {**FUNCTIONS}, columns) + np.zeros(n)
            good = np.isfinite(y)
            for condition in conditions:
                try:
                    good &= np.asarray(eval(condition, {**FUNCTIONS}, columns))
                except NameError:  # some published conditions name inputs that the law lacks
                    continue
        parts.append(np.column_stack([*columns.values(), y])[good])
    rows = np.concatenate(parts)[:n]
    return rows[:, :-1], rows[:, -1]


def kan(X: np.ndarray, y: np.ndarray, seed: int, budget: float) -> tuple:
    from kat_zoo.kan import KANRegressor

    model = KANRegressor(symbolic=True, random_state=seed, max_seconds=budget).fit(X, y)
    return model.predict, str(model.formula(round=None))


def operon(X: np.ndarray, y: np.ndarray, seed: int, budget: float) -> tuple:
    from pyoperon.sklearn import SymbolicRegressor

    symbols = "add,sub,mul,div,constant,variable,sin,cos,exp,log,sqrt,square,tanh"
    model = SymbolicRegressor(
        allowed_symbols=symbols, n_threads=1, time_limit=int(budget), max_evaluations=10**9, generations=10**6, random_state=seed
    )
    model.fit(X, y)
    return model.predict, model.get_model_string(model.model_, 17)


def gplearn(X: np.ndarray, y: np.ndarray, seed: int, budget: float) -> tuple:
    from gplearn.genetic import SymbolicRegressor

    functions = ("add", "sub", "mul", "div", "sin", "cos", "sqrt", "log")
    model = SymbolicRegressor(population_size=2000, generations=1, function_set=functions, random_state=seed, warm_start=True)
    began = time.process_time()
    while not model.__dict__.get("_program") or time.process_time() - began < budget:
        model.fit(X, y)
        model.set_params(generations=model.generations + 1)
    return model.predict, str(model._program)


METHODS = {"kan": kan, "operon": operon, "gplearn": gplearn}
MODULES = {"kan": "kat_zoo.kan.sklearn.regressor", "operon": "pyoperon.sklearn", "gplearn": "gplearn.genetic"}


def run(law: tuple, method: str, noise: float, seed: int, budget: float) -> dict:
    """One fit and its error on fresh rows."""
    generator = np.random.default_rng(seed)
    X, y = sample(law, ROWS, generator)
    X_new, y_new = sample(law, FRESH, generator)
    y = y + noise * y.std() * generator.standard_normal(len(y))
    importlib.import_module(MODULES[method])  # not part of the time
    began = time.process_time()
    predict, formula = METHODS[method](X, y, seed, budget)
    seconds = time.process_time() - began
    with np.errstate(all="ignore"):
        error = float(np.nan_to_num(np.mean((predict(X_new) - y_new) ** 2) / y_new.var(), nan=math.inf))
    recovered = error <= max(FOUND, (noise / 5) ** 2) and "phi_" not in formula
    return {"recovered": int(recovered), "error": f"{error:.1e}", "cpu_seconds": f"{seconds:.1f}", "formula": formula, "truth": law[0]}


def in_own_process(name: str, method: str, noise: float, seed: int, options: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--one", json.dumps([name, method, noise, seed]), "--budget", str(options.budget)]
    command += ["--catalogue", str(options.catalogue)] if options.catalogue else []
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"recovered": 0, "error": "inf", "cpu_seconds": "", "formula": done.stderr.strip().splitlines()[-1:], "truth": ""}
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(rows: list[dict]) -> None:
    """Print the share recovered by method and noise, and the laws that were lost."""
    for method, noise in sorted({(row["method"], float(row["noise"])) for row in rows}):
        part = [row for row in rows if row["method"] == method and float(row["noise"]) == noise]
        found = sum(int(row["recovered"]) for row in part)
        seconds = sorted(float(row["cpu_seconds"] or 0) for row in part)
        lost = sorted({row["law"] for row in part if not int(row["recovered"])})
        print(f"{method}, noise {noise:g}: {found} of {len(part)} recovered, median {seconds[len(seconds) // 2]:.1f} CPU s; lost: {lost}")


def draw_shares(rows: list[dict], path: Path) -> None:
    """A picture of the share recovered against CPU seconds, a curve for each method and noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, noise in sorted({(row["method"], float(row["noise"])) for row in rows}):
        part = [row for row in rows if row["method"] == method and float(row["noise"]) == noise]
        times = sorted(float(row["cpu_seconds"]) for row in part if int(row["recovered"]))
        axes.step([0.01, *times], np.arange(len(times) + 1) / len(part), where="post", label=f"{method}, noise {noise:g}")
    axes.set(xscale="log", xlabel="CPU seconds", ylabel="share of laws recovered", ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, help="YAML file of laws in FastSRB's format; benchmarks/laws by default")
    parser.add_argument("--only", nargs="+", help="names of the laws to run")
    parser.add_argument("--peers", nargs="+", default=[], choices=["operon", "gplearn"])
    parser.add_argument("--budget", type=float, default=60, help="seconds for a law")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kan_laws.csv")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    laws = read_catalogue(options.catalogue) if options.catalogue else own_laws()
    if options.one:
        name, method, noise, seed = json.loads(options.one)
        print(json.dumps(run(laws[name], method, noise, seed, options.budget)))
        return
    rows: list[dict] = []
    if options.resume and options.out.exists():
        with options.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["law"], row["method"], float(row["noise"]), int(row["seed"])) for row in rows}
    for noise in options.noise:
        for seed in range(options.seeds):
            for name in options.only or laws:
                for method in ["kan", *options.peers]:
                    if (name, method, noise, seed) in done:
                        continue
                    key = {"law": name, "method": method, "noise": noise, "seed": seed}
                    rows.append(key | in_own_process(name, method, noise, seed, options))
                    print({k: v for k, v in rows[-1].items() if k != "truth"}, flush=True)
                    with options.out.open("w", newline="") as file:
                        writer = csv.DictWriter(file, FIELDS)
                        writer.writeheader()
                        writer.writerows(rows)
    summary(rows)
    draw_shares(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
