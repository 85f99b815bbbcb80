"""Data and networks that several tests share."""

import torch

from kat_zoo.kan import KAN


def number(value):
    return value.detach().item()


def data(n=200, inputs=2, seed=0):
    x = torch.rand(n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return x, torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)


def symbolic_mix():
    model = KAN([2, [2, 1], 1], 4, seed=3)
    model.fix_symbolic(0, 0, 1, "sin", affine=(2.0, 0.3, 1.5, -0.2))
    model.fix_symbolic(1, 2, 0, "x^2", affine=(0.5, 0.1, 1.0, 0.0))
    model.remove_edge(0, 1, 0)
    return model
