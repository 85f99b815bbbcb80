"""The learned functions that the second tab draws, beside layers of one edge, which are these functions."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from kat_zoo.analysis.attention import capture_attention
from kat_zoo.explore.activations import STRONGEST, learned_functions
from kat_zoo.layers import GroupRational, KANLinear

IMAGE = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def points(panel):
    return torch.linspace(*panel["range"], len(panel["curves"][0]))


def test_a_rational_and_a_spline():
    torch.manual_seed(0)
    for layer, name in ((GroupRational(num_groups=1, init="gelu"), "1 groups"), (KANLinear(1, 1), "the 1 strongest of 1 splines")):
        x = torch.randn(500, 1)
        (panel,) = learned_functions(nn.Sequential(layer), x, {})
        assert panel["name"] == "0" and panel["text"] == name
        with torch.no_grad():
            torch.testing.assert_close(torch.tensor(panel["curves"][0]), layer(points(panel)[:, None])[:, 0], atol=1e-4, rtol=0)
        low, high = np.quantile(x.numpy(), (0.001, 0.999))
        assert panel["range"] == pytest.approx([low, high])
        assert sum(panel["bars"]) == ((x >= low) & (x <= high)).sum()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_functions_of_learned_attention(factor):
    """Of one component and one key, the attention is the function of the logit; large logits are shown within one period."""
    torch.manual_seed(0)
    model = timm.create_model("karat_pico_patch4_28", depth=1, patch_size=28, num_heads=1, rank=1, num_classes=2, class_token=False).eval()
    layer = model.blocks[0].attn
    (operator,) = layer.operators
    with torch.no_grad():
        layer.qkv.weight[:96] *= factor
        operator.w.fill_(1.0)
    (panel,) = learned_functions(model, IMAGE, capture_attention(model, IMAGE))
    t = points(panel)
    expected = operator.attention(t[None, None, :, None])[0, 0, :, 0]
    torch.testing.assert_close(torch.tensor(panel["curves"][0]), expected, atol=1e-4, rtol=0)
    assert max(map(abs, panel["range"])) <= np.pi and ("modulo" in panel["text"]) == (factor > 1)


def test_the_strongest_splines_are_drawn():
    """Of 30, the eight whose values vary most over the inputs, the strongest first."""
    torch.manual_seed(0)
    layer, x = KANLinear(10, 3), torch.randn(500, 10)
    (panel,) = learned_functions(nn.Sequential(layer), x, {})
    with torch.no_grad():
        values, curves = (layer.edges(at).flatten(1).numpy() for at in (x, points(panel)[:, None].repeat(1, 10)))
    strongest = np.argsort(-values.std(0))[:STRONGEST]
    np.testing.assert_allclose(panel["curves"], curves[:, strongest].T, atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"edge_scale": True}, {"hybrid_heads": 2}])
def test_the_strongest_functions_of_learned_heads_are_drawn(arguments):
    """While the logits of the other keys stay, the attention follows the function of one; heads that keep softmax have none."""
    torch.manual_seed(0)
    model = timm.create_model("karat_pico_patch4_28", depth=1, patch_size=14, rank=1, num_classes=2, **arguments).eval()
    operator = model.blocks[0].attn.operators[-1]
    with torch.no_grad():
        for parameter in (operator.cos_scale, operator.sin_scale):
            if parameter is not None:
                parameter.uniform_(0.2, 2)
        operator.w.fill_(1.0)
    captured = capture_attention(model, IMAGE)
    (panel,) = learned_functions(model, IMAGE, captured)
    heads, tokens = operator.w.shape[:2]
    logits = captured["blocks.0.attn"].logits[:, -heads:].numpy()
    assert panel["range"] == pytest.approx(np.quantile(logits, (0.001, 0.999)).tolist())

    def follow(head, key, t):
        given = torch.zeros(len(t), heads, 1, tokens)
        given[:, head, 0, key] = t
        return operator.attention(given)[:, head, 0, 0].detach().numpy()

    period = torch.linspace(0, 2 * np.pi, 65)[1:]
    keys = [(head, key) for head in range(heads) for key in range(tokens)]
    strongest = sorted(keys, key=lambda one: -follow(*one, period).var())[:STRONGEST]
    assert len(panel["curves"]) == min(STRONGEST, heads * tokens)
    for curve, one in zip(panel["curves"], strongest, strict=True):
        expected = follow(*one, points(panel))
        np.testing.assert_allclose(np.array(curve) - curve[0], expected - expected[0], atol=3e-4)


@pytest.mark.parametrize(
    ("name", "panels", "text"),
    [
        ("kat_pico_patch4_28", 8, "8 groups"),
        ("vit_kan_pico_patch4_28", 8, "strongest of 9,216 splines"),
        ("karat_pico_patch4_28", 6, "strongest of 1,176 functions"),
        ("vit_mlp_pico_patch4_28", 0, ""),
    ],
)
def test_every_kind_of_shipped_model(name, panels, text):
    model = timm.create_model(name).eval()
    found = learned_functions(model, IMAGE, capture_attention(model, IMAGE))
    assert len(found) == panels
    for panel in found:
        assert text in panel["text"] and len(panel["curves"]) == STRONGEST and np.isfinite(panel["curves"]).all()
