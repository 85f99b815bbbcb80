"""Write a run's weights as float16, the way they ship: `.venv/bin/python benchmarks/ship_weights.py RUN/model.safetensors OUT`."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from kat_zoo.train.core.checkpoint import save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = load_file(arguments.weights)
    save_weights({name: value.to(torch.float16) for name, value in weights.items()}, arguments.out)
    # Half precision rounds: how much, relative to the largest weight of each tensor.
    worst = max(((v - v.half().float()).abs().max() / v.abs().max().clamp(min=1e-12)).item() for v in weights.values())
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, largest relative rounding {worst:.1e}")


if __name__ == "__main__":
    main()
