import math
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.evaluate import evaluate, main
from kat_zoo.train.classification.loader import eval_loader
from kat_zoo.train.classification.recipe import DataConfig

RESOLVED = dict(input_size=(1, 28, 28), mean=(0.3,), std=(0.3,), interpolation="bilinear", crop_pct=1.0, crop_mode="center")


@pytest.mark.parametrize("batch_size, workers", [(50, 0), (16, 2), (7, 0)])
def test_every_image_counts_once(batch_size, workers, data_root, generator):
    images = open_dataset("fashion_mnist", data_root).test
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.9)).train()
    nn.init.normal_(model[1].weight, generator=generator)
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
    loader = accelerator.prepare(eval_loader(images, DataConfig(batch_size=batch_size, workers=workers), RESOLVED))
    result = evaluate(accelerator, model, loader)

    pixels = torch.stack([(torch.tensor(np.asarray(image)).flatten() / 255 - 0.3) / 0.3 for image, _ in images])
    labels = torch.tensor([label for _, label in images])
    logits = pixels @ model[1].weight.T + model[1].bias
    right = logits.argmax(1) == labels
    assert result.samples == 50 and model.training
    assert result.top1 == pytest.approx(100 * right.double().mean().item())
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    assert result.top5 == pytest.approx(100 * top5)
    assert result.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    for label, share in enumerate(result.per_class):
        mask = labels == label
        assert math.isnan(share) if not mask.any() else share == pytest.approx(100 * right[mask].double().mean().item())


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--data.holdout=1.5", "data.holdout=1.5: expected a number in [0, 1)"),
        ("--data.crop_pct=0", "data.crop_pct=0.0: expected a number in (0, 1]"),
        ("--data.batch_size=0", "data.batch_size=0: expected"),
        ("--seed=-1", "seed=-1: expected"),
        ("--knn=-1", "knn=-1: expected"),
        ("--model.init_from=test_vit", "model.init_from='test_vit': expected None: it is a setting of training"),
        ("--model.new_head=true", "model.new_head=True: expected False"),
        ("--model.train_only=head", "model.train_only='head': expected 'all'"),
        ("--model.pretrained=false", "model.pretrained=False: expected true, for the published weights, or model.checkpoint"),
    ],
)
def test_settings_that_evaluation_would_ignore_are_refused(option, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        main([option, "--data.root=absent"])
