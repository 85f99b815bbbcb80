"""`FourierFeatures`: the basis of a Fourier KAN layer, whose coefficients are those of a linear layer behind it."""

import torch
from timm.models._features_fx import register_notrace_function
from torch import Tensor, nn

from .._checks import count


@torch.fx.wrap
@register_notrace_function
def fourier_waves(x: Tensor, num_harmonics: int) -> Tensor:
    """Return cos(x), ..., cos(G x), sin(x), ..., sin(G x) on the last axis, G harmonics; angles of 16-bit types are float32."""
    angle = x if x.dtype == torch.float64 else x.float()
    waves = [torch.cos(m * angle) for m in range(1, num_harmonics + 1)]
    waves += [torch.sin(m * angle) for m in range(1, num_harmonics + 1)]
    return torch.cat(waves, -1).to(x.dtype)


class FourierFeatures(nn.Module):
    """Expansion (..., C) -> (..., 2 G C): cos(x), ..., cos(G x), sin(x), ..., sin(G x) of every channel.

    Args:
        num_harmonics: number G of harmonics.

    Raises:
        ValueError: num_harmonics is not an integer of at least 1.
    """

    def __init__(self, num_harmonics: int) -> None:
        super().__init__()
        self.num_harmonics = count("num_harmonics", num_harmonics)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., 2 G C)."""
        return fourier_waves(x, self.num_harmonics)
