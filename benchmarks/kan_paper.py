"""The experiments of the KAN paper (Liu et al., arXiv 2404.19756), one command each.

    python benchmarks/kan_paper.py toy          # section 3.1: grid extension, RMSE against G, exponent (theory 4)
    python benchmarks/kan_paper.py special      # table 1 on U[0, 1]^2, KAN, MLP and pykan at equal parameters
    python benchmarks/kan_paper.py feynman      # table 2 (dimensionless forms), the same
    python benchmarks/kan_paper.py poisson      # section 3.4: u = sin(pi x) sin(pi y^2), KAN and MLP PINNs
    python benchmarks/kan_paper.py continual    # section 3.5: five peaks one after another
    python benchmarks/kan_paper.py lan          # appendix B: image fitting, SIREN MLP, LAN, LAN from the MLP
    python benchmarks/kan_paper.py mobility     # section 4.4: mobility edges of three tight-binding models
    python benchmarks/kan_paper.py examples     # section 4.1: functions whose pruned networks can be read

Each writes kan_NAME_full.csv and kan_NAME_full.png into benchmarks/results (--out); with --small, the size for
continuous integration, a subset runs in minutes and the files are called kan_NAME_small. An interrupted command, called
again, goes on after the last part that ended (kan_NAME_full.runs, until all have). One thread unless --threads says
otherwise. pykan and the photograph come from the extra `bench`; where pykan is missing its rows are left out.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from paper.common import Rows, Runs
from paper.continual import continual
from paper.examples import examples
from paper.functions import feynman, special, toy
from paper.lan import lan
from paper.mobility import mobility
from paper.poisson import poisson

EXPERIMENTS: dict[str, Callable[[bool, Runs], tuple[Rows, Figure]]] = {
    experiment.__name__: experiment for experiment in (toy, special, feynman, poisson, continual, lan, mobility, examples)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--small", action="store_true", help="minutes instead of hours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.process_time()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"kan_{options.name}_{'small' if options.small else 'full'}"
    runs = Runs(stem.with_suffix(".runs"))
    rows, figure = EXPERIMENTS[options.name](options.small, runs)
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    figure.savefig(stem.with_suffix(".png"), dpi=130)
    runs.finish()
    for row in rows:
        print(row)
    print(f"{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
