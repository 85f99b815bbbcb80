"""`kat_zoo.to_kat` on every architecture of timm up to 60 million parameters: how far the converted model is from its model.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/to_kat.py --csv benchmarks/results/to_kat.csv --minutes 10

One thread: matrices this small gain nothing by more, which wait for each other instead. The weights are random, at the scale of
trained ones: every first layer of an MLP is scaled until its outputs have a standard deviation of 0.7 to 2.9 (those of DINOv2 ViT-S/14)
around a mean below 0, every second layer until its outputs have a standard deviation of 1, and layer scales become 0.5. Images are
smooth noise: 2 to calibrate on, 2 held out. `features` is the relative error of the pooled features of the latter, `worst_output` that
of the worst MLP's own output on the former. A model that cannot be converted has the reason in its row.
Models that are in the file already are left out, so that the command goes on where it stopped.
"""

import argparse
import csv
import sys
import time
from collections import Counter
from pathlib import Path

import timm
import torch
from torch.nn import functional as F

from kat_zoo import to_kat
from kat_zoo.transfer.mlps import MLPS, find_mlps

COLUMNS = ("model", "class", "params_m", "mlps", "left", "features", "worst_output", "worst_mlp", "cpu_seconds", "refused")
SPREADS = (0.7, 1.0, 1.5, 2.0, 2.9)
MOST_PARAMETERS, LARGEST_IMAGE = 60e6, 256


def images(count, seed, size):
    """Smooth noise: neighboring pixels correlate as in photographs."""
    channels, height, width = size
    coarse = torch.randn(count, channels, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return 1.5 * F.interpolate(coarse, (height, width), mode="bicubic")


def rescale(layer, output, mean, std):
    """Scale a linear layer so that its output has this mean and standard deviation; return the output it has then."""
    factor = std / output.std().clamp(min=1e-6)
    layer.weight *= factor
    if layer.bias is None:
        return output * factor
    shift = mean - factor * output.mean()
    layer.bias.mul_(factor).add_(shift)
    return output * factor + shift


@torch.no_grad()
def make_realistic(model, x):
    """Scale the layers of every MLP while the model runs on x."""
    for name, parameter in model.named_parameters():
        if "gamma" in name and parameter.ndim == 1 and parameter.abs().max() < 0.1:
            parameter.fill_(0.5)
    hooks = []
    for i, mlp in enumerate(find_mlps(model)[0].values()):
        spread = SPREADS[i % len(SPREADS)]
        first = mlp.fc1 if hasattr(mlp, "fc1") else mlp.fc1_g

        def scale_first(layer, inputs, output, spread=spread):
            return rescale(layer, output, -0.5 * spread, spread)

        def scale_second(layer, inputs, output):
            return rescale(layer, output, 0.0, 1.0)

        hooks += [first.register_forward_hook(scale_first), mlp.fc2.register_forward_hook(scale_second)]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()


def count(model):
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def convert(name):
    """Row of one architecture, or None for one that is too large."""
    torch.manual_seed(0)
    config = timm.get_pretrained_cfg(name)
    if config is None or max(config.input_size[1:]) > LARGEST_IMAGE:
        return None
    if count(timm.create_model(name, num_classes=0, device="meta")) > MOST_PARAMETERS:
        return None
    model = timm.create_model(name, num_classes=0).eval()
    row = {"model": name, "class": type(model).__name__, "params_m": round(count(model) / 1e6, 2)}
    start = time.process_time()
    try:
        make_realistic(model, images(1, 0, config.input_size))
        kat, report = to_kat(model, images(2, 1, config.input_size))
    except (ValueError, RuntimeError, AttributeError, TypeError) as error:
        return {**row, "refused": f"{type(error).__name__}: {str(error)[:200]}"}
    row["cpu_seconds"] = round(time.process_time() - start, 1)
    x = images(2, 2, config.input_size)
    with torch.no_grad():
        expected = model(x)
        row["features"] = f"{((kat(x) - expected).norm() / expected.norm()).item():.1e}"
    worst = max(report.blocks, key=lambda fit: fit.output_error)
    row.update(mlps=len(report.blocks), left=len(report.left), worst_output=f"{worst.output_error:.1e}", worst_mlp=worst.name)
    return row


def architectures():
    """Names of timm's models whose file uses one of its MLPs, without sizes that are large by their name; families take turns."""
    large = ["large", "huge", "giant", "gigantic", "so400m", "xlarge", "7b", "base", "_b_", "384", "448", "512"]
    turns = Counter()
    ranked = []
    for name in timm.list_models():
        module = sys.modules[timm.model_entrypoint(name).__module__]
        if any(value in MLPS for value in vars(module).values() if isinstance(value, type)) and not any(part in name for part in large):
            family = name.partition("_")[0]
            turns[family] += 1
            ranked.append((turns[family], name))
    return [name for _, name in sorted(ranked) if "kat_zoo" not in timm.model_entrypoint(name).__module__]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes after which no other model is begun")
    parser.add_argument("--models", nargs="*", help="names, in place of all small ones")
    options = parser.parse_args()
    done = set()
    if options.csv.exists():
        with options.csv.open(newline="") as file:
            done = {row["model"] for row in csv.DictReader(file)}
    with options.csv.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for name in options.models or architectures():
            if time.process_time() > 60 * options.minutes:
                break
            row = convert(name) if name not in done else None
            if row is not None:
                writer.writerow(row)
                file.flush()
                print({key: value for key, value in row.items() if key in COLUMNS[:6]}, flush=True)


if __name__ == "__main__":
    main()
