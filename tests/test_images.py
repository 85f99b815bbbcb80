"""The one reader of images: orientation, depth, transparency, color spaces, damage."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kat_zoo.images import open_image, orientation, picture_size, read_image, upright_size

FLAGS = range(1, 9)
UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(8, 0).repeat(8, 1) * 40  # six gray squares, two rows of three
# What a camera stores for a picture that is to be seen upright: the inverse of what the flag says.
STORED = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
    5: lambda x: x.T, 6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).T, 8: lambda x: np.rot90(x, -1),
}  # fmt: skip


def rotated(path, flag, pixels=UPRIGHT):
    """Write a picture as a camera does, with the flag that puts it upright."""
    exif = Image.Exif()
    exif[0x0112] = flag
    options = {"quality": 100} if path.suffix == ".jpg" else {}
    Image.fromarray(np.ascontiguousarray(STORED[flag](pixels))).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("flag", FLAGS)
def test_pictures_are_upright(flag, suffix, tmp_path):
    path = rotated(tmp_path / f"x{suffix}", flag)
    with Image.open(path) as image:
        assert upright_size(image) == (24, 16)
    found = np.asarray(open_image(path, 1)).astype(int)
    assert found.shape == (16, 24) and abs(found - UPRIGHT).max() < 12
    assert "exif" not in read_image(path).info or orientation(read_image(path)) == 1


def test_a_wrong_orientation_is_none(tmp_path):
    for value in (0, 9, 60000):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.fromarray(UPRIGHT).save(tmp_path / "x.jpg", exif=exif, quality=100)
        assert open_image(tmp_path / "x.jpg", 1).size == (24, 16)
    Image.fromarray(UPRIGHT).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=100)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):  # Pillow's
        assert open_image(tmp_path / "x.jpg", 1).size == (24, 16)


def test_transparency_palettes_and_cmyk(tmp_path):
    color = Image.fromarray(np.dstack([UPRIGHT, 255 - UPRIGHT, UPRIGHT // 2]))
    alpha = color.copy()
    alpha.putalpha(128)
    palette = color.convert("P", palette=Image.Palette.ADAPTIVE)
    for name, image, options in (
        ("alpha.png", alpha, {}),
        ("palette.png", palette, {}),
        ("see-through.png", palette, {"transparency": bytes(range(200))}),
        ("cmyk.jpg", color.convert("CMYK"), {"quality": 100}),
        ("gray-alpha.png", alpha.convert("LA"), {}),
    ):
        image.save(tmp_path / name, **options)
        for channels, mode in ((1, "L"), (3, "RGB")):
            found = open_image(tmp_path / name, channels)
            expected = (color.convert("L") if "gray" in name else color).convert(mode)
            assert found.mode == mode and abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() < 12, name


def test_sixteen_bits_are_scaled_and_turned(tmp_path):
    wide = ImageOps.flip(Image.fromarray(UPRIGHT.astype(np.uint16) * 257))
    exif = Image.Exif()
    exif[0x0112] = 4
    wide.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(np.asarray(open_image(tmp_path / "x.png", 1)), UPRIGHT)


def test_the_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        open_image(tmp_path / "none.png", 3)
    (tmp_path / "text.png").write_text("no picture")
    whole = rotated(tmp_path / "x.jpg", 6).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(UPRIGHT.astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("text.png", "half.jpg", "float.tif"):
        with pytest.raises(ValueError, match=f"{name} is not an image that can be read: "):
            open_image(tmp_path / name, 3)


def test_a_flag_behind_the_pixels_of_a_png_counts_for_neither_header_nor_reader(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    Image.fromarray(UPRIGHT).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:-12] + chunk + data[-12:])
    with Image.open(tmp_path / "x.png") as image:
        assert image.getexif()[0x0112] == 6
    assert picture_size(tmp_path / "x.png") == read_image(tmp_path / "x.png").size == UPRIGHT.shape[::-1]
