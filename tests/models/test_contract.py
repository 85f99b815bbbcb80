"""timm's model contract, for every name that kat_zoo registers (wide models shrunk to two blocks of 64 channels)."""

import functools
import json

import pytest
import timm
import torch
from timm.models import is_model, model_entrypoint
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torchvision.models.feature_extraction import NodePathTracer

from kat_zoo.models import PixelClassifier
from kat_zoo.models.kat_of_vit import SOURCES

from .tracing import prepare_for_fx

NAMES = [n for n in timm.list_models() if model_entrypoint(n).__module__.startswith("kat_zoo.")]


@functools.cache
def full_size(name):
    return timm.create_model(name, device="meta")


@functools.cache
def shrink(name):
    if isinstance(full_size(name), PixelClassifier):
        return {"hidden": (64, 32)}
    if not isinstance(full_size(name), VisionTransformer):
        return {"num_blocks": 2, "embed_dim": 64}
    if sum(p.numel() for p in full_size(name).parameters()) <= 1_000_000:
        return {"depth": 2}
    return {"depth": 2, "embed_dim": 64, "num_heads": 2}


def create(name, seed=0, **kwargs):
    """A small model with every parameter moved off its initial value, so that nothing passes by being zero."""
    model = timm.create_model(name, **{**shrink(name), **kwargs})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model.eval()


def images(name, batch=2, size=None, in_chans=None):
    channels, height, width = full_size(name).pretrained_cfg["input_size"]
    height, width = (size, size) if size else (height, width)
    return torch.randn(batch, in_chans or channels, height, width, generator=torch.Generator().manual_seed(1))


def signature(name):
    """What distinguishes two shrunk models; graph capture is tested once for each."""
    model = timm.create_model(name, device="meta", **shrink(name))
    shapes = tuple((key, tuple(value.shape)) for key, value in model.state_dict().items())
    return type(model), shapes, model.pretrained_cfg["input_size"]


DISTINCT = {signature(name): name for name in reversed(NAMES)}.values()


def marked(names):
    """Slow: names that shrink to the same model, baselines of 224 px, whose pico differs in size alone, KATs of ViTs but one."""
    of_vits = {name.split(".")[0] for name in SOURCES} - {"kat_base_patch16_vit_224"}
    slow = [n for n in names if n not in DISTINCT or n in of_vits or (n.endswith("_224") and n.startswith(("vit_", "kat_mixer")))]
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


MODELS = marked(NAMES)
CAPTURES = marked([n for n in NAMES if n in DISTINCT])  # graph capture
BACKBONES = marked([n for n in NAMES if not isinstance(full_size(n), PixelClassifier)])
VITS = marked([n for n in NAMES if isinstance(full_size(n), VisionTransformer)])


def logits_sum(model, x):
    output = model(x)
    return output.float().square().mean()


def assert_every_parameter_has_a_gradient(model):
    grads = {key: p.grad for key, p in model.named_parameters()}
    assert not [key for key, g in grads.items() if g is None or not g.isfinite().all() or not g.any()]


def test_families_are_registered():
    kats = {"kat_tiny_patch16_224", "kat_small_patch16_224", "kat_base_patch16_224", "kat_pico_patch4_28", "test_kat"}
    assert kats <= set(NAMES) and all(is_model(name) for name in NAMES)


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_checkpointing(name):
    model, x = create(name, num_classes=7), images(name)
    output = model(x)
    assert output.shape == (2, 7) and output.isfinite().all()
    model.train()
    model.zero_grad()
    logits_sum(model, x).backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.set_grad_checkpointing()
    model.zero_grad()
    logits_sum(model, x).backward()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[key]), key


@pytest.mark.parametrize("name", MODELS)
def test_backward_reaches_every_parameter(name):
    model, x = create(name, num_classes=7).train(), images(name)
    logits_sum(model, x).backward()
    assert_every_parameter_has_a_gradient(model)


@pytest.mark.parametrize("name", MODELS)
def test_default_cfg(name):
    model = full_size(name)
    cfg = model.default_cfg
    keys = set(model.state_dict())
    assert cfg["num_classes"] == model.num_classes
    if cfg["num_classes"]:
        assert cfg["classifier"] + ".weight" in keys and model.num_classes == model.get_classifier().out_features
    else:  # features alone
        assert isinstance(model.get_classifier(), torch.nn.Identity)
    if cfg["first_conv"] is not None:
        assert cfg["first_conv"] + ".weight" in keys
        assert cfg["input_size"][0] == model.get_submodule(cfg["first_conv"]).in_channels
    assert model.num_features == model.head_hidden_size == model.embed_dim
    assert len(cfg["mean"]) == len(cfg["std"]) == cfg["input_size"][0] and cfg["license"]


@pytest.mark.parametrize("name", MODELS)
def test_reset_classifier(name):
    model, x = create(name), images(name)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(x).ndim == (2 if isinstance(model, PixelClassifier) else 3)
    model.reset_classifier(5, "avg")
    assert model(x).shape == (2, 5) and model.get_classifier().out_features == 5
    assert create(name, num_classes=0)(x).shape == (2, model.num_features)


@pytest.mark.parametrize("name", BACKBONES)
def test_features(name):
    model, x = create(name), images(name)
    pyramid = timm.create_model(name, features_only=True, out_indices=(0, 1), **shrink(name)).eval()
    for feature, channels, reduction in zip(pyramid(x), pyramid.feature_info.channels(), pyramid.feature_info.reduction(), strict=True):
        reduction = reduction[0] if isinstance(reduction, tuple) else reduction
        assert feature.shape == (2, channels, x.shape[2] // reduction, x.shape[3] // reduction)
    final, intermediates = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    assert len(intermediates) == 2
    assert len(model.forward_intermediates(x, indices=1, intermediates_only=True, output_fmt="NLC")) == 1
    kept = model.prune_intermediate_layers([0])
    assert kept == [0] and len(model.blocks) == 1 and model(x).isfinite().all()


@pytest.mark.parametrize("in_chans, num_classes", [(None, 5), (None, 0), (1, None), (3, None), (4, 5)])
@pytest.mark.parametrize("name", BACKBONES)
def test_load_pretrained_adapts(name, in_chans, num_classes):
    source = create(name)
    kwargs = {key: value for key, value in (("in_chans", in_chans), ("num_classes", num_classes)) if value is not None}
    overlay = dict(state_dict=source.state_dict())
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **shrink(name), **kwargs).eval()
    stem = source.default_cfg["first_conv"]
    channels, classes = kwargs.get("in_chans", source.in_chans), kwargs.get("num_classes", source.num_classes)
    assert model(images(name, in_chans=channels)).shape == (2, classes or model.num_features)
    for key, value in model.state_dict().items():
        if not key.startswith(("head", stem)):
            assert torch.equal(value, source.state_dict()[key]), key
    if channels == source.in_chans:
        assert torch.equal(model.get_parameter(stem + ".weight"), source.get_parameter(stem + ".weight"))


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16(name, request):
    if name == "vit_fourier_tiny_patch16_224":
        reason = "pure bfloat16 rounds the arguments of the waves: at this width features drift by about the bound"
        request.applymarker(pytest.mark.xfail(strict=False, reason=reason))
    model, x = create(name), images(name)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = model(x)
    half = timm.create_model(name, dtype=torch.bfloat16, **shrink(name)).eval()
    half.load_state_dict(model.state_dict())
    output = half(x.bfloat16())
    assert output.dtype == torch.bfloat16
    # Waves of order 4 multiply the rounding of their argument, in two layers of each block.
    tolerance = 0.2 if "fourier" in name else 0.05
    for y in (output, autocast):
        assert (y - expected).norm() < tolerance * expected.norm()
    half.train()
    logits_sum(half, x.bfloat16()).backward()
    assert_every_parameter_has_a_gradient(half)


@pytest.mark.parametrize("name", VITS)
def test_input_sizes(name):
    model, x = create(name), images(name)
    patch = model.patch_embed.patch_size[0]
    larger = images(name, size=x.shape[-1] + 2 * patch)
    dynamic = create(name, dynamic_img_size=True)
    dynamic.load_state_dict(model.state_dict())
    torch.testing.assert_close(dynamic(x), model(x), rtol=1e-4, atol=1e-5)
    assert dynamic(larger).isfinite().all()
    expected = dynamic(larger)
    model.set_input_size(img_size=larger.shape[-2:])
    torch.testing.assert_close(model(larger), expected, rtol=1e-3, atol=1e-4)
    assert create(name, img_size=larger.shape[-1])(larger).isfinite().all()


@pytest.mark.parametrize("name", BACKBONES)
def test_parameter_groups(name):
    model = create(name, num_classes=10)
    exempt = model.no_weight_decay() if isinstance(model, VisionTransformer) else set()
    groups = param_groups_layer_decay(model, 0.05, layer_decay=0.5, no_weight_decay_list=tuple(exempt))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    assert len(scale) == len(parameters)
    # From the stem to the head the factor grows; all of a block shares one.
    factors = [{scale[id(p)] for key, p in parameters.items() if key.startswith(f"blocks.{i}.")} for i in (0, 1)]
    assert [len(f) for f in factors] == [1, 1]
    stem, head = scale[id(parameters[model.default_cfg["first_conv"] + ".weight"])], scale[id(parameters["head.weight"])]
    assert stem < factors[0].pop() < factors[1].pop() < head == 1
    if isinstance(model, VisionTransformer):
        assert "pos_embed" in exempt and decay[id(parameters["pos_embed"])] == 0


@pytest.mark.parametrize("name", MODELS)
def test_meta_device_and_init_weights(name):
    model = timm.create_model(name, device="meta", **shrink(name)).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float("nan"))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of 2^24 weights, timm's trunc_normal_ sets one to -2, which is the deviation of a small tensor
        model.init_weights()
        fresh = timm.create_model(name, **shrink(name))
    for key, value in fresh.state_dict().items():
        other = model.state_dict()[key]
        assert other.isfinite().all(), key
        torch.testing.assert_close(other.std(correction=0), value.std(correction=0), rtol=0.2, atol=2e-3, msg=key)
    assert model.eval()(images(name)).isfinite().all()  # buffers that are not saved are made again as well


@pytest.mark.parametrize("name", CAPTURES)
def test_jit_script(name):
    model, x = create(name), images(name)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(x), model(x))
    logits_sum(scripted, x).backward()
    assert_every_parameter_has_a_gradient(model)


# timm's PatchEmbed and Attention annotate attributes in __init__; torch.jit says so when it meets them behind fx.
@pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support instance-level:UserWarning")
@pytest.mark.parametrize("name", CAPTURES)
def test_fx_and_fx_script(name):
    model, x = create(name), images(name)
    prepare_for_fx(model)
    tracer = NodePathTracer(leaf_modules=tuple(get_notrace_modules()), autowrap_functions=tuple(get_notrace_functions()))
    traced = torch.fx.GraphModule(model, tracer.trace(model))
    torch.testing.assert_close(traced(x), model(x))
    logits_sum(traced, x).backward()
    assert_every_parameter_has_a_gradient(model)
    if not getattr(model, "dynamic_img_size", False):  # with it timm's own resampling, a leaf function of the trace, cannot be scripted
        torch.testing.assert_close(torch.jit.script(traced)(x), model(x))


@pytest.mark.parametrize("name", CAPTURES)
def test_export(name):
    model, x = create(name), images(name)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(torch.cat([x, x])), model(torch.cat([x, x])))


@pytest.mark.parametrize("name", CAPTURES)
def test_compile_without_graph_breaks(name):
    model, x = create(name), images(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    logits_sum(compiled, x).backward()
    assert_every_parameter_has_a_gradient(model)


@pytest.mark.parametrize("name", MODELS)
def test_arguments_survive_json(name):
    model = create(name, num_classes=3)
    again = timm.create_model(name, **json.loads(json.dumps(model._model_args)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images(name)), model(images(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_full_size(name):
    model = timm.create_model(name, num_classes=10).train()
    torch.nn.init.trunc_normal_(model.get_classifier().weight, std=0.02)  # a head of zeros lets no gradient through
    x = images(name, batch=1)
    logits_sum(model, x).backward()
    assert_every_parameter_has_a_gradient(model)
