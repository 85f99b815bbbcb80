"""Sections of docs/results.md on formulas and tables, each a function that returns its lines; `readme.py` writes them."""

import statistics

import tables
from readme_data import HERE, prose, rows, table


def formulas() -> list[str]:
    data = [row for row in rows("results/kan_formula_summary.csv") if row["target"] != "all"]
    lines = [
        (
            row["target"],
            "1 %" if float(row["noise"]) else "",
            f"{row['right']} of {row['seeds']}",
            row["median_rmse"],
            row["median_cpu_seconds"],
        )
        for row in data
    ]
    right, seeds = (sum(int(row[key]) for row in data if float(row["noise"])) for key in ("right", "seeds"))
    return [
        *prose(f"""
            1,000 samples, on a busy, slower machine with AVX2. A formula counts if it is symbolic and its RMSE on fresh rows is below
            1e-6 without noise, and with noise below a fifth of it: {right} of {seeds}. Options for the other rows: `--targets distance
            --seeds 8`, `--seeds 4`, `--seeds 4 --noise 0.01`.
        """),
        "",
        *table(("target", "noise", "right", "RMSE, median", "CPU seconds, median"), lines),
    ]


def laws() -> list[str]:
    names = {"kan": "kat_zoo", "operon": "pyoperon 0.6", "gplearn": "gplearn 0.4"}
    lists = {
        "kan_laws.csv": "own, 40 laws",
        "kan_laws_catalogue.csv": "FastSRB, 76 laws",
        "kan_laws_catalogue_units.csv": "FastSRB, units given",
    }
    lines, lost = [], []
    for file, label in lists.items():
        if not (HERE / "results" / file).exists():
            continue
        data = rows(f"results/{file}")
        for noise, method in sorted(
            {(float(row["noise"]), row["method"]) for row in data}, key=lambda key: (key[0], list(names).index(key[1]))
        ):
            part = [row for row in data if (float(row["noise"]), row["method"]) == (noise, method)]
            found = [row for row in part if int(row["recovered"])]
            seconds = [float(row["cpu_seconds"] or 0) for row in part]
            ratios = [int(row["length"]) / int(row["law_length"]) for row in found if row["length"] and row["law_length"]]
            length = f"{statistics.median(ratios):.2f}" if ratios else ""
            share = f"{len(found)} of {len(part)} ({100 * len(found) / len(part):.0f} %)"
            seeds = len({row["seed"] for row in part})
            lines.append((label, names[method], f"{100 * noise:g} %", f"{seeds}", share, f"{statistics.median(seconds):.1f}", length))
            if method == "kan":
                missing = sorted({row["law"] for row in part if not int(row["recovered"])})  # for one seed or more
                lost.append(f"{label}, {100 * noise:g} % noise: {', '.join(missing) or 'none'}")
    head = ("laws", "method", "noise", "seeds", "recovered", "median CPU s", "length over the law's")
    return [
        *prose("""
            1,000 rows, one thread, 10 CPU seconds a law for each method, on a machine that did other work as well. A law counts as
            recovered where the formula has a relative squared error of at most 1.2e-7 on 2,000 fresh rows of the same box and no undefined
            function; with noise s, of at most (s / 5)^2. That is the measure of published comparisons; an approximation as good as that
            counts, too. Peers see inputs and values divided by their sizes. Operon starts anew every quarter of its time, and the start
            with the least error on held-out rows counts. The search was developed while both lists, our own and 76 laws of FastSRB (arXiv
            2508.14481), were in sight, so the rows say little about laws that nobody has seen. The rows of
            FastSRB add `--catalogue FILE`, those with units given are of `--budget 10 --seeds 3 --catalogue FILE --units`, and gplearn's of
            `--budget 10 --resume --peers gplearn`. FILE is src/expressions.yaml of github.com/viktmar/FastSRB (MIT); `--only` and the
            names in `benchmarks/results/kan_laws_catalogue.csv` choose the 76 of its 120 laws. None of its formulas is checked in.
        """),
        "",
        *table(head, lines),
        "",
        "Lost by ours for one seed or more:",
        "",
        *(f"* {line}" for line in lost),
        "",
        "![Share of the own laws recovered against CPU seconds](../benchmarks/results/kan_laws.png)",
    ]


def small_tables() -> list[str]:
    found = tables.scores(rows("results/tables.csv"))
    close = [(name, f"{rank:.2f}", f"{close} of {count}", f"{seconds:.2f}") for name, rank, close, count, seconds in tables.overview(found)]
    names = [name for name in tables.MODELS if any(name in values for values in found.values())]
    lines = [
        (table, *(f"{values[name][0]:.3f} ({values[name][1]:.2g})" if name in values else "" for name in names))
        for table, values in found.items()
    ]
    return [
        *prose(f"""
            Untuned, 5 folds twice: R^2 of regressors, accuracy of classifiers, CPU seconds of a fit in parentheses (on a busy machine, so
            upper readings). Lost by more than 0.01: {", ".join(tables.losses(found)) or "none"}. EBM was not run
            on {", ".join(name for name, values in found.items() if "EBM" not in values)}.
        """),
        "",
        *table(("model", "mean rank", "within 0.01 of the best", "CPU seconds a fit, median"), close),
        "",
        *table(("table", *names), lines),
        "",
        "![Distance of each model from the best of its table](../benchmarks/results/tables.png)",
    ]
