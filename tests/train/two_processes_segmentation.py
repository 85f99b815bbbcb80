"""What two processes do in test_segmentation_evaluate.py; started by torchrun with a folder in ADE20K's format."""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from kat_zoo.train.segmentation_config import SegmentationDataConfig
from kat_zoo.train.segmentation_data import EvalPixels, eval_loader, open_folders
from kat_zoo.train.segmentation_evaluate import evaluate


def main(root: str) -> None:
    data = SegmentationDataConfig(root=root, short_side=24, long_side=64, crop=16, stride=9, workers=0)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    model[1].running_mean += accelerator.process_index  # as after training, where each process saw other images
    loader = accelerator.prepare(eval_loader(EvalPixels(open_folders(data).test, data, 3), data, accelerator.num_processes))
    result = evaluate(accelerator, model, loader, 3, data)
    print(result.samples, f"{result.miou:.6f} {result.aacc:.6f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
