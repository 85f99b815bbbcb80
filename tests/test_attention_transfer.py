import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

from kat_zoo.attention_transfer import transfer_attention, vit_to_karat

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vit(**kwargs):
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5, **kwargs).eval()


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


@pytest.mark.parametrize("direction", ["to_karat", "to_softmax"])
def test_frozen_queries_and_keys_do_not_move(direction):
    teacher = vit(qk_norm=True)
    if direction == "to_karat":
        student = vit_to_karat(teacher, freeze=True)
    else:
        karat = vit_to_karat(teacher)
        student = transfer_attention(vit(qk_norm=True), karat)
        assert torch.equal(student.blocks[1].attn.qkv.weight[:384], karat.blocks[1].attn.qkv.weight[:384])
        assert not torch.equal(student.blocks[1].attn.qkv.weight[384:], karat.blocks[1].attn.qkv.weight[384:])
    before = {n: p.detach().clone() for n, p in student.named_parameters()}
    optimizer = create_optimizer_v2(student, "adamw", lr=1e-2, weight_decay=0.5)
    student.train()
    for _ in range(2):
        student(X).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, p in student.named_parameters():
        if "attn.qkv" in name:
            assert torch.equal(p[:384], before[name][:384]) and not torch.equal(p[384:], before[name][384:])
        elif "q_norm" in name or "k_norm" in name:
            assert torch.equal(p, before[name])
        elif "fc1" in name or "operators" in name:
            assert not torch.equal(p, before[name])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="attention layers"):
        transfer_attention(vit(), timm.create_model("vit_tiny_patch16_224", depth=1))
    with pytest.raises(ValueError, match="attn_drop_rate"):
        vit_to_karat(vit(), attn_drop_rate=0.1)
