"""FlashKAT's rational kernels beside ours, compiled ahead of time and counted alike.

    git clone https://github.com/OSU-STARLAB/FlashKAT
    python benchmarks/flashkat.py FlashKAT        # benchmarks/results/flashkat.json; no GPU is needed

The kernels of the clone are compiled as its own launchers ask for them, at the shapes of `kat-zoo kernels report`: its code is run
from where it is, and none of it is part of this repository. It computes in float32 whatever the dtype, so float32 is compared.
"""

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import torch

from kat_zoo.kernels import report

KERNELS = Path("rational_kat/kernels/flash_rational_triton.py")
OUT = Path(__file__).parent / "results" / "flashkat.json"
ARCHS = ("sm_80", "sm_90")


def load(clone: Path) -> ModuleType:
    if not (clone / KERNELS).is_file():
        raise SystemExit(f"{clone}: expected a clone of FlashKAT with {KERNELS}")
    spec = importlib.util.spec_from_file_location("flashkat_kernels", clone / KERNELS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operator(kernels: ModuleType) -> report.Operator:
    def launch(dtype: torch.dtype, width: int) -> int:
        x = torch.empty(report.BATCH, report.TOKENS, report.GROUPS * width, dtype=dtype)
        numerator, denominator = torch.zeros(report.GROUPS, 6), torch.zeros(report.GROUPS, 4)
        kernels.rational_fwd_triton(x, numerator, denominator)
        kernels.rational_bwd_triton(torch.empty_like(x), x, numerator, denominator)
        return x.numel()

    return report.Operator(launch, report.KERNELS["rational"].widths, dtypes=("float32",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="folder of a clone of FlashKAT")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report.KERNELS["flashkat"] = operator(load(options.clone))
    rows = [
        {"from": origin} | row
        for origin, kernel in (("FlashKAT", "flashkat"), ("kat_zoo", "rational"))
        for row in report.rows(ARCHS, [kernel], ["float32"])
        if not str(row["kernel"]).endswith("reduce")  # ours alone: a few hundred numbers
    ]
    print(report.render(rows))
    options.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
