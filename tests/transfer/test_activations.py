"""vit_to_kat: the KAT computes the ViT's function, for every activation and option it accepts, and refuses the rest."""

import json
import sys
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from kat_zoo import vit_to_kat
from kat_zoo.layers.init import _coefficients as rational_coefficients_cache


def images(count, seed, size=64):
    """Smooth noise: neighboring pixels correlate as in photographs."""
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return 1.5 * F.interpolate(coarse, size, mode="bicubic")


def realistic(name="test_vit", scale=1.0, img_size=64, **kwargs):
    """A ViT with weights of a trained one's scale: pre-activations with a standard deviation of about `scale`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # for what is not drawn below: the same model whichever test came before
        vit = timm.create_model(name, img_size=img_size, num_classes=50, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in vit.named_parameters():
            if parameter.ndim == 2:
                std = scale if "fc1" in key else 1.0
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
            elif "fc1.bias" in key:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator) - 0.3)
            elif "gamma" in key:
                parameter.fill_(0.7)
    return vit.eval()


def relative_error(kat, vit, x):
    with torch.no_grad():
        expected = vit(x)
        return ((kat(x) - expected).norm() / expected.norm()).item()


def test_calibrated_transfer_of_a_vit_tiny():
    vit = realistic("vit_tiny_patch16_224")
    kat, report = vit_to_kat(vit, images(32, seed=1))
    assert report.calibrated and report.activation == "GELU" and len(report.blocks) == 12
    assert report.relative_logits_error <= 3e-3 and report.top1_agreement == 1
    assert relative_error(kat, vit, images(16, seed=2)) <= 3e-3  # images it was not calibrated on
    assert all(fit.rms_error < 2e-3 for fit in report.blocks)
    assert "top-1 agreement 100.0%" in str(report) and len(str(report).splitlines()) == 14
    published = set(timm.create_model("kat_tiny_patch16_224", device="meta").state_dict())
    assert {key for key in kat.state_dict() if not key.endswith(".scale")} == published
    kat, _ = vit_to_kat(vit)
    assert set(kat.state_dict()) == published


@pytest.mark.parametrize("act, bound", [("gelu", 3e-3), ("gelu_tanh", 3e-3), ("quick_gelu", 3e-3), ("silu", 1e-3), ("relu", 2e-2)])
def test_activations(act, bound):
    vit = realistic(act_layer=act)
    kat, report = vit_to_kat(vit, images(16, seed=1))
    assert report.relative_logits_error <= bound
    assert relative_error(kat, vit, images(8, seed=2)) <= 1.5 * bound
    assert torch.equal(kat.blocks[2].mlp.act1(torch.ones(2, 8)), torch.ones(2, 8))
    columns = [sorted(model.blocks[2].mlp.fc2.weight.T.tolist()) for model in (kat, vit)]
    assert columns[0] == columns[1] and kat.blocks[2].mlp.act2.order == (8, 7)


@torch.no_grad()
def uneven(depth=2):
    """A ViT whose channels reach differently far, some to 20, with a layer scale that hides what its blocks compute."""
    vit = realistic(depth=depth, init_values=1e-5, scale=1.5)
    for block in vit.blocks:
        reach = torch.linspace(0.1, 1, 192)[torch.randperm(192, generator=torch.Generator().manual_seed(0))]
        block.mlp.fc1.weight *= reach[:, None] ** 2
        block.mlp.fc1.bias[:3] -= 18
        block.ls2.gamma.fill_(1e-5)
    return vit


def test_coefficients_train_like_the_linear_layers_however_far_arguments_reach():
    """x^8 of an argument of 30 made their gradients a billion times the others', which clipping then removed."""
    vit = uneven()
    with torch.no_grad():
        vit.blocks[0].norm2.weight[0] = 30
    x, generator = images(8, seed=1), torch.Generator().manual_seed(0)
    kat, _ = vit_to_kat(vit, x)
    kat(x).mul(torch.randn(8, kat.num_classes, generator=generator)).sum().backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in kat.named_parameters()}
    others = max(norm for name, norm in norms.items() if ".act" not in name)
    assert max(norm for name, norm in norms.items() if ".act" in name) < 3 * others
    plain = timm.create_model("kat_tiny_patch16_224", **{**kat._model_args, "act_scaled": False}).eval()
    plain.load_state_dict(kat.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(x), kat(x))  # scales are powers of two
    with torch.no_grad():  # a step of Adam's size
        before = kat(x)
        for name, parameter in kat.named_parameters():
            parameter -= 1e-4 * parameter.grad.sign() * (".act" in name)
        assert (kat(x) - before).norm() < 0.1 * before.norm()


def test_a_calibrated_kat_is_saved_and_loads_again():
    kat, _ = vit_to_kat(uneven(), images(8, seed=1))
    assert kat.blocks[0].mlp.act2.weight_numerator.shape == (8, 9) and kat.blocks[0].mlp.act2.weight_denominator.shape == (8, 7)
    again = timm.create_model(kat.pretrained_cfg["architecture"], **json.loads(json.dumps(kat._model_args)))
    again.load_state_dict(kat.state_dict())
    x = images(4, seed=3)
    assert torch.equal(again.eval()(x), kat(x))


def test_a_calibrated_kat_loads_without_scipy(monkeypatch):
    kat, _ = vit_to_kat(uneven(1), images(8, seed=1))
    rational_coefficients_cache.cache_clear()
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    timm.create_model(kat.pretrained_cfg["architecture"], **kat._model_args).load_state_dict(kat.state_dict())


def test_the_report_sees_every_mlp_behind_its_layer_scale():
    vit = uneven()
    x = images(8, seed=1)
    kat, report = vit_to_kat(vit, x)
    inputs = []
    hook = vit.blocks[1].mlp.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        vit(x)
        hook.remove()
        outputs = [model.blocks[1].mlp(inputs[0]) - vit.blocks[1].mlp.fc2.bias for model in (vit, kat)]
    measured = ((outputs[1] - outputs[0]).norm() / outputs[0].norm()).item()
    fit = report.blocks[1]
    assert fit.output_error == pytest.approx(measured, rel=0.1, abs=1e-6)
    assert list(fit.output_errors) == ["default", "one fit", "groups"]
    assert fit.output_error < 0.6 * fit.output_errors["one fit"] < 0.1 * fit.output_errors["default"]
    assert fit.output_error > 100 * report.relative_logits_error  # the layer scale hides it there
    assert fit.bulk_error <= fit.max_error and fit.range[0] < -18
    first = str(report).splitlines()[1].split()[0]
    assert first == max(report.blocks, key=lambda fit: fit.output_error).name


def test_order():
    kat, _ = vit_to_kat(realistic(depth=1), images(8, seed=1), order=(5, 4))
    assert kat.blocks[0].mlp.act2.order == (5, 4) and "order" not in kat._model_args
    kat, _ = vit_to_kat(realistic(depth=1), init_range=(-4, 4), order=(6, 5))
    assert kat.blocks[0].mlp.act2.order == (6, 5) and kat._model_args["order"] == [6, 5]
    with pytest.raises(ValueError, match="order"):
        vit_to_kat(realistic(depth=1), order=(9, 4))


def test_other_images_may_reach_farther():
    vit = uneven()
    kat, _ = vit_to_kat(vit, images(8, seed=1))
    mlps = vit.blocks[0].mlp, kat.blocks[0].mlp
    x = vit.blocks[0].norm2(1.2 * torch.randn(64, 64, generator=torch.Generator().manual_seed(5)))
    with torch.no_grad():
        expected, y = (mlp(1.15 * x) for mlp in mlps)  # a sixth beyond every norm's output
        assert (y - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("calibrate", [True, False])
def test_an_activation_that_works_in_place(calibrate):
    vit = realistic(act_layer=partial(nn.ReLU, inplace=True))
    twin = realistic(act_layer="relu")
    twin.load_state_dict(vit.state_dict())
    calibration = dict(images=images(16, seed=1)) if calibrate else dict(init_range=(-5, 5))
    (_, report), (_, expected) = (vit_to_kat(model, **calibration) for model in (vit, twin))
    assert report == expected


def test_a_head_of_zeros():
    vit = realistic(depth=1)
    nn.init.zeros_(vit.head.weight)
    nn.init.zeros_(vit.head.bias)
    assert vit_to_kat(vit)[1].relative_logits_error == 0


OPTIONS = {
    "layer scale": dict(init_values=1e-5),
    "registers": dict(reg_tokens=4),
    "no class token": dict(class_token=False, global_pool="avg"),
    "average, registers": dict(class_token=False, global_pool="avg", reg_tokens=1, fc_norm=False, no_embed_class=True),
    "no final norm": dict(final_norm=False),
    "qk norm, no biases": dict(qk_norm=True, qkv_bias=False, proj_bias=False),
    "norms as in beit3": dict(scale_attn_norm=True, scale_mlp_norm=True),
    "clip": dict(pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5)),
    "no position": dict(pos_embed="none"),
    "rms norm": dict(norm_layer="rmsnorm"),
    "features": dict(num_classes=0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_kept(name):
    arguments = {"img_size": 64, "depth": 2, "num_classes": 20, "act_layer": "silu", **OPTIONS[name]}
    vit = timm.create_model("test_vit", **arguments)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    kat, report = vit_to_kat(vit)
    x = images(4, seed=3)
    assert report.relative_logits_error < 1e-3
    assert relative_error(kat, vit.eval(), x) < 1e-3
    again = timm.create_model(kat.pretrained_cfg["architecture"], **json.loads(json.dumps(kat._model_args)))
    again.load_state_dict(kat.state_dict())
    assert torch.equal(again.eval()(x), kat(x))


def test_attention_pooling_is_kept():
    """As SigLIP's; its own MLP keeps its GELU."""
    vit = realistic(depth=2, global_pool="map", class_token=False)
    kat, report = vit_to_kat(vit, images(8, seed=1))
    x = images(4, seed=3)
    assert relative_error(kat, vit, x) < 1e-3 and len(report.blocks) == 2
    pools = (model.attn_pool.state_dict() for model in (kat, vit))
    assert all(torch.equal(a, b) for a, b in zip(*(pool.values() for pool in pools), strict=True))
    again = timm.create_model(kat.pretrained_cfg["architecture"], **json.loads(json.dumps(kat._model_args)))
    again.load_state_dict(kat.state_dict())
    assert torch.equal(again.eval()(x), kat(x))


def test_what_matters_in_training_is_kept():
    rates = {"drop_rate": 0.1, "pos_drop_rate": 0.2, "patch_drop_rate": 0.3, "proj_drop_rate": 0.4, "attn_drop_rate": 0.5}
    vit = timm.create_model("test_vit", depth=2, dynamic_img_size=True, dynamic_img_pad=True, drop_path_rate=0.25, **rates)
    kat, _ = vit_to_kat(vit)
    drops = [
        [(name, getattr(m, "p", getattr(m, "prob", getattr(m, "drop_prob", None)))) for name, m in model.named_modules() if "drop" in name]
        for model in (vit, kat)
    ]
    assert drops[0] == drops[1] and {0.1, 0.2, 0.3, 0.4, 0.5} <= {p for _, p in drops[0]}
    assert kat(torch.rand(1, 3, 150, 161)).shape == (1, 1000)  # padded to the patch, as the ViT does


def test_init_range_is_the_range_of_the_fit():
    vit = realistic(depth=1)
    narrow, wide = (vit_to_kat(vit, init_range=(-r, r))[1].blocks[0] for r in (3, 12))
    assert narrow.range == (-3, 3) and narrow.max_error < 2e-3 < wide.max_error
    x = images(4, seed=1)
    _, report = vit_to_kat(vit, x, init_range=(-3, 3))
    same = ("range", "max_error", "rms_error")
    assert [getattr(report.blocks[0], name) for name in same] == [getattr(narrow, name) for name in same] and not report.calibrated
    assert list(report.blocks[0].output_errors) == ["init_range"]
    kat, report = vit_to_kat(vit)
    assert report.blocks[0].range == (-6, 6) and not report.calibrated
    _, measured = vit_to_kat(vit, x, init_range=(-6, 6))
    assert measured.relative_logits_error == pytest.approx(relative_error(kat, vit, x), rel=1e-3)


def test_the_vit_is_left_alone():
    vit = realistic(depth=1).train()
    before = {key: value.clone() for key, value in vit.state_dict().items()}
    kat, _ = vit_to_kat(vit, [images(2, seed=1), images(2, seed=2)])
    assert vit.training and not kat.training and not vit.blocks[0].mlp.fc1._forward_hooks
    assert all(torch.equal(before[key], value) for key, value in vit.state_dict().items())
    assert kat.blocks[0].mlp.fc1.weight.data_ptr() != vit.blocks[0].mlp.fc1.weight.data_ptr()


def test_the_address_of_published_weights_is_not_taken_over():
    kat, _ = vit_to_kat(realistic(depth=1))
    assert kat.pretrained_cfg.get("hf_hub_id") is None


@pytest.mark.parametrize("kwargs", [{"norm_layer": "batchnorm"}, {"norm_eps": 0.0}], ids=str)
def test_a_norm_that_is_none_is_refused(kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected"):
        timm.create_model("test_kat", **kwargs)


def test_a_name_stands_for_a_pretrained_model(tmp_path):
    vit = realistic(depth=2)
    timm.models.save_for_hf(vit, tmp_path, model_args=dict(img_size=64, depth=2))
    kat, report = vit_to_kat(f"local-dir:{tmp_path}")
    assert torch.equal(kat.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight)
    assert report.relative_logits_error < 2e-2


def test_bfloat16():
    vit = realistic(depth=2).bfloat16()
    kat, report = vit_to_kat(vit, images(4, seed=1))
    assert kat.head.weight.dtype == torch.bfloat16 and report.relative_logits_error < 0.03
