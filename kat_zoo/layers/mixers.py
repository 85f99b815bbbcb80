"""Channel mixers with the signature of a timm `mlp_layer`: what a KAT, or one of its baselines, has between attentions."""

from functools import partial
from typing import Any

import torch
from timm.layers import Mlp, SwiGLU
from timm.models._features_fx import register_notrace_function
from torch import Tensor, nn

import kat_zoo.kernels  # noqa: F401  (defines torch.ops.kat_zoo.spline_contract)

from .gr_kan import GRKAN
from .rational import GroupRational
from .spline import KANLinear, is_count, uniform_knots

LAN_ACTIVATIONS = ("prelu", "rational")


@torch.fx.wrap
@register_notrace_function
def spline_rows(x: Tensor, knots: Tensor, coef: Tensor, order: int) -> Tensor:
    """(..., C_in) -> (..., C_out) through the operator, which takes rows; 16-bit types are computed in float32."""
    if x.dim() < 1 or x.shape[-1] != coef.shape[0]:
        raise ValueError(f"x has shape {x.shape}; expected (..., {coef.shape[0]}), the layer's in_features last")
    dtype = torch.float64 if coef.dtype == torch.float64 else torch.float32
    rows = torch.ops.kat_zoo.spline_contract(x.reshape(-1, x.shape[-1]).to(dtype), knots, coef.to(dtype), None, order, 0)
    return rows.to(x.dtype).reshape(x.shape[:-1] + rows.shape[-1:])


@torch.fx.wrap
@register_notrace_function
def fourier_waves(x: Tensor, order: int) -> Tensor:
    """cos(x), ..., cos(order x), sin(x), ..., sin(order x) on the last axis; angles of 16-bit types are float32."""
    angle = x if x.dtype == torch.float64 else x.float()
    waves = [torch.cos(m * angle) for m in range(1, order + 1)]
    waves += [torch.sin(m * angle) for m in range(1, order + 1)]
    return torch.cat(waves, -1).to(x.dtype)


class SplineLinear(KANLinear):
    """A `KANLinear` without base branch, on a fixed grid that the state dict leaves out; scriptable and traceable.

    Args:
        in_features: C_in.
        out_features: C_out.
        num_bases: B-splines per edge, at least spline_order + 1.
        spline_order: degree of the pieces.
        grid_range: (low, high) of the grid; splines continue linearly outside.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: too few bases, or what `KANLinear` refuses.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_bases: int = 8,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if num_bases <= spline_order:
            raise ValueError(f"num_bases={num_bases}: expected more than spline_order={spline_order}")
        low, high = grid_range
        super().__init__(
            in_features,
            out_features,
            num_bases - spline_order,
            spline_order,
            base="zero",
            grid_range=(low, high),
            device=device,
            dtype=dtype,
        )
        self.grid_range = (low, high)
        for name in ("knots", "mask"):
            self.register_buffer(name, getattr(self, name), persistent=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new splines, and build the grid again (after device='meta' it holds nothing)."""
        super().reset_parameters(generator)
        if hasattr(self, "grid_range"):  # not yet while KANLinear is being built
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Build the grid, which the state dict leaves out: timm calls this after loading weights into a model from the meta device."""
        for name in ("knots", "mask"):
            buffer = getattr(self, name)
            if buffer.device != self.coef.device:  # still on meta, where load_state_dict(assign=True) leaves it
                setattr(self, name, torch.empty_like(buffer, device=self.coef.device))
        low, high = (torch.full((self.in_features,), end, dtype=torch.float64) for end in self.grid_range)
        self.knots.copy_(uniform_knots(self.grid_size, self.spline_order, low, high))
        self.mask.fill_(1)

    def set_mask(self, mask: Tensor) -> None:
        """Refused, since a mask would not be saved.

        Raises:
            ValueError: always.
        """
        raise ValueError("a SplineLinear is not pruned, as its state dict has no mask; expected a KANLinear")

    def set_grid(self, knots: Tensor, coef: Tensor) -> None:
        """Refused, since a grid would not be saved.

        Raises:
            ValueError: always.
        """
        raise ValueError("the grid of a SplineLinear is fixed, as its state dict has no knots; expected a KANLinear")

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., C_out)."""
        return spline_rows(x, self.knots, self.coef, self.spline_order)


class FourierFeatures(nn.Module):
    """(..., C) -> (..., 2 G C): cos(x), ..., cos(G x), sin(x), ..., sin(G x) of every channel.

    Args:
        order: G.

    Raises:
        ValueError: order < 1.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        if order < 1:
            raise ValueError(f"order={order}: expected 1 or more")
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """Expand the channels."""
        return fourier_waves(x, self.order)


class KANMlp(nn.Module):
    """norm -> KAN layer -> norm -> KAN layer, the channel mixer of ViT + KAN.

    Shape: (..., in_features) -> (..., out_features).

    Args:
        in_features: width of the tokens.
        hidden_features: in_features by default, as in the baseline of KAT's paper (arXiv 2409.10594).
        out_features: in_features by default.
        act_layer: ignored; timm's blocks pass one to every mlp_layer.
        norm_layer: in front of each layer; LayerNorm by default.
        bias: ignored by splines, which have a constant; of the Fourier layers.
        drop: dropout rate in front of each layer.
        basis: "spline", cubic B-splines (`SplineLinear`), or "fourier", series up to num_bases / 2.
        num_bases: functions per edge.
        grid_range: of the splines.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown basis, or a number of bases that it cannot have.
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
        if basis not in ("spline", "fourier"):
            raise ValueError(f"basis={basis!r}: expected spline or fourier")
        if basis == "fourier" and (not is_count(num_bases, 2) or num_bases % 2):
            raise ValueError(f"num_bases={num_bases}: expected an even number of 2 or more, a cosine and a sine of every order")
        hidden_features, norm = hidden_features or in_features, norm_layer or nn.LayerNorm
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
        self.fc2 = layer(hidden_features, out_features or in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = self.fc1(self.drop1(self.norm1(x)))
        return self.fc2(self.drop2(self.norm2(x)))


class ChannelPReLU(nn.Module):
    """max(x, 0) + w min(x, 0) with a slope w per channel, on the last axis (torch's PReLU has its channels on the second).

    Args:
        num_channels: C.
        device: of the slopes.
        dtype: of the slopes.

    Attributes:
        weight: (C,), initially 0.25 (arXiv 1502.01852).
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
        out_features: in_features by default.
        act_layer: ignored; timm's blocks pass one to every mlp_layer.
        norm_layer: norm in front of the second layer.
        bias: of the two layers.
        drop: dropout rates behind the activation and behind the second layer.
        device: of the parameters.
        dtype: of the parameters.
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
        if activation not in LAN_ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {', '.join(LAN_ACTIVATIONS)}")
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_features, hidden_features, out_features, nn.Identity, norm_layer, bias, drop, **dd)
        nodes = hidden_features or in_features
        self.act = ChannelPReLU(nodes, **dd) if activation == "prelu" else GroupRational(nodes, "gelu", share_numerator=False, **dd)


class SiLUGLU(SwiGLU):
    """timm's SwiGLU, which would be a GEGLU in its blocks: they hand every mlp_layer the activation of their perceptron, GELU."""

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
# What mixer_layer takes; the rest of their arguments come from the block.
OPTIONS: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "swiglu": ("align_to",),
    "gr_kan": ("num_groups", "act1_init", "act2_init", "order"),
    "kan": ("basis", "num_bases", "grid_range"),
    "fourier": ("num_bases",),
    "lan": ("activation",),
}


def mixer_layer(name: str, **kwargs: Any) -> Any:
    """A timm `mlp_layer` by name.

    Args:
        name: a key of `MIXERS`.
        **kwargs: arguments of that class beyond those that timm's blocks pass, see `OPTIONS`: a model's mixer_kwargs.

    Raises:
        ValueError: an unknown name, or an argument that the mixer has not, that a block would overwrite or the basis ignore.
    """
    if not isinstance(name, str) or name not in MIXERS:
        raise ValueError(f"mixer={name!r}: expected one of {', '.join(MIXERS)}")
    waves = name == "kan" and kwargs.get("basis") == "fourier"  # which have no grid
    options = tuple(option for option in OPTIONS[name] if not (waves and option == "grid_range"))
    if unknown := [option for option in kwargs if option not in options]:
        expected = f"one of {', '.join(options)}" if options else "nothing"
        raise ValueError(f"mixer_kwargs: {unknown[0]}={kwargs[unknown[0]]!r} is no option of mixer={name!r}; expected {expected}")
    return partial(MIXERS[name], **kwargs)
