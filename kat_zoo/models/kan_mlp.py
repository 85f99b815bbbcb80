"""Baselines without attention: a KAN and an MLP on the pixels of a small image.

`kan_mlp_*` is the network of `KAN: Kolmogorov-Arnold Networks` (arXiv 2404.19756) as image classifiers have it: B-spline
layers with a LayerNorm in front, and a linear head, which timm can replace. `mlp_*` has linear layers and GELU, and as many
parameters.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.helpers import to_2tuple
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._manipulate import checkpoint_seq
from torch import Tensor, nn

from .._checks import choice, count, is_count, real
from ..layers.spline_linear import SplineLinear
from ._builder import check_size, fmnist_cfg, unwrap_state_dict

__all__ = ["PixelClassifier"]

LAYERS = ("kan", "mlp")


class PixelClassifier(nn.Module):
    """Flattened pixels -> hidden layers -> linear head.

    Args:
        layer: "kan", LayerNorm and `SplineLinear`, or "mlp", Linear and GELU.
        hidden: widths of the hidden layers, at least one.
        num_bases: number of B-splines per edge of a KAN.
        img_size: (height, width) of the image, or one number.
        in_chans: number of channels of the image.
        num_classes: number of outputs of the head; 0 for no head.
        drop_rate: dropout rate in front of the head, 0 to 1.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown layer, hidden widths that are not a list of integers of at least 1, or a number out of range.
    """

    def __init__(
        self,
        layer: str = "kan",
        hidden: Sequence[int] = (64,),
        num_bases: int = 8,
        img_size: int | tuple[int, int] = 28,
        in_chans: int = 1,
        num_classes: int = 10,
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        choice("layer", layer, LAYERS)
        if not isinstance(hidden, Sequence) or not hidden or not all(map(is_count, hidden)):
            raise ValueError(f"hidden={hidden!r}: expected a list of integers of at least 1")
        self.num_classes, self.in_chans = count("num_classes", num_classes, 0), count("in_chans", in_chans)
        hidden = [int(width) for width in hidden]
        self.num_features = self.head_hidden_size = self.embed_dim = hidden[-1]
        self.grad_checkpointing = False
        height, width = (count("img_size", size) for size in to_2tuple(img_size))
        dd: dict[str, Any] = {"device": device, "dtype": dtype}

        def block(inputs: int, outputs: int) -> nn.Sequential:
            if layer == "kan":
                return nn.Sequential(nn.LayerNorm(inputs, **dd), SplineLinear(inputs, outputs, num_bases, **dd))
            return nn.Sequential(nn.Linear(inputs, outputs, **dd), nn.GELU())

        widths = [in_chans * height * width, *hidden]
        self.blocks = nn.Sequential(*[block(a, b) for a, b in itertools.pairwise(widths)])
        self.norm = nn.LayerNorm(hidden[-1], **dd) if layer == "kan" else nn.Identity()
        self.head_drop = nn.Dropout(real("drop_rate", drop_rate, 0, 1))
        self.head = nn.Linear(hidden[-1], num_classes, **dd) if num_classes > 0 else nn.Identity()
        self.init_weights()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """Draw all weights: linear layers from a normal of deviation 0.02, as our transformers, the rest as they do themselves."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.LayerNorm, SplineLinear)):
                module.reset_parameters()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the groups of parameters for layer decay."""
        return dict(stem=r"^$", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head.

        Args:
            num_classes: number of outputs; 0 for no head.
            global_pool: argument of timm, ignored, as there is nothing to pool.
        """
        self.num_classes = count("num_classes", num_classes, 0)
        weight = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype) if num_classes > 0 else nn.Identity()
        self.head = head.train(self.training)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to (B, num_features)."""
        x = x.flatten(1)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing and not torch.jit.is_scripting() else self.blocks(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits (B, num_classes), or with pre_logits leave them."""
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def checkpoint_filter_fn(state_dict: dict[str, Any], model: PixelClassifier) -> dict[str, Tensor]:
    """Return the state dict within a checkpoint, bare or wrapped as by a training (see `unwrap_state_dict`)."""
    return unwrap_state_dict(state_dict)


def _create_classifier(variant: str, pretrained: bool = False, **kwargs: Any) -> PixelClassifier:
    if kwargs.get("features_only"):
        raise ValueError("features_only=True: expected False, as a classifier of flattened pixels has no feature maps")
    check_size("img_size", kwargs.get("img_size"))
    return build_model_with_cfg(PixelClassifier, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn, **kwargs)


default_cfgs = generate_default_cfgs(
    {"kan_mlp_pico_28.untrained": fmnist_cfg(first_conv=None), "mlp_pico_28.untrained": fmnist_cfg(first_conv=None)}
)


@register_model
def kan_mlp_pico_28(pretrained: bool = False, **kwargs: Any) -> PixelClassifier:
    """KAN on the 784 pixels of a gray image, 64 hidden nodes, 0.40M parameters."""
    return _create_classifier("kan_mlp_pico_28", pretrained, **dict({"layer": "kan", "hidden": (64,)}, **kwargs))


@register_model
def mlp_pico_28(pretrained: bool = False, **kwargs: Any) -> PixelClassifier:
    """MLP on the 784 pixels of a gray image, 512 hidden nodes, 0.41M parameters: the twin of kan_mlp_pico_28."""
    return _create_classifier("mlp_pico_28", pretrained, **dict({"layer": "mlp", "hidden": (512,)}, **kwargs))
