"""Claim: a fitted estimator as C answers one row at least 10 times faster than its network; int8 tables are smaller than its parameters.

    python benchmarks/deploy.py                     # four tables, two minutes; -> benchmarks/results/deploy.csv
    python benchmarks/deploy.py --only friedman1    # some tables, printed and not written

Each model answers rows one by one: the estimator, its network in torch, and the programs of `kat_zoo.kan.deploy`. Beside them stands
a scaled MLP of scikit-learn, the smallest of one hidden layer whose score is within 0.01 of ours, or the best where none is, written
as C by this script and compiled by the same command. All take turns within each round of one process on one thread, and the least
time of all rounds counts, so that a busy machine hits all alike. C loops over the rows itself; the others are called from Python.

Sizes are those of the numbers that a program holds: constants of the C source, arrays, the ONNX file; of estimators and networks, their
parameters in single precision. The scores are R^2 or accuracy on the held-out quarter of the rows. ONNX Runtime is in the extra `export`.
"""

import argparse
import csv
import ctypes
import itertools
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tables_of_data import TABLES

HERE = Path(__file__).parent / "results"
FIELDS = ("table", "task", "columns", "splines", "model", "score", "bytes", "microseconds_a_row", "microseconds_over_c")
CHOSEN = ("friedman1", "diabetes", "tall", "breast cancer")
HIDDEN = (4, 8, 16, 32, 64, 128, 256)
CLOSE = 0.01
ROUNDS = 30
SLICE = 0.01  # seconds of a contestant in a round, about
ENTRIES = (64, 32, 16)
SIZES = {"double": 8, "float": 4, "int": 4, "unsigned short": 2, "signed char": 1}
OURS, NETWORK = "C", "network in torch"
Call = Callable[[np.ndarray], Any]


def c_of_mlp(pipeline: Any, link: str, outputs: int) -> str:
    """C source of a scikit-learn pipeline of StandardScaler and MLP: `void predict(const double *x, double *y)`."""
    from kat_zoo.kan.deploy.c import array

    scaler, mlp = pipeline[0], pipeline[-1]
    lines = ["#include <math.h>", array("double", "mean", scaler.mean_), array("double", "size", scaler.scale_)]
    for n, (weight, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        lines += [array("double", f"w{n}", weight.T), array("double", f"b{n}", bias)]
    sizes = [len(weight) for weight in mlp.coefs_] + [len(mlp.intercepts_[-1])]
    lines += ["void predict(const double *x, double *y)", "{", f"    double h0[{sizes[0]}];"]
    lines.append(f"    for (int i = 0; i < {sizes[0]}; i++) h0[i] = (x[i] - mean[i]) / size[i];")
    for n, (size, following) in enumerate(itertools.pairwise(sizes)):
        value = "s" if n == len(sizes) - 2 else "s > 0.0 ? s : 0.0"  # relu, the default
        lines += [
            f"    double h{n + 1}[{following}];",
            f"    for (int o = 0; o < {following}; o++) {{",
            f"        double s = b{n}[o];",
            f"        for (int i = 0; i < {size}; i++) s += w{n}[o * {size} + i] * h{n}[i];",
            f"        h{n + 1}[o] = {value};",
            "    }",
        ]
    last = f"h{len(sizes) - 1}"
    if link == "sigmoid":
        lines += [f"    y[1] = 1.0 / (1.0 + exp(-{last}[0]));", "    y[0] = 1.0 - y[1];"]
    else:
        lines.append(f"    for (int o = 0; o < {outputs}; o++) y[o] = {last}[o];")
    return "\n".join([*lines, "}", ""])


def compiled(source: str, folder: Path, columns: int, width: int) -> Call:
    """A function of rows (N, columns) that calls `predict` of a C source for each of them."""
    loop = (
        f"void many(const double *x, double *y, long n) {{ for (long r = 0; r < n; r++) predict(x + r * {columns}, y + r * {width}); }}\n"
    )
    path = Path(tempfile.mkdtemp(dir=folder))
    (path / "model.c").write_text(source + loop)
    # noinline keeps the call of each row; the flags are those of a release.
    command = ["cc", "-std=c99", "-O2", "-fno-inline", "-shared", "-fPIC", "model.c", "-o", "model.so", "-lm"]
    subprocess.run(command, cwd=path, check=True)
    function = ctypes.CDLL(str(path / "model.so")).many
    pointer = ctypes.POINTER(ctypes.c_double)
    function.argtypes = [pointer, pointer, ctypes.c_long]

    def call(x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), width))
        function(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), len(x))
        return y

    return call


def constants(source: str) -> int:
    """Bytes of the constant arrays of a C source."""
    found = re.findall(r"static const ([a-z ]+) \w+\[(\d+)\]", source)
    return sum(SIZES[kind] * int(count) for kind, count in found)


def one_by_one(call: Call) -> Call:
    """A function of rows that calls another one for each of them."""

    def every(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(call(x[n : n + 1])).reshape(1, -1) for n in range(len(x))])

    return every


def equal_mlp(task: str, wanted: float, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Any:
    """The smallest scaled MLP as good as wanted on the test rows, or the best one."""
    from sklearn import neural_network
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind = neural_network.MLPRegressor if task == "regression" else neural_network.MLPClassifier
    best, most = None, -np.inf
    for hidden in HIDDEN:
        model = make_pipeline(StandardScaler(), kind(hidden_layer_sizes=(hidden,), max_iter=2000, random_state=0)).fit(*train)
        score = model.score(*test)
        if score > most:
            best, most = model, score
        if score >= wanted - CLOSE:
            return model
    return best


def contestants(name: str, folder: Path) -> tuple[dict[str, tuple[Call, int]], tuple[np.ndarray, np.ndarray], str, int]:
    """Functions of rows and their sizes in bytes by name, test rows and targets, task, and number of splines."""
    import onnxruntime
    import torch
    from sklearn.model_selection import train_test_split

    from kat_zoo.kan import KANClassifier, KANRegressor
    from kat_zoo.kan.deploy import to_c, to_int8, to_numpy, to_onnx, to_torch

    task, make = TABLES[name]
    X, y, truth = make()
    rows = train_test_split(np.arange(len(X)), random_state=0, stratify=y if task == "classification" else None)
    train, test = ((np.ascontiguousarray(X[part]), target[part]) for part, target in zip(rows, (y, truth), strict=True))
    model = (KANRegressor if task == "regression" else KANClassifier)(hidden=()).fit(*train)
    mlp = equal_mlp(task, model.score(*test), train, test)
    program, module, network = to_numpy(model), to_torch(model), model.network_
    to_onnx(model, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    predict = "predict" if task == "regression" else "predict_proba"
    width = program(test[0][:1]).shape[1]
    layer = program.layers[0]
    parameters = 4 * len(layer.edges) * network.layers[0].spline.coef.shape[1]

    def in_torch(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return program.answer(network(torch.from_numpy(program.scaled(x))).numpy())

    def in_module(x: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    found = {
        "estimator": (one_by_one(getattr(model, predict)), parameters),
        NETWORK: (one_by_one(in_torch), parameters),
        "torch module": (one_by_one(in_module), sum(b.numel() * b.element_size() for b in module.buffers())),
        "NumPy": (one_by_one(program), sum(a.nbytes for one in program.layers for a in (one.ends, one.origins, one.edges, one.pieces))),
        "ONNX Runtime": (one_by_one(lambda x: session.run(None, {"x": x})[0]), (folder / "model.onnx").stat().st_size),
    }
    sources = {OURS: to_c(model)} | {f"C, int8, {n} entries": to_int8(model, n).to_c() for n in ENTRIES}
    hidden = mlp[-1].hidden_layer_sizes[0]
    sources[f"C of an MLP, {hidden} hidden"] = c_of_mlp(mlp, program.link, width)
    found |= {key: (compiled(source, folder, X.shape[1], width), constants(source)) for key, source in sources.items()}
    found[f"MLP, {hidden} hidden"] = (
        one_by_one(getattr(mlp, predict)),
        sum(4 * part.size for part in (*mlp[-1].coefs_, *mlp[-1].intercepts_)),
    )
    return found, test, task, len(layer.edges)


def least_seconds(calls: dict[str, Call], X: np.ndarray) -> dict[str, float]:
    """Least processor seconds a row of each function, called in turns."""
    rows = {}
    for name, call in calls.items():
        began = time.perf_counter()
        call(X[:20])
        call(X[:20])
        count = int(SLICE / max((time.perf_counter() - began) / 40, 1e-8))
        rows[name] = np.ascontiguousarray(np.resize(X, (min(max(count, 5), 20000), X.shape[1])))
    least = dict.fromkeys(calls, np.inf)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.process_time()
            call(rows[name])
            least[name] = min(least[name], (time.process_time() - began) / len(rows[name]))
    return least


def score(task: str, answer: np.ndarray, truth: np.ndarray) -> float:
    """R^2 of predictions (N, 1), or accuracy of probabilities (N, classes)."""
    from sklearn.metrics import r2_score

    if task == "classification":
        return float(np.mean(answer.argmax(1) == truth))
    return float(r2_score(truth, answer[:, 0]))


def measure(name: str) -> list[tuple[Any, ...]]:
    """Rows of a table."""
    with tempfile.TemporaryDirectory() as folder:
        found, (X, truth), task, splines = contestants(name, Path(folder))
        seconds = least_seconds({key: call for key, (call, _) in found.items()}, X)
        lines = []
        for key, (call, size) in found.items():
            ratio = seconds[key] / seconds[OURS]
            lines.append(
                (
                    name,
                    task,
                    X.shape[1],
                    splines,
                    key,
                    f"{score(task, call(X), truth):.4f}",
                    size,
                    f"{1e6 * seconds[key]:.3f}",
                    f"{ratio:.2f}",
                )
            )
    return lines


def goals(rows: list[dict[str, str]]) -> list[str]:
    """The claims on each table: time of the network over that of C, and size of 64 entries over that of the parameters."""
    lines = []
    for name in dict.fromkeys(row["table"] for row in rows):
        own = {row["model"]: row for row in rows if row["table"] == name}
        faster = float(own[NETWORK]["microseconds_a_row"]) / float(own[OURS]["microseconds_a_row"])
        larger = int(own[f"C, int8, {ENTRIES[0]} entries"]["bytes"]) / int(own[NETWORK]["bytes"])
        lines.append(f"{name}: C is {faster:.0f} times as fast as the network; int8 has {larger:.2f} times the size of its parameters")
    return lines


def main() -> None:
    import torch
    from threadpoolctl import threadpool_limits

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHOSEN, metavar="TABLE", help=", ".join(CHOSEN))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # convergence of the peers
    lines: list[tuple[Any, ...]] = []
    for name in options.only or CHOSEN:
        with threadpool_limits(1):
            own = measure(name)
        lines += own
        print(*(f"{line[0]:14} {line[4]:24} {line[5]:>8} {line[6]:>9} bytes {line[7]:>10} us" for line in own), sep="\n")
    print(*goals([dict(zip(FIELDS, map(str, line), strict=True)) for line in lines]), sep="\n")
    if options.only is None:
        with (HERE / "deploy.csv").open("w", newline="") as file:
            csv.writer(file).writerows([FIELDS, *lines])


if __name__ == "__main__":
    main()
