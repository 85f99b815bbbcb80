"""Learnable attention of Fourier-KArAt (arXiv 2503.10632) as modules: the heads of the standard operator, and what all heads share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kat_zoo.kernels  # noqa: F401  (defines torch.ops.kat_zoo.fourier_attention)

from .edges import INITS, check_choice


def check_sizes(**sizes: Any) -> None:
    """Raise a ValueError that names the first size that is not a whole number of 1 or more."""
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more")


def resample_tokens(x: Tensor, dim: int, new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int) -> Tensor:
    """Interpolate one axis of tokens from one patch grid to another (bicubic, antialiased), prefix tokens kept.

    Args:
        x: any shape; x.shape[dim] = num_prefix + old height x old width.
        dim: the axis of tokens.
        new_grid: (height, width) in patches.
        old_grid: (height, width) in patches.
        num_prefix: tokens before the patches (class and register tokens).

    Raises:
        ValueError: the axis does not have that many tokens.
    """
    patches = old_grid[0] * old_grid[1]
    if x.shape[dim] != num_prefix + patches:
        raise ValueError(f"x has {x.shape[dim]} tokens along dim {dim}; expected {num_prefix} + {old_grid[0]} x {old_grid[1]}")
    x = x.movedim(dim, -1)
    prefix, grid = x[..., :num_prefix], x[..., num_prefix:]
    flat = grid.reshape(-1, 1, *old_grid).float()
    flat = F.interpolate(flat, size=tuple(new_grid), mode="bicubic", antialias=True, align_corners=False)
    grid = flat.reshape(*grid.shape[:-1], -1).to(x.dtype)
    return torch.cat([prefix, grid], -1).movedim(-1, dim).contiguous()


class SoftmaxHeads(nn.Module):
    """Ordinary attention for some heads of a hybrid layer."""

    @torch.jit.ignore
    def attention(self, logits: Tensor) -> Tensor:
        """The attention (B, h, M, N) that belongs to logits of that shape, for analyses."""
        return logits.softmax(-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(d)) v on (B, h, N, d)."""
        return F.scaled_dot_product_attention(q, k, v)


class OperatorHeads(nn.Module):
    """What all learnable heads share: the axes that follow the number of tokens."""

    # parameter -> (axis of tokens, whether it is a density over tokens: sums over N patches keep their size when N changes)
    token_axes: dict[str, tuple[int, bool]] = {}

    @torch.no_grad()
    def resample(self, new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int) -> None:
        """Interpolate the parameters to another patch grid (see `resample_tokens`); on the same one they stay, for their optimizer."""
        if tuple(new_grid) == tuple(old_grid):
            return
        for name, value in self.resampled(dict(self.named_parameters()), new_grid, old_grid, num_prefix).items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, nn.Parameter(value, self.get_parameter(name).requires_grad))

    def resampled(
        self, state: Mapping[str, Tensor], new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int
    ) -> dict[str, Tensor]:
        """Return the entries of `state` (names as in `token_axes`) on another grid."""
        if tuple(new_grid) == tuple(old_grid):
            return dict(state)
        factor = old_grid[0] * old_grid[1] / (new_grid[0] * new_grid[1])
        result = {}
        for name, value in state.items():
            axis, density = self.token_axes[name]
            new = resample_tokens(value, axis, new_grid, old_grid, num_prefix)
            if density:
                new.narrow(axis, num_prefix, new.shape[axis] - num_prefix).mul_(factor)
            result[name] = new
        return result


class FourierHeads(OperatorHeads):
    """z (w^T v) with z_kp = sum_q sum_m a_pqm cos(m A_kq) + b_pqm sin(m A_kq): the paper's operator, through the kernel.

    Args:
        num_heads: h.
        num_tokens: N, prefix tokens included.
        grid_size: G, the highest frequency, 1 to 11 in the paper.
        rank: r.
        init: "scaled" draws a, b from N(0, 1 / (N G)), so that z starts with unit variance; "normal" from N(0, 1) (paper).
        edge_scale: two more (h, r, N) parameters that scale the cosine and the sine part of every edge; with them the
            number of parameters is that of the paper's tables, N r (2G + 3) per head instead of N r (2G + 1).
        w_bias: a bias of the map w, an (h, N) parameter.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        a: (h, r, N, G).
        b: (h, r, N, G).
        w: (h, N, r).

    Raises:
        ValueError: a size that is not a whole number of 1 or more, or an unknown init.
    """

    token_axes = {
        "a": (2, True),
        "b": (2, True),
        "w": (1, True),
        "cos_scale": (2, False),
        "sin_scale": (2, False),
        "bias": (1, True),
    }

    def __init__(
        self,
        num_heads: int,
        num_tokens: int,
        grid_size: int = 3,
        rank: int = 12,
        *,
        init: str = "scaled",
        edge_scale: bool = False,
        w_bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_tokens=num_tokens, grid_size=grid_size, rank=rank)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.init = check_choice("init", init, INITS)
        self.a = nn.Parameter(torch.empty(num_heads, rank, num_tokens, grid_size, **dd))
        self.b = nn.Parameter(torch.empty(num_heads, rank, num_tokens, grid_size, **dd))
        self.w = nn.Parameter(torch.empty(num_heads, num_tokens, rank, **dd))
        shape = (num_heads, rank, num_tokens)
        self.cos_scale = nn.Parameter(torch.empty(shape, **dd)) if edge_scale else None
        self.sin_scale = nn.Parameter(torch.empty(shape, **dd)) if edge_scale else None
        self.bias = nn.Parameter(torch.empty(num_heads, num_tokens, **dd)) if w_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a and b as `init` says, and w as nn.Linear does (the paper does not state it)."""
        tokens, order = self.a.shape[2:]
        std = (tokens * order) ** -0.5 if self.init == "scaled" else 1.0
        nn.init.normal_(self.a, std=std)
        nn.init.normal_(self.b, std=std)
        reset_map(self.w)
        for scale in (self.cos_scale, self.sin_scale):
            if scale is not None:
                nn.init.ones_(scale)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Sizes for repr()."""
        heads, rank, tokens, order = self.a.shape
        return f"num_heads={heads}, num_tokens={tokens}, grid_size={order}, rank={rank}"

    @torch.jit.ignore
    def attention(self, logits: Tensor) -> Tensor:
        """The attention w z (B, h, M, N) that belongs to logits of that shape, for analyses; `forward` never builds it."""
        z = torch.zeros((), dtype=logits.dtype, device=logits.device)
        for m in range(self.a.shape[-1]):
            for wave, coefficients, scale in (
                (((m + 1) * logits).cos(), self.a, self.cos_scale),
                (((m + 1) * logits).sin(), self.b, self.sin_scale),
            ):
                edges = coefficients[..., m] if scale is None else coefficients[..., m] * scale
                z = z + wave @ edges.transpose(-1, -2)
        rows = z @ self.w.transpose(-1, -2)
        return rows if self.bias is None else rows + self.bias.unsqueeze(-2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend on (B, h, N, d)."""
        a: Tensor = self.a
        b: Tensor = self.b
        if self.cos_scale is not None and self.sin_scale is not None:
            a, b = a * self.cos_scale.unsqueeze(-1), b * self.sin_scale.unsqueeze(-1)
        out = torch.ops.kat_zoo.fourier_attention(q, k, v, a, b, self.w)[0]
        if self.bias is not None:
            out = out + self.bias.unsqueeze(-2) @ v
        return out


@torch.no_grad()
def reset_map(w: Tensor) -> None:
    """Initialise w (h, N, r) as the weight of nn.Linear(r, N): attention entries of standard deviation 0.6 for unit z."""
    w.uniform_(-(w.shape[-1] ** -0.5), w.shape[-1] ** -0.5)
