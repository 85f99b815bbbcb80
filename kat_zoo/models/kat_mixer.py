"""MLP-Mixer (arXiv 2105.01601) with the group-rational KAN layers of KAT (arXiv 2409.10594) for tokens and for channels."""

import math
from typing import Any

from timm.data.constants import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.layers.create_norm import get_norm_layer
from timm.models import generate_default_cfgs, register_model
from timm.models.mlp_mixer import MlpMixer, checkpoint_filter_fn

from .._checks import count
from ..layers.gr_kan import GRKAN, LoadsParts
from ..layers.rational import GroupRational
from ._builder import activation_names, build_with_features, default_cfg, fmnist_cfg, require_plain
from ._norm import norm_with_eps

__all__ = ["KATMixer"]


class KATMixer(LoadsParts, MlpMixer):
    """MlpMixer whose two mixers are `GRKAN`.

    Args:
        num_groups: number of groups with a denominator of their own. A mixer of tokens has the greatest number that divides both
            this one and its widths: 4 for 196 tokens, 1 for 49.
        act_init: functions that the activations start from, "<act1>-<act2>", as in `KAT`.
        norm_layer: name of timm's norm, LayerNorm by default.
        **kwargs: arguments of timm's MlpMixer.

    Raises:
        ValueError: num_groups below 1, an unknown init, or an argument that is a class or that the model sets itself.
    """

    def __init__(self, num_groups: int = 8, act_init: str = "identity-swish", norm_layer: str | None = None, **kwargs: Any) -> None:
        plain = {**kwargs, "act_init": act_init, "norm_layer": norm_layer}
        require_plain(plain, {"mlp_layer": "the mixers are GRKAN", "act_layer": "act_init names the activations"})
        num_groups = count("num_groups", num_groups)
        act1_init, act2_init = activation_names(act_init)
        if norm_layer is not None:
            kwargs["norm_layer"] = get_norm_layer(norm_with_eps(norm_layer, None))

        def mixer(in_features: int, hidden_features: int, **options: Any) -> GRKAN:
            groups = math.gcd(num_groups, in_features, hidden_features)
            return GRKAN(in_features, hidden_features, num_groups=groups, act1_init=act1_init, act2_init=act2_init, **options)

        super().__init__(mlp_layer=mixer, **kwargs)  # type: ignore[arg-type]

    def init_weights(self, nlhb: bool = False) -> None:
        """Draw all weights as timm's MlpMixer; activations become act_init again.

        Args:
            nlhb: whether the bias of the head starts at minus the logarithm of the number of classes.
        """
        super().init_weights(nlhb)
        for module in self.modules():
            if isinstance(module, GroupRational):
                module.reset_parameters()


def _create_mixer(variant: str, pretrained: bool = False, **kwargs: Any) -> KATMixer:
    return build_with_features(KATMixer, variant, pretrained, checkpoint_filter_fn, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "kat_mixer_s16_224.untrained": default_cfg(first_conv="stem.proj", mean=IMAGENET_INCEPTION_MEAN, std=IMAGENET_INCEPTION_STD),
        "kat_mixer_pico_patch4_28.untrained": fmnist_cfg(first_conv="stem.proj"),
    }
)


@register_model
def kat_mixer_s16_224(pretrained: bool = False, **kwargs: Any) -> KATMixer:
    """Mixer-S/16 with GR-KAN layers, 18.5M parameters."""
    model_args = dict(patch_size=16, num_blocks=8, embed_dim=512)
    return _create_mixer("kat_mixer_s16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def kat_mixer_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> KATMixer:
    """Mixer with GR-KAN layers for 28x28 gray images, 0.32M parameters."""
    model_args = dict(img_size=28, patch_size=4, in_chans=1, num_blocks=4, embed_dim=96)
    return _create_mixer("kat_mixer_pico_patch4_28", pretrained, **dict(model_args, **kwargs))
