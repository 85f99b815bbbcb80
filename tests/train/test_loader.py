import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loader import eval_loader, train_loader, train_transform
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig
from kat_zoo.train.core.sampling import EpochSampler, seeded

RESOLVED = dict(input_size=(1, 28, 28), mean=(0.3,), std=(0.3,), interpolation="bilinear", crop_pct=1.0, crop_mode="center")
PLAIN = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)
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
    thrice = list(EpochSampler(50, 48, seed=0, repeats=3))
    assert sorted(np.unique([index for index, _ in thrice], return_counts=True)[1]) == [3] * 16
    assert len({seed for _, seed in thrice}) == 48  # each repeat is augmented differently


def test_a_batch_larger_than_the_data_is_refused(data_root):
    images = open_dataset("fashion_mnist", data_root).train
    with pytest.raises(ValueError, match="batch_size 128 .* 96 images"):
        train_loader(images, DataConfig(batch_size=128), STRONG, RESOLVED, 0, 1)


@pytest.mark.parametrize("policy", ["3a", "rand-m9-mstd0.5-inc1", "augmix-m5-w3-d2"])
def test_augmentation_policies_are_repeatable(policy, data_root):
    augment = AugmentConfig(auto_augment=policy, random_erasing=0.0, crop="none", hflip=0.0)
    first, plain = batches(data_root, 0, augment=augment), batches(data_root, 0, augment=replace(augment, auto_augment=None))
    assert torch.equal(batches(data_root, 0, augment=augment), first)
    assert (first != plain).flatten(1).any(1).float().mean() > 0.3  # of the images, in the same order


@pytest.mark.parametrize("workers", [0, 1])
def test_progressive_resolution_follows_the_epoch(workers, data_root):
    images = open_dataset("fashion_mnist", data_root).train
    config = DataConfig(batch_size=16, workers=workers, sizes={0: 14, 2: 20, 3: 28})
    loader, sampler, _ = train_loader(images, config, STRONG, RESOLVED, 0, 1)
    for epoch, side in enumerate((14, 14, 20, 28, 28)):
        sampler.seek(epoch, 80)
        assert [x.shape[1:] for x, _ in loader] == [(1, side, side)]


@pytest.mark.parametrize("crop", ["none", "pad"])
def test_crops_keep_the_aspect_ratio_and_the_interpolation(crop):
    """An image twice as wide as high: its middle, by the interpolation of evaluation; a square of the right size is left alone."""
    augment = replace(PLAIN, crop=crop, pad=0)
    wide = Image.fromarray(np.tile(np.repeat(np.uint8([0, 60, 200, 255]), 16)[None], (32, 1)))
    resolved = RESOLVED | {"interpolation": "nearest", "mean": (0.0,), "std": (1.0,), "input_size": (1, 16, 16)}
    image = (255 * train_transform(augment, resolved)(wide)).round()
    assert torch.equal(image[0, 0], torch.tensor([60.0] * 8 + [200.0] * 8))
    square = torch.randint(256, (16, 16), dtype=torch.uint8)
    assert torch.equal((255 * train_transform(augment, resolved)(Image.fromarray(square.numpy()))).round()[0], square.float())


def test_a_mean_for_other_channels_is_refused(data_root):
    resolved = RESOLVED | {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    splits, config = open_dataset("fashion_mnist", data_root), DataConfig(batch_size=16, workers=0)
    for build in (lambda: train_loader(splits.train, config, PLAIN, resolved, 0, 1), lambda: eval_loader(splits.test, config, resolved)):
        with pytest.raises(ValueError, match=r"data.mean is \[0.5, 0.5, 0.5\] and data.std .*; the model takes 1 channel"):
            build()


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m0", "originalr", "augmix-m10"])
def test_posterizing_keeps_a_bit_at_the_greatest_magnitude(policy):
    transform = train_transform(AugmentConfig(auto_augment=policy, mixup=0.0), RESOLVED)
    ops = [op for stage in transform.transforms for part in getattr(stage, "policy", [getattr(stage, "ops", [])]) for op in part]
    posterize = [op for op in ops if getattr(op, "name", "").startswith("Posterize")]
    image = Image.fromarray(np.full((4, 4), 200, np.uint8))
    for op in posterize:
        op.prob = 1.0
        for magnitude in (0, 10):
            op.magnitude = magnitude
            assert op(image).getpixel((0, 0)) >= 128
    assert posterize
