import copy
import json

import pytest
import timm
import torch
from timm.layers.mlp import SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock
from timm.optim import create_optimizer_v2
from torch import nn

from kat_zoo.transfer.attention import transfer_attention, vit_to_karat

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vit(name="vit_tiny_patch16_224", **kwargs):
    return timm.create_model(name, img_size=64, depth=2, num_classes=5, **kwargs).eval()


@pytest.mark.parametrize("options", [{}, {"mode": "universal", "edge_scale": True}, {"layers": []}], ids=str)
@pytest.mark.parametrize("source", [{}, {"reg_tokens": 2, "no_embed_class": True, "init_values": 1e-4, "qk_norm": True}], ids=str)
def test_everything_but_the_operators_is_the_vits(source, options):
    model = vit(**source)
    karat = vit_to_karat(model, **options)
    for name, value in model.state_dict().items():
        assert torch.equal(karat.state_dict()[name], value)
    assert karat(X).shape == (2, 5)
    if options.get("layers") == []:
        torch.testing.assert_close(karat(X), model(X))


@pytest.mark.parametrize("act", ["relu", "silu", "quick_gelu", "gelu_tanh", "hard_swish", nn.LeakyReLU])
def test_the_activation_is_the_vits(act):
    model = vit(act_layer=act)
    for block in model.blocks:  # as large as trained weights make them
        nn.init.normal_(block.mlp.fc1.weight, std=0.2)
    karat = vit_to_karat(model, layers=[])
    torch.testing.assert_close(karat(X), model(X))
    again = timm.create_model(karat.pretrained_cfg["architecture"], **json.loads(json.dumps(karat._model_args))).eval()
    again.load_state_dict(karat.state_dict())
    torch.testing.assert_close(again(X), model(X))


def test_preprocessing_and_licence_are_the_vits():
    cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 1.0, "interpolation": "bilinear", "license": "cc-by-nc-4.0"}
    karat = vit_to_karat(vit(pretrained_cfg_overlay=cfg))
    assert {key: karat.pretrained_cfg[key] for key in cfg} == cfg and karat.pretrained_cfg["num_classes"] == 5


@pytest.mark.parametrize("width", [96, 192, 768])
def test_the_default_operator_does_not_depend_on_the_width(width):
    karat = vit_to_karat(vit(embed_dim=width, num_heads=3))
    assert karat.blocks[0].attn.operators[0].a.shape == (3, 12, 17, 3) and len(karat.operators()) == 2


def changed(change):
    model = vit()
    change(model.blocks[1].mlp)
    return model


REFUSED = {
    "vit of class VisionTransformerRelPos": lambda: timm.create_model("vit_relpos_small_patch16_224", depth=1),
    "vit of class VisionTransformerDistilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
    "vit of class ResNet": lambda: timm.create_model("resnet18"),
    "vit of class Beit": lambda: timm.create_model("beit_base_patch16_224", depth=1),
    "vit of class KArAt": lambda: timm.create_model("test_karat"),
    "HybridEmbed": lambda: timm.create_model("vit_tiny_r_s16_p8_224", depth=1),
    "ParallelScalingBlock": lambda: vit(block_fn=ParallelScalingBlock),
    "SwiGLU": lambda: vit(mlp_layer=SwiGLU),
    "global_pool='map'": lambda: vit(global_pool="map"),
    r"blocks.1 with activation Softplus": lambda: changed(lambda mlp: setattr(mlp, "act", nn.Softplus())),
    "vit with activations gelu, relu": lambda: changed(lambda mlp: setattr(mlp, "act", nn.ReLU())),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_models_are_refused(message):
    with pytest.raises(ValueError, match=message):
        vit_to_karat(REFUSED[message]())


@pytest.fixture(params=["to_karat", "to_softmax"])
def frozen(request):
    """(student, frozen q and k): a KArAt from a ViT, and a ViT from a KArAt."""
    teacher = vit(qk_norm=True)
    if request.param == "to_karat":
        return vit_to_karat(teacher, freeze=True), teacher
    karat = vit_to_karat(teacher)
    student = transfer_attention(vit(qk_norm=True), karat)
    assert not torch.equal(student.blocks[1].attn.qkv.weight[384:], karat.blocks[1].attn.qkv.weight[384:])
    return student, karat


def copied(student, how, path):
    if how == "deepcopy":
        return copy.deepcopy(student)
    if how == "pickle":
        torch.save(student, path / "model.pt")
        return torch.load(path / "model.pt", weights_only=False)
    return student


@pytest.mark.parametrize("how", ["as it is", "deepcopy", "pickle"])
@pytest.mark.parametrize("kind", ["timm", "torch"])
def test_frozen_queries_and_keys_do_not_move(frozen, kind, how, tmp_path):
    """Not by gradients and not by weight decay, though the optimizer knows nothing of the freeze."""
    teacher = frozen[1]
    student = copied(frozen[0], how, tmp_path)
    before = {n: p.clone() for n, p in student.state_dict().items()}
    options = {"lr": 1e-2, "weight_decay": 0.5}
    optimizer = create_optimizer_v2(student, "adamw", **options) if kind == "timm" else torch.optim.AdamW(student.parameters(), **options)
    student.train()
    for _ in range(2):
        student(X).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, p in student.state_dict().items():
        if "attn.qkv" in name:
            assert torch.equal(p[:384], before[name][:384]) and torch.equal(p[:384], teacher.state_dict()[name][:384])
            assert not torch.equal(p[384:], before[name][384:])
        elif "q_norm" in name or "k_norm" in name:
            assert torch.equal(p, before[name])
        elif "fc1" in name or "operators" in name:
            assert not torch.equal(p, before[name])


@pytest.mark.filterwarnings("ignore:The TorchScript type system")
def test_a_frozen_model_loads_and_gives_ordinary_weights(frozen):
    student, _ = frozen
    fresh = vit_to_karat(vit(qk_norm=True)) if hasattr(student, "operators") else vit(qk_norm=True)
    assert set(student.state_dict()) == set(fresh.state_dict())
    fresh.load_state_dict(student.state_dict())
    torch.testing.assert_close(fresh(X), student(X))
    other = vit(qk_norm=True)
    student.load_state_dict({**student.state_dict(), **other.state_dict()})
    assert torch.equal(student.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)
    torch.testing.assert_close(torch.jit.script(student)(X), student(X), atol=1e-5, rtol=1e-5)
    transfer_attention(student, fresh, freeze=False)  # and learns again
    assert student.blocks[0].attn.qkv.weight.requires_grad and student.blocks[0].attn.q_norm.weight.requires_grad
    assert torch.equal(student.blocks[0].attn.qkv.weight[:384], fresh.blocks[0].attn.qkv.weight[:384])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="attention layers"):
        transfer_attention(vit(), timm.create_model("vit_tiny_patch16_224", depth=1))
    with pytest.raises(ValueError, match="attn_drop_rate"):
        vit_to_karat(vit(), attn_drop_rate=0.1)
    with pytest.raises(ValueError, match="embed_dim: expected the sizes of the ViT's weights"):
        vit_to_karat(vit(), embed_dim=96)


def test_frozen_weights_and_checkpointing_are_kept():
    model = vit().requires_grad_(False)
    model.head.requires_grad_()
    model.set_grad_checkpointing()
    karat = vit_to_karat(model)
    learns = {name for name, parameter in karat.named_parameters() if parameter.requires_grad}
    assert karat.grad_checkpointing and {name for name in learns if ".operators." not in name} == {"head.weight", "head.bias"}
    assert any(".operators." in name for name in learns)
