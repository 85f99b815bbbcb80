import random

import numpy as np
import pytest
import torch

from kat_zoo.train.classification_config import AugmentConfig, DataConfig
from kat_zoo.train.data import open_dataset
from kat_zoo.train.loader import EpochSampler, seeded, train_loader

RESOLVED = dict(input_size=(1, 28, 28), mean=(0.3,), std=(0.3,), interpolation="bilinear", crop_pct=1.0, crop_mode="center")
STRONG = AugmentConfig(random_erasing=0.5)  # with RandAugment: draws from Python, NumPy and torch


def batches(data_root, epoch, first=0, workers=0, accum=1, augment=STRONG, seed=0):
    images = open_dataset("fashion_mnist", data_root).train
    config = DataConfig(batch_size=16, workers=workers)
    loader, sampler, updates = train_loader(images, config, augment, RESOLVED, seed, accum)
    assert updates == 6
    sampler.seek(epoch, first)
    return torch.cat([x for x, _ in loader])


def test_order_and_augmentation_depend_on_seed_and_epoch_only(data_root):
    expected = batches(data_root, epoch=1)
    torch.manual_seed(123)
    assert torch.equal(batches(data_root, epoch=1, workers=2), expected)
    assert torch.equal(batches(data_root, epoch=1, accum=4), expected)
    assert torch.equal(batches(data_root, epoch=1, first=32, workers=1), expected[32:])
    assert not torch.equal(batches(data_root, epoch=0), expected)
    assert not torch.equal(batches(data_root, epoch=1, seed=1), expected)


def test_global_random_states_are_left_alone(data_root):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    batches(data_root, epoch=0)
    assert random.getstate() == states[0] and np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    with seeded(5):
        first = random.random(), np.random.rand(), torch.rand(()).item()
    with seeded(5):
        assert first == (random.random(), np.random.rand(), torch.rand(()).item())


def test_every_image_once_or_as_often_as_asked():
    once = [index for index, _ in EpochSampler(50, 50, seed=0)]
    assert sorted(once) == list(range(50)) and once != sorted(once)
    thrice = [key for key in EpochSampler(50, 48, seed=0, repeats=3)]
    assert sorted(np.unique([index for index, _ in thrice], return_counts=True)[1]) == [3] * 16
    assert len({seed for _, seed in thrice}) == 48  # each repeat is augmented differently


def test_a_batch_larger_than_the_data_is_refused(data_root):
    images = open_dataset("fashion_mnist", data_root).train
    with pytest.raises(ValueError, match="batch_size 128 .* 96 images"):
        train_loader(images, DataConfig(batch_size=128), STRONG, RESOLVED, 0, 1)
