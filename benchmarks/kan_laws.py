"""Claim: KANRegressor(symbolic=True) finds the laws of science from tables of 1,000 rows in seconds.

    python benchmarks/kan_laws.py                                      # 40 laws of benchmarks/laws: up to 40 minutes
    python benchmarks/kan_laws.py --catalogue FILE --noise 0 0.01      # FILE: src/expressions.yaml of github.com/viktmar/FastSRB
    python benchmarks/kan_laws.py --units                              # units of inputs and value, and known constants, given
    python benchmarks/kan_laws.py --peers operon gplearn               # the same rows and CPU seconds for others
    python benchmarks/kan_laws.py --dummies 2                          # two columns of noise that the law does not have
    python benchmarks/kan_laws.py --only kepler Planck --budget 10

A run takes at most laws x methods x noises x seeds x --budget seconds; laws that are found end sooner, most in two. gplearn always
takes the whole budget.

A law is recovered when the formula with all digits has a relative squared error of at most 1.2e-7 on 2,000 fresh rows of the same
box and no undefined function; with noise s (a part of y's standard deviation), of at most (s / 5)^2. The measure is that of the
published comparisons, and a formula that is as good as the law without being it counts; the CSV has the formulas.

Each run is a process of its own on one thread, one after another unless --jobs says otherwise, and each method has the same CPU
seconds. Peers see inputs and values divided by their sizes (Operon computes in float32), and their formulas are those of such inputs.
Operon starts anew every quarter of its time, and the start with the least error on a fifth of the rows, held out, is its answer.
Rows are added to --out as they come; with --resume those
that are there are not run again. `length` counts operators and operands of the formula as printed, `law_length` those of the law.

The CSV of a catalogue holds no formulas: its laws are not ours to copy. Ours names 76 of the 120 laws of FastSRB (arXiv 2508.14481).

With --units the inputs' and the value's units are given, and the constants whose numbers stand in the law (c, G, h, k_B and
others, `laws.law.CONSTANTS`) by name, value and unit.
"""

import argparse
import contextlib
import csv
import importlib
import json
import math
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from laws import LAWS
from laws.law import Law, length, read_catalogue
from tqdm import tqdm

FOUND, ROWS, FRESH = 1.2e-7, 1000, 2000
FIELDS = ["law", "method", "noise", "seed", "recovered", "error", "cpu_seconds", "length", "law_length", "formula", "truth"]


def kan(X: np.ndarray, y: np.ndarray, seed: int, budget: float, law: Law | None) -> tuple:
    import pandas

    from kat_zoo.kan import KANRegressor
    from kat_zoo.kan.sklearn.stop import Stop

    Stop.seconds = staticmethod(time.process_time)
    units: dict = {}
    names = [f"x_{i + 1}" for i in range(X.shape[1])]
    if law is not None:
        names = [*law.inputs, *(f"dummy_{i}" for i in range(X.shape[1] - len(law.inputs)))]
        given = {name: law.units.get(name, "1") for name in names}
        units = {"units": given, "target_units": law.target, "constants": law.constants}
    model = KANRegressor(symbolic=True, random_state=seed, max_seconds=budget, **units).fit(pandas.DataFrame(X, columns=names), y)
    return lambda X: model.predict(pandas.DataFrame(X, columns=names)), str(model.formula(round=None)), str(model.formula_)


def _of_size_one(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Sizes that peers' inputs and values are divided by: Operon computes in float32, gplearn's constants lie in [-1, 1]."""
    return np.sqrt((X * X).mean(0)), float(np.sqrt((y * y).mean()))


def operon(X: np.ndarray, y: np.ndarray, seed: int, budget: float, law: Law | None) -> tuple:
    from pyoperon.sklearn import SymbolicRegressor

    scale, y_scale = _of_size_one(X, y)
    X, y = X / scale, y / y_scale
    held_out = np.random.default_rng(seed).permutation(len(y)) < len(y) // 5
    best, model = math.inf, None
    began = time.process_time()
    while (left := budget - (time.process_time() - began)) >= 1 and best > 1e-13:  # float32's last digits
        start = SymbolicRegressor(
            allowed_symbols="add,sub,mul,div,constant,variable,sin,cos,exp,log,sqrt,square",
            optimizer_iterations=10,
            epsilon=1e-14,
            n_threads=1,
            max_time=max(1, int(min(left, budget / 4))),
            max_evaluations=10**9,
            generations=10**6,
            random_state=seed,
        )
        seed += 1000
        with contextlib.suppress(ValueError):  # it refuses its own prediction where that is not finite
            start.fit(X[~held_out], y[~held_out])
            error = float(np.mean((start.predict(X[held_out]) - y[held_out]) ** 2))
            if error < best:
                best, model = error, start
    if model is None:
        raise ValueError("no model with finite predictions")
    printed = model.get_model_string(model.model_, 17), model.get_model_string(model.model_, 4)
    return lambda X: y_scale * model.predict(X / scale), *printed


def gplearn(X: np.ndarray, y: np.ndarray, seed: int, budget: float, law: Law | None) -> tuple:
    from gplearn.genetic import SymbolicRegressor

    scale, y_scale = _of_size_one(X, y)
    functions = ("add", "sub", "mul", "div", "sin", "cos", "sqrt", "log")
    model = SymbolicRegressor(population_size=2000, generations=1, function_set=functions, random_state=seed, warm_start=True)
    began = time.process_time()
    while not model.__dict__.get("_program") or time.process_time() - began < budget:
        model.fit(X / scale, y / y_scale)
        model.set_params(generations=model.generations + 1)
    return lambda X: y_scale * model.predict(X / scale), str(model._program), str(model._program)


SERVER = multiprocessing.get_context("forkserver")  # has imported the libraries once, and forks a process for each run
METHODS = {"kan": kan, "operon": operon, "gplearn": gplearn}
MODULES = {"kan": "kat_zoo.kan.sklearn.regressor", "operon": "pyoperon.sklearn", "gplearn": "gplearn.genetic"}


def run(law: Law, method: str, noise: float, seed: int, options: argparse.Namespace) -> dict:
    """One fit and its error on fresh rows."""
    generator = np.random.default_rng(seed)
    X, y = law.sample(ROWS, generator)
    X_new, y_new = law.sample(FRESH, generator)
    y = y + noise * y.std() * generator.standard_normal(len(y))
    if options.dummies:  # positive and over two decades, like most inputs
        X, X_new = (np.column_stack([x, np.exp(generator.uniform(-2.3, 2.3, (len(x), options.dummies)))]) for x in (X, X_new))
    importlib.import_module(MODULES[method])  # not part of the time
    began = time.process_time()
    predict, formula, printed = METHODS[method](X, y, seed, options.budget, law if options.units else None)
    seconds = time.process_time() - began
    with np.errstate(all="ignore"):
        error = float(np.nan_to_num(np.mean((predict(X_new) - y_new) ** 2) / y_new.var(), nan=math.inf))
    return {
        "recovered": int(error <= max(FOUND, (noise / 5) ** 2) and "phi_" not in formula),
        "error": f"{error:.1e}",
        "cpu_seconds": f"{seconds:.1f}",
        "length": length(printed) or "",
        "law_length": length(law.formula) or "",
        "formula": formula,
        "truth": law.formula,
    }


def _child(sender: Connection, law: Law, method: str, noise: float, seed: int, options: argparse.Namespace) -> None:
    try:
        sender.send(run(law, method, noise, seed, options))
    except Exception as error:
        sender.send({"recovered": 0, "error": "inf", "formula": f"{type(error).__name__}: {error}"})


def in_own_process(law: Law, name: str, method: str, noise: float, seed: int, options: argparse.Namespace) -> dict:
    """A row, from a process that ends with it."""
    receiver, sender = SERVER.Pipe(False)
    process = SERVER.Process(target=_child, args=(sender, law, method, noise, seed, options))
    process.start()
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:
        row = {"recovered": 0, "error": "inf", "formula": "the process died"}
    process.join()
    return {"law": name, "method": method, "noise": noise, "seed": seed, **row}


def summary(rows: list[dict]) -> None:
    """Print the share recovered by method and noise, how long the formulas are, and the laws that were lost."""
    for method, noise in sorted({(row["method"], float(row["noise"])) for row in rows}):
        part = [row for row in rows if row["method"] == method and float(row["noise"]) == noise]
        found = [row for row in part if int(row["recovered"])]
        seconds = float(np.median([float(row.get("cpu_seconds") or 0) for row in part]))
        ratios = [int(row["length"]) / int(row["law_length"]) for row in found if row.get("length") and row.get("law_length")]
        lost = sorted({row["law"] for row in part if not int(row["recovered"])})
        print(
            f"{method}, noise {noise:g}: {len(found)} of {len(part)} recovered ({100 * len(found) / len(part):.0f} %), "
            f"median {seconds:.1f} CPU s, median length {np.median(ratios) if ratios else math.nan:.2f} times the law's; lost: {lost}"
        )


def draw_shares(rows: list[dict], path: Path) -> None:
    """A picture of the share recovered against CPU seconds, a curve for each method and noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, noise in sorted({(row["method"], float(row["noise"])) for row in rows}):
        part = [row for row in rows if row["method"] == method and float(row["noise"]) == noise]
        times = sorted(float(row.get("cpu_seconds") or 0) for row in part if int(row["recovered"]))
        axes.step([0.01, *times], np.arange(len(times) + 1) / len(part), where="post", label=f"{method}, noise {noise:g}")
    axes.set(xscale="log", xlabel="CPU seconds", ylabel="share of laws recovered", ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=120)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, help="YAML file of laws in FastSRB's format; benchmarks/laws by default")
    parser.add_argument("--only", nargs="+", help="names of the laws to run")
    parser.add_argument("--peers", nargs="+", default=[], choices=["operon", "gplearn"])
    parser.add_argument("--budget", type=float, default=60, help="seconds for a law")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dummies", type=int, default=0, help="columns of noise that are added to the inputs")
    parser.add_argument("--units", action="store_true", help="give our estimator the units")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--out", type=Path, help="CSV file; by default one of benchmarks/results for each list, with units and without")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --out")
    options = parser.parse_args()
    kind = ("_catalogue" if options.catalogue else "") + ("_units" if options.units else "")
    options.out = options.out or Path(__file__).parent / "results" / f"kan_laws{kind}.csv"
    return options


def main() -> None:
    options = parse()
    laws = read_catalogue(options.catalogue) if options.catalogue else LAWS
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    SERVER.set_forkserver_preload(["pandas", *(MODULES[method] for method in ("kan", *options.peers))])
    unknown = sorted(set(options.only or ()) - set(laws))
    if unknown:
        raise SystemExit(f"--only {' '.join(unknown)}: expected names of laws, {', '.join(laws)}")
    rows: list[dict] = []
    if options.resume and options.out.exists():
        with options.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["law"], row["method"], float(row["noise"]), int(row["seed"])) for row in rows}
    keys = product(options.noise, range(options.seeds), options.only or laws, ["kan", *options.peers])
    tasks = [(name, method, noise, seed) for noise, seed, name, method in keys if (name, method, noise, seed) not in done]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(tasks), unit="run") as bar:
        for row in pool.map(lambda task: in_own_process(laws[task[0]], *task, options), tasks):
            bar.update()
            tqdm.write(json.dumps({k: v for k, v in row.items() if k != "truth"}))
            rows.append({k: v for k, v in row.items() if k not in ("formula", "truth") or not options.catalogue})
            with options.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)
    summary(rows)
    draw_shares(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
