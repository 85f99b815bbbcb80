"""ADE20K's folders, their errors, and the training transform."""

import dataclasses
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from kat_zoo.train.core.sampling import EpochSampler
from kat_zoo.train.dense.runs import drawing_paths
from kat_zoo.train.dense.transforms import PhotometricDistort
from kat_zoo.train.segmentation.ade20k import check, check_counts, open_folders, read_annotation
from kat_zoo.train.segmentation.data import CategoryCrop, EvalPixels, RandomScale, TrainPixels, fitted_size, train_loader, train_transform
from kat_zoo.train.segmentation.recipe import SegmentationAugmentConfig, SegmentationDataConfig

from .conftest import write_ade20k

PLAIN = SegmentationAugmentConfig(scale=(1, 1), cat_max_ratio=1, hflip=0, photometric=False)


def config(root, **kwargs):
    return SegmentationDataConfig(root=str(root), short_side=24, long_side=48, crop=24, stride=24, batch_size=4, **kwargs)


def test_folders_and_class_names(ade_root):
    splits = open_folders(config(ade_root))
    assert (len(splits.train), len(splits.test)) == (8, 5) and splits.classes == ("wall", "building", "sky")
    assert all(image.stem == annotation.stem for image, annotation in splits.train)
    assert open_folders(config(ade_root, reduce_zero_label=False)).classes == ("background", "wall", "building", "sky")
    check([*splits.train, *splits.test], 3, True)


@pytest.mark.parametrize("reduce_zero_label, expected", [(True, [[255, 0, 1], [149, 255, 255]]), (False, [[0, 1, 2], [150, 255, 0]])])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_labels_of_ade20k(mode, reduce_zero_label, expected, tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2], [150, 255, 0]], np.uint8))
    if mode == "P":
        picture = picture.copy()
        picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "x.png")
    assert read_annotation(tmp_path / "x.png", reduce_zero_label).tolist() == expected


def spoil(root, damage):
    annotation, image = root / "annotations" / "training" / "3.png", root / "images" / "training" / "3.png"
    if damage == "no annotation":
        annotation.unlink()
    elif damage == "twins":
        Image.new("RGB", (32, 32)).save(image.with_suffix(".jpg"))
    elif damage == "32 bits":
        Image.fromarray(np.zeros((32, 32), np.float32)).save(image, "TIFF")
    elif damage == "no image":
        image.unlink()
    elif damage == "no folder":
        (root / "annotations" / "validation").rename(root / "elsewhere")
    elif damage == "size":
        Image.new("L", (9, 7)).save(annotation)
    elif damage == "label":
        Image.fromarray(np.full((32, 32), 7, np.uint8)).save(annotation)
    elif damage == "color":
        Image.new("RGB", (32, 32)).save(annotation)
    elif damage == "cut":
        annotation.write_bytes(annotation.read_bytes()[:-30])
    elif damage == "image":
        image.write_text("not a picture")


@pytest.mark.parametrize(
    "damage, message",
    [
        ("no annotation", r"images/training/3.png has no annotation in .*annotations/training \(1 of 8"),
        ("no image", "annotations/training/3.png has no image"),
        ("no folder", "annotations/validation is not a folder"),
        ("size", r"annotations/training/3.png is 7 x 9 and .*images/training/3.png is 32 x 32"),
        ("twins", "images/training/3.jpg and .*images/training/3.png have one name"),
        ("32 bits", r"images/training/3.png: its pixels are 32-bit numbers \(mode F\)"),
        (
            "label",
            "annotations/training/3.png has a label that is not a class, as 1 of 8 .* have: 7 .1024 pixels.; .* the largest is 3, and 255",
        ),
        ("color", "annotations/training/3.png: mode RGB"),
        ("cut", "annotations/training/3.png: not a picture that can be read"),
        ("image", "images/training/3.png: not a picture that can be read"),
    ],
)
def test_damage_is_refused_with_the_files_name(damage, message, tmp_path):
    spoil(write_ade20k(tmp_path), damage)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        splits = open_folders(config(tmp_path))
        check(splits.train, len(splits.classes), True)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    write_ade20k(tmp_path)
    Image.fromarray(np.full((24, 32), 100 * 257, np.uint16)).save(tmp_path / "images" / "validation" / "0.png")
    image, _ = EvalPixels(open_folders(config(tmp_path)).test, config(tmp_path), 3)[0]
    assert image.shape[0] == 3 and torch.allclose(image, torch.tensor(100 / 255))


def test_number_of_classes(tmp_path, ade_root):
    write_ade20k(tmp_path, table=False)
    with pytest.raises(ValueError, match="data.num_classes is needed"):
        open_folders(config(tmp_path))
    assert open_folders(config(tmp_path, num_classes=3)).classes == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"data.num_classes is 3, but .*objectInfo3.txt names 3 classes, .* False makes 4"):
        open_folders(config(ade_root, num_classes=3, reduce_zero_label=False))
    with pytest.raises(ValueError, match="data.root is needed"):
        open_folders(SegmentationDataConfig())


TABLES = {"1 road\n2 car\n": r"\[\]", "0\troad\n1\tcar\n": r"\[0, 1\]", "1\troad\n3\tcar\n": r"\[1, 3\]"}


@pytest.mark.parametrize("table, numbers", TABLES.items())
def test_a_table_of_classes_that_is_none(table, numbers, tmp_path):
    write_ade20k(tmp_path)
    (tmp_path / "objectInfo3.txt").write_text(table)
    with pytest.raises(ValueError, match=f"objectInfo3.txt has the numbers {numbers}: expected rows 1, 2, 3, .* separated by tabs"):
        open_folders(config(tmp_path))


def test_evaluation_needs_no_training_images(tmp_path):
    write_ade20k(tmp_path)
    shutil.rmtree(tmp_path / "images" / "training")
    splits = open_folders(config(tmp_path), train=False)
    assert not splits.train and len(splits.test) == 5
    with pytest.raises(FileNotFoundError, match="training is not a folder"):
        open_folders(config(tmp_path))


@pytest.mark.parametrize("size, expected", [((400, 600), [512, 768]), ((600, 400), [768, 512]), ((100, 1000), [205, 2048])])
def test_images_are_fitted_as_by_mmcv(size, expected):
    assert fitted_size(size, 512, 2048) == expected


def halves(side, left):
    """A mask of class 0 up to column `left`, class 1 from there on."""
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[:, left:] = 1
    return tv_tensors.Mask(mask)


def share(mask):
    counts = torch.bincount(mask[mask != 255].flatten().int())
    return float(counts.max() / counts.sum())


def test_crops_keep_below_cat_max_ratio_where_they_can():
    mask, image = halves(64, 32), tv_tensors.Image(torch.zeros(3, 64, 64, dtype=torch.uint8))
    shares = {}
    for ratio in (0.75, 1.0):
        torch.manual_seed(0)
        crop = CategoryCrop(16, ratio, [0, 0, 0])
        shares[ratio] = [share(crop(image, mask)[1]) for _ in range(60)]
    assert max(shares[1.0]) == 1.0 and sum(s == 1.0 for s in shares[1.0]) > 30
    # A crop with a class boundary well inside is met once in six tries; ten of them fail in one case of six.
    assert sum(s >= 0.75 for s in shares[0.75]) < 25


def test_ignored_pixels_do_not_count_for_cat_max_ratio():
    mask = halves(16, 8)
    mask[:, :6] = 255  # of the rest, class 1 has 80 %
    image = tv_tensors.Image(torch.zeros(1, 16, 16, dtype=torch.uint8))
    drawn = []
    draw = torch.randint

    def count(*args, **kwargs):
        drawn.append(args)
        return draw(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", count)
        CategoryCrop(16, 0.75, [0])(image, mask)
        assert len(drawn) == 20, "ten tries of two coordinates"
        drawn.clear()
        CategoryCrop(16, 0.85, [0])(image, mask)
        assert len(drawn) == 2


def test_small_images_are_padded_with_the_mean_and_ignored():
    image = tv_tensors.Image(torch.full((3, 10, 12), 200, dtype=torch.uint8))
    image, mask = CategoryCrop(16, 0.75, [1, 2, 3])(image, tv_tensors.Mask(torch.zeros(10, 12, dtype=torch.uint8)))
    assert image.shape == (3, 16, 16) and mask.shape == (16, 16)
    assert (image[:, :10, :12] == 200).all() and image[:, 12, 3].tolist() == [1, 2, 3] and image[:, 3, 14].tolist() == [1, 2, 3]
    assert (mask[:10, :12] == 0).all() and (mask[10:] == 255).all() and (mask[:, 12:] == 255).all()


def test_scale_keeps_labels_whole_and_aspect():
    image, mask = tv_tensors.Image(torch.zeros(1, 20, 40, dtype=torch.uint8)), tv_tensors.Mask(torch.full((20, 40), 7, dtype=torch.uint8))
    mask[:, 20:] = 90
    sizes = set()
    for _ in range(20):
        scaled, labels = RandomScale(20, 80, (0.5, 2.0))(image, mask)
        assert scaled.shape[-2:] == labels.shape and labels.unique().tolist() == [7, 90]
        height, width = labels.shape
        assert abs(width / height - 2) < 0.11 and 10 <= height <= 40
        sizes.add(height)
    assert len(sizes) > 8


def test_image_and_mask_are_moved_together(ade_root):
    splits = open_folders(config(ade_root))
    augment = dataclasses.replace(PLAIN, scale=(1, 2), hflip=0.5)
    pixels = TrainPixels(splits.train, train_transform(config(ade_root), augment, [0.5]), True, 1)
    flat = 0
    for seed in range(12):
        image, labels = pixels[seed % 8, seed]
        level = (255 * image[0] / 60).floor().long()  # the class + 1 where a pixel has not been blended with its neighbors
        kept = labels != 255
        inner = kept & (level >= 1)
        flat += (level[inner] - 1 == labels[inner]).float().mean().item()
    assert flat / 12 > 0.9


def test_photometric_distortion_changes_levels_not_channels_nor_labels():
    image = tv_tensors.Image(torch.tensor([200, 100, 30], dtype=torch.uint8)[:, None, None].expand(3, 8, 8).contiguous())
    mask, seen = tv_tensors.Mask(torch.arange(64, dtype=torch.uint8).view(8, 8)), set()
    for seed in range(40):
        torch.manual_seed(seed)
        changed, labels = PhotometricDistort()(image, mask)
        assert torch.equal(labels, mask)
        red, green, blue = changed[:, 0, 0].tolist()
        assert red >= green >= blue, "channels were permuted"
        seen.add((red, green, blue))
    assert len(seen) > 20


def test_an_item_depends_on_its_seed_alone(ade_root):
    data, splits = config(ade_root), open_folders(config(ade_root))
    pixels = TrainPixels(splits.train, train_transform(data, SegmentationAugmentConfig(), [0.5, 0.5, 0.5]), True, 3)
    state = torch.get_rng_state()
    first, again, other = pixels[2, 7], pixels[2, 7], pixels[2, 8]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 24, 24) and first[0].dtype == torch.float32 and first[0].min() >= 0 and first[0].max() <= 1
    assert first[1].dtype == torch.int64 and set(first[1].unique().tolist()) <= {0, 1, 2, 255}
    assert type(first[0]) is torch.Tensor and type(first[1]) is torch.Tensor


def test_evaluation_resizes_the_image_and_keeps_the_mask(ade_root):
    data, splits = config(ade_root), open_folders(config(ade_root))
    image, mask = EvalPixels(splits.test, dataclasses.replace(data, short_side=12, long_side=48), 3)[0]
    assert image.shape == (3, 12, 16) and mask.shape == (24, 32)
    assert np.array_equal(mask, read_annotation(splits.test[0][1], True))


def test_length_of_an_epoch(ade_root):
    pixels = TrainPixels(open_folders(config(ade_root)).train, train_transform(config(ade_root), PLAIN, [0.5]), True, 1)
    loader, sampler, updates = train_loader(pixels, config(ade_root, workers=0), 0, 2)
    assert updates == 2 and len(loader) == 4 and next(iter(loader))[0].shape == (2, 1, 24, 24)
    _, sampler, updates = train_loader(pixels, config(ade_root, updates_per_epoch=1), 0, 1)
    assert updates == 1 and isinstance(sampler, EpochSampler)
    halves = []
    for epoch in range(6):
        sampler.seek(epoch)
        halves.append({index for index, _ in sampler})
    assert all(len(half) == 4 for half in halves) and set.union(*halves) == set(range(8))
    with pytest.raises(ValueError, match="updates_per_epoch 3 and data.batch_size 4: the training split of 8 images has 2"):
        train_loader(pixels, config(ade_root, updates_per_epoch=3), 0, 1)


def test_masks_of_0_and_255_are_refused_and_absent_classes_named(tmp_path, caplog):
    write_ade20k(tmp_path, table=False)
    pairs = open_folders(config(tmp_path, num_classes=2, reduce_zero_label=False)).train
    for _, path in pairs:
        mask = np.zeros(read_annotation(path, False).shape, np.uint8)
        mask[:8] = 255
        Image.fromarray(mask).save(path)
    counts = check(pairs, 2, False)
    with pytest.raises(ValueError, match="training annotations have the class a alone, .* pixels, and .* that are ignored: expected"):
        check_counts(counts, ("a", "b"), "training")
    with pytest.raises(ValueError, match="validation annotations have no class, and .* pixels that are ignored"):
        check_counts(check(pairs, 2, True), ("a", "b"), "validation")
    counts[1] = 5
    check_counts(counts, ("a", "b", "c"), "training")
    assert "the training annotations have no pixel of c" in caplog.text


def test_nested_folders_other_suffixes_and_stray_files(tmp_path):
    """As Cityscapes has them: a folder for each city; and what a Mac or an editor leaves beside."""
    picture = Image.new("L", (8, 8))
    for split in ("training", "validation"):
        for kind, suffix in (("images", ".TIF"), ("annotations", ".PNG")):
            for city in ("a", "b"):
                folder = tmp_path / kind / split / city
                folder.mkdir(parents=True)
                picture.save(folder / f"0{suffix}")
                (folder / f"._0{suffix}").write_text("stray")
            hidden = tmp_path / kind / split / ".ipynb_checkpoints"
            hidden.mkdir()
            picture.save(hidden / f"1{suffix}")
    splits = open_folders(config(tmp_path, num_classes=2))
    assert [(image.parent.name, mask.parent.name) for image, mask in splits.train] == [("a", "a"), ("b", "b")]


def test_drawings_of_one_stem_have_names_of_their_own(tmp_path):
    images = [Path(name) for name in ("a/x.jpg", "b/x.jpg", "x.png", "x_2.png", "y.png")]
    names = [path.name for path in drawing_paths(images, tmp_path, "detection")]
    assert names == ["x_detection.png", "x_2_detection.png", "x_3_detection.png", "x_2_2_detection.png", "y_detection.png"]


def write_gray(path, labels, bits):
    """A gray PNG of few bits, which Pillow does not write."""
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes() for row in labels)
    height, width = labels.shape
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_which_pillow_multiplies_are_refused(bits, tmp_path):
    write_gray(tmp_path / "x.png", np.array([[0, 1, 2, 3]], np.uint8), bits)
    assert np.asarray(Image.open(tmp_path / "x.png")).max() == 3 * (255 // (2**bits - 1))
    with pytest.raises(ValueError, match="x.png: gray of 2 or 4 bits"):
        read_annotation(tmp_path / "x.png", False)


def test_an_annotation_that_was_replaced_after_the_check_is_named(tmp_path):
    root = write_ade20k(tmp_path)
    (pair, *_) = open_folders(config(root)).test
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(pair[1])
    with pytest.raises(ValueError, match=r"of shape \(5, 7\): expected that of .*\(24, 32\)"):
        EvalPixels([pair], config(root), 3)[0]
