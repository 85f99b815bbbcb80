"""Plain Vision Transformers as backbones: creation by name, any image size, image statistics, layer decay."""

import re
from collections.abc import Sequence
from typing import Any

from timm.layers.format import Format
from timm.layers.patch_embed import PatchEmbed
from timm.models import is_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .. import models as models
from .._checks import is_real
from ..models._pretrained import UnknownArgument, create_model
from ..models.karat import KArAt


def create_backbone(
    backbone: str | VisionTransformer, pretrained: bool = False, backbone_args: dict[str, Any] | None = None
) -> VisionTransformer:
    """Create a plain Vision Transformer by name, or check one.

    Args:
        backbone: name of a model of the zoo or of timm ("kat_small_patch16_224", "vit_base_patch16_224.augreg_in21k",
            "hf-hub:org/name"), or a model.
        pretrained: whether to load the published weights of that name.
        backbone_args: arguments of timm.create_model, as {"drop_path_rate": 0.1}.

    Returns:
        The backbone.

    Raises:
        ValueError: an unknown name, a model that is not a plain Vision Transformer, arguments that it does not have, or arguments
            for a model that exists already.
    """
    if isinstance(backbone, str):
        if ":" not in backbone and not is_model(backbone):
            raise ValueError(f"backbone={backbone!r}: expected a registered model; timm.list_models('*kat*') lists those of the zoo")
        try:
            model: Any = create_model(backbone, pretrained=pretrained, num_classes=0, **(backbone_args or {}))
        except UnknownArgument as error:
            raise ValueError(f"backbone_args={backbone_args}: {error}") from error
    elif not pretrained and not backbone_args:
        model = backbone
    else:
        raise ValueError(
            f"pretrained_backbone={pretrained}, backbone_args={backbone_args}: expected with a name only; "
            f"backbone is a {type(backbone).__name__} already, create it with them"
        )
    check_plain(model)
    return model


def check_plain(backbone: nn.Module) -> None:
    """Raise ValueError unless `backbone` is a ViT of one scale with square patches that keeps all its tokens."""
    if not isinstance(backbone, VisionTransformer) or not isinstance(backbone.patch_embed, PatchEmbed):
        raise ValueError(f"backbone of class {type(backbone).__name__}: expected a plain VisionTransformer of the zoo or timm")
    if not isinstance(backbone.patch_drop, nn.Identity):
        raise ValueError("backbone with patch_drop_rate above 0: expected 0, as dropped patches leave no map")
    height, width = backbone.patch_embed.patch_size
    if height != width:
        raise ValueError(f"backbone with patches of {height} x {width}: expected square patches")


def take_any_size(vit: VisionTransformer) -> None:
    """Switch a ViT to timm's dynamic image size and dynamic padding, as if it had been created with them; no weight changes."""
    vit.dynamic_img_size = True  # type: ignore[misc]  # final for TorchScript alone
    embed = vit.patch_embed
    embed.strict_img_size = False
    embed.dynamic_img_pad = True
    embed.flatten = False
    embed.output_fmt = Format.NHWC


def accept_any_size(model: nn.Module) -> nn.Module:
    """Let every plain ViT inside a model of another library take images of any size.

    Some configurations (transformers' TimmBackbone, UperNet, Mask2Former, DETR) cannot express `dynamic_img_size`; this switches it on
    afterwards. Images are padded to the patch at the right and the bottom, position embeddings are interpolated.

    Args:
        model: model with a plain ViT inside, changed in place.

    Returns:
        The model.

    Raises:
        ValueError: there is not a plain ViT inside, or it is a KArAt, whose operators are interpolated by
            `SimpleFeaturePyramid` only; elsewhere use its set_input_size.
    """
    found = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    if not found:
        raise ValueError(f"model of class {type(model).__name__}: expected a VisionTransformer of timm inside")
    for vit in found:
        check_plain(vit)
        if isinstance(vit, KArAt):
            raise ValueError("model with a KArAt: expected another ViT, or set_input_size((height, width)), as it has parameters per token")
        take_any_size(vit)
    return model


def image_statistics(
    backbone: VisionTransformer, image_mean: Sequence[float] | None = None, image_std: Sequence[float] | None = None
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of a model's images: those given, or those that the backbone was trained with.

    Args:
        backbone: model with a pretrained_cfg of timm.
        image_mean: mean per channel; None takes the backbone's.
        image_std: standard deviation per channel; None takes the backbone's.

    Returns:
        (mean, std): one value per channel, for images in [0, 1].

    Raises:
        ValueError: another number of values than of channels, deviations that are not above 0, or a pretrained_cfg without them.
    """
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    channels = backbone.patch_embed.proj.in_channels
    found: dict[str, list[float]] = {}
    for name, given in (("mean", image_mean), ("std", image_std)):
        values = list(cfg.get(name) or ()) if given is None else given
        if not isinstance(values, Sequence) or not all(map(is_real, values)) or (name == "std" and not all(v > 0 for v in values)):
            raise ValueError(
                f"image_{name}={given!r}: expected {channels} numbers{' above 0' if name == 'std' else ''}, one for each channel"
            )
        if len(values) != channels:
            source = f"pretrained_cfg with {name}={values}" if given is None else f"image_{name}={list(values)}"
            advice = "; pass image_mean and image_std" if given is None else ""
            raise ValueError(f"{source} for a backbone of {channels} channels: expected one value per channel{advice}")
        found[name] = [float(value) for value in values]
    return found["mean"], found["std"]


class LayerDecay:
    """Mixin with the methods that timm's optimizer factory calls, so that `create_optimizer_v2(model, layer_decay=0.7)` works.

    The embedding and each block of the backbone are layers of their own; everything else (neck, heads) is the last layer, with
    scale 1. This is ViTDet's rule (arXiv 2203.16527, appendix A.2).
    """

    backbone_path: str  # path of the ViT inside the model

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions of the backbone, under its path."""

        def under_path(pattern: str) -> str:
            return rf"^{re.escape(self.backbone_path)}\.(?:{pattern.replace('^', '')})"

        matcher = self.get_submodule(self.backbone_path).group_matcher(coarse=coarse)  # type: ignore[attr-defined]
        return {
            name: under_path(spec) if isinstance(spec, str) else [(under_path(pattern), suffix) for pattern, suffix in spec or ()]
            for name, spec in matcher.items()
        }

    def no_weight_decay(self) -> set[str]:
        """Return the names of the position embedding and the prefix tokens."""
        backbone = self.get_submodule(self.backbone_path)  # type: ignore[attr-defined]
        return {f"{self.backbone_path}.{name}" for name in backbone.no_weight_decay()}
