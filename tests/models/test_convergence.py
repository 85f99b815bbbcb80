"""Twenty steps of training with the kernels and with the formulas give the same losses."""

import contextlib

import pytest
import timm
import torch
from torch.nn import functional as F

import kat_zoo.models  # noqa: F401  (registers)
from kat_zoo.kernels import bspline_op, bspline_torch, rational_op
from kat_zoo.kernels.fourier_attention_torch import (
    fourier_attention_reference,
    fourier_attention_tiled_backward,
    fourier_scores_reference,
)


def fourier_attention(q, k, v, a, b, w, scale=None):
    return fourier_attention_reference(q, k, v, a, b, w, scale), fourier_scores_reference(q, k, a, b, scale)


FORMULAS = {
    "rational": rational_op._forward_reference,
    "rational_backward": rational_op._backward_reference,
    "fourier_attention": fourier_attention,
    "fourier_attention_backward": fourier_attention_tiled_backward,
    **{
        name: bspline_op._formula(getattr(bspline_torch, f"{name}_reference"))
        for name in ("bspline_basis", "spline_contract", "spline_project", "spline_accumulate")
    },
}


@contextlib.contextmanager
def formulas(used):
    """Send the operators' CPU tensors through their formulas, and note which were called."""
    library = torch.library.Library("kat_zoo", "IMPL")
    for name, formula in FORMULAS.items():

        def noted(*args, name=name, formula=formula):
            used.add(name)
            return formula(*args)

        library.impl(name, noted, "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def losses(name, steps=20):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10, in_chans=1)
        x, label = torch.randn(8, 1, 28, 28), torch.arange(8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        values = []
        for _ in range(steps):
            loss = F.cross_entropy(model(x), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return torch.tensor(values)


# Torch 2.8 says of the first operator that it is overridden, as is asked for.
@pytest.mark.filterwarnings("ignore:Warning only once for all operators:UserWarning")
@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("kat_pico_patch4_28", {"rational", "rational_backward"}),
        ("karat_pico_patch4_28", {"fourier_attention", "fourier_attention_backward"}),
        ("vit_kan_pico_patch4_28", {"spline_contract", "spline_project", "spline_accumulate"}),
    ],
)
def test_kernels_and_formulas_train_alike(name, operators):
    ours = losses(name)
    used = set()
    with formulas(used):
        expected = losses(name)
    assert used == operators
    assert expected[-1] < 0.5 * expected[0]
    torch.testing.assert_close(ours, expected, rtol=2e-3, atol=2e-3)
