"""The one reader of images: upright as their EXIF orientation says, 8 bits a channel, RGB or gray; a file that cannot be read is named.

Transparency is dropped, as torchvision and timm drop it; CMYK, palettes and other color spaces become RGB as Pillow converts them.
"""

import glob
import logging
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger("kat_zoo")

# What Pillow raises on damaged files; its PNG reader raises SyntaxError.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


def read_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Read an image with all its pixels, turned and mirrored as its EXIF orientation says.

    Args:
        source: path of the file, or the open file.

    Returns:
        The image in the mode of its file.

    Raises:
        OSError: or another of `UNREADABLE`, if it is missing or damaged.
    """
    with ExitStack() as stack:
        # As an open file: Pillow 13 maps an uncompressed TIFF given by its path into memory with width and height exchanged.
        file = stack.enter_context(Path(source).open("rb")) if isinstance(source, (str, Path)) else source
        try:
            image = stack.enter_context(Image.open(file))
        except UnidentifiedImageError as error:  # whose message names an open file by its object
            raise UnidentifiedImageError("it is not in a format of images that Pillow knows") from error
        turn = orientation(image)  # by the header, as `upright_size`: a PNG may have another behind its pixels
        image.load()
        return image if turn == 1 else ImageOps.exif_transpose(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation in the header of an image, 1 to 8; 1 is upright, and stands for one that is missing or damaged."""
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would read all pixels to look behind them
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*UNREADABLE, KeyError, TypeError):
        return 1
    return value if value in range(1, 9) else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image as `read_image` gives it, by its header alone."""
    width, height = image.size
    turned = image.format != "TIFF" and orientation(image) in SIDEWAYS  # Pillow turns TIFF itself
    return (height, width) if turned else (width, height)


def convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to 8 bits a channel; wider numbers are scaled.

    Args:
        image: its pixels have been read.
        mode: Pillow's, "L" or "RGB".

    Raises:
        ValueError: its pixels are 32-bit numbers, whose range is not known.
    """
    image = eight_bits(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):  # Pillow warns where it would be lost
        image = image.convert("RGBA")
    return image.convert(mode)


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


def check_channels(channels: int) -> None:
    """Check that files of images can have as many channels as a model takes.

    Raises:
        ValueError: they cannot.
    """
    if channels not in (1, 3):
        raise ValueError(f"the model takes images of {channels} channels: expected 1 (gray) or 3 (RGB), which files of images have")


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image as RGB, or gray for one channel, 8 bits each; gray of 16 bits is scaled down.

    Args:
        path: path of the file.
        channels: 1 for gray, 3 for RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image that Pillow reads, or one of 32-bit numbers; or another number of channels.
    """
    check_channels(channels)
    try:
        return convert(read_image(path), "L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from error


def open_images(paths: Sequence[Path], channels: int, failed: list[Path]) -> Iterator[tuple[Path, Image.Image]]:
    """Read images one after the other; one that cannot be read is named in the log, and the others follow.

    Args:
        paths: image files.
        channels: 1 for gray, 3 for RGB.
        failed: list that gets the files that cannot be read.

    Yields:
        (path, image) of each that can be read.

    Raises:
        ValueError: another number of channels.
    """
    check_channels(channels)
    for path in paths:
        try:
            yield path, open_image(path, channels)
        except (ValueError, FileNotFoundError) as error:
            failed.append(path)
            logger.warning("%s", error)


def told(failed: Sequence[Path], count: int) -> int:
    """Say how many images could not be read.

    Args:
        failed: files that could not be read.
        count: number of all files.

    Returns:
        Exit code of a command: 1 if there are any.
    """
    if failed:
        logger.warning("%d of %d images could not be read; the others are done", len(failed), count)
    return 1 if failed else 0


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image in a file, by its header alone.

    Raises:
        OSError: or another of `UNREADABLE`, if it is missing or damaged.
    """
    with Image.open(path) as image:
        return upright_size(image)


def known_suffixes() -> set[str]:
    """The suffixes, in lower case, of the images that Pillow reads."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a path is hidden in a folder, or lies in a hidden folder below it."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def pictures_in(folder: Path, suffixes: Collection[str] | None = None) -> dict[str, Path]:
    """The pictures in a folder and in those below it, by their path without the suffix; hidden files and folders do not count.

    Args:
        folder: folder of the pictures.
        suffixes: suffixes of pictures, in lower case; those that Pillow reads by default.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: two pictures of one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    known, found = known_suffixes() if suffixes is None else suffixes, dict[str, Path]()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in known and path.is_file() and not is_hidden(path, folder):
            key = str(path.relative_to(folder).with_suffix(""))
            if found.setdefault(key, path) is not path:
                raise ValueError(f"{found[key]} and {path} have one name, and so one annotation for both; rename or remove one")
    return found


def require_images(paths: Sequence[Path]) -> None:
    """Check that files are there, before a model is fetched.

    Raises:
        FileNotFoundError: naming those that are not.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such image: {', '.join(missing)}")


def find_images(names: Sequence[Path]) -> list[Path]:
    """The image files that a command line means.

    Args:
        names: files, folders, whose files are taken at any depth if Pillow knows their suffix, and patterns with `*`, `?` or `[...]`.

    Returns:
        Files, those of folders and patterns in order of their names; hidden files are passed over.

    Raises:
        FileNotFoundError: a file that is not there, or a folder or pattern without images.
    """
    known = known_suffixes()
    found: list[Path] = []
    for name in names:
        if name.is_file():
            found.append(name)
            continue
        pattern = any(character in str(name) for character in "*?[")
        matches = glob.glob(str(name), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        inside = [path for path in sorted(name.rglob("*")) if not is_hidden(path, name)] if name.is_dir() else sorted(map(Path, matches))
        images = [path for path in inside if path.suffix.lower() in known and path.is_file() and not path.name.startswith(".")]
        if not images and not (name.is_dir() or pattern):
            require_images([name])
        if not images:
            raise FileNotFoundError(f"no image in {name}: expected files that end in one of {', '.join(sorted(known)[:8])}, ...")
        found += images
    return found
