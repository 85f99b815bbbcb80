"""Do the tests bite? Changes one place of a module at a time and runs the module's tests, which must fail.

    make test-mutants                             # samples of 40 places of four rooms, two to four hours of one core
    .venv/bin/python tests/mutants.py --report    # what was found so far

The changes are cosmic-ray's: an operator, a comparison, a number, a condition, a loop, a decorator. A place is drawn first, then its
change, so that a sum with six other operators counts no more than a `not`. Places in annotations and error messages are left out.
Results go to build/mutants/ROOM.csv; a place that stands there is not tried again, unless `--again` asks for the survivors.

Each change is made in a copy of the package, found before the installed one by PYTHONPATH; TorchScript and Triton read the changed
source from there. The tests run in a fork of this process, which has imported PyTorch and differentiated nothing.
"""

import argparse
import ast
import compileall
import contextlib
import csv
import fnmatch
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "mutants"
COLUMNS = ("module", "line", "column", "change", "before", "after", "result", "seconds", "killed_by")
LIMIT = 400  # seconds for the tests of a module

# Room -> pattern of its modules; `*` crosses folders.
ROOMS = {
    "layers": "layers/*.py",
    "kernels": "kernels/*.py",
    "kan": "kan/*.py",
    "train": "train/core/*.py",
}

# Pattern of a module -> its tests, quick ones first; the first pattern that fits counts.
LAYERS = "layers/test_arguments.py layers/test_initial_values.py layers/test_any_layer.py"
OPERATORS = "kernels/test_any_input.py kernels/test_batching.py kernels/test_derivatives.py kernels/test_autocast.py"
TESTS = {
    "layers/rational_fit.py": "layers/test_rational_fit.py layers/test_rational.py",
    "layers/rational.py": f"layers/test_rational.py {LAYERS} models/test_kat.py",
    "layers/gr_kan.py": f"layers/test_rational.py layers/test_gr_kan_inplace.py {LAYERS} models/test_kat.py",
    "layers/init.py": "layers/test_rational.py layers/test_rational_fit.py models/test_kat.py models/test_karat.py "
    "models/test_baselines.py",
    "layers/spline*.py": f"layers/test_spline.py {LAYERS} models/test_materialized.py kernels/test_bspline_knots.py kan/test_network.py",
    "layers/mixers.py": f"{LAYERS} models/test_baselines.py models/test_karat_general.py",
    "layers/learned_attention/*.py": f"{LAYERS} models/test_karat_operators.py models/test_karat_general.py models/test_karat.py "
    "models/test_grids.py",
    "layers/*.py": "layers models/test_karat_operators.py models/test_karat.py",
    "kernels/bspline*triton*.py": "kernels/test_bspline_triton.py kernels/test_bspline_aot.py",
    "kernels/rational*triton*.py": "kernels/test_rational_triton.py kernels/test_rational_aot.py",
    "kernels/fourier*triton*.py": "kernels/test_fourier_attention_triton.py kernels/test_fourier_attention_aot.py",
    "kernels/bspline*.py": f"kernels/test_bspline.py kernels/test_bspline_knots.py {OPERATORS} kernels/test_bspline_triton.py",
    "kernels/rational*.py": f"kernels/test_rational.py {OPERATORS} kernels/test_rational_triton.py",
    "kernels/fourier*.py": f"kernels/test_fourier_attention.py {OPERATORS} kernels/test_fourier_attention_triton.py",
    "kernels/hub_*.py": "layers/test_hub_layers.py kernels/test_hub_export.py",
    "kernels/occupancy.py": "kernels/test_occupancy.py",
    "kernels/assembly.py": "kernels/test_occupancy.py kernels/test_report.py kernels/test_bspline_aot.py kernels/test_rational_aot.py",
    "kernels/report.py": "kernels/test_report.py kernels/test_bspline_aot.py kernels/test_rational_aot.py",
    "kernels/command.py": "kernels/test_report.py",
    "kernels/aot.py": "kernels/test_compilers.py kernels/test_bspline_aot.py kernels/test_rational_aot.py",
    "kernels/cpu_library.py": "kernels/test_dispatch.py kernels/test_compilers.py kernels/test_fork.py kernels/test_any_input.py",
    "kernels/*.py": f"kernels/test_dispatch.py {OPERATORS} kernels/test_fourier_attention.py kernels/test_rational.py",
    "kan/gam/*.py": "kan/test_tables.py kan/test_hostile_tables.py kan/test_deploy.py kan/test_regressor.py",
    "kan/deploy/*.py": "kan/test_deploy.py",
    "kan/migration.py": "kan/test_migration.py",
    "kan/sklearn/[cinr]*.py": "kan/test_tables.py kan/test_hostile_tables.py kan/test_deploy.py kan/test_regressor.py "
    "kan/test_bad_arguments.py "
    "kan/test_estimator_features.py",
    "kan/sklearn/*.py": "kan/test_estimator_features.py kan/test_stop.py kan/test_bad_arguments.py kan/test_units.py "
    "kan/test_tables.py kan/test_hostile_tables.py kan/test_regressor.py",
    "kan/search/*.py": "kan/test_search.py kan/test_closed_form.py kan/test_guided.py kan/test_units.py",
    "kan/formula/*.py": "kan/test_tidy.py kan/test_formula.py kan/test_symbolic.py kan/test_units.py",
    "kan/operations/files.py": "kan/test_files.py kan/test_bad_arguments.py",
    "kan/operations/plot.py": "kan/test_plot.py",
    "kan/operations/charts.py": "kan/test_plot.py kan/test_structure.py kan/test_symbolic.py",
    "kan/operations/pruning.py": "kan/test_pruning.py kan/test_bad_arguments.py kan/test_structure.py",
    "kan/operations/symbolic.py": "kan/test_symbolic.py kan/test_bad_arguments.py kan/test_structure.py",
    "kan/lan.py": "kan/test_lan.py kan/test_bad_arguments.py",
    "kan/command.py": "kan/test_command.py",
    "kan/library.py": "kan/test_symbolic.py kan/test_network.py",
    "kan/tables.py": "kan/test_network.py kan/test_files.py kan/test_structure.py",
    "kan/operations/[dfnl]*.py": "kan/test_training.py kan/test_structure.py kan/test_network.py kan/test_bad_arguments.py",
    "kan/*.py": "kan/test_migration.py kan/test_network.py kan/test_structure.py kan/test_bad_arguments.py kan/test_pruning.py "
    "kan/test_training.py kan/test_torch_features.py kan/test_state_machine.py",
    "train/core/config.py": "train/test_defaults.py train/test_config.py train/test_recipes.py",
    "train/core/explain.py": "train/test_config.py train/test_recipes.py train/test_hostile.py",
    "train/core/yaml_file.py": "train/test_hostile.py train/test_config.py",
    "train/core/ranges.py": "train/test_config.py train/test_hostile.py",
    "train/core/images.py": "train/test_orientation.py train/test_damaged_pictures.py train/test_segmentation_data.py "
    "train/test_detection_data.py train/test_data.py test_images.py",
    "train/core/workers.py": "train/test_workers.py train/test_guards.py train/test_loader.py",
    "train/core/zero.py": "train/test_zero.py",
    "train/core/*.py": "train/test_defaults.py train/test_ends.py train/test_no_synchronization.py train/test_guards.py "
    "train/test_resume.py "
    "train/test_run_folder.py train/test_config.py train/test_classification.py train/test_loader.py train/test_launch.py "
    "train/test_distributed.py train/test_hub_data.py train/test_modes.py",
}


# Room -> libraries that are imported once, before the forks. Not those that pytest wants to import itself: hypothesis, and anyio by timm.
PRELOADED = {"kan": ("matplotlib.figure", "pandas", "scipy.optimize", "scipy.stats", "sklearn.pipeline", "sympy")}


def tests_of(module: str) -> list[str]:
    """The test files of a module."""
    names = next(tests for pattern, tests in TESTS.items() if fnmatch.fnmatch(module, pattern))
    return [str(ROOT / "tests" / name) for name in names.split()]


def left_out(tree: ast.Module) -> Iterator[ast.AST]:
    """What no test should have to tell apart: annotations, messages, imports for the type checker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.returns
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node


def worth(name: str) -> bool:
    """Whether a change of cosmic-ray is one that a person could make: `+` to `-`, not `+` to `>>`, nor `==` to `is`."""
    if found := re.fullmatch(r"core/ReplaceBinaryOperator_(\w+)_(\w+)", name):
        return (found[1] in BITS) == (found[2] in BITS)
    if found := re.fullmatch(r"core/ReplaceComparisonOperator_(\w+)_(\w+)", name):
        return found[1].startswith("Is") == found[2].startswith("Is")
    return not name.endswith(("_UAdd", "_Invert", "VariableInserter", "VariableReplacer"))


BITS = ("BitAnd", "BitOr", "BitXor", "LShift", "RShift")


def places(source: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Line and column -> the changes that can be made there, each an operator of cosmic-ray and which of its occurrences it is."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    excluded = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in left_out(ast.parse(source))]
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(filter(worth, operator_names())):
        operator = get_operator(name)()
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(positions):
            if not any(first <= start < last for first, last in excluded):
                found.setdefault(start, []).append((name, occurrence))
    return found


def sample(tree: Path, room: str, number: int) -> list[tuple[str, tuple[int, int], tuple[str, int]]]:
    """Module, place and change, drawn by a hash of the line: the sample stays the same where the rest of the code changes."""
    package = tree / "kat_zoo"
    modules = [path for path in sorted(package.rglob("*.py")) if fnmatch.fnmatch(str(path.relative_to(package)), ROOMS[room])]
    drawn = []
    for path in modules:
        source, module = path.read_text(), str(path.relative_to(package))
        lines = source.splitlines()
        for (line, column), changes in places(source).items():
            key = int.from_bytes(hashlib.sha256(f"{module} {lines[line - 1]} {column}".encode()).digest()[:8], "big")
            drawn.append((key, module, (line, column), changes[key % len(changes)]))
    return [entry[1:] for entry in sorted(drawn)[:number]]


def copy(tree: Path) -> None:
    """The package as an installation would lay it out, compiled."""
    shutil.rmtree(tree, ignore_errors=True)
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kat_zoo", tree / "kat_zoo", ignore=without_caches)
    for name in ("kernels", "train"):
        shutil.copytree(ROOT / name, tree / "kat_zoo" / name, ignore=without_caches)
    compileall.compile_dir(tree, quiet=1)


def run_tests(tree: Path, tests: list[str], log: Path) -> tuple[str, str]:
    """Run tests in a fork, on the package in `tree`.

    Returns:
        "survived", "killed", or "too long", which on a busy machine may be either, and the test that failed first.
    """
    child = os.fork()
    if not child:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path.insert(0, str(tree))
        os.chdir(tree)  # `python -c` in a test looks there first
        import pytest

        code = 70
        with contextlib.suppress(Exception):  # an error of pytest's own is told apart from a test that fails
            code = int(pytest.main(["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not gpu and not slow", *tests]))
        sys.stdout.flush()
        os._exit(code)
    began, status = time.monotonic(), None
    while status is None and time.monotonic() - began < LIMIT:
        done, status = os.waitpid(child, os.WNOHANG)
        status = status if done else None
        time.sleep(0.1)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "too long", ""
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status) > 5:
        raise SystemExit(f"pytest ended with status {status}: see {log}")
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", log.read_text(errors="replace"), re.MULTILINE)
    if os.WEXITSTATUS(status) == 0:
        return "survived", ""
    return "killed", failed[1].removeprefix("../../../tests/") if failed else "import"


def try_room(room: str, number: int, again: bool) -> None:
    """Try the sample of a room, and add each result to its table."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    for name in PRELOADED.get(room, ()):
        importlib.import_module(name)
    tree, table = FOLDER / room, FOLDER / f"{room}.csv"
    copy(tree)
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    known = {(row["module"], row["change"], row["before"], row["after"], row["column"]): row for row in rows}
    for module, (line, column), (name, occurrence) in sample(tree, room, number):
        path = tree / "kat_zoo" / module
        source = path.read_text()
        changed = mutate_code(source, get_operator(name)(), occurrence)
        lines = zip(source.splitlines(), changed.splitlines(), strict=False)
        before, after = next((a.strip(), b.strip()) for a, b in lines if a != b)
        change = name.removeprefix("core/")
        key = (module, change, before, after, str(column))
        if key in known and not (again and known[key]["result"] != "killed"):
            continue
        path.write_text(changed)
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        began = time.monotonic()
        try:
            result, test = run_tests(tree, tests_of(module), FOLDER / f"{room}.log")
        finally:
            path.write_text(source)
        values = (module, line, column, change, before, after, result, f"{time.monotonic() - began:.0f}", test)
        known[key] = dict(zip(COLUMNS, map(str, values), strict=True))
        write(table, list(known.values()))
        print(room, module, line, change, "|", before, "->", after, "|", result, test, flush=True)


def write(table: Path, rows: list[dict[str, str]]) -> None:
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def report() -> None:
    """Print how many changes were found in each room, and the ones that were not."""
    for table in sorted(FOLDER.glob("*.csv")):
        rows = list(csv.DictReader(table.open()))
        alive = [row for row in rows if row["result"] != "killed"]
        print(f"{table.stem}: {len(rows) - len(alive)} of {len(rows)} found, {1 - len(alive) / max(1, len(rows)):.0%}")
        for row in alive:
            print(f"  {row['module']}:{row['line']}: {row['before']}  ->  {row['after']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", choices=[*ROOMS, []], help="rooms, each in a process of its own")
    parser.add_argument("--number", type=int, default=40, help="places in each room; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="try the survivors again")
    parser.add_argument("--report", action="store_true", help="only print the results")
    options = parser.parse_args()
    missing = {name for names in TESTS.values() for name in names.split() if not (ROOT / "tests" / name).exists()}
    if missing:  # pytest would end with an error, which reads as a change that was found
        parser.error(f"TESTS has {', '.join(sorted(missing))}: expected files in tests/")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for room in options.rooms:
        try_room(room, options.number, options.again)
    report()


if __name__ == "__main__":
    # As tests/conftest.py: Triton reads this when it is imported, which PyTorch does below.
    os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import torch  # noqa: F401

    main()
