"""MLP-Mixer (arXiv 2105.01601) with the group-rational KAN layers of KAT (arXiv 2409.10594) for tokens and for channels."""

import math
from typing import Any

from timm.data.constants import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.layers import get_norm_layer
from timm.models import generate_default_cfgs, register_model
from timm.models.mlp_mixer import MlpMixer, checkpoint_filter_fn

from ..layers.gr_kan import GRKAN, check_activations
from ..layers.rational import GroupRational, check_groups
from ._builder import build_with_features, default_cfg, fmnist_cfg, require_plain
from ._norm import norm_with_eps

__all__ = ["KATMixer"]


class KATMixer(MlpMixer):
    """MlpMixer whose two mixers are `GRKAN`.

    Args:
        num_groups: groups with a denominator of their own. A mixer of tokens has as many as divide both this number and its
            widths: 4 for 196 tokens, 1 for 49.
        act_init: functions that the activations start from, "<act1>-<act2>", as in `KAT`.
        norm_layer: name of timm's norm, as in `KAT`; LayerNorm by default.
        **kwargs: see timm's MlpMixer.

    Raises:
        ValueError: num_groups < 1, an unknown init, or an argument that is a class or replaces what makes this model.
    """

    def __init__(self, num_groups: int = 8, act_init: str = "identity-swish", norm_layer: str | None = None, **kwargs: Any) -> None:
        plain = {**kwargs, "act_init": act_init, "norm_layer": norm_layer}
        require_plain(plain, {"mlp_layer": "its mixers are GRKAN", "act_layer": "see act_init"})
        check_groups(num_groups)
        if not isinstance(act_init, str):
            raise ValueError(f"act_init={act_init!r}: expected names of functions, as 'identity-swish'")
        if norm_layer is not None:
            if not isinstance(norm_layer, str):
                raise ValueError(f"norm_layer={norm_layer!r}: expected the name of a norm of timm's")
            kwargs["norm_layer"] = get_norm_layer(norm_with_eps(norm_layer, None))
        act1_init, _, act2_init = act_init.rpartition("-")

        def mixer(in_features: int, hidden_features: int, **options: Any) -> GRKAN:
            groups = math.gcd(num_groups, in_features, hidden_features)
            inits: dict[str, Any] = {"act1_init": act1_init or "identity", "act2_init": act2_init}
            return GRKAN(in_features, hidden_features, num_groups=groups, **inits, **options)

        super().__init__(mlp_layer=mixer, **kwargs)  # type: ignore[arg-type]

    def init_weights(self, nlhb: bool = False) -> None:
        """Draw all weights as timm's MlpMixer; activations become act_init again.

        Args:
            nlhb: bias of the head is minus the logarithm of the number of classes.
        """
        super().init_weights(nlhb)
        for module in self.modules():
            if isinstance(module, GroupRational):
                module.reset_parameters()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        check_activations(self, state_dict, prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


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
    """Mixer with GR-KAN layers for 28x28 grey images, 0.32M parameters."""
    model_args = dict(img_size=28, patch_size=4, in_chans=1, num_blocks=4, embed_dim=96)
    return _create_mixer("kat_mixer_pico_patch4_28", pretrained, **dict(model_args, **kwargs))
