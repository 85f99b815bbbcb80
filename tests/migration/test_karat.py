"""Claims of KArAt's page."""

import inspect

import timm
import torch

from kat_zoo.layers import FourierHeads, GeneralHeads

from .pages import IMAGES, RESULTS, SMALL, holds, read


def karat(kind="b", **options):
    return timm.create_model(f"karat_tiny_g3{kind}_patch16_224", **SMALL | options).eval()


def operators(model):
    return [list(block.attn.operators) for block in model.blocks]


@holds("karat", "`karat_tiny_g3b_patch16_224`", '`karat_tiny_g3u_patch16_224`, or `mode="universal"`')
def _():
    blockwise, universal, same_mode = operators(karat()), operators(karat("u")), operators(karat(mode="universal"))
    assert blockwise[0][0] is not blockwise[1][0]
    assert universal[0][0] is universal[1][0] and same_mode[0][0] is same_mode[1][0]


@holds("karat", "`grid_size`, one number or one for each layer; `num_harmonics` of `kat_zoo.layers.FourierHeads`")
def _():
    one, five, each = (operators(karat(grid_size=size)) for size in (1, 5, [1, 5]))
    shapes = [[tuple(p.shape) for p in heads[0].parameters()] for heads in (one[0], five[1])]
    assert [[tuple(p.shape) for p in heads[0].parameters()] for heads in each] == shapes and shapes[0] != shapes[1]
    assert [tuple(p.shape) for p in FourierHeads(3, 17, num_harmonics=5).parameters()] == shapes[1]


@holds("karat", "`rank`")
def _():
    assert inspect.signature(FourierHeads).parameters["rank"].default == 12
    assert sum(p.numel() for p in karat(rank=4).parameters()) < sum(p.numel() for p in karat().parameters())
    assert sum(p.numel() for p in karat(rank=12).parameters()) == sum(p.numel() for p in karat().parameters())


@holds("karat", "`hybrid_heads`, the first heads of a layer")
def _():
    attention = karat(hybrid_heads=1).blocks[0].attn.operators
    assert [type(part).__name__ for part in attention] == ["SoftmaxHeads", "FourierHeads"] and attention.head_counts == [1, 2]


@holds("karat", "`base_function`", "`operator_order`", "`basis`, in `kat_zoo.layers.GeneralHeads`", "`projection`")
def _():
    options = (
        ("base_function", "silu"),
        ("operator_order", "phi_w"),
        ("basis", "rational"),
        ("basis", "morlet"),
        ("projection", "simplex"),
    )
    for name, value in options:
        model = karat(**{name: value})
        assert isinstance(operators(model)[0][0], GeneralHeads) and model(IMAGES).isfinite().all()
    top1 = ablations()
    assert top1["projection", "simplex"] < top1["baseline", "fourier G3 r8"] - 5  # "which hurts"


@holds("karat", '`operator_init="normal"`; the default is scaled, which trains better')
def _():
    normal = operators(karat(operator_init="normal"))[0][0]
    assert any(abs(p.std() - 1) < 0.1 and p.numel() > 1000 for p in normal.parameters())
    same_init = [p.std() for p in operators(karat(operator_init="scaled"))[0][0].parameters()]
    default = [p.std() for p in operators(karat())[0][0].parameters()]
    torch.testing.assert_close(torch.stack(default), torch.stack(same_init), rtol=0.2, atol=0.01)
    assert ablations()["baseline", "fourier G3 r8"] > ablations()["init", "normal"]


@holds("karat", "`edge_scale=True`")  # the counts of the table: tests/models/test_karat.py
def _():
    assert sum(p.numel() for p in karat(edge_scale=True).parameters()) > sum(p.numel() for p in karat().parameters())


@holds("karat", "`set_input_size` interpolates, [at a price](../attention.md#another-image-size)")
def _():
    model = karat()
    before = model(IMAGES)
    model.set_input_size((96, 96))
    assert model(torch.rand(1, 3, 96, 96)).isfinite().all()
    model.set_input_size((64, 64))
    assert not torch.allclose(model(IMAGES), before)


def ablations():
    rows = read(RESULTS / "karat_ablations.csv")
    return {(row["group"], row["variant"]): float(row["top1"]) for row in rows}
