"""Learnable attention of Fourier-KArAt (arXiv 2503.10632) as modules: the heads of the standard operator, and the base of all heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models._features_fx import register_notrace_function
from torch import Tensor, nn
from torch.nn import functional as F

from kat_zoo.kernels import fourier_attention

from ..._checks import choice, count
from .edges import INITS


@torch.fx.wrap
@register_notrace_function
def check_tokens(q: Tensor, num_tokens: int) -> Tensor:
    """Return q (B, h, N, d), or raise ValueError: there are other numbers of tokens than an operator has parameters for."""
    if q.shape[2] != num_tokens:
        raise ValueError(
            f"q of {q.shape[2]} tokens: expected {num_tokens}, as many as the operator has parameters for; another size of image "
            "needs the model's set_input_size or dynamic_img_size=True, and no token can be left out"
        )
    return q


def same_grid(new: Sequence[int], old: Sequence[int]) -> bool:
    """Whether two grids are known to be equal; a symbolic side is not compared, or an exported model would refuse one of its sizes."""
    return not any(isinstance(side, torch.SymInt) for side in (*new, *old)) and tuple(new) == tuple(old)


def resample_tokens(x: Tensor, dim: int, new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int) -> Tensor:
    """Interpolate one axis of tokens from one patch grid to another (bicubic, antialiased), prefix tokens kept.

    Args:
        x: tensor of any shape with x.shape[dim] = num_prefix + old height x old width.
        dim: axis of tokens.
        new_grid: (height, width) of the result, in patches.
        old_grid: (height, width) of x, in patches.
        num_prefix: number of tokens before the patches (class and register tokens).

    Raises:
        ValueError: the axis does not have that many tokens.
    """
    patches = old_grid[0] * old_grid[1]
    if x.shape[dim] != num_prefix + patches:
        tokens = f"{num_prefix} + {old_grid[0]} x {old_grid[1]}"
        raise ValueError(f"x of shape {tuple(x.shape)}: expected {tokens} tokens along dim {dim}")
    x = x.movedim(dim, -1)
    prefix, grid = x[..., :num_prefix], x[..., num_prefix:]
    flat = grid.reshape(-1, 1, *old_grid)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    flat = F.interpolate(flat, size=tuple(new_grid), mode="bicubic", antialias=True, align_corners=False)
    grid = flat.reshape(*grid.shape[:-1], -1).to(x.dtype)
    return torch.cat([prefix, grid], -1).movedim(-1, dim).contiguous()


class SoftmaxHeads(nn.Module):
    """Ordinary attention for some heads of a hybrid layer."""

    @torch.jit.ignore
    def attention(self, logits: Tensor) -> Tensor:
        """Return the attention (B, h, M, N) of logits of that shape, for analyses."""
        return logits.softmax(-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(d)) v; all are (B, h, N, d)."""
        return F.scaled_dot_product_attention(q, k, v)


class OperatorHeads(nn.Module):
    """Base of all learnable heads, whose parameters have an axis of tokens."""

    # Parameter -> (axis of tokens, whether it is a density over tokens: sums over N patches keep their size when N changes).
    token_axes: dict[str, tuple[int, bool]] = {}

    @torch.no_grad()
    def resample(self, new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int) -> None:
        """Interpolate the parameters to another patch grid; on the same one they stay, for their optimizer.

        Args:
            new_grid: (height, width) to resample to, in patches.
            old_grid: (height, width) of the parameters, in patches.
            num_prefix: number of tokens before the patches.
        """
        if same_grid(new_grid, old_grid):
            return
        for name, value in self.resampled(dict(self.named_parameters()), new_grid, old_grid, num_prefix).items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, nn.Parameter(value, self.get_parameter(name).requires_grad))

    def resampled(
        self, state: Mapping[str, Tensor], new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int
    ) -> dict[str, Tensor]:
        """Return parameters on another patch grid.

        Args:
            state: values by the names of `token_axes`.
            new_grid: (height, width) to resample to, in patches.
            old_grid: (height, width) of the values, in patches.
            num_prefix: number of tokens before the patches.
        """
        if same_grid(new_grid, old_grid):
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
        num_heads: number h of heads.
        num_tokens: number N of tokens, prefix tokens included.
        num_harmonics: number G of harmonics, 1 to 11 in the paper, which calls it grid size.
        rank: number r of components.
        init: "scaled" draws a, b from N(0, 1 / (N G)), so that z starts with unit variance; "normal" from N(0, 1) (paper).
        edge_scale: whether there are two more (h, r, N) parameters that scale the cosine and the sine part of every edge; with
            them the number of parameters is that of the paper's tables, N r (2G + 3) per head instead of N r (2G + 1).
        w_bias: whether the map w has a bias, an (h, N) parameter.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        a: (h, r, N, G) coefficients of the cosines.
        b: (h, r, N, G) coefficients of the sines.
        w: (h, N, r) map from the components to the tokens.

    Raises:
        ValueError: a size that is not an integer of at least 1, or an unknown init.
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
        num_harmonics: int = 3,
        rank: int = 12,
        *,
        init: str = "scaled",
        edge_scale: bool = False,
        w_bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.init = choice("init", init, INITS)
        shape = (count("num_heads", num_heads), count("rank", rank), count("num_tokens", num_tokens))
        num_harmonics = count("num_harmonics", num_harmonics)
        self.a = nn.Parameter(torch.empty(*shape, num_harmonics, **dd))
        self.b = nn.Parameter(torch.empty(*shape, num_harmonics, **dd))
        self.w = nn.Parameter(torch.empty(num_heads, num_tokens, rank, **dd))
        self.cos_scale = nn.Parameter(torch.empty(shape, **dd)) if edge_scale else None
        self.sin_scale = nn.Parameter(torch.empty(shape, **dd)) if edge_scale else None
        self.bias = nn.Parameter(torch.empty(num_heads, num_tokens, **dd)) if w_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a and b as `init` says, and w as nn.Linear does (the paper does not state it)."""
        tokens, num_harmonics = self.a.shape[2:]
        std = (tokens * num_harmonics) ** -0.5 if self.init == "scaled" else 1.0
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
        heads, rank, tokens, num_harmonics = self.a.shape
        return f"num_heads={heads}, num_tokens={tokens}, num_harmonics={num_harmonics}, rank={rank}"

    @torch.jit.ignore
    def attention(self, logits: Tensor) -> Tensor:
        """Return the attention w z (B, h, M, N) of logits of that shape, for analyses; `forward` never builds it."""
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
        """Attend on (B, h, N, d).

        Raises:
            ValueError: another number of tokens than num_tokens.
        """
        q = check_tokens(q, self.w.shape[1])
        a: Tensor = self.a
        b: Tensor = self.b
        if self.cos_scale is not None and self.sin_scale is not None:
            a, b = a * self.cos_scale.unsqueeze(-1), b * self.sin_scale.unsqueeze(-1)
        if not torch.jit.is_scripting():  # TorchScript calls registered operators, but not Python functions
            out = fourier_attention(q, k, v, a, b, self.w)
        else:
            out = torch.ops.kat_zoo.fourier_attention(q, k, v, a, b, self.w)[0]
        if self.bias is not None:
            out = out + self.bias.to(v.dtype).unsqueeze(-2) @ v
        return out


@torch.no_grad()
def reset_map(w: Tensor) -> None:
    """Initialize w (h, N, r) as the weight of nn.Linear(r, N): attention entries of standard deviation 0.6 for unit z."""
    w.uniform_(-(w.shape[-1] ** -0.5), w.shape[-1] ** -0.5)
