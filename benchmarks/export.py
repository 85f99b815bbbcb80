"""Captured and exported KAT-T against the eager model: file sizes, largest difference, milliseconds per batch.

    python benchmarks/export.py --folder /tmp/exported --csv benchmarks/export.csv

`fx`, `script` and `compile` (inductor) are captured in this process, the others read from files; files that are in the folder
already are timed as they are. Runs are interleaved, each turn in another order; the table has the medians of their times.
"""

import argparse
import csv
import random
import statistics
import time
from pathlib import Path

import timm
import torch

from kat_zoo import export

WRITERS = {"pt2": export.to_pt2, "onnx": export.to_onnx, "aoti": export.to_aoti}


def write(model, images, folder, name):
    """Path of each format's file, and how long writing it took (None if it was there)."""
    files = {}
    for form, writer in WRITERS.items():
        path, seconds = folder / f"{name}{export.FORMATS[form]}", None
        if not path.exists():
            start = time.perf_counter()
            writer(model, images, path)
            seconds = round(time.perf_counter() - start, 1)
        files[form] = (path, seconds)
    return files


def measure(functions, images, repeats):
    """Median milliseconds of each function, one call of each in turn."""
    times, order = {name: [] for name in functions}, random.Random(0)
    with torch.inference_mode():
        for round_ in range(repeats + 1):
            for name in order.sample(list(functions), len(functions)):
                start = time.perf_counter()
                functions[name](images)
                if round_:  # the first warms up
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="kat_tiny_patch16_224")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model(options.model).eval()
    torch.nn.init.trunc_normal_(model.head.weight, std=0.02)
    options.folder.mkdir(parents=True, exist_ok=True)
    weights = options.folder / f"{options.model}.pth"
    if weights.exists():  # the files were written with these
        model.load_state_dict(torch.load(weights, weights_only=True))
    torch.save(model.state_dict(), weights)
    size = timm.data.resolve_model_data_config(model)["input_size"]
    files = write(model, torch.randn(2, *size), options.folder, options.model)
    captured = {"fx": torch.fx.symbolic_trace(model), "script": torch.jit.script(model), "compile": torch.compile(model, fullgraph=True)}
    functions = {"eager": model, **captured, **{form: export.load(path, form) for form, (path, _) in files.items()}}
    rows = []
    for batch_size in options.batch_size:
        images = torch.randn(batch_size, *size)
        with torch.inference_mode():
            outputs = {name: function(images) for name, function in functions.items()}
        times = measure(functions, images, options.repeats)
        for name in functions:
            difference = (outputs[name] - outputs["eager"]).abs().max() / outputs["eager"].abs().max()
            if difference > 1e-5:
                raise SystemExit(f"{name} differs from the model by {difference:.1e}: nothing is reported")
            rows.append(
                {
                    "model": options.model,
                    "format": name,
                    "MB": round(files[name][0].stat().st_size / 1e6, 2) if name in files else "",
                    "batch": batch_size,
                    "threads": torch.get_num_threads(),
                    "ms": round(times[name], 1),
                    "time / eager": round(times[name] / times["eager"], 3),
                    "difference": f"{difference:.1e}",
                }
            )
            print(*rows[-1].values(), sep="\t")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    for form, (_, seconds) in files.items():
        if seconds is not None:
            print(f"writing {form} took {seconds} s")


if __name__ == "__main__":
    main()
