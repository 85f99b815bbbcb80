"""Pixels of 8 bits, which transforms take, from images of 8 or 16."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def eight_bits(image: Image.Image) -> Image.Image:
    """Scale gray of 16 bits to 8; Pillow's convert would clip it at 255, to white.

    Args:
        image: its pixels need not be read yet.

    Returns:
        An image with 8 bits a channel, or fewer.

    Raises:
        ValueError: its pixels are 32-bit numbers, whose range is not known.
    """
    if has_sixteen_bits(image):
        return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    return image


def has_sixteen_bits(image: Image.Image) -> bool:
    """Whether an image is gray of 16 bits, by its header alone.

    Args:
        image: its pixels need not be read.

    Raises:
        ValueError: its pixels are 32-bit numbers, whose range is not known.
    """
    # Pillow's PNM reader, and older ones of PNG, hold 16 bits in mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return True
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}): expected 8 or 16 bits")
    return False


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image as RGB, or gray for one channel, 8 bits each; gray of 16 bits is scaled down.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image that Pillow reads, or one of 32-bit numbers.
    """
    try:
        with Image.open(path) as image:
            return eight_bits(image).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: of PIL's PNG reader
        raise ValueError(f"{path} is not an image that can be read: {error}") from error


def require_images(paths: Sequence[Path]) -> None:
    """Check that files are there, before a model is fetched.

    Raises:
        FileNotFoundError: naming those that are not.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such image: {', '.join(missing)}")
