"""The operators of a layer under export, under other numbers of tokens, and inside of the wrappers of other libraries."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.export import Dim

import kat_zoo.models  # noqa: F401  (registers)

OPTIONS = [{}, {"mode": "universal"}, {"basis": "dog"}, {"hybrid_heads": 1}]


def create(**options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return timm.create_model("test_karat", depth=2, **options).eval()


def images(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_exported_dynamic_model_takes_its_native_size(options):
    model = create(dynamic_img_size=True, **options)
    sizes = {2: 16 * Dim("height", min=2, max=32), 3: 16 * Dim("width", min=2, max=32)}
    exported = torch.export.export(model, (images(128, 64),), dynamic_shapes=(sizes,)).module()
    for size in ((96, 96), (128, 64), (64, 160)):
        torch.testing.assert_close(exported(images(*size)), model(images(*size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"basis": "dog"}, {"operator_order": "phi_w"}], ids=str)
@pytest.mark.parametrize("tokens", [10, 38])
def test_another_number_of_tokens_is_said_in_the_words_of_the_layer(options, tokens):
    attention = create(**options).blocks[0].attn
    with pytest.raises(ValueError, match=f"q of {tokens} tokens: expected 37, .* dynamic_img_size=True"):
        attention(torch.zeros(2, tokens, 64))


def test_counts_of_heads_must_fit():
    attention = create().blocks[0].attn
    operators = type(attention.operators)
    with pytest.raises(ValueError, match=r"head_counts=\[1\]: expected 2 counts, one for each operator"):
        operators([nn.Identity(), nn.Identity()], [1])
    with pytest.raises(ValueError, match=r"head_counts=\[3\]: expected counts that sum to 2"):
        attention.set_operators(operators([nn.Identity()], [3]))


class Wrapper(nn.Module):
    """PEFT's modules_to_save: a trainable copy beside the module, which calls go to; no list of modules is taken."""

    def __init__(self, module):
        super().__init__()
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            raise TypeError(f"modules_to_save cannot be applied to modules of type {type(module)}")
        self.original_module, self.modules_to_save = module, nn.ModuleDict({"default": copy.deepcopy(module)})

    def forward(self, *args, **kwargs):
        return self.modules_to_save["default"](*args, **kwargs)


@pytest.mark.parametrize("size", [(96, 96), (128, 64)])
@pytest.mark.parametrize("options", [{}, {"basis": "dog"}, {"hybrid_heads": 1}], ids=str)
def test_a_wrapper_trains_a_copy_of_the_operators(options, size):
    model = create(dynamic_img_size=True, **options)
    expected = model(images(*size))
    for block in model.blocks:
        block.attn.operators = Wrapper(block.attn.operators)
    y = model(images(*size))
    torch.testing.assert_close(y, expected)
    y.square().mean().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if ".operators." in name}
    assert all((grad is not None) == ("modules_to_save" in name) for name, grad in grads.items())
