"""Figures against scikit-learn and by hand; the sliding window against the whole image."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch import nn

from kat_zoo.train.segmentation.ade20k import open_folders
from kat_zoo.train.segmentation.data import EvalPixels, eval_loader
from kat_zoo.train.segmentation.evaluate import confusion, evaluate, predict_logits, summarize, windows
from kat_zoo.train.segmentation.recipe import SegmentationDataConfig


def test_figures_agree_with_sklearn():
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 6, 5000), random.integers(0, 6, 5000)
    found[:2500] = truth[:2500]
    labels = truth.copy()
    labels[::7] = 255
    kept = labels != 255
    matrix = confusion(torch.from_numpy(found), torch.from_numpy(labels), 6)
    assert np.array_equal(matrix, confusion_matrix(truth[kept], found[kept]))
    result = summarize(matrix, 1)
    assert result.iou == pytest.approx(100 * jaccard_score(truth[kept], found[kept], average=None))
    assert result.miou == pytest.approx(100 * jaccard_score(truth[kept], found[kept], average="macro"))
    assert result.aacc == pytest.approx(100 * accuracy_score(truth[kept], found[kept]))


def test_figures_by_hand():
    """Class 1 is annotated and never found, class 2 found and never annotated, class 3 neither."""
    result = summarize(torch.tensor([[6, 0, 2, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), 1)
    assert result.iou[:3] == pytest.approx((60.0, 0.0, 0.0)) and math.isnan(result.iou[3])
    assert result.miou == pytest.approx(20.0) and result.aacc == pytest.approx(60.0) and result.macc == pytest.approx(37.5)


@pytest.mark.parametrize("size, crop, stride", [((512, 700), 512, 341), ((30, 31), 10, 7), ((10, 25), 16, 16), ((17, 16), 16, 1)])
def test_windows_cover_every_pixel_and_stay_inside(size, crop, stride):
    covered = np.zeros(size, int)
    places = windows(size, crop, stride)
    for top, left in places:
        assert top + min(crop, size[0]) <= size[0] and left + min(crop, size[1]) <= size[1]
        covered[top : top + crop, left : left + crop] += 1
    assert covered.min() >= 1 and len(set(places)) == len(places)


class Pointwise(nn.Module):
    """Logits of a pixel from the pixel alone: any window gives the same."""

    def __init__(self, classes=3, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.sizes = nn.Conv2d(channels, classes, 1), []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        return self.conv(images)


def slide(**kwargs):
    return SegmentationDataConfig(**{"crop": 16, "stride": 11, **kwargs})


@torch.no_grad()
def test_sliding_window_of_a_pointwise_model_is_the_model():
    model, images = Pointwise(), torch.rand(2, 1, 37, 50)
    whole = model(images)
    torch.testing.assert_close(predict_logits(model, images, slide()), whole)
    assert set(model.sizes[1:]) == {(16, 16)}
    assert torch.equal(predict_logits(model, images, slide(evaluate="whole")), whole) and model.sizes[-1] == (37, 50)
    torch.testing.assert_close(predict_logits(model, images[..., :9, :], slide()), whole[..., :9, :])
    assert model.sizes[-1] == (9, 16)


@torch.no_grad()
def test_a_window_that_covers_the_image_is_the_whole_image():
    torch.manual_seed(0)
    model, images = nn.Conv2d(1, 3, 3, padding=1), torch.rand(1, 1, 16, 12)
    assert torch.equal(predict_logits(model, images, slide()), model(images))
    assert not torch.equal(predict_logits(model, images, slide(crop=8, stride=8)), model(images))


@torch.no_grad()
def test_overlapping_windows_are_averaged():
    class Mean(nn.Module):
        def forward(self, images):
            return images.mean((2, 3), keepdim=True).expand(-1, 2, *images.shape[-2:])

    images = torch.rand(1, 1, 4, 10)
    found = predict_logits(Mean(), images, slide(crop=6, stride=4))
    left, right = images[..., :6].mean(), images[..., 4:].mean()
    expected = torch.tensor([left] * 4 + [(left + right) / 2] * 2 + [right] * 4)
    torch.testing.assert_close(found[0, 1], expected.expand(4, 10))


@pytest.mark.parametrize("short_side", [24, 12])
def test_every_pixel_of_every_image_counts_once(short_side, ade_root):
    data = SegmentationDataConfig(root=str(ade_root), short_side=short_side, long_side=64, crop=16, stride=9, workers=0)
    splits, accelerator, model = open_folders(data), Accelerator(cpu=True), Pointwise(channels=3).train()
    pixels = EvalPixels(splits.test, data, 3)
    result = evaluate(accelerator, model, accelerator.prepare(eval_loader(pixels, data)), 3, data)
    assert result.samples == 5 and model.training
    truth, found = [], []
    with torch.no_grad():
        for image, labels in pixels:
            logits = nn.functional.interpolate(model(image[None]), labels.shape, mode="bilinear")
            truth.append(labels[labels != 255])
            found.append(logits[0].argmax(0)[labels != 255])
    truth, found = torch.cat(truth), torch.cat(found)
    assert result.iou == pytest.approx(100 * jaccard_score(truth, found, average=None))
    assert result.aacc == pytest.approx(100 * accuracy_score(truth, found))


@pytest.mark.slow
def test_two_processes_count_what_one_counts(ade_root):
    """Five images on two processes: the last batch is padded. Each process has other batch norm statistics of its own."""
    data = SegmentationDataConfig(root=str(ade_root), short_side=24, long_side=64, crop=16, stride=9, workers=0)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent / "two_processes_segmentation.py"), str(ade_root)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    splits, accelerator = open_folders(data), Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    loader = accelerator.prepare(eval_loader(EvalPixels(splits.test, data, 3), data))
    result = evaluate(accelerator, model, loader, 3, data)
    assert done.stdout.split() == [str(result.samples), f"{result.miou:.6f}", f"{result.aacc:.6f}"] * 2
