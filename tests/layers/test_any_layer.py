"""Every public layer against its formula written out in float64, over sizes, shapes, strides, dtypes, options, NaN and infinities.

Values and the gradients of the input and of every parameter are compared. `slow` tries many more.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kat_zoo.kernels import bspline_basis_reference, fourier_attention_reference, rational_reference
from kat_zoo.layers import FourierHeads, GeneralHeads, GroupRational, KANLinear, KArAtAttention
from kat_zoo.layers.learned_attention.attention import Operators
from kat_zoo.layers.learned_attention.fourier import SoftmaxHeads
from kat_zoo.layers.mixers import mixer_layer
from kat_zoo.layers.spline import BASES
from kat_zoo.layers.spline_linear import SplineLinear

from ..kernels.test_any_input import strided

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
SETTINGS = {"suppress_health_check": list(HealthCheck)}


def compare(layer, x, reference, tolerance):
    """Compare a layer with `reference(x, parameters)`: value, and the gradients of the input and of every parameter.

    Args:
        layer: layer, its parameters in x's dtype.
        x: input.
        reference: function of x and of a dictionary of the parameters, in float64.
        tolerance: error relative to the largest number of a tensor, in units of the dtype's rounding.
    """
    names, parameters = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())
    inputs = [x.detach().requires_grad_(), *parameters]
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    y, exact = layer(inputs[0]), reference(exact_inputs[0], dict(zip(names, exact_inputs[1:], strict=True)))
    weights = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).to(x.dtype)
    assert y.dtype == x.dtype
    found, expected = (
        [t, *torch.autograd.grad((t * w).sum(), leaves, allow_unused=True, materialize_grads=True)]
        for t, w, leaves in ((y, weights, inputs), (exact, weights.double(), exact_inputs))
    )
    for name, ours, theirs in zip(("y", "x", *names), found, expected, strict=True):
        assert ours.shape == theirs.shape, name
        finite = theirs.isfinite()
        assert not ours[~finite].isfinite().any(), name
        if finite.any():
            # A sum may be small because its terms, of the parameters' size, cancel; their rounding does not.
            error, scale = (ours.double() - theirs)[finite].abs().max(), theirs[finite].abs().max() + 0.1
            assert error <= tolerance * torch.finfo(x.dtype).eps * scale, name


def fill(draw, layer, dtype, size=0.4):
    """The layer in a dtype, with parameters of any size: what they are at first may hide a mistake, as zeros do."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    layer = layer.to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return layer


def any_shape(draw, channels):
    return (*draw(st.lists(st.sampled_from([0, 1, 3, 8]), max_size=2)), channels)


def linear(x, p, name):
    return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def rational(x, p, name, channel_dim=-1):
    return rational_reference(x, p[f"{name}weight_numerator"], p[f"{name}weight_denominator"], channel_dim)


def norm(x, p, name):
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def splines(x, knots, coef, order, extrapolate="linear"):
    """sum_ij B_j(x_i) coef_ijo; outside a grid that is not continued, the B-splines fall to zero at their own ends."""
    pad = order + 1 if extrapolate == "zero" else 0
    step = knots[:, 1:2] - knots[:, :1]
    steps = torch.arange(1, pad + 1) * step
    basis = bspline_basis_reference(x, torch.cat([knots[:, :1] - steps.flip(1), knots, knots[:, -1:] + steps], 1), order)
    return torch.einsum("...ij,ijo->...o", basis[..., pad : basis.shape[-1] - pad], coef)


def any_group_rational(draw):
    dtype, groups = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 4))
    order, dim = (draw(st.integers(0, 7)), draw(st.integers(1, 7))), draw(st.sampled_from([-1, 1, 0, -2]))
    shape = [draw(st.sampled_from([1, 2, 5])) for _ in range(3)]
    shape[dim] = groups * draw(st.sampled_from([1, 3, 8]))
    share = {f"share_{part}": draw(st.booleans()) for part in ("numerator", "denominator")}
    if all(share.values()) and groups > 1:
        share["share_denominator"] = False
    scaled = draw(st.booleans())
    layer = fill(draw, GroupRational(groups, "gelu", order, channel_dim=dim, scaled=scaled, **share), dtype)
    if scaled:
        layer.scale.copy_(torch.tensor([draw(st.sampled_from([0.5, 1.0, 4.0])) for _ in range(groups)]))
    x = draw(strided(tuple(shape), dtype, broken=True)).clamp(-4, 4)

    def reference(x, p):
        if scaled:
            factor = layer.scale.to(x).repeat_interleave(shape[dim] // groups).reshape([-1 if i == dim % 3 else 1 for i in range(3)])
            x = x / factor
        return rational(x, p, "", dim)

    compare(layer, x, reference, 400)


def any_gr_kan(draw):
    dtype, groups = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 3))
    widths = [groups * draw(st.integers(1, 4)) for _ in range(2)] + [draw(st.integers(1, 5))]
    options = {"bias": (draw(st.booleans()), draw(st.booleans())), "order": (draw(st.integers(1, 5)), draw(st.integers(1, 4)))}
    if normed := draw(st.booleans()) and widths[1] > 2 and dtype == torch.float64:  # the norm of a few numbers loses digits
        options["norm_layer"] = nn.LayerNorm
    layer = fill(draw, mixer_layer("gr_kan", num_groups=groups, order=options.pop("order"))(*widths, **options), dtype)

    def reference(x, p):
        x = linear(rational(x, p, "act1."), p, "fc1")
        x = rational(x, p, "act2.")
        return linear(norm(x, p, "norm") if normed else x, p, "fc2")

    compare(layer, draw(strided(any_shape(draw, widths[0]), dtype, broken=True)).clamp(-4, 4), reference, 1e6 if normed else 1000)


def any_kan_linear(draw):
    dtype = draw(st.sampled_from(DTYPES))
    # A rounded position may lie in the next piece, and float64 alone sees the same one; the derivative must be continuous, too.
    order, grid = draw(st.integers(0 if dtype == torch.float64 else 2, 5)), draw(st.integers(1, 9))
    inputs, outputs = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 17]))
    base, extrapolate = draw(st.sampled_from([*BASES, torch.tanh])), draw(st.sampled_from(["linear", "zero"]))
    layer = KANLinear(inputs, outputs, grid, order, base=base, grid_range=(-1.5, 2.0), extrapolate=extrapolate)
    layer = fill(draw, layer, dtype)
    if draw(st.booleans()):
        layer.set_mask(torch.randint(0, 2, (outputs, inputs), generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))))
    mask = layer.mask.double()

    def reference(x, p):
        y = splines(x, layer.knots, p["coef"] * mask.T[:, None], order, extrapolate)
        return y if base == "zero" else y + F.linear((BASES[base] if isinstance(base, str) else base)(x), p["base_weight"] * mask)

    x = draw(strided(any_shape(draw, inputs), dtype, broken=True))
    compare(layer, x, reference, 1e5 if dtype == torch.float64 else 500)
    x = x.double().reshape(-1, inputs)
    edges = layer.double().edges(x)
    assert edges.shape == (len(x), outputs, inputs) and not edges[:, mask == 0].nan_to_num().any()
    torch.testing.assert_close(edges.sum(-1), layer(x), equal_nan=True)


def any_spline_linear(draw):
    dtype, order = draw(st.sampled_from(DTYPES)), draw(st.integers(2, 4))
    inputs, outputs, bases = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 17])), order + draw(st.integers(1, 6))
    layer = fill(draw, SplineLinear(inputs, outputs, bases, order, (-1.0, 3.0)), dtype)
    steps = torch.arange(-order, bases + 1, dtype=torch.float64) * 4 / (bases - order) - 1
    x = draw(strided(any_shape(draw, inputs), dtype, broken=True))
    compare(layer, x, lambda x, p: splines(x, steps.expand(inputs, -1), p["coef"], order), 1e5 if dtype == torch.float64 else 500)


def any_kan_mixer(draw):
    dtype = draw(st.sampled_from(DTYPES[:2]))
    widths = [draw(st.integers(2, 6)) for _ in range(3)]
    spline, bases = draw(st.booleans()), draw(st.sampled_from([4, 6, 8]))
    layer = fill(draw, mixer_layer("kan" if spline else "fourier", num_bases=bases)(*widths, bias=draw(st.booleans())), dtype)
    knots = torch.arange(-3, bases + 1, dtype=torch.float64) * 4 / (bases - 3) - 2

    def waves(x):
        return torch.cat([f(m * x) for f in (torch.cos, torch.sin) for m in range(1, bases // 2 + 1)], -1)

    def reference(x, p):
        for i, width in ((1, widths[0]), (2, widths[1])):
            x = norm(x, p, f"norm{i}")
            x = splines(x, knots.expand(width, -1), p[f"fc{i}.coef"], 3) if spline else linear(waves(x), p, f"fc{i}.1")
        return x

    # Not expanded: the norm of equal numbers has a gradient of rounding errors.
    x = torch.randn(any_shape(draw, widths[0]), generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))), dtype=dtype)
    if x.numel() and draw(st.booleans()):
        x.flatten()[draw(st.integers(0, x.numel() - 1))] = draw(st.sampled_from([math.nan, math.inf]))
    compare(layer, x, reference, 1e6)


def any_lan_mixer(draw):
    dtype, activation = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(["prelu", "rational"]))
    widths = [draw(st.integers(2, 6)) for _ in range(3)]
    layer = fill(draw, mixer_layer("lan", activation=activation)(*widths, bias=draw(st.booleans())), dtype)

    def reference(x, p):
        x = linear(x, p, "fc1")
        x = torch.where(x > 0, x, p["act.weight"] * x) if activation == "prelu" else rational(x, p, "act.")
        return linear(x, p, "fc2")

    # The gradient of torch's own PReLU at NaN is not that of the formula.
    compare(layer, draw(strided(any_shape(draw, widths[0]), dtype, broken=activation != "prelu")).clamp(-4, 4), reference, 1000)


def edges(x, c, basis):
    """sum_i phi_oi(x_i) of x (..., M, inputs), with coefficients c (terms, heads, outputs, inputs)."""
    x = x.unsqueeze(-2)
    c = c.unsqueeze(-3)
    if basis == "fourier":
        half = len(c) // 2
        return sum((c[m] * torch.cos((m + 1) * x) + c[half + m] * torch.sin((m + 1) * x)).sum(-1) for m in range(half))
    if basis == "rational":
        top, bottom = sum(c[i] * x**i for i in range(6)), sum(c[5 + j] * x**j for j in range(1, 5))
        return (top / (1 + bottom.abs())).sum(-1)
    t = (x - c[1]) / torch.exp(c[2])
    wave = {"dog": t, "morlet": torch.cos(5 * t), "mexican_hat": (t**2 - 1) * 2 / 3**0.5 / math.pi**0.25}[basis]
    return (c[0] * wave * torch.exp(-(t**2) / 2)).sum(-1)


def simplex(rows):
    """The nearest point of the simplex by bisection of the number that is taken off."""
    low, high = rows.amin(-1, keepdim=True) - 1, rows.amax(-1, keepdim=True)
    for _ in range(200):
        middle = (low + high) / 2
        over = (rows - middle).relu().sum(-1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return (rows - low).relu()


def any_operator(draw, heads, tokens):
    """An operator, and its attention map by its formula from logits and parameters."""
    kind = draw(st.sampled_from(["fourier", "softmax", "general"]))
    harmonics, rank = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    if kind == "softmax":
        return SoftmaxHeads(), lambda logits, p: logits.softmax(-1)
    if kind == "fourier":
        options = {"edge_scale": draw(st.booleans()), "w_bias": draw(st.booleans())}

        def literal(logits, p):
            a, b = (
                p[name] * (p[f"{wave}_scale"].unsqueeze(-1) if options["edge_scale"] else 1) for name, wave in (("a", "cos"), ("b", "sin"))
            )
            rows = edges(logits, torch.cat([a, b], -1).movedim(-1, 0), "fourier") @ p["w"].mT
            return rows + p["bias"].unsqueeze(-2) if options["w_bias"] else rows

        return FourierHeads(heads, tokens, harmonics, rank, **options), literal
    basis, order = (
        draw(st.sampled_from(["fourier", "rational", "dog", "morlet", "mexican_hat"])),
        draw(st.sampled_from(["w_phi", "phi_w", "phi_phi"])),
    )
    base = draw(st.sampled_from(["zero", "identity", "silu"]))
    projection = draw(st.sampled_from(["none", "none", "simplex"]))

    def apply(x, c):
        return edges(x, c, basis) + {"zero": torch.zeros_like, "identity": lambda t: t, "silu": F.silu}[base](x).sum(-1, keepdim=True)

    def general(logits, p):
        z = logits @ p["w"] if order == "phi_w" else apply(logits, p["inner.coefficients"])
        rows = z @ p["w"].mT if order == "w_phi" else apply(z, p["outer.coefficients"])
        return simplex(rows) if projection == "simplex" else rows

    options = {"basis": basis, "operator_order": order, "base_function": base, "projection": projection}
    return GeneralHeads(heads, tokens, harmonics, rank, **options), general


def any_attention(draw):
    heads, width = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2)), draw(st.integers(1, 5))
    tokens, number = draw(st.sampled_from([1, 2, 7, 17])), sum(heads)
    layer = KArAtAttention(number * width, number, qkv_bias=draw(st.booleans()))
    operators, maps = zip(*(any_operator(draw, count, tokens) for count in heads), strict=True)
    layer.set_operators(Operators(operators, heads))
    layer = fill(draw, layer, torch.float64)
    x = draw(strided((draw(st.sampled_from([0, 1, 3])), tokens, number * width))).clamp(-2, 2)

    def reference(x, p):
        q, k, v = linear(x, p, "qkv").unflatten(-1, (3, number, width)).permute(2, 0, 3, 1, 4)
        logits, outs = q @ k.mT / math.sqrt(width), []
        for i, (part, values) in enumerate(zip(logits.split(heads, 1), v.split(heads, 1), strict=True)):
            prefix = f"operators.{i}."
            outs.append(maps[i](part, {name.removeprefix(prefix): t for name, t in p.items() if name.startswith(prefix)}) @ values)
        return linear(torch.cat(outs, 1).transpose(1, 2).flatten(2), p, "proj")

    if any(getattr(operator, "projection", "") == "simplex" for operator in operators):  # bisection has no gradient
        with torch.no_grad():
            torch.testing.assert_close(layer(x), reference(x, dict(layer.named_parameters())), rtol=1e-8, atol=1e-8)
    else:
        compare(layer, x, reference, 1e8)
    logits = torch.randn(2, number, 3, tokens, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for operator, literal, part in zip(operators, maps, logits.split(heads, 1), strict=True):
            torch.testing.assert_close(operator.attention(part), literal(part, dict(operator.named_parameters())), rtol=1e-8, atol=1e-8)


def any_fourier_heads(draw):
    """Heads by themselves, in all types and with NaN; their gradients are those of the operator, see tests/kernels."""
    dtype, (heads, tokens, width) = draw(st.sampled_from(DTYPES)), [draw(st.sampled_from(s)) for s in ((1, 3), (1, 7, 17), (1, 4))]
    layer = fill(draw, FourierHeads(heads, tokens, draw(st.integers(1, 3)), draw(st.integers(1, 4))), torch.float32)
    layer = layer.double() if dtype == torch.float64 else layer
    q, k, v = (draw(strided((2, heads, tokens, width), dtype, broken=True)).clamp(-2, 2) for _ in range(3))
    y, exact = layer(q, k, v), fourier_attention_reference(*(t.double() for t in (q, k, v, layer.a, layer.b, layer.w)))
    assert y.dtype == dtype
    finite = exact.isfinite()
    assert not y[~finite].isfinite().any()
    if finite.any():
        waves = (layer.a.abs() + layer.b.abs()).sum((2, 3)).double()  # of every component, were all its terms of one sign
        terms = (layer.w.abs().double() @ waves[:, :, None]) * v.nan_to_num().abs().double()
        assert (y.double() - exact)[finite].abs().max() <= 40 * torch.finfo(dtype).eps * terms.sum(2).max()


LAYERS = pytest.mark.parametrize(
    "check",
    [
        any_group_rational, any_gr_kan, any_kan_linear, any_spline_linear, any_kan_mixer, any_lan_mixer, any_attention, any_fourier_heads,
    ],
)  # fmt: skip


@LAYERS
def test_a_layer_equals_its_formula(check):
    settings(max_examples=40, **SETTINGS)(given(st.data())(lambda data: check(data.draw)))()


@pytest.mark.slow
@LAYERS
def test_a_layer_equals_its_formula_often(check):
    settings(max_examples=1000, **SETTINGS)(given(st.data())(lambda data: check(data.draw)))()
