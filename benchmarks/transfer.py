"""`kat_zoo.vit_to_kat` on a pretrained ViT and photographs: errors on photographs it was not calibrated on, and CPU seconds.

    python benchmarks/transfer.py --wheels WHEELS --csv benchmarks/results/transfer.csv

WHEELS is the folder that the command at the top of dinov2.py fills: a derivative of DINOv2 ViT-S/14 (Apache-2.0), 16 views to calibrate
on, 20 held out. `features` is |difference| / |features| over all tokens after the last norm, `cosine` the smallest of a class
token's. `tag` is kat_small_patch14_dinov2.lvd142m, made of the weights alone while they load. `worst_output` is the largest error
of an MLP's own output on the views of the calibration.
"""

import argparse
import time
from pathlib import Path

import torch
from dinov2 import CALIBRATION, HELD_OUT, load_photographs, load_tag, load_vit, write_rows

from kat_zoo import vit_to_kat
from kat_zoo.transfer.calibration import observe

COLUMNS = ("fit", "order", "images", "features", "class_token", "cosine", "worst_output", "cpu_seconds")
ORDERS = ((5, 4), (7, 6), (8, 7))


def measure(kat, expected, images):
    """Errors of a KAT's features."""
    with torch.inference_mode():
        y = kat.forward_features(images).double()
    difference = y - expected
    return {
        "features": f"{(difference.norm() / expected.norm()).item():.2e}",
        "class_token": f"{(difference[:, 0].norm() / expected[:, 0].norm()).item():.2e}",
        "cosine": f"{torch.cosine_similarity(y[:, 0], expected[:, 0]).min().item():.7f}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    vit = load_vit(options.wheels)
    calibration, held_out = (load_photographs(options.wheels, names) for names in (CALIBRATION, HELD_OUT))
    with torch.inference_mode():
        inputs, _ = observe(vit, {f"{i}": (block.mlp, -1) for i, block in enumerate(vit.blocks)}, [held_out])
        expected = vit.forward_features(held_out).double()
    reaches = [one.reach.max().item() for one in inputs.values()]
    print(f"inputs of the MLPs reach {min(reaches):.0f} to {max(reaches):.0f}")
    cases = [("default", (5, 4), None)] + [("calibrated", order, calibration) for order in ORDERS]
    rows = []
    for fit, order, images in cases:
        start = time.process_time()
        kat, report = vit_to_kat(vit, images, order=order)
        row = {"fit": fit, "order": "/".join(map(str, order)), "images": 0 if images is None else len(images)}
        row.update(cpu_seconds=round(time.process_time() - start, 1), **measure(kat, expected, held_out))
        row["worst_output"] = f"{max(block.output_error for block in report.blocks):.1e}"
        rows.append(row)
        print(row, report, sep="\n", flush=True)
    start = time.process_time()
    kat = load_tag(options.wheels)
    rows.insert(1, {"fit": "tag", "order": "8/7", "images": 0, "cpu_seconds": round(time.process_time() - start, 1)})
    rows[1].update(measure(kat, expected, held_out))
    write_rows(options.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
