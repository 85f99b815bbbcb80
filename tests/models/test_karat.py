import copy

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import kat_zoo.models  # noqa: F401  (registers)
from kat_zoo.kernels import fourier_attention_reference
from kat_zoo.layers import FourierHeads, KArAtAttention
from kat_zoo.layers.learned_attention.fourier import SoftmaxHeads, resample_tokens
from kat_zoo.models.karat import learnable_layers

from .tracing import prepare_for_fx

X = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def create(name="test_karat", **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return timm.create_model(name, **kwargs).eval()


@pytest.mark.parametrize(
    ("name", "classes", "paper"),
    [
        ("karat_tiny_g3b_patch16_224", 10, 6.29),
        ("karat_tiny_g3u_patch16_224", 10, 5.59),
        ("karat_small_g3b_patch16_224", 1000, 23.58),
        ("karat_small_g3u_patch16_224", 1000, 22.18),
        ("karat_base_g1b_patch16_224", 10, 87.51),
        ("karat_base_g1u_patch16_224", 10, 85.95),
    ],
)
def test_parameter_totals_of_the_paper(name, classes, paper):
    vit_name = name.replace("karat", "vit")
    for suffix in ("_g3b", "_g3u", "_g1b", "_g1u"):
        vit_name = vit_name.replace(suffix, "")
    vit = timm.create_model(vit_name, num_classes=classes, device="meta")
    total = {}
    for edge_scale in (True, False):
        model = timm.create_model(name, num_classes=classes, device="meta", edge_scale=edge_scale)
        total[edge_scale] = sum(p.numel() for p in model.parameters())
        order, layers = (3 if "_g3" in name else 1), (12 if "b_patch" in name else 1)
        bare = 197 * 12 * (2 * order + (3 if edge_scale else 1)) * model.blocks[0].attn.num_heads * layers
        assert total[edge_scale] - sum(p.numel() for p in vit.parameters()) == bare
    assert round(total[True] / 1e6, 2) == paper


def test_pico_fits_its_file():
    assert sum(p.numel() for p in timm.create_model("karat_pico_patch4_28").parameters()) * 2 < 1.5e6  # as 16-bit weights


@pytest.mark.parametrize("options", [{}, {"edge_scale": True, "w_bias": True}, {"mode": "universal"}, {"hybrid_heads": 1}], ids=str)
def test_one_layer_is_the_formula(options):
    attn = create(**options).blocks[2].attn
    x = torch.randn(2, 37, 64, generator=torch.Generator().manual_seed(2))
    q, k, v = attn.qkv(x).reshape(2, 37, 3, 2, 32).permute(2, 0, 3, 1, 4).unbind(0)
    heads = []
    start = 0
    for operator, count in zip(attn.operators, attn.operators.head_counts, strict=True):
        part = [t[:, start : start + count] for t in (q, k, v)]
        start += count
        if isinstance(operator, SoftmaxHeads):
            heads.append((part[0] @ part[1].transpose(-1, -2) / 32**0.5).softmax(-1) @ part[2])
            continue
        a, b = operator.a, operator.b
        if options.get("edge_scale"):
            nn.init.uniform_(operator.cos_scale), nn.init.uniform_(operator.sin_scale), nn.init.normal_(operator.bias)
            a, b = a * operator.cos_scale[..., None], b * operator.sin_scale[..., None]
        out = fourier_attention_reference(*part, a, b, operator.w)
        if options.get("w_bias"):
            out = out + (operator.bias[:, None] @ part[2])
        heads.append(out)
    expected = attn.proj(torch.cat(heads, 1).transpose(1, 2).reshape(2, 37, 64))
    torch.testing.assert_close(attn(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"edge_scale": True}, {"mode": "universal"}, {"hybrid_heads": 1}, {"layers": [1]}, {"grid_size": [2, [1, 4]]}],
    ids=str,
)
def test_forward_backward_and_captures(options):
    model = create(depth=2, **options)
    prepare_for_fx(model)
    y = model(X)
    y.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert y.isfinite().all() and y.shape == (2, 1000)
    for captured in (torch.fx.symbolic_trace(model), torch.export.export(model, (X,)).module()):
        torch.testing.assert_close(captured(X), y, atol=1e-5, rtol=1e-5)
    model.zero_grad()
    expected = [p.detach().clone() for p in model.parameters()]
    model.set_grad_checkpointing(True)
    torch.testing.assert_close(model(X), y)
    assert all(torch.equal(p, e) for p, e in zip(model.parameters(), expected, strict=True))


@pytest.mark.filterwarnings("ignore:The TorchScript type system")
@pytest.mark.parametrize("options", [{}, {"mode": "universal", "edge_scale": True}, {"hybrid_heads": 1}], ids=str)
def test_script(options):
    model = create(depth=2, **options)
    torch.testing.assert_close(torch.jit.script(model)(X), model(X), atol=1e-5, rtol=1e-5)


def test_compile():
    model = create(depth=2)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(X), model(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    model = create(dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(X.to(dtype)).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert create(edge_scale=True, w_bias=True, qk_norm=True)(X).isfinite().all()


def test_meta_then_init():
    model = create(device="meta").to_empty(device="cpu")
    for p in model.parameters():
        p.data.fill_(float("nan"))
    model.init_weights()
    assert model(X).isfinite().all()
    std = model.blocks[0].attn.operators[0].a.std()
    assert 0.8 < std * (37 * 2) ** 0.5 < 1.2
    assert 0.8 < create(operator_init="normal").blocks[0].attn.operators[0].a.std() < 1.2


def test_universal_operator_is_registered_and_saved_once(tmp_path):
    model = create(mode="universal")
    names = [n for n, _ in model.named_parameters() if "operators" in n]
    assert sorted(names) == [f"blocks.0.attn.operators.0.{p}" for p in "abw"]
    state = model.state_dict()
    assert sorted(k for k in state if "operators" in k) == sorted(names)
    save_file(state, tmp_path / "model.safetensors")  # refuses aliased tensors
    other = timm.create_model("test_karat", mode="universal").eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(X), model(X))
    twin = copy.deepcopy(model)
    assert twin.blocks[5].attn.operators[0].a is twin.blocks[0].attn.operators[0].a
    assert twin.blocks[0].attn.operators[0].a is not model.blocks[0].attn.operators[0].a


def test_universal_gradient_is_the_sum_over_layers():
    shared, own = create(mode="universal").double(), create().double()
    state = shared.state_dict()
    for i in range(6):
        state.update({k.replace("blocks.0", f"blocks.{i}"): v for k, v in state.items() if k.startswith("blocks.0.attn.operators")})
    own.load_state_dict(state)
    for model in (shared, own):
        model(X.double()).square().mean().backward()
    total = sum(block.attn.operators[0].a.grad for block in own.blocks)
    torch.testing.assert_close(shared.blocks[0].attn.operators[0].a.grad, total)


def test_any_vit_checkpoint_loads_with_only_the_operator_missing():
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3)
    model = timm.create_model("karat_tiny_g3b_patch16_224", depth=2, num_classes=3)
    missing, unexpected = model.load_state_dict(vit.state_dict(), strict=False)
    assert unexpected == [] and missing and all(".attn.operators.0." in k for k in missing)


def test_pretrained_vit_file_and_own_file_of_another_size(tmp_path):
    vit = timm.create_model("test_vit", pretrained=False, embed_dim=64, depth=6, num_heads=2, mlp_ratio=3, img_size=160)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    overlay = {"file": str(tmp_path / "vit.safetensors"), "num_classes": 1000}
    model = timm.create_model("test_karat", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.blocks[3].attn.qkv.weight, vit.blocks[3].attn.qkv.weight)
    save_file(create().state_dict(), tmp_path / "karat.safetensors")
    overlay = {"file": str(tmp_path / "karat.safetensors"), "num_classes": 1000}
    big = timm.create_model("test_karat", pretrained=True, pretrained_cfg_overlay=overlay, img_size=128).eval()
    resized = create()
    resized.set_input_size((128, 128))
    for name, value in resized.named_parameters():
        torch.testing.assert_close(dict(big.named_parameters())[name], value)


@pytest.mark.parametrize("options", [{}, {"mode": "universal", "edge_scale": True, "w_bias": True}, {"basis": "dog"}], ids=str)
def test_resize_there_and_back(options):
    model = create(**options)
    smooth = torch.linspace(0, 1, 6)
    grid = (smooth[:, None] + smooth**2).flatten()
    with torch.no_grad():
        for operator in model.operators().values():
            for name, p in operator.named_parameters():
                axis = operator.token_axes[name][0]
                p.narrow(axis, 1, 36).movedim(axis, -1).copy_(grid.expand_as(p.narrow(axis, 1, 36).movedim(axis, -1)))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "operators" in n}
    model.set_input_size((192, 128))
    assert model(torch.randn(1, 3, 192, 128)).isfinite().all()
    first = next(iter(model.operators().values()))
    name, (axis, density) = next((n, a) for n, a in first.token_axes.items() if n in dict(first.named_parameters()))
    value = dict(first.named_parameters())[name]
    assert value.shape[axis] == 1 + 12 * 8 and density
    model.set_input_size((96, 96))
    for n, p in model.named_parameters():
        if n in before:
            assert (p - before[n]).abs().max() < 0.05 * before[n].abs().max().clamp(min=1), n


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_same_input_size_leaves_the_parameters_to_their_optimizer(dynamic):
    model = create(depth=2, dynamic_img_size=dynamic)
    before = dict(model.named_parameters())
    model.set_input_size((96, 96))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


@pytest.mark.parametrize("options", [{}, {"mode": "universal"}, {"basis": "dog"}, {"hybrid_heads": 1}], ids=str)
def test_dynamic_image_size(options):
    """Interpolating in every forward equals set_input_size, also for grids that are not square; gradients flow."""
    dynamic, fixed = create(depth=2, dynamic_img_size=True, **options), create(depth=2, **options)
    torch.testing.assert_close(dynamic(X), fixed(X))
    x = torch.randn(1, 3, 128, 64, generator=torch.Generator().manual_seed(3))
    y = dynamic(x)
    fixed.set_input_size((128, 64))
    torch.testing.assert_close(y, fixed(x), atol=1e-4, rtol=1e-4)
    y.square().mean().backward()
    assert [n for n, p in dynamic.named_parameters() if p.grad is None] == []
    dynamic.set_input_size((128, 64))
    torch.testing.assert_close(dynamic(x), fixed(x), atol=1e-4, rtol=1e-4)


def test_resampled_density_keeps_the_sum_over_keys():
    constant = torch.ones(2, 37)
    assert torch.allclose(resample_tokens(constant, 1, (12, 8), (6, 6), 1), torch.ones(2, 97), atol=1e-6)
    model = create()
    operator = model.blocks[0].attn.operators[0]
    nn.init.ones_(operator.a)
    model.set_input_size((192, 192))
    assert torch.allclose(operator.a[:, :, 1:].sum(2), torch.tensor(36.0), rtol=1e-4)
    assert torch.equal(operator.a[:, :, 0], torch.ones_like(operator.a[:, :, 0]))
    with pytest.raises(ValueError, match=r"x of shape \(2, 37\): expected 1 \+ 5 x 5 tokens along dim 1"):
        resample_tokens(constant, 1, (6, 6), (5, 5), 1)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", range(12)), ("early", range(4)), ("middle", range(4, 8)), ("late", range(8, 12)), ([0, -1], [0, 11])],
)
def test_placement(layers, expected):
    assert sorted(learnable_layers(layers, 12)) == list(expected)


def test_features_and_pruning():
    model = timm.create_model("test_karat", features_only=True, mode="universal", layers="early")
    assert [f.shape for f in model(X)] == [(2, 64, 6, 6)] * 3
    final, maps = create().forward_intermediates(X)
    assert len(maps) == 6 and final.shape == (2, 37, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid_size": [1, 2]}, "grid_size of 2 entries"),
        ({"rank": [[1, 2, 3]] * 6}, r"rank\[0\] of 3 entries"),
        ({"grid_size": 0}, "grid_size=0"),
        ({"grid_size": 2.5}, "grid_size=2.5"),
        ({"rank": 0}, "rank=0"),
        ({"base_function": "silu", "grid_size": 0}, "grid_size=0"),
        ({"base_function": "silu", "rank": 0}, "rank=0"),
        ({"mode": "shared"}, "mode='shared'"),
        ({"mode": "universal", "grid_size": [1] * 6}, "grid_size=.* one for each of 2 heads"),
        ({"mode": "universal", "rank": [[1, 2]] * 2}, "rank=.* one for each of 2 heads"),
        ({"basis": "spline"}, "basis='spline'"),
        ({"base_function": "relu"}, "base_function='relu'"),
        ({"operator_order": "w"}, "operator_order='w'"),
        ({"projection": "l2"}, "projection='l2'"),
        ({"operator_init": "zeros"}, "operator_init='zeros'"),
        ({"layers": "first"}, "layers='first'"),
        ({"layers": [6]}, "layers=.6."),
        ({"layers": 3}, "layers=3: expected a list"),
        ({"layers": [2.0]}, "layers=.2.0.: expected a list"),
        ({"attn_layer": "diff"}, "attn_layer='diff'"),
        ({"hybrid_heads": 2}, "hybrid_heads=2"),
        ({"hybrid_heads": "1"}, "hybrid_heads='1': expected an integer of at least 0 and at most 1"),
        ({"attn_drop_rate": 0.1}, "attn_drop_rate=0.1"),
        ({"patch_drop_rate": 0.5}, "patch_drop_rate"),
        ({"basis": "dog", "edge_scale": True}, "edge_scale"),
    ],
    ids=str,
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("test_karat", **options)


def test_a_model_without_operators_may_drop_patches():
    assert timm.create_model("test_karat", layers=[], patch_drop_rate=0.5, depth=1).train()(X).isfinite().all()


def test_masks_and_other_token_counts_are_refused():
    model = create()
    with pytest.raises(ValueError, match="attn_mask"):
        model(X, attn_mask=torch.zeros(37, 37))
    with pytest.raises(ValueError, match="is_causal"):
        model(X, is_causal=True)
    with pytest.raises(ValueError, match="q of"):
        model.blocks[0](torch.randn(1, 20, 64))


def test_reentrant_checkpointing_which_forgets_the_size_of_the_images_is_refused(monkeypatch):
    monkeypatch.setattr("kat_zoo.models.karat.use_reentrant_ckpt", lambda: True)
    create().set_grad_checkpointing()
    with pytest.raises(ValueError, match="dynamic_img_size=True: expected timm's default"):
        create(dynamic_img_size=True).set_grad_checkpointing()


def test_attention_without_operators_says_how_to_get_them():
    with pytest.raises(ValueError, match="expected a call of KArAtAttention.set_operators"):
        timm.create_model("test_vit", attn_layer=KArAtAttention)(torch.rand(1, 3, 160, 160))


def test_a_bias_of_the_map_takes_mixed_dtypes():
    heads = FourierHeads(2, 5, w_bias=True)
    nn.init.normal_(heads.bias)
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    found = heads(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), heads(q, k, v), atol=0.1, rtol=0.05)
