"""The 256 Fashion-MNIST test images that ship with the package, as one PNG sheet and its labels."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SHEET = Path(__file__).parent.parent / "weights" / "fashion_mnist_samples.png"
SIDE = 16  # images along each edge of the sheet


@dataclass(frozen=True)
class Samples:
    """Images with their labels.

    Attributes:
        images: (N, 28, 28) uint8.
        labels: (N,) class indices.
        classes: class names.
        indices: (N,) position of each image in the 10,000 test images.
        seed: seed of the draw.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    indices: np.ndarray
    seed: int

    def pil(self, i: int) -> Image.Image:
        """Image i as a gray PIL image."""
        return Image.fromarray(self.images[i])


def load_samples() -> Samples:
    """Read the sheet.

    Returns:
        256 images, classes in the proportions of the draw.
    """
    sheet = np.asarray(Image.open(SHEET))
    size = sheet.shape[0] // SIDE
    images = sheet.reshape(SIDE, size, SIDE, size).swapaxes(1, 2).reshape(-1, size, size)
    facts = json.loads(SHEET.with_suffix(".json").read_text(encoding="utf-8"))
    return Samples(images, np.array(facts["labels"]), tuple(facts["classes"]), np.array(facts["indices"]), facts["seed"])


def save_samples(samples: Samples) -> None:
    """Write the sheet and its JSON; `benchmarks/draw_samples.py` calls it once.

    Args:
        samples: SIDE x SIDE images.
    """
    size = samples.images.shape[1]
    grid = samples.images.reshape(SIDE, SIDE, size, size).swapaxes(1, 2).reshape(SIDE * size, SIDE * size)
    Image.fromarray(grid).save(SHEET, optimize=True)
    facts = dict(seed=samples.seed, classes=samples.classes, indices=samples.indices.tolist(), labels=samples.labels.tolist())
    SHEET.with_suffix(".json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
