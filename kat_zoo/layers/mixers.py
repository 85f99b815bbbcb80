"""Channel mixers with the signature of a timm `mlp_layer`: the layers between the attentions of a KAT and of its baselines."""

from functools import partial
from typing import Any

import torch
from timm.layers.mlp import Mlp, SwiGLU
from torch import Tensor, nn

from .._checks import choice, count, is_count
from .fourier_features import FourierFeatures
from .gr_kan import GRKAN
from .rational import GroupRational
from .spline_linear import SplineLinear

LAN_ACTIVATIONS = ("prelu", "rational")


class KANMlp(nn.Module):
    """norm -> KAN layer -> norm -> KAN layer, the channel mixer of ViT + KAN.

    Shape: (..., in_features) -> (..., out_features).

    Args:
        in_features: width of the tokens.
        hidden_features: width between the layers; in_features by default, as in the baseline of KAT's paper (arXiv 2409.10594).
        out_features: width of the result; in_features by default.
        act_layer: class of an activation, ignored; timm's blocks pass one to every mlp_layer.
        norm_layer: class of the norm in front of each layer; LayerNorm by default.
        bias: whether the Fourier layers have a bias; ignored by splines, which have a constant.
        drop: dropout rate in front of each layer.
        basis: "spline", cubic B-splines (`SplineLinear`), or "fourier", series of num_bases / 2 harmonics.
        num_bases: number of functions per edge.
        grid_range: (low, high) of the splines' grid.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown basis, a number of bases or a grid_range that it cannot have, or a width that is not an integer of at least
            1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Any = None,
        norm_layer: Any = None,
        bias: bool = True,
        drop: float = 0.0,
        basis: str = "spline",
        num_bases: int = 8,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        choice("basis", basis, ("spline", "fourier"))
        if basis == "fourier" and (not is_count(num_bases, 2) or num_bases % 2):
            raise ValueError(f"num_bases={num_bases!r}: expected an even number of at least 2, a cosine and a sine of every harmonic")
        if basis == "fourier" and tuple(grid_range) != (-2.0, 2.0):
            raise ValueError(f"grid_range={grid_range!r}: expected the default, as Fourier series do not have a grid")
        in_features, norm = count("in_features", in_features), norm_layer or nn.LayerNorm
        hidden_features = count("hidden_features", in_features if hidden_features is None else hidden_features)
        out_features = count("out_features", in_features if out_features is None else out_features)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}

        def layer(inputs: int, outputs: int) -> nn.Module:
            if basis == "spline":
                return SplineLinear(inputs, outputs, num_bases, grid_range=grid_range, **dd)
            linear = nn.Linear(num_bases * inputs, outputs, bias=bias, **dd)
            return nn.Sequential(FourierFeatures(num_bases // 2), linear)

        self.norm1 = norm(in_features, **dd)
        self.drop1 = nn.Dropout(drop)
        self.fc1 = layer(in_features, hidden_features)
        self.norm2 = norm(hidden_features, **dd)
        self.drop2 = nn.Dropout(drop)
        self.fc2 = layer(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = self.fc1(self.drop1(self.norm1(x)))
        return self.fc2(self.drop2(self.norm2(x)))


class ChannelPReLU(nn.Module):
    """max(x, 0) + w min(x, 0) with a slope w per channel, on the last axis (torch's PReLU has its channels on the second).

    Args:
        num_channels: number C of channels.
        device: device of the slopes.
        dtype: dtype of the slopes.

    Attributes:
        weight: (C,) slopes, initially 0.25 (arXiv 1502.01852).
    """

    def __init__(self, num_channels: int, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all slopes to 0.25."""
        nn.init.constant_(self.weight, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return x.clamp(min=0) + self.weight * x.clamp(max=0)


class LANMlp(Mlp):
    """timm's Mlp with an activation learned at every hidden node (LAN, arXiv 2404.19756, appendix B).

    Args:
        in_features: width of the tokens.
        hidden_features: number of nodes; in_features by default.
        out_features: width of the result; in_features by default.
        act_layer: class of an activation, ignored; timm's blocks pass one to every mlp_layer.
        norm_layer: class of the norm in front of the second layer.
        bias: whether each of the two layers has a bias.
        drop: dropout rates behind the activation and behind the second layer.
        device: device of the parameters.
        dtype: dtype of the parameters.
        activation: "prelu", or "rational": a Pade activation of order (5, 4) of its own for every node, GELU at first.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Any = None,
        norm_layer: Any = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        activation: str = "rational",
    ) -> None:
        choice("activation", activation, LAN_ACTIVATIONS)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_features, hidden_features, out_features, nn.Identity, norm_layer, bias, drop, **dd)
        nodes = hidden_features or in_features
        self.act = ChannelPReLU(nodes, **dd) if activation == "prelu" else GroupRational(nodes, "gelu", share_numerator=False, **dd)


class SiLUGLU(SwiGLU):
    """timm's SwiGLU with SiLU; in timm's blocks it would be a GEGLU, for they hand every mlp_layer their own activation, GELU."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None, act_layer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(in_features, hidden_features, out_features, nn.SiLU, **kwargs)


MIXERS: dict[str, Any] = {
    "mlp": Mlp,
    "swiglu": SiLUGLU,
    "gr_kan": GRKAN,
    "kan": KANMlp,
    "fourier": partial(KANMlp, basis="fourier"),
    "lan": LANMlp,
}
# Arguments that mixer_layer takes; all others come from the block.
OPTIONS: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "swiglu": ("align_to",),
    "gr_kan": ("num_groups", "act1_init", "act2_init", "order"),
    "kan": ("basis", "num_bases", "grid_range"),
    "fourier": ("num_bases",),
    "lan": ("activation",),
}


def mixer_layer(name: str, **kwargs: Any) -> Any:
    """Return a timm `mlp_layer` by name.

    Args:
        name: key of `MIXERS`.
        **kwargs: arguments of that class that timm's blocks do not pass, listed in `OPTIONS`: a model's mixer_kwargs.

    Raises:
        ValueError: an unknown name; an argument that the mixer does not have, that a block would overwrite or the basis ignore.
    """
    choice("mixer", name, MIXERS)
    waves = name == "kan" and kwargs.get("basis") == "fourier"  # which have no grid
    options = tuple(option for option in OPTIONS[name] if not (waves and option == "grid_range"))
    if unknown := [option for option in kwargs if option not in options]:
        expected = f"only {', '.join(options)}" if options else "none"
        raise ValueError(f"mixer_kwargs with {unknown[0]}={kwargs[unknown[0]]!r} for mixer={name!r}: expected {expected}")
    return partial(MIXERS[name], **kwargs)
