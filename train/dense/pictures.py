"""Pictures with predictions drawn on them, and a legend."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

Color = tuple[int, int, int]


def colors(count: int) -> list[Color]:
    """One color per class: distinct ones up to 20 classes, around the color wheel beyond.

    Args:
        count: number of classes.

    Returns:
        (red, green, blue), 0 to 255.
    """
    if count <= 20:
        rows = [matplotlib.colormaps["tab10" if count <= 10 else "tab20"](i)[:3] for i in range(count)]
    else:  # neighbors lie far apart on the wheel
        rows = [colorsys.hsv_to_rgb(i * 0.618 % 1, (1.0, 0.6)[i % 2], (1.0, 0.7, 0.45)[i % 3]) for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rows]


def require_bytes(image: Tensor) -> None:
    """Check that a picture is one of 8 bits.

    Raises:
        ValueError: another dtype or shape, as floats in [0, 1], which would be divided by 255 once more.
    """
    if image.dtype != torch.uint8 or image.ndim != 3:
        raise ValueError(f"image of dtype {image.dtype} and shape {tuple(image.shape)}: expected torch.uint8, (C, H, W)")


def as_rgb(image: Tensor) -> Tensor:
    """A uint8 picture (1 or 3, H, W) as (3, H, W)."""
    return image.expand(3, -1, -1)


def overlay_regions(image: Tensor, labels: Tensor, num_classes: int, alpha: float = 0.55) -> tuple[Tensor, list[int]]:
    """Paint the region of each class.

    Args:
        image: (1 or 3, H, W) uint8.
        labels: (H, W) classes; values from num_classes on stay unpainted.
        num_classes: number of classes of the palette.
        alpha: opacity.

    Returns:
        (the picture (3, H, W) uint8, the classes that occur).
    """
    palette = colors(num_classes)
    present = [int(i) for i in labels.unique() if i < num_classes]
    if not present:
        return as_rgb(image), []
    masks = torch.stack([labels == i for i in present])
    return draw_segmentation_masks(as_rgb(image).contiguous(), masks, alpha=alpha, colors=[palette[i] for i in present]), present


def save_picture(panels: Sequence[tuple[str, Tensor]], legend: Sequence[tuple[str, Color]], path: Path) -> Path:
    """Write pictures side by side, with a legend at the right.

    Args:
        panels: (title, picture (3, H, W) uint8).
        legend: (name, color) of each class that is drawn.
        path: path of the PNG; its folder is made.

    Returns:
        `path`.
    """
    height, width = panels[0][1].shape[-2:]
    figure = Figure(figsize=(4 * len(panels) + 1.6, 4 * height / width + 0.4), dpi=120, layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    if legend:
        patches = [Patch(color=(r / 255, g / 255, b / 255), label=name) for name, (r, g, b) in legend]
        figure.legend(handles=patches, loc="outside right upper", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
