"""What a KArAt's checkpoint may be loaded into, and what another image size costs."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from kat_zoo.hub.samples import load_samples
from kat_zoo.models.karat import OPERATOR

from .test_karat import X, create


def load(path, state, **kwargs):
    """What `create_model(pretrained=True)` makes of a file with these weights."""
    save_file({name: value.clone() for name, value in state.items()}, path / "model.safetensors")
    overlay = {"file": str(path / "model.safetensors"), "num_classes": 1000}
    return timm.create_model("test_karat", pretrained=True, pretrained_cfg_overlay=overlay, **kwargs).eval()


def test_a_blockwise_checkpoint_is_no_universal_one(tmp_path):
    blockwise, universal = create().state_dict(), create(mode="universal")
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"mode='universal': expected .*; blocks.1.attn.operators of .* differ from blocks.0"):
            universal.load_state_dict(blockwise, strict=strict)
    with pytest.raises(ValueError, match="expected a universal checkpoint"):
        load(tmp_path, blockwise, mode="universal")
    with pytest.raises(ValueError, match="expected a universal checkpoint"):
        timm.create_model("karat_pico_patch4_28", pretrained=True, mode="universal")
    for name in [name for name in blockwise if OPERATOR in name]:  # equal in all blocks: that is one operator
        blockwise[name] = blockwise["blocks.0" + OPERATOR + name.partition(OPERATOR)[2]]
    universal.load_state_dict(blockwise)
    assert torch.equal(universal.blocks[5].attn.operators[0].w, blockwise["blocks.0.attn.operators.0.w"])


def test_missing_operators_are_not_filled_in(tmp_path):
    state = {name: value for name, value in create().state_dict().items() if "blocks.3.attn.operators" not in name}
    with pytest.raises(RuntimeError, match="Missing key.*blocks.3.attn.operators.0.a"):
        load(tmp_path, state)
    del (other := create().state_dict())["blocks.3.attn.operators.0.w"]
    with pytest.raises(RuntimeError, match="Missing key.*blocks.3.attn.operators.0.w"):
        load(tmp_path, other)
    with pytest.raises(RuntimeError, match="Missing key.*inner.coefficients"):
        load(tmp_path, create().state_dict(), basis="dog")


def test_a_gr_kan_without_activations_is_refused():
    model = timm.create_model("karat_kat_pico_patch4_28", depth=2)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("blocks.1.mlp.act")}
    with pytest.raises(RuntimeError, match="blocks.1.mlp has no act1 and act2 in the checkpoint"):
        model.load_state_dict(state)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema"])
def test_a_wrapped_checkpoint_keeps_its_operators(wrapper):
    source = timm.create_model("karat_pico_patch4_28", depth=1).state_dict()
    overlay = dict(state_dict={wrapper: {f"module.{key}": value for key, value in source.items()}}, file=None)
    loaded = timm.create_model("karat_pico_patch4_28", pretrained=True, pretrained_cfg_overlay=overlay, depth=1).state_dict()
    assert source.keys() == loaded.keys() and all(torch.equal(source[key], loaded[key]) for key in source)


@pytest.mark.parametrize("img_size", [96, 128])
def test_a_universal_checkpoint_fills_every_block_of_a_blockwise_model(tmp_path, img_size):
    universal = create(mode="universal", hybrid_heads=1)
    model = load(tmp_path, universal.state_dict(), hybrid_heads=1, img_size=img_size)
    universal.set_input_size((img_size, img_size))
    x = torch.randn(1, 3, img_size, img_size)
    torch.testing.assert_close(model(x), universal(x))
    first, last = model.blocks[0].attn.operators[1].a, model.blocks[5].attn.operators[1].a
    assert torch.equal(first, last) and first is not last and first.data_ptr() != last.data_ptr()


@pytest.mark.parametrize("options", [{"class_token": True}, {"reg_tokens": 2}, {"class_token": True, "reg_tokens": 2}], ids=str)
def test_other_prefix_tokens_are_named(options):
    count = sum(options.values())
    with pytest.raises(ValueError, match=f"class_token, reg_tokens: expected 0 prefix tokens, as in the checkpoint, not {count}"):
        timm.create_model("karat_pico_patch4_28", pretrained=True, **options)


def test_a_rectangular_checkpoint_is_refused_by_name(tmp_path):
    model = create(img_size=(96, 64))
    with pytest.raises(ValueError, match="checkpoint of 25 tokens: expected a square grid"):
        load(tmp_path, model.state_dict())
    assert torch.equal(load(tmp_path, model.state_dict(), img_size=(96, 64)).pos_embed, model.pos_embed)


@pytest.mark.parametrize("options", [{}, {"mode": "universal"}, {"basis": "dog"}, {"layers": [1]}], ids=str)
def test_sizes_may_alternate_before_one_backward_with_gradient_checkpointing(options):
    """The blocks that the backward calls again see the grid of their own images, also of as many patches."""
    model = create(depth=2, dynamic_img_size=True, **options).double()
    batches = [torch.randn(1, 3, *size, dtype=torch.float64) for size in ((128, 64), (64, 128), (96, 96))]
    gradients = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        sum(i * model(x).square().mean() for i, x in enumerate(batches, 1)).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_threads_may_have_images_of_different_sizes():
    """Each thread waits between blocks until the other has been through as many."""
    model, turns = create(depth=2, dynamic_img_size=True), threading.Barrier(2)
    batches = [torch.randn(1, 3, *size) for size in ((128, 64), (64, 128))]
    expected = [model(x) for x in batches]

    def take_turns(*_):
        turns.wait(timeout=60)

    for block in model.blocks:
        block.register_forward_pre_hook(take_turns)  # behind the model's own
    with ThreadPoolExecutor(2) as pool:
        for y, got in zip(expected, pool.map(model, batches), strict=True):
            torch.testing.assert_close(got, y)


def test_a_dynamic_model_copies_and_refuses_scripting(tmp_path):
    model = create(depth=2, dynamic_img_size=True)
    twin = copy.deepcopy(model)
    expected = model(torch.ones(1, 3, 128, 64))
    twin(X)
    assert (model.patch_grid.current, twin.patch_grid.current) == ((8, 4), (6, 6))
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(loaded(torch.ones(1, 3, 128, 64)), expected)
    with pytest.raises(ValueError, match="dynamic_img_size=True under torch.jit.script: expected False"):
        torch.jit.script(model)


@pytest.mark.parametrize("option", ["grid_size", "rank"])
def test_heads_of_a_universal_operator_may_differ(option):
    model = create(mode="universal", **{option: [1, 5]})
    assert len(model.operators()) == 2
    axis = {"grid_size": 3, "rank": 1}[option]
    assert [operator.a.shape[axis] for operator in model.operators().values()] == [1, 5]
    assert model(X).isfinite().all()


def test_the_shipped_weights_survive_another_size_and_back():
    samples = load_samples()
    model = timm.create_model("karat_pico_patch4_28", pretrained=True).eval()
    mean, std = (model.pretrained_cfg[key][0] for key in ("mean", "std"))
    images = torch.from_numpy((samples.images / 255 - mean) / std)[:, None].float()

    def accuracy():
        with torch.no_grad():
            return float(np.mean(model(images).argmax(1).numpy() == samples.labels))

    before = accuracy()
    model.set_input_size((56, 56))
    model.set_input_size((28, 28))
    assert before > 0.88 and accuracy() > before - 0.05
