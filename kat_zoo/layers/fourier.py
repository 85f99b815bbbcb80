"""Learnable attention of Fourier-KArAt (arXiv 2503.10632) as modules: heads of one kind, and timm's Attention made of them."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention
from timm.models._features_fx import register_notrace_function, register_notrace_module
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import kat_zoo.kernels  # noqa: F401  (defines torch.ops.kat_zoo.fourier_attention)

from .edges import INITS, Edges, check_choice

logger = logging.getLogger("kat_zoo")

ORDERS = ("w_phi", "phi_w", "phi_phi")
PROJECTIONS = ("none", "simplex")
TILE_QUERIES = 16  # of the general operator: tile x N x r elements at once for bases that do not factorise


@torch.fx.wrap
@register_notrace_function
def check_no_mask(x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Return x, or raise ValueError: an operator over a fixed set of keys has no meaning under a mask."""
    if attn_mask is not None or is_causal:
        raise ValueError(
            "attn_mask / is_causal: Fourier-KArAt sums learned functions over all N keys, without a mask; expected None / False"
        )
    return x


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


def project_simplex(x: Tensor) -> Tensor:
    """Project each row (last axis) onto the probability simplex, the nearest point in the Euclidean norm."""
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    threshold = (ordered.cumsum(-1) - 1) / count
    last = (ordered > threshold).sum(-1, keepdim=True) - 1
    return (x - threshold.gather(-1, last)).relu()


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
        """Interpolate the parameters to another patch grid (see `resample_tokens`)."""
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
        ValueError: a size below 1 or an unknown init.
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
        for name, value in (("num_tokens", num_tokens), ("grid_size", grid_size), ("rank", rank)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
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


@functools.cache
def _announce_general(what: str) -> None:
    logger.warning("kat_zoo: no kernel for %s; this attention runs in tiles of plain PyTorch, which is slower.", what)


@register_notrace_module
class GeneralHeads(OperatorHeads):
    """All other variants of the paper, in tiles of queries: no N x N map is kept, the backward recomputes each tile.

    torch.compile and torch.export take it as it is; torch.jit.script and torch.fx.symbolic_trace are refused.

    Args:
        num_heads: h.
        num_tokens: N, prefix tokens included.
        grid_size: G of the Fourier basis.
        rank: r.
        basis: see `Edges`.
        base_function: see `Edges`.
        order: "w_phi", W Phi(A); "phi_w", Phi(W A); "phi_phi", Phi2(Phi1(A)).
        projection: "none", or "simplex": each row of the attention is projected onto the probability simplex.
        init: see `Edges`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown name.
    """

    token_axes = {"inner.coefficients": (3, True), "outer.coefficients": (2, True), "w": (1, True)}

    def __init__(
        self,
        num_heads: int,
        num_tokens: int,
        grid_size: int = 3,
        rank: int = 12,
        *,
        basis: str = "fourier",
        base_function: str = "zero",
        order: str = "w_phi",
        projection: str = "none",
        init: str = "scaled",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.order = check_choice("operator_order", order, ORDERS)
        self.projection = check_choice("projection", projection, PROJECTIONS)
        make = functools.partial(
            Edges,
            num_heads,
            basis=basis,
            order=grid_size,
            base_function=base_function,
            init=init,
            device=device,
            dtype=dtype,
        )
        self.basis = basis
        self.inner: Any = make(inputs=num_tokens, outputs=rank) if order != "phi_w" else None
        self.outer: Any = make(inputs=rank, outputs=num_tokens) if order != "w_phi" else None
        shape = (num_heads, num_tokens, rank)
        self.w: Any = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if order != "phi_phi" else None
        self.reset_parameters()
        _announce_general(f"basis={basis}, base_function={base_function}, operator_order={order}, projection={projection}")

    def reset_parameters(self) -> None:
        """Draw w; the edges have their own."""
        if self.w is not None:
            reset_map(self.w)

    def resampled(
        self, state: Mapping[str, Tensor], new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int
    ) -> dict[str, Tensor]:
        """As in the base class; only the weights are densities, not the shifts, scales and denominators."""
        result = super().resampled(state, new_grid, old_grid, num_prefix)
        factor = old_grid[0] * old_grid[1] / (new_grid[0] * new_grid[1])
        for name, value in result.items():
            if name != "w" and self.basis != "fourier":
                axis = self.token_axes[name][0]
                value[6 if self.basis == "rational" else 1 :].narrow(axis, num_prefix, value.shape[axis] - num_prefix).div_(factor)
        return result

    def attention(self, logits: Tensor) -> Tensor:
        """Map rows of logits (B, h, M, N) to rows of the attention, same shape."""
        if self.order == "phi_w":
            z = logits @ self.w
        else:
            z = self.inner(logits)
        rows = z @ self.w.transpose(-1, -2) if self.order == "w_phi" else self.outer(z)
        return project_simplex(rows) if self.projection == "simplex" else rows

    def _tile(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attention(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5) @ v

    def __prepare_scriptable__(self) -> "GeneralHeads":
        """Called by torch.jit.script, which knows neither checkpointing nor a table of functions."""
        raise self._refused("torch.jit.script", "torch.compile or torch.export.export")

    def _refused(self, what: str, instead: str) -> ValueError:
        return ValueError(
            f"{what}: no support for basis={self.basis}, operator_order={self.order}, projection={self.projection}, which runs in "
            f"tiles of plain PyTorch; expected the standard Fourier operator, or {instead}"
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend on (B, h, N, d).

        Raises:
            ValueError: traced by torch.fx.symbolic_trace, which cannot follow a loop over tiles.
        """
        if isinstance(q, torch.fx.Proxy):
            raise self._refused("torch.fx.symbolic_trace", "torch.export.export, or timm's create_feature_extractor")
        # Under functional_call, a tile recomputed in the backward would find the module's own parameters again: keep it.
        if all(isinstance(p, nn.Parameter) for p in self.parameters()):
            tiles = [checkpoint(self._tile, tile, k, v, use_reentrant=False) for tile in q.split(TILE_QUERIES, 2)]
        else:
            tiles = [self._tile(tile, k, v) for tile in q.split(TILE_QUERIES, 2)]
        return torch.cat(tiles, 2)


@dataclass
class PatchGrid:
    """Where a model of dynamic image size notes the grid of the images it is working on, for its attention layers.

    Attributes:
        native: (height, width) in patches that the operators have parameters for.
        current: (height, width) in patches of the images in work.
        num_prefix: tokens before the patches.
    """

    native: tuple[int, int]
    current: tuple[int, int]
    num_prefix: int


class KArAtAttention(Attention):
    """timm's Attention (same qkv, proj and norms, same names) whose heads are given by `set_operators`.

    A class of its own because timm builds attention layers without telling them the number of tokens or the depth.
    """

    head_counts: list[int]
    dynamic: bool
    __constants__ = ["dynamic"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.operators = nn.ModuleList()
        self.head_counts = []
        self.dynamic = False

    def set_dynamic(self, patch_grid: PatchGrid) -> None:
        """Interpolate the operators in every forward to the grid noted in `patch_grid`."""
        self.patch_grid = patch_grid
        self.dynamic = True

    @torch.jit.ignore
    def _interpolated(self, operator: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Call an operator with its parameters on the current grid; gradients flow to the parameters as they are."""
        grid = self.patch_grid
        if not isinstance(operator, OperatorHeads) or grid.current == grid.native:
            return operator(q, k, v)
        own = dict(operator.named_parameters())
        parameters = operator.resampled(own, grid.current, grid.native, grid.num_prefix)
        return torch.func.functional_call(operator, parameters, (q, k, v))

    def set_operators(self, operators: nn.ModuleList, head_counts: Sequence[int]) -> None:
        """Give the heads to operators, in order.

        Args:
            operators: modules called as (q, k, v) on (B, heads, N, d).
            head_counts: heads of each; their sum is num_heads.

        Raises:
            ValueError: the counts do not add up, or attention dropout is asked of an operator without an N x N map.
        """
        if sum(head_counts) != self.num_heads or len(head_counts) != len(operators):
            raise ValueError(f"head_counts={list(head_counts)}: expected {len(operators)} counts that sum to {self.num_heads}")
        if self.attn_drop.p > 0:
            raise ValueError(f"attn_drop_rate={self.attn_drop.p}: there is no attention map to drop from; expected 0")
        self.operators = operators
        self.head_counts = list(head_counts)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend: (B, N, C) -> (B, N, C).

        Raises:
            ValueError: a mask, or another number of tokens than the operators have parameters for.
        """
        x = check_no_mask(x, attn_mask, is_causal)
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q).type_as(v), self.k_norm(k).type_as(v)
        outs = []
        start = 0
        for i, operator in enumerate(self.operators):
            stop = start + self.head_counts[i]
            if self.dynamic:
                outs.append(self._interpolated(operator, q[:, start:stop], k[:, start:stop], v[:, start:stop]))
            else:
                outs.append(operator(q[:, start:stop], k[:, start:stop], v[:, start:stop]))
            start = stop
        out = torch.cat(outs, 1) if len(outs) > 1 else outs[0]
        out = self.norm(out.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        return self.proj_drop(self.proj(out))
