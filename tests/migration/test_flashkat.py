"""Claims of FlashKAT's page."""

import json
import re

import torch

from kat_zoo.layers import GroupRational

from .pages import PAGES, RESULTS, holds


@holds("flashkat", "`weight_numerator`, `weight_denominator`; theirs are read")
@holds("flashkat", "`share_numerator=False` of `kat_zoo.layers.GroupRational`")
def _():
    theirs = {"numerator_v": torch.randn(8, 6), "denominator_v": torch.randn(8, 4)}
    layer = GroupRational(num_groups=8, share_numerator=False)
    assert layer.weight_numerator.shape == (8, 6)
    layer.load_state_dict(dict(theirs))
    assert torch.equal(layer.weight_numerator, theirs["numerator_v"]) and torch.equal(layer.weight_denominator, theirs["denominator_v"])


@holds("flashkat", "none: partial sums in a fixed order, so a backward pass repeats bit for bit")  # on GPUs: test_rational_triton.py
def _():
    layer, x, found = GroupRational(), torch.randn(5000, 32), []
    for _ in range(3):
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append(layer.weight_denominator.grad.clone())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_instructions_beside_flashkats():
    text = (PAGES / "flashkat.md").read_text()
    sentence = r"execute (\d+) instructions an element forward and (\d+) to (\d+) backward, ours (\d+) to (\d+) and (\d+) to (\d+)"
    found = re.search(sentence, text)
    rows = [row for row in json.loads((RESULTS / "flashkat.json").read_text()) if row["arch"] == "sm_90"]

    def ends(kernel):
        counts = [row["instructions_per_element"] for row in rows if row["kernel"] == kernel and row["group_width"] in (24, 96, 384)]
        return [round(min(counts)), round(max(counts))]

    expected = [ends("rational_fwd")[0], *ends("rational_bwd"), *ends("rational_forward"), *ends("rational_backward")]
    assert ends("rational_fwd")[0] == ends("rational_fwd")[1]
    assert [int(number) for number in found.groups()] == expected
