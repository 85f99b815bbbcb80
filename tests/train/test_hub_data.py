"""Hub datasets by index and as streams, parquet and webdataset tars, in the formats as they lie on disks."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from kat_zoo.train.classification import stream as streams
from kat_zoo.train.classification.datasets import Stream, hub, open_dataset
from kat_zoo.train.classification.loader import eval_loader, train_loader
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig

RESOLVED = dict(input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", crop_pct=1.0, crop_mode="center")
EXACT = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)
STRONG = AugmentConfig(random_erasing=0.5)


def picture(value):
    return Image.fromarray(np.full((8, 8, 3), value, np.uint8))


def png(value):
    file = io.BytesIO()
    picture(value).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder, sizes=(8, 8, 8, 8), test=10, broken=(), labels=None):
    """Shards of training images whose brightness is their number, and test images from 200 on."""
    import datasets

    folder.mkdir(exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})

    def write(name, numbers):
        images = [{"bytes": png(i)[: 30 if i in broken else None], "path": f"{i}.png"} for i in numbers]
        rows = {"image": images, "label": labels or [i % 2 for i in numbers]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / name)

    for shard, size in enumerate(sizes):
        first = sum(sizes[:shard])
        write(f"train-{shard:05d}-of-{len(sizes):05d}.parquet", range(first, first + size))
    write("test-00000-of-00001.parquet", range(200, 200 + test))
    return str(folder)


def write_tar(path, numbers):
    with tarfile.open(path, "w") as tar:
        for i in numbers:
            for extension, data in (("png", png(i)), ("cls", str(i % 2).encode())):
                entry = tarfile.TarInfo(f"{i:04d}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("parquet"))


def numbers(images):
    """Which pictures a batch of untouched images holds."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def epoch(root, epoch=0, first=0, workers=0, augment=EXACT, batch_size=8, samples=32, accum=2, **config):
    data = DataConfig(batch_size=batch_size, workers=workers, **config)
    images = hub(root, streaming=True, samples=samples, buffer=4).train
    loader, sampler, _ = train_loader(images, data, augment, RESOLVED, seed=5, accum=accum)
    sampler.seek(epoch, first)
    return list(loader)


def test_a_number_of_classes_that_the_data_does_not_have_is_refused(parquet):
    with pytest.raises(ValueError, match="data.num_classes=3: expected 2, the classes of the column label of .*, or to be left out"):
        hub(parquet, num_classes=3)
    assert hub(parquet, num_classes=2).classes == ("even", "odd")


def test_every_image_of_a_stream_once_per_epoch(parquet):
    batches = epoch(parquet, workers=2)
    seen = [n for images, _ in batches for n in numbers(images)]
    assert [len(labels) for _, labels in batches] == [4] * 8
    assert sorted(seen) == list(range(32)) and seen != sorted(seen)
    assert [n % 2 for n in seen] == [label for _, labels in batches for label in labels.tolist()]
    other = [n for images, _ in epoch(parquet, epoch=1, workers=2) for n in numbers(images)]
    assert sorted(other) == sorted(seen) and other != seen


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_continues_with_the_very_images_it_would_have_given(parquet, workers):
    whole = [images for images, _ in epoch(parquet, epoch=1, workers=workers, augment=STRONG, accum=1)]
    torch.manual_seed(99)
    for done in (8, 24):  # within a round of the two workers, and within the next
        rest = [images for images, _ in epoch(parquet, epoch=1, first=done, workers=workers, augment=STRONG, accum=1)]
        assert torch.equal(torch.cat(rest), torch.cat(whole[done // 8 :]))


def test_an_epoch_may_be_longer_or_shorter_than_the_stream(parquet):
    longer = [n for images, _ in epoch(parquet, samples=80) for n in numbers(images)]
    assert len(longer) == 80 and {longer.count(n) for n in range(32)} == {2, 3} and longer[:32] != longer[32:64]
    assert len(epoch(parquet, samples=16)) == 4


def test_processes_share_a_stream(parquet, monkeypatch):
    seen, tested = [], []
    for rank in range(2):

        class World:
            num_processes, process_index, device, is_main_process = 2, rank, torch.device("cpu"), rank == 0

        monkeypatch.setattr(streams, "PartialState", World)
        monkeypatch.setattr(streams, "reduce", lambda count, reduction: count)
        batches = epoch(parquet, workers=1)
        assert [len(labels) for _, labels in batches] == [2] * 8
        seen += [n for images, _ in batches for n in numbers(images)]
        for images, labels in eval_loader(hub(parquet, streaming=True, samples=32).test, DataConfig(batch_size=8), RESOLVED, 2):
            assert len(images) == 4
            tested += [n for n, label in zip(numbers(images), labels.tolist(), strict=True) if label >= 0]
    assert sorted(seen) == list(range(32)) and sorted(tested) == list(range(200, 210))


def test_a_stream_continued_by_other_workers_says_so(parquet, caplog):
    images = hub(parquet, streaming=True, samples=32).train
    loaders = [train_loader(images, DataConfig(batch_size=8, workers=n), EXACT, RESOLVED, 0, 1)[0] for n in (1, 3, 4, 9)]
    assert caplog.text.count("lowered to") == 1 and "data.workers 9 is lowered to 4" in caplog.text
    loaders[0].compare_order(loaders[0].order_numbers())
    assert "another order" not in caplog.text
    loaders[1].compare_order(loaders[0].order_numbers())
    assert "another order" in caplog.text


def test_unreadable_images_of_a_stream_are_replaced_up_to_a_limit(tmp_path, caplog):
    root = write_parquet(tmp_path / "data", broken=(3, 17))
    batches = epoch(root, workers=2, max_unreadable=2)
    seen = [n for images, _ in batches for n in numbers(images)]
    assert len(seen) == 32 and set(range(32)) - set(seen) == {3, 17}
    rest = epoch(root, workers=2, max_unreadable=2, first=16)
    assert torch.equal(torch.cat([x for x, _ in rest]), torch.cat([x for x, _ in batches[4:]]))
    with pytest.raises(ValueError, match="2 unreadable images, more than data.max_unreadable 1: .*png, .*png"):
        epoch(root, max_unreadable=1)
    assert "3.png" in caplog.text and "17.png" in caplog.text


def test_webdataset_tars(tmp_path):
    for shard in range(2):
        write_tar(tmp_path / f"train-{shard:04d}.tar", range(6 * shard, 6 * shard + 6))
    write_tar(tmp_path / "val-0000.tar", range(3))
    with pytest.raises(ValueError, match="data.num_classes"):
        open_dataset("webdataset", str(tmp_path))
    unsized = open_dataset("webdataset", str(tmp_path), num_classes=2).train
    with pytest.raises(ValueError, match="give data.samples"):
        train_loader(unsized, DataConfig(batch_size=4), EXACT, RESOLVED, 0, 1)
    splits = open_dataset("webdataset", str(tmp_path), num_classes=2, samples=12)
    assert splits.classes == ("0", "1") and isinstance(splits.test, Stream)
    loader, _, updates = train_loader(splits.train, DataConfig(batch_size=4, workers=0), EXACT, RESOLVED, 0, 1)
    assert updates == 3 and sorted(n for images, _ in loader for n in numbers(images)) == list(range(12))
    with pytest.raises(ValueError, match=r"(train-0000.tar 000[135]|train-0001.tar 00(07|09|11)): cls=1: expected a class in \[0, 1\)"):
        list(train_loader(open_dataset("webdataset", str(tmp_path), num_classes=1, samples=12).train,
                          DataConfig(batch_size=4, workers=0), EXACT, RESOLVED, 0, 1)[0])  # fmt: skip
    (tmp_path / "train-0000.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match="could not be read"):
        open_dataset("webdataset", str(tmp_path), num_classes=2, samples=12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no .*tar"):
        open_dataset("webdataset", str(tmp_path / "empty"))


def test_a_split_without_labels_is_passed_over(tmp_path, caplog):
    import datasets

    root = write_parquet(tmp_path / "data")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})

    def write(split, labels):
        rows = {"image": [{"bytes": png(0), "path": None}] * len(labels), "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")

    write("test", [-1, -1])
    with pytest.raises(ValueError, match="only train has labels"):
        hub(root)
    write("validation", [0, 1, 1])
    for streaming in (False, True):
        splits = hub(root, streaming=streaming, samples=32)
        assert "test has no labels" in caplog.text
        rows = splits.test.rows
        assert [row["label"] for row in rows] == [0, 1, 1]
        caplog.clear()


def test_what_cannot_be_a_stream_is_refused(tmp_path, parquet):
    with pytest.raises(ValueError, match="'cifar10' is read by index"):
        open_dataset("cifar10", streaming=True)
    with pytest.raises(ValueError, match="data.holdout"):
        open_dataset("hub", parquet, holdout=0.1, streaming=True, samples=32)
    with pytest.raises(ValueError, match="augment.repeats"):
        splits = hub(parquet, streaming=True, samples=32)
        train_loader(splits.train, DataConfig(batch_size=4), AugmentConfig(repeats=3), RESOLVED, 0, 1)


@pytest.fixture(autouse=True)
def no_nap(monkeypatch):
    """`datasets` sleeps for seconds after each pass through shuffled shards, in case Arrow's threads still run."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


def test_a_truncated_shard_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    for name, first in (("train-0", 0), ("train-1", 8), ("val-0", 200)):
        write_tar(tmp_path / f"{name}.tar", range(first, first + 8))
    shard = tmp_path / "train-1.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    splits = open_dataset("webdataset", str(tmp_path), num_classes=2, samples=16)
    data = DataConfig(batch_size=4, workers=0)
    loader, sampler, _ = train_loader(splits.train, data, EXACT, RESOLVED, 0, 1)
    sampler.seek(0)
    with pytest.raises(ValueError, match=r"a shard of the stream cannot be read: .*; damaged: .*train-1.tar$"):
        list(loader)
    assert len(list(eval_loader(splits.test, data, RESOLVED))) == 2


def test_names_as_labels_are_refused(tmp_path):
    import datasets

    rows = {"image": [{"bytes": png(1), "path": None}] * 2, "label": ["cat", "dog"]}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}))
    for split in ("train", "test"):
        data.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="the column 'label' holds string: expected a ClassLabel or integers"):
        hub(str(tmp_path), label="label")


def test_one_split_of_the_hub_is_enough_with_a_holdout(tmp_path):
    root = write_parquet(tmp_path / "one")
    (tmp_path / "one" / "test-00000-of-00001.parquet").unlink()
    splits = open_dataset("hub", root, holdout=0.25)
    assert (len(splits.train), len(splits.test)) == (24, 8)
    with pytest.raises(ValueError, match="needed: train, and test or validation"):
        open_dataset("hub", root)
