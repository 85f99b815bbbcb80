import gzip
import struct

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from timm.layers import set_fused_attn, use_fused_attn

from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig
from kat_zoo.train.segmentation.recipe import SegmentationDataConfig, SegmentationRecipe, SegmenterConfig


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Models this small gain nothing by threads, which on a busy machine wait for each other many times as long as they work."""
    threads(1)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Let each test choose its precision: accelerate keeps that of the first Accelerator of a process."""
    AcceleratorState._reset_state(reset_partial_state=False)


@pytest.fixture(autouse=True)
def fused_attention():
    """Leave timm's switch as it was: a run sets it as its recipe says, for all models of the process."""
    before = use_fused_attn()
    yield
    set_fused_attn(before)


@pytest.fixture
def hold_by_another(monkeypatch):
    """A function after which every run folder is held by another process."""

    def hold(folder):
        raise ValueError("another process trains there")

    return lambda: monkeypatch.setattr("kat_zoo.train.core.processes.hold", hold)


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion_mnist(folder, train=96, test=50, suffix=".gz"):
    """Images whose label can be learned: a bright band at the row of the class."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for stem, size in (("train", train), ("t10k", test)):
        labels = random.integers(0, 10, size).astype(np.uint8)
        images = random.integers(0, 60, (size, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 7] = 220
        write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    return str(write_fashion_mnist(tmp_path_factory.mktemp("fashion-mnist")))


@pytest.fixture
def recipe(tmp_path, data_root):
    """Two epochs of six updates with everything random switched on."""
    return Recipe(
        output=str(tmp_path / "run"),
        model=ModelConfig(
            name="kat_pico_patch4_28",
            kwargs={"depth": 1, "embed_dim": 24, "drop_path_rate": 0.2, "patch_drop_rate": 0.1},
        ),
        data=DataConfig(root=data_root, batch_size=16, workers=0),
        augment=AugmentConfig(mixup=0.2, random_erasing=0.5, crop="pad"),
        optimizer=OptimizerConfig(lr=2e-3, clip_grad=1.0, grad_accum=2),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        system=SystemConfig(log_every=2, trackers=()),
    )


def write_ade20k(root, train=8, test=5, table=True):
    """Pictures of three classes in ADE20K's format: the gray level tells the class, 0 is "other", 255 unknown; sizes differ."""
    random = np.random.default_rng(0)
    for split, count in (("training", train), ("validation", test)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            height, width = (24 + 8 * (i % 2), 32)
            labels = random.integers(0, 4, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            labels[:3] = 255
            image = (60 * labels.clip(0, 3) + random.integers(0, 20, labels.shape)).astype(np.uint8)
            Image.fromarray(image).convert("RGB").save(root / "images" / split / f"{i}.png")
            Image.fromarray(labels).save(root / "annotations" / split / f"{i}.png")
    if table:
        rows = ["1\t0.3\t8\t5\t1\twall", "2\t0.3\t8\t5\t1\tbuilding, edifice", "3\t0.3\t8\t5\t0\tsky"]
        (root / "objectInfo3.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]))
    return root


@pytest.fixture(scope="session")
def ade_root(tmp_path_factory):
    return write_ade20k(tmp_path_factory.mktemp("ade20k"))


@pytest.fixture
def segmentation_recipe(tmp_path, ade_root):
    """Two epochs of two updates with everything random switched on."""
    return SegmentationRecipe(
        output=str(tmp_path / "run"),
        model=SegmenterConfig(
            backbone="kat_pico_patch4_28",
            backbone_args={"depth": 4, "embed_dim": 24, "drop_path_rate": 0.2},
            neck_args={"out_channels": 8, "scales": [1, 0.5, 0.25], "indices": [1, 2, 3]},
            kwargs={"hidden_size": 8, "auxiliary_channels": 8},
        ),
        data=SegmentationDataConfig(root=str(ade_root), batch_size=4, workers=0, short_side=28, long_side=56, crop=24, stride=10),
        optimizer=OptimizerConfig(lr=2e-3, clip_grad=1.0, grad_accum=2, layer_decay=0.8),
        schedule=ScheduleConfig(name="poly", decay_rate=1.0, epochs=2, warmup_epochs=0.5, min_lr=0.0),
        ema=EmaConfig(decay=0.9),
        system=SystemConfig(log_every=2, trackers=()),
    )
