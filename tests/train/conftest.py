import gzip
import struct

import numpy as np
import pytest

from kat_zoo.train.classification_config import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig


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
