"""Atlas of the learned activations of the shipped kat_pico_patch4_28: what they became, and whether groups specialize.

    .venv/bin/python benchmarks/atlas.py           # docs/atlas.png, benchmarks/results/atlas.csv and atlas_swaps.csv; 3 minutes

Functions are compared where they are used: on the inputs that each group sees for the 256 shipped images. Then the trained
model is evaluated on the first test images of Fashion-MNIST with its activations exchanged, nothing retrained.
"""

import argparse
import copy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
from compare_rows import write_csv
from torch import Tensor, nn

from kat_zoo.cli.demo import classify, preprocess
from kat_zoo.hub.samples import load_samples
from kat_zoo.layers import GroupRational
from kat_zoo.train.classification.datasets import open_dataset

HERE = Path(__file__).parent
MODEL = "kat_pico_patch4_28.fmnist"
KEPT = 20_000  # inputs of a group that are looked at


def activations(model: nn.Module) -> dict[str, GroupRational]:
    return {name: module for name, module in model.named_modules() if isinstance(module, GroupRational)}


def inputs_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What every activation is applied to: name -> (groups, KEPT), drawn evenly."""
    seen: dict[str, Tensor] = {}

    def hook(name: str, act: GroupRational):
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = args[0].unflatten(-1, (act.num_groups, -1)).movedim(-2, 0).flatten(1)
            seen[name] = values[:, :: max(1, values.shape[1] // KEPT)][:, :KEPT].double()

        return note

    hooks = [act.register_forward_pre_hook(hook(name, act)) for name, act in activations(model).items()]
    with torch.inference_mode():
        model(images)
    for handle in hooks:
        handle.remove()
    return seen


@torch.inference_mode()
def all_groups(act: GroupRational, x: Tensor) -> Tensor:
    """The function of every group at x: (n,) -> (groups, n)."""
    a, b = act.weight_numerator.double(), act.weight_denominator.double()
    return torch.ops.kat_zoo.rational(x[:, None].repeat(1, act.num_groups), a, b).T


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def numbers(name: str, act: GroupRational, inputs: Tensor) -> list[dict[str, object]]:
    """A row per group, in percent of the size of the initial function on the same inputs.

    change: distance from the initial function; apart: distance from the mean function of the groups.
    """
    initial = GroupRational(1, act.init, act.order)
    rows: list[dict[str, object]] = []
    for group, x in enumerate(inputs):
        functions, start = all_groups(act, x), all_groups(initial, x)[0]
        low, middle, high = np.quantile(x.numpy(), (0.01, 0.5, 0.99))
        values = {"input_1%": low, "input_50%": middle, "input_99%": high}
        values["change_%"] = 100 * rms(functions[group] - start) / rms(start)
        values["apart_%"] = 100 * rms(functions[group] - functions.mean(0)) / rms(start)
        rows.append({"activation": name, "group": group, **{key: round(float(value), 3) for key, value in values.items()}})
    return rows


class MeanOfGroups(nn.Module):
    """The mean of the functions of all groups, for every channel."""

    def __init__(self, act: GroupRational) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        a, b = self.act.weight_numerator, self.act.weight_denominator
        total = torch.zeros_like(x)
        for group in range(self.act.num_groups):
            row = a[group : group + 1] if len(a) > 1 else a
            total += torch.ops.kat_zoo.rational(x, row, b[group : group + 1])
        return total / self.act.num_groups


def next_group(act: GroupRational) -> GroupRational:
    """Every group with the function of its neighbor."""
    other = copy.deepcopy(act)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(parameter.roll(1, 0))
    return other


def initial(act: GroupRational) -> GroupRational:
    return GroupRational(act.num_groups, act.init, act.order)


SWAPS = {
    "as trained": ("", lambda act: act),
    "one function for all groups, their mean": ("", MeanOfGroups),
    "every group with its neighbor's function": ("", next_group),
    "act1 as initialized (identity)": ("act1", initial),
    "act2 as initialized (swish)": ("act2", initial),
    "all as initialized": ("", initial),
}


def swapped(model: nn.Module, which: str, make) -> nn.Module:
    other = copy.deepcopy(model)
    for name, act in activations(other).items():
        if name.endswith(which):
            other.set_submodule(name, make(act))
    return other.eval()


def draw(model: nn.Module, inputs: dict[str, Tensor], rows: list[dict[str, object]], path: Path) -> None:
    """A panel per activation: a line per group over the inputs' histogram, dashed where it started."""
    acts = activations(model)
    blocks = len(acts) // 2
    figure, panels = plt.subplots(2, blocks, figsize=(3.1 * blocks, 6), layout="constrained")
    for i, (name, act) in enumerate(acts.items()):
        axes = panels[i % 2, i // 2]
        pooled = inputs[name].flatten().numpy()
        low, high = np.quantile(pooled, (0.002, 0.998))
        x = torch.linspace(float(low), float(high), 300, dtype=torch.float64)
        histogram = axes.twinx()
        histogram.hist(pooled, 80, range=(low, high), color="0.85", density=True)
        histogram.set_yticks([])
        axes.set_zorder(histogram.get_zorder() + 1)
        axes.patch.set_visible(False)
        for group, y in enumerate(all_groups(act, x)):
            axes.plot(x, y, linewidth=1.1, color=plt.cm.viridis(group / max(1, act.num_groups - 1)), label=str(group))
        axes.plot(x, all_groups(initial(act), x)[0], "k--", linewidth=0.9)
        own = [row for row in rows if row["activation"] == name]
        change, apart = (np.mean([float(row[key]) for row in own]) for key in ("change_%", "apart_%"))  # type: ignore[arg-type]
        axes.set_title(f"block {i // 2} act{i % 2 + 1}: change {change:.0f} %, apart {apart:.0f} %", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("x", fontsize=8)
        if i // 2 == 0:
            axes.set_ylabel("P(x) / Q(x)", fontsize=8)
    panels[0, 0].legend(title="group", fontsize=6, title_fontsize=7, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="test images for the exchanges; default: %(default)s")
    parser.add_argument("--data", help="folder of Fashion-MNIST")
    options = parser.parse_args()
    model = timm.create_model(MODEL, pretrained=True).eval()
    inputs = inputs_of(model, preprocess(MODEL, load_samples()))
    rows = [row for name, act in activations(model).items() for row in numbers(name, act, inputs[name])]
    write_csv(HERE / "results" / "atlas.csv", rows, list(rows[0]))
    draw(model, inputs, rows, HERE.parent / "docs" / "atlas.png")

    test = open_dataset("fashion_mnist", options.data).test
    pairs = [test[i] for i in range(min(options.images, len(test)))]
    pixels = np.stack([np.asarray(image) for image, _ in pairs])[:, None].astype(np.float32) / 255
    cfg = model.pretrained_cfg
    images, labels = (torch.from_numpy(pixels) - cfg["mean"][0]) / cfg["std"][0], torch.tensor([label for _, label in pairs])
    results: list[dict[str, object]] = []
    for swap, (which, make) in SWAPS.items():
        right = classify(swapped(model, which, make), images).argmax(1) == labels
        results.append({"activations": swap, "images": len(labels), "top1": round(100 * float(right.float().mean()), 2)})
        print(f"{swap}: {results[-1]['top1']} % of {len(labels)}", flush=True)
    write_csv(HERE / "results" / "atlas_swaps.csv", results, list(results[0]))


if __name__ == "__main__":
    main()
