"""Draw the 256 test images that ship with the package: `.venv/bin/python benchmarks/draw_samples.py [--root DIR]`."""

import argparse

import numpy as np

from kat_zoo.hub.samples import SIDE, Samples, save_samples
from kat_zoo.train.classification.datasets import fashion_mnist

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder with the IDX files; the usual places by default")
    splits = fashion_mnist(parser.parse_args().root)
    indices = np.sort(np.random.default_rng(SEED).choice(len(splits.test), SIDE * SIDE, replace=False))
    images, labels = zip(*(splits.test[i] for i in indices), strict=True)
    save_samples(Samples(np.stack([np.asarray(i) for i in images]), np.array(labels), splits.classes, indices, SEED))


if __name__ == "__main__":
    main()
