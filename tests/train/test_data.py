import gzip
import pickle
import shutil

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from kat_zoo.train.classification import fashion_mnist as fashion_mnist_files
from kat_zoo.train.classification.datasets import fashion_mnist, hub, open_dataset
from kat_zoo.train.classification.fashion_mnist import read_idx
from kat_zoo.train.classification.loader import (
    EvalImages,
    TrainImages,
    TrainTransform,
    data_config,
    eval_loader,
    eval_transform,
    image_mode,
    train_loader,
)
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig
from kat_zoo.train.core.images import UnreadableImages

from .conftest import write_fashion_mnist, write_idx

RESOLVED = dict(input_size=(3, 6, 6), mean=(0,) * 3, std=(1,) * 3, interpolation="bilinear", crop_pct=1.0, crop_mode="center")


@pytest.mark.parametrize("layout, suffix", [(".", ".gz"), (".", ""), ("FashionMNIST/raw", "")])
def test_layouts_give_the_same_images(layout, suffix, tmp_path, data_root):
    write_fashion_mnist(tmp_path / layout, suffix=suffix)
    splits, expected = fashion_mnist(str(tmp_path)), fashion_mnist(data_root)
    assert len(splits.train) == 96 and len(splits.test) == 50 and len(splits.classes) == 10
    image, label = splits.test[7]
    assert np.array_equal(image, expected.test[7][0]) and label == expected.test[7][1]


@pytest.mark.parametrize(
    "damage, named",
    [
        (lambda raw: raw[:-100], "not a complete gzip"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "promises"),
        (lambda raw: gzip.compress(b"<html>"), "not an IDX file"),
        (lambda raw: b"", "not a complete gzip|not an IDX"),
    ],
)
def test_damaged_files_are_named(damage, named, tmp_path):
    path = write_fashion_mnist(tmp_path) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=named) as error:
        fashion_mnist(str(tmp_path))
    assert str(path) in str(error.value)


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        fashion_mnist(str(tmp_path))
    write_fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels"):
        fashion_mnist(str(tmp_path))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(ValueError, match="50 images but 7 labels"):
        fashion_mnist(str(tmp_path))


def test_without_root_the_hub_comes_last(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist_files, "FOLDERS", (str(tmp_path / "nowhere"),))
    monkeypatch.setattr(fashion_mnist_files, "HUB_NAME", str(tmp_path / "no-such-dataset"))
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        fashion_mnist(None)


def test_hub_dataset_from_local_parquet(tmp_path):
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(4)]
    rows = datasets.Dataset.from_dict({"img": images, "label": [0, 1, 0, 1]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="needed: train, and test"):
        hub(str(tmp_path))
    rows.select([1, 2]).to_parquet(tmp_path / "test.parquet")
    splits = hub(str(tmp_path))
    assert splits.classes == ("cat", "dog") and len(splits.train) == 4
    image, label = splits.test[0]
    assert image.getpixel((0, 0)) == (40, 40, 40) and label == 1


def test_holdout_is_disjoint_seeded_and_complete(data_root):
    full = open_dataset("fashion_mnist", data_root)
    parts = open_dataset("fashion_mnist", data_root, holdout=0.25, seed=1)
    again = open_dataset("fashion_mnist", data_root, holdout=0.25, seed=1)
    assert (len(parts.train), len(parts.test)) == (72, 24)
    key = [np.asarray(part[i][0]).tobytes() for part in (parts.train, parts.test) for i in range(len(part))]
    assert set(key) == {np.asarray(full.train[i][0]).tobytes() for i in range(96)}
    assert np.array_equal(parts.test[3][0], again.test[3][0])


@pytest.mark.parametrize("holdout, kept, left", [(0.005, 0, 96), (0.999, 96, 0)])
def test_a_holdout_of_nothing_or_of_everything_is_refused(holdout, kept, left, data_root):
    message = f"data.holdout={holdout}, .* keeps {kept} out and leaves {left} to train on: expected a number from 0.01 to 0.9896"
    with pytest.raises(ValueError, match=message):
        open_dataset("fashion_mnist", data_root, holdout=holdout)


def test_train_images_are_nested_and_apart_from_the_holdout(data_root):
    def pixels(images):
        return [np.asarray(images[i][0]).tobytes() for i in range(len(images))]

    few, more = (open_dataset("fashion_mnist", data_root, 0.25, 1, count) for count in (10, 20))
    assert pixels(more.train)[:10] == pixels(few.train) and len(few.train) == 10
    assert not set(pixels(more.train)) & set(pixels(more.test)) and len(more.test) == 24
    assert len(open_dataset("fashion_mnist", data_root, seed=1, train_images=10).test) == len(open_dataset("fashion_mnist", data_root).test)
    with pytest.raises(ValueError, match="data.train_images=73: expected at most 72, the images of fashion_mnist"):
        open_dataset("fashion_mnist", data_root, 0.25, 1, 73)


def test_unknown_dataset_lists_the_known():
    with pytest.raises(ValueError, match="fashion_mnist"):
        open_dataset("mnist")


def test_read_idx_of_any_rank(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "x", array)
    assert np.array_equal(read_idx(tmp_path / "x"), array)


def write_image_folder(root, splits=("train", "val"), classes=("cat", "dog")):
    for split in splits:
        for i, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (6, 5), (100 * i, 0, 0)).save(root / split / name / "0.png")


def test_image_folder(tmp_path):
    write_image_folder(tmp_path)
    splits = open_dataset("folder", str(tmp_path))
    assert splits.classes == ("cat", "dog") and len(splits.train) == len(splits.test) == 2
    image, label = splits.test[1]
    assert image.getpixel((0, 0)) == (100, 0, 0) and label == 1
    (tmp_path / "val" / "eel").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "val" / "eel" / "0.png")
    with pytest.raises(ValueError, match="different classes .eel"):
        open_dataset("imagenet", str(tmp_path))


def test_image_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="data.root"):
        open_dataset("folder")
    write_image_folder(tmp_path, splits=("train",))
    with pytest.raises(FileNotFoundError, match="train and val"):
        open_dataset("folder", str(tmp_path))


def test_images_that_cannot_be_read(tmp_path, caplog):
    """In training another takes their place, up to a limit; evaluation leaves none out; data of which nothing can be read is refused."""
    write_image_folder(tmp_path, classes=tuple("abcdefghijkl"))
    bad = tmp_path / "train" / "c" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    splits = open_dataset("folder", str(tmp_path))
    resolved = RESOLVED
    plain = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)
    for workers in (0, 2):
        config = DataConfig(batch_size=4, workers=workers, max_unreadable=1)
        loader, sampler, _ = train_loader(splits.train, config, plain, resolved, 0, 1)
        for epoch in range(2):  # the same image twice is one image
            sampler.seek(epoch)
            labels = [label for _, batch in loader for label in batch.tolist()]
            assert sorted(labels) == [0, 1, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert "unreadable image " + str(bad) in caplog.text
    with pytest.raises(ValueError, match="1 unreadable images, more than data.max_unreadable 0: .*c/0.png"):
        list(train_loader(splits.train, DataConfig(batch_size=4, workers=0), plain, resolved, 0, 1)[0])
    (tmp_path / "val" / "l" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="val/l/0.png cannot be read, and evaluation leaves no image out"):
        list(eval_loader(splits.test, DataConfig(batch_size=4, workers=0), resolved))
    for path in tmp_path.glob("train/*/0.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="first 10 images cannot be read: .*train/a/0.png .UnidentifiedImageError"):
        open_dataset("folder", str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(suffix, tmp_path):
    write_image_folder(tmp_path)
    for split in ("train", "val"):
        Image.fromarray(np.full((6, 6), 128 * 257, np.uint16)).save(tmp_path / split / "cat" / f"0{suffix}")
        if suffix != ".png":
            (tmp_path / split / "cat" / "0.png").unlink()
    splits = open_dataset("folder", str(tmp_path))
    for channels, mode in ((1, "L"), (3, "RGB")):
        resolved = RESOLVED | {"input_size": (channels, 6, 6), "mean": (0,) * channels, "std": (1,) * channels}
        plain = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)
        train = TrainImages(splits.train, TrainTransform(plain, resolved, {}), mode, UnreadableImages(0))
        for image in (train[0, 0, 0][0], EvalImages(splits.test, eval_transform(resolved), mode)[0][0]):
            assert torch.allclose(image, torch.tensor(128 / 255))


def test_numbers_of_32_bits_are_refused_and_are_no_damage(tmp_path):
    write_image_folder(tmp_path)
    image, bad = Image.fromarray(np.full((6, 6), 0.5, np.float32)), tmp_path / "train" / "dog" / "0.png"
    bad.unlink()
    image.save(bad.with_suffix(".tif"))
    splits = open_dataset("folder", str(tmp_path))
    plain = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)
    train = TrainImages(splits.train, TrainTransform(plain, RESOLVED, {}), "RGB", UnreadableImages(5))
    with pytest.raises(ValueError, match=r"dog/0.tif: its pixels are 32-bit numbers \(mode F\)"):
        train[len(train) - 1, 0, 0]
    with pytest.raises(ValueError, match="dog/0.tif: its pixels are 32-bit"):
        EvalImages(splits.train, eval_transform(RESOLVED), "RGB", UnreadableImages(5))[len(train) - 1]
    (tmp_path / "train" / "cat" / "0.png").unlink()
    image.save(tmp_path / "train" / "cat" / "0.tif")
    with pytest.raises(ValueError, match="cat/0.tif: its pixels are 32-bit"):
        open_dataset("folder", str(tmp_path))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_torchvisions_layout(name, tmp_path, monkeypatch):
    """Pixels lie plane by plane; the published files' checksums are torchvision's affair."""
    cls = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder, labels = tmp_path / cls.base_folder, "labels" if name == "cifar10" else "fine_labels"
    folder.mkdir()
    for number, (stem, _) in enumerate([*cls.train_list, *cls.test_list]):
        planes = np.repeat(np.arange(3) + 10 * number, 1024)
        (folder / stem).write_bytes(pickle.dumps({"data": np.stack([planes, planes + 100]).astype(np.uint8), labels: [0, 1]}))
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps({cls.meta["key"]: ["apple", "baby"]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    splits = open_dataset(name, str(tmp_path))
    assert splits.classes == ("apple", "baby") and (len(splits.train), len(splits.test)) == (2 * len(cls.train_list), 2)
    image, label = splits.test[1]
    last = 10 * len(cls.train_list) + 100
    assert image.size == (32, 32) and image.getpixel((5, 7)) == (last, last + 1, last + 2) and label == 1


@pytest.mark.parametrize("name, folder", [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_missing_or_damaged(name, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=folder):
        open_dataset(name, str(tmp_path))
    (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="damaged"):
        open_dataset(name, str(tmp_path))


def test_stray_files_and_nested_folders(tmp_path):
    """What notebooks, Macs and archives leave is neither a class nor an image."""
    write_image_folder(tmp_path)
    for split in ("train", "val"):
        for folder in (tmp_path / split / ".ipynb_checkpoints", tmp_path / split / "__MACOSX", tmp_path / split / "cat" / ".thumbnails"):
            folder.mkdir()
            Image.new("RGB", (4, 4)).save(folder / "x.png")
        (tmp_path / split / "cat" / "._0.png").write_text("stray")
        (tmp_path / split / "cat" / "deeper").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / split / "cat" / "deeper" / "1.TIF")
    splits = open_dataset("folder", str(tmp_path))
    assert splits.classes == ("cat", "dog") and len(splits.train) == len(splits.test) == 3


def test_files_that_are_not_read_are_counted(tmp_path, caplog):
    write_image_folder(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "train" / "cat" / "x.gif")
    (tmp_path / "train" / "cat" / "photo.heic").write_text("x")
    splits = open_dataset("folder", str(tmp_path))
    assert "x.gif" in {splits.train.name(i).rpartition("/")[2] for i in range(len(splits.train))}
    assert "1 files are not pictures by their names" in caplog.text and "photo.heic" in caplog.text


def test_one_split_is_enough_with_a_holdout(tmp_path):
    write_image_folder(tmp_path, splits=("train",), classes=tuple("abcdefghij"))
    whole = open_dataset("folder", str(tmp_path), holdout=0.2)
    inner = open_dataset("folder", str(tmp_path / "train"), holdout=0.2)
    for splits in (whole, inner):
        assert (len(splits.train), len(splits.test)) == (8, 2) and splits.classes == tuple("abcdefghij")
        assert {splits.train.name(i) for i in range(8)}.isdisjoint(splits.test.name(i) for i in range(2))
    with pytest.raises(FileNotFoundError, match="data.holdout=0.1, train alone is enough"):
        open_dataset("folder", str(tmp_path))


def test_a_class_may_be_missing_in_the_second_split(tmp_path, caplog):
    write_image_folder(tmp_path)
    shutil.rmtree(tmp_path / "val" / "cat")
    for _ in range(2):  # without the folder, and with an empty one
        caplog.clear()
        splits = open_dataset("folder", str(tmp_path))
        assert splits.classes == ("cat", "dog") and [splits.test[i][1] for i in range(len(splits.test))] == [1]
        assert "val has no images of cat: they are trained on and not evaluated" in caplog.text
        (tmp_path / "val" / "cat").mkdir(exist_ok=True)


def test_a_choice_without_images_of_a_class_is_announced(tmp_path, data_root, caplog):
    for name, value in (("cat", 0), ("dog", 255), ("emu", 128)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8), value).save(tmp_path / "train" / name / f"{i}.png")
    splits = open_dataset("folder", str(tmp_path), holdout=0.5, seed=2)
    for images, so in ((splits.train, "not trained on"), (splits.test, "not evaluated")):
        absent = {0, 1, 2} - {images[i][1] for i in range(len(images))}
        assert absent and f"has no images of {', '.join(splits.classes[i] for i in sorted(absent))}: they are {so}" in caplog.text
    caplog.clear()
    open_dataset("fashion_mnist", data_root, train_images=2)
    assert "the choice of 2 training images (seed 0) has no images of" in caplog.text


def test_a_root_that_is_not_there_is_named_at_once(tmp_path, monkeypatch):
    for name in ("folder", "imagenet", "hub", "webdataset"):
        with pytest.raises(FileNotFoundError, match="data.root=.*nowhere/x/y: there is no such folder"):
            open_dataset(name, str(tmp_path / "nowhere/x/y"))

    asked = []

    def fail(*address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://nowhere.invalid")
    with pytest.raises((ValueError, OSError), match="no-such/data.* data.root"):
        open_dataset("hub", "no-such/data")
    assert 1 <= len(asked) <= 6, asked  # and not again and again


def test_one_number_for_the_mean_of_gray_images():
    resolved = data_config(DataConfig(mean=(0.25,), std=(0.5,)), timm.create_model("kat_pico_patch4_28"))
    assert resolved["mean"] == (0.25,) and resolved["std"] == (0.5,) and image_mode(resolved) == "L"
