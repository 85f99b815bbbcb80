"""What two processes do in test_segmentation_evaluate.py; started by torchrun with a folder in ADE20K's format."""

import sys

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, gather_object
from torch import nn

from kat_zoo.train.segmentation.ade20k import open_folders
from kat_zoo.train.segmentation.data import EvalPixels, eval_loader
from kat_zoo.train.segmentation.evaluate import evaluate
from kat_zoo.train.segmentation.recipe import SegmentationDataConfig


def main(root: str) -> None:
    data = SegmentationDataConfig(root=root, short_side=24, long_side=64, crop=16, stride=9, workers=0)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    model[1].running_mean += accelerator.process_index  # as after training, where each process saw other images
    loader = accelerator.prepare(eval_loader(EvalPixels(open_folders(data).test, data, 3), data, accelerator.num_processes))
    result = evaluate(accelerator, model, loader, 3, data)
    # One process prints for both: they share a pipe, where an unbuffered print is more than one write.
    accelerator.print(*gather_object([f"{result.samples} {result.miou:.6f} {result.aacc:.6f}"]))


if __name__ == "__main__":
    main(sys.argv[1])
    PartialState().destroy_process_group()  # or gloo's threads may abort the exit
