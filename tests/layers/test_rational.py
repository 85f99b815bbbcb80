"""GroupRational and GRKAN as modules: initial function, groups, layouts of the coefficients, checkpoints, graphs."""

import contextlib
import copy
import logging

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from kat_zoo.analysis.costs import SavedBytes
from kat_zoo.kernels import rational_reference
from kat_zoo.layers import GRKAN, GroupRational
from kat_zoo.layers.init import FUNCTIONS, init_attention_mimetic, rational_coefficients

X = torch.linspace(-3, 3, 480).reshape(3, 10, 16)


@pytest.mark.parametrize("init", FUNCTIONS)
def test_starts_as_its_init(init):
    act = GroupRational(8, init)
    assert act.weight_numerator.shape == (1, 6) and act.weight_denominator.shape == (8, 4)
    torch.testing.assert_close(act(X), FUNCTIONS[init](X), atol=3e-2, rtol=0)
    if init == "identity":
        assert torch.equal(act(X), X)


@pytest.mark.parametrize("channel_dim", [-1, 1])
def test_each_group_has_its_own_function(channel_dim):
    act = GroupRational(2, share_numerator=False, channel_dim=channel_dim)
    with torch.no_grad():
        act.weight_numerator.copy_(torch.tensor([[0.0, 1, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]]))
        act.weight_denominator.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0]]))
    first, second = act(X).chunk(2, channel_dim)
    left, right = X.chunk(2, channel_dim)
    torch.testing.assert_close(first, left)
    torch.testing.assert_close(second, 1 / (1 + right.abs()))


def test_meta_device_and_reset():
    act = GroupRational(4, "gelu", device="meta", dtype=torch.float64).to_empty(device="cpu")
    act.reset_parameters()
    for name, value in GroupRational(4, "gelu", dtype=torch.float64).state_dict().items():
        assert torch.equal(act.state_dict()[name], value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_groups": 0},
        {"num_groups": 2.5},
        {"num_groups": True},
        {"init": "sinus"},
        {"order": (5, 9)},
        {"order": (0, 2), "init": "identity"},
        {"order": 5},
        {"order": (float("nan"), 4)},
        {"order": "54"},
        {"channel_dim": 1.5},
    ],
    ids=str,
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}="):
        GroupRational(**arguments)


def test_channels_must_divide():
    with pytest.raises(ValueError, match="in_features=20"):
        GRKAN(20, 64)
    with pytest.raises(ValueError, match="hidden_features=60"):
        GRKAN(16, 60)
    with pytest.raises(ValueError, match="groups"):
        GroupRational(8)(torch.randn(2, 20))


def trained(num_groups=4, **kwargs):
    act = GroupRational(num_groups, **kwargs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in act.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return act


def flashkat(act, rows):
    return {
        "numerator_v": act.weight_numerator.detach().expand(rows[0], -1),
        "denominator_v": act.weight_denominator.detach().expand(rows[1], -1),
    }


@pytest.mark.parametrize("rows", [(1, 4), (4, 4)])
def test_flashkat_names_and_rows(rows):
    source, target = trained(), GroupRational(4)
    target.load_state_dict(flashkat(source, rows))
    assert target.weight_numerator.shape == (1, 6)
    assert torch.equal(target(X), source(X))


def test_rows_that_differ_are_kept():
    source, target = trained(share_numerator=False), GroupRational(4)
    target.load_state_dict(source.state_dict())
    assert target.weight_numerator.shape == (4, 6) and target.weight_numerator.requires_grad
    assert torch.equal(target(X), source(X))


def test_one_row_serves_all_groups():
    source, target = trained(share_denominator=True), GroupRational(4, share_numerator=False)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(X), source(X))


SCALE = torch.tensor([1.0, 2.0, 8.0, 32.0])


def scaled(**kwargs):
    act = GroupRational(4, "gelu", share_numerator=False, scaled=True, **kwargs)
    act.set_coefficients(*rational_coefficients("gelu", (5, 4)), SCALE)
    return act


def test_coefficients_in_units_of_a_scale_are_the_same_function():
    plain, act = GroupRational(4, "gelu"), scaled()
    assert torch.equal(act.scale, SCALE) and torch.equal(plain(X), act(X))  # powers of two
    assert torch.equal(act.weight_numerator[3], plain.weight_numerator[0] * 32.0 ** torch.arange(6))
    wide = 30 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    act(wide).sum().backward()
    plain(wide).sum().backward()
    bounds = (wide / SCALE).abs()[..., None] ** torch.arange(6)
    assert (act.weight_numerator.grad.abs() <= bounds.sum(0) * (1 + 1e-5)).all()
    assert plain.weight_numerator.grad[0, 5].abs() > 1e4 * act.weight_numerator.grad[3, 5].abs()


def test_a_scale_comes_and_goes_with_the_checkpoint():
    act, plain = scaled(), GroupRational(4, share_numerator=False)
    plain.load_state_dict(act.state_dict())
    assert torch.equal(plain(X), act(X)) and "scale" not in plain.state_dict()
    act.load_state_dict(plain.state_dict())
    assert torch.equal(act.scale, torch.ones(4)) and torch.equal(act(X), plain(X))
    shared = GroupRational(4)
    shared.load_state_dict(scaled().state_dict())
    assert shared.weight_numerator.shape == (1, 6)
    with pytest.raises(ValueError, match="scale: expected None"):
        plain.set_coefficients(*rational_coefficients("gelu", (5, 4)), SCALE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_powers_of_a_scale_stay_in_range(dtype):
    act = scaled(order=(5, 4)).to(dtype)
    wide = torch.linspace(-40, 40, 64, dtype=dtype).view(16, 4)
    torch.testing.assert_close(act(wide), scaled().double()(wide.double()).to(dtype), rtol=2e-2, atol=2e-2)


def test_a_scaled_module_scripts():
    act = scaled()
    assert torch.equal(torch.jit.script(act)(X), act(X))


def test_wrong_number_of_groups_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch.*weight_denominator"):
        GroupRational(4).load_state_dict(trained(8).state_dict())


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


def test_mlp_weights_become_gr_kan(caplog):
    from kat_zoo.layers import gr_kan

    gr_kan._announce_mlp.cache_clear()
    mlp, layer = Mlp(16, 32), GRKAN(16, 32)
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        layer.load_state_dict(mlp.state_dict())
    assert "plain MLP" in caplog.text
    torch.testing.assert_close(layer(X), mlp(X), atol=1e-2, rtol=0)
    assert (layer(X) - mlp(X)).norm() < 1e-2 * mlp(X).norm()


def test_a_damaged_checkpoint_is_not_taken_for_an_mlp():
    state_dict = GRKAN(16, 32).state_dict()
    del state_dict["act2.weight_numerator"]
    with pytest.raises(RuntimeError, match="act2.weight_numerator"):
        GRKAN(16, 32).load_state_dict(state_dict)


def test_gr_kan_is_its_formula():
    layer = GRKAN(16, 32, 8, norm_layer=nn.LayerNorm, act1_init="tanh", num_groups=4).double()
    x = X.double()
    first = rational_reference(x, layer.act1.weight_numerator, layer.act1.weight_denominator)
    hidden = rational_reference(layer.fc1(first), layer.act2.weight_numerator, layer.act2.weight_denominator)
    torch.testing.assert_close(layer(x), layer.fc2(nn.functional.layer_norm(hidden, (32,))))


def test_variance_preserving_init_keeps_the_variance():
    layer = GRKAN(512, 2048)
    layer.init_variance_preserving()
    x = torch.randn(256, 512)
    hidden = layer.fc1(layer.act1(x))
    assert hidden.var().item() == pytest.approx(1, rel=0.1)
    assert layer(x).var().item() == pytest.approx(1, rel=0.2)
    assert not layer.fc1.bias.any() and not layer.fc2.bias.any()


def test_mimetic_attention():
    dim, heads = 192, 3
    qkv, proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
    init_attention_mimetic(qkv, proj, heads)
    query, key, value = qkv.weight.detach().chunk(3)
    product = value.T @ proj.weight.detach().T
    residual = product + 0.4 * torch.eye(dim)
    assert residual.std().item() == pytest.approx(0.4 / dim**0.5, rel=0.02)
    assert residual.diag().mean().abs() < 0.01
    for q, k in zip(query.chunk(heads), key.chunk(heads), strict=True):
        product = q.T @ k
        # The best rank-64 part of 0.7 Z + 0.7 I holds its largest singular values; its trace stays positive.
        target = 0.7 * torch.randn(dim, dim) / dim**0.5 + 0.7 * torch.eye(dim)
        best = torch.linalg.svdvals(target)[: dim // heads]
        torch.testing.assert_close(product.norm(), best.norm(), rtol=0.05, atol=0)
        assert product.diag().mean() > 0.1
    with pytest.raises(ValueError, match="num_heads=5"):
        init_attention_mimetic(qkv, proj, 5)


def test_plot_draws_every_group():
    figure = trained(share_numerator=False).plot(range=(-2, 2))
    (axes,) = figure.axes
    act = trained(share_numerator=False)
    assert len(axes.lines) == 4
    x = torch.tensor(axes.lines[3].get_xdata())
    expected = act.double()(x[:, None].repeat(1, 4))[:, 3]
    torch.testing.assert_close(torch.tensor(axes.lines[3].get_ydata()), expected.detach())


def test_deepcopy_is_independent():
    act = trained()
    other = copy.deepcopy(act)
    other.reset_parameters()
    assert not torch.equal(act.weight_numerator, other.weight_numerator)


class CallsOfRational(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += function is torch.ops.kat_zoo.rational.default
        return function(*args, **(kwargs or {}))


def keep_everything():
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)


def count_as_run():
    return SavedBytes(as_run=True)


def hooks_disabled():
    return torch.autograd.graph.disable_saved_tensors_hooks("no hooks here")


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_what_a_layer_computes_again_is_not_counted(drop):
    layer, x = GRKAN(16, 32, drop=drop), torch.randn(5, 16, requires_grad=True)
    totals = []
    for as_run in (False, True):
        with SavedBytes(list(layer.parameters()), as_run) as saved:
            y = layer(x)  # noqa: F841  (alive until counted)
        totals.append(saved.total)
    assert totals[0] - totals[1] == (0 if drop else x.nbytes)  # what dropout made of act1's output is kept, and so is the mask


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)])
@pytest.mark.parametrize("around", [contextlib.nullcontext, count_as_run, keep_everything, hooks_disabled])
def test_fc1_computes_its_input_again_instead_of_keeping_it(shape, around):
    torch.manual_seed(0)
    layer, x = GRKAN(16, 32, drop=(0.0, 0.5)), torch.randn(shape, requires_grad=True)
    with around():
        loss = layer(x).square().sum()
    with CallsOfRational() as mode:
        loss.backward()
    assert mode.calls == (around in (contextlib.nullcontext, count_as_run))
    torch.manual_seed(0)
    twin = GRKAN(16, 32, drop=(0.0, 0.5))
    twin_x = torch.randn(shape, requires_grad=True)
    checkpoint(twin, twin_x, use_reentrant=False).square().sum().backward()
    for one, two in zip([x, *layer.parameters()], [twin_x, *twin.parameters()], strict=True):
        assert torch.equal(one.grad, two.grad)


@pytest.mark.parametrize("act1", [nn.Identity(), nn.GELU()], ids=repr)
def test_another_act1_keeps_its_output(act1):
    layer, norm = GRKAN(8, 16).double(), nn.LayerNorm(8).double()
    layer.act1 = act1
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(norm(x)), x)


def test_a_layer_has_second_derivatives():
    torch.manual_seed(0)
    layer, x = GRKAN(8, 16).double(), torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_a_traced_layer_trains():
    torch.manual_seed(0)
    layer, x = GRKAN(8, 16), torch.randn(2, 8)
    traced = torch.jit.trace(layer, x)  # it compares the trace with the layer
    gradients = [torch.autograd.grad(f(2 * x).square().sum(), list(layer.parameters())) for f in (traced, layer)]
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want)


def test_a_checkpoint_in_float16_keeps_the_powers_of_its_scale():
    scaled, plain = (GroupRational(2, order=(8, 7), share_numerator=False, scaled=scaled) for scaled in (True, False))
    scaled.set_coefficients(*rational_coefficients("identity", (8, 7)), torch.tensor(32.0))
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    halves = {name: value.half() for name, value in scaled.state_dict().items()}
    scaled.load_state_dict(halves)
    plain.load_state_dict(halves)
    torch.testing.assert_close(plain(40 * X), scaled(40 * X), rtol=1e-4, atol=1e-5)


def test_a_loaded_row_per_group_is_learned_by_the_optimizer_that_there_is():
    act = GroupRational(2)
    optimizer = torch.optim.SGD(act.parameters(), lr=0.1)
    other = GroupRational(2, share_numerator=False)
    nn.init.normal_(other.weight_numerator)
    act.load_state_dict(other.state_dict())
    before = act.weight_numerator.detach().clone()
    act(X).sum().backward()
    optimizer.step()
    assert before.shape == (2, 6) and not torch.equal(act.weight_numerator, before)


def test_assigned_parameters_are_no_views_of_one_row():
    with torch.device("meta"):
        act = GroupRational(4, scaled=True)
    act.load_state_dict(GroupRational(1, scaled=True).state_dict(), assign=True)
    assert all(tensor.is_contiguous() for tensor in act.state_dict().values())
    act(X).sum().backward()
    torch.optim.AdamW(act.parameters()).step()
    assert act(X).isfinite().all()


@pytest.mark.parametrize(
    ("scale", "message"), [(torch.ones(3), r"scale of shape \(3,\)"), (torch.tensor(0.0), "positive"), (torch.full((2,), -1.0), "positive")]
)
def test_bad_scales_are_named_before_anything_changes(scale, message):
    act = GroupRational(2, scaled=True)
    state = copy.deepcopy(act.state_dict())
    with pytest.raises(ValueError, match=message):
        act.set_coefficients(torch.ones(6), torch.ones(4), scale)
    with pytest.raises(ValueError, match="weight_numerator of shape"):
        act.set_coefficients(torch.ones(5), torch.ones(4), torch.tensor(2.0))
    assert all(torch.equal(act.state_dict()[name], value) for name, value in state.items())
