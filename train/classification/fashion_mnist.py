"""Fashion-MNIST from IDX files or the Hub."""

import gzip
import struct
from pathlib import Path

import numpy as np

from ..core.images import ArrayImages
from .hub_data import Splits, hub

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FOLDERS = ("/usr/share/datasets/fashion-mnist", "data/fashion-mnist", "data")
HUB_NAME = "zalando-datasets/fashion_mnist"


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Args:
        path: the file.

    Returns:
        uint8 array with the shape that the header states.

    Raises:
        ValueError: the file is not IDX, is cut short, or is a damaged gzip.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error})") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != np.prod(shape):
        raise ValueError(f"{path}: the header promises {shape}, the file holds {data.size} bytes")
    return data.reshape(shape)


def _idx_split(folder: Path, stem: str) -> ArrayImages:
    def find(kind: str) -> Path:
        for name in (f"{stem}-{kind}.gz", f"{stem}-{kind}"):
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"{folder / stem}-{kind}[.gz] is missing")

    return ArrayImages(read_idx(find("images-idx3-ubyte")), read_idx(find("labels-idx1-ubyte")))


def fashion_mnist(root: str | None) -> Splits:
    """Fashion-MNIST from gzipped IDX files, from torchvision's layout (`FashionMNIST/raw`) or from the Hub.

    Args:
        root: folder with the four files or with `FashionMNIST/raw`; None looks in the usual folders, then on the Hub.

    Returns:
        60,000 training and 10,000 test images, 28 x 28.

    Raises:
        FileNotFoundError: none of the places has it.
        ValueError: a file is damaged.
    """
    folders = [Path(root)] if root else [Path(folder) for folder in FOLDERS]
    candidates = [place for folder in folders for place in (folder, folder / "FashionMNIST" / "raw")]
    for folder in candidates:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return Splits(_idx_split(folder, "train"), _idx_split(folder, "t10k"), CLASSES)
    reason, cause = "data.root is given, so the Hub was not asked", None
    if root is None:
        try:
            return hub(HUB_NAME)
        except Exception as error:  # any failure of the network stack ends in the one message that helps
            reason, cause = f"the Hub dataset {HUB_NAME} could not be loaded: {type(error).__name__}", error
    raise FileNotFoundError(
        f"Fashion-MNIST was not found in {', '.join(map(str, candidates))} ({reason}). Install the Debian package "
        "dataset-fashion-mnist, or run torchvision.datasets.FashionMNIST('data', download=True), or give data.root "
        "a folder with the four idx files."
    ) from cause
