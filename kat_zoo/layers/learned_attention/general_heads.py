"""The variants of Fourier-KArAt's attention (arXiv 2503.10632) without a kernel: other bases, operator orders and projections."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models._features_fx import register_notrace_module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..._checks import choice, count
from .edges import Edges
from .fourier import OperatorHeads, check_tokens, reset_map

logger = logging.getLogger("kat_zoo")

OPERATOR_ORDERS = ("w_phi", "phi_w", "phi_phi")
PROJECTIONS = ("none", "simplex")
TILE_QUERIES = 16  # tile x N x r elements at once for bases that do not factorize


def project_simplex(x: Tensor) -> Tensor:
    """Project each row (last axis) onto the probability simplex: return the nearest point in the Euclidean norm."""
    z = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x  # sums of many entries need the digits
    ordered = z.sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    threshold = (ordered.cumsum(-1) - 1) / count
    last = ((ordered > threshold).sum(-1, keepdim=True) - 1).clamp(min=0)  # of NaN and infinity none is greater
    return (z - threshold.gather(-1, last)).relu().to(x.dtype)


@functools.cache
def _announce_general(variant: str) -> None:
    logger.warning("kat_zoo: no kernel for %s; this attention runs in tiles of plain PyTorch, which is slower.", variant)


@register_notrace_module
class GeneralHeads(OperatorHeads):
    """Any variant of the paper, in tiles of queries: no N x N map is kept, the backward recomputes each tile.

    torch.compile and torch.export take it as it is; torch.jit.script and torch.fx.symbolic_trace are refused.

    Args:
        num_heads: number h of heads.
        num_tokens: number N of tokens, prefix tokens included.
        num_harmonics: number G of harmonics of the Fourier basis.
        rank: number r of components.
        basis: basis of the edges, a name in `EDGE_BASES`.
        base_function: function added on every edge, a name in `BASE_FUNCTIONS`.
        operator_order: "w_phi", W Phi(A); "phi_w", Phi(W A); "phi_phi", Phi2(Phi1(A)).
        projection: "none", or "simplex": each row of the attention is projected onto the probability simplex.
        init: "scaled" or "normal" coefficients, as in `Edges`.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown name, or a size that is not an integer of at least 1.
    """

    token_axes = {"inner.coefficients": (3, True), "outer.coefficients": (2, True), "w": (1, True)}

    def __init__(
        self,
        num_heads: int,
        num_tokens: int,
        num_harmonics: int = 3,
        rank: int = 12,
        *,
        basis: str = "fourier",
        base_function: str = "zero",
        operator_order: str = "w_phi",
        projection: str = "none",
        init: str = "scaled",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_heads, num_tokens, rank = count("num_heads", num_heads), count("num_tokens", num_tokens), count("rank", rank)
        self.operator_order = choice("operator_order", operator_order, OPERATOR_ORDERS)
        self.projection = choice("projection", projection, PROJECTIONS)
        make = functools.partial(
            Edges,
            num_heads,
            basis=basis,
            num_harmonics=num_harmonics,
            base_function=base_function,
            init=init,
            device=device,
            dtype=dtype,
        )
        self.basis = basis
        self.inner: Any = make(inputs=num_tokens, outputs=rank) if operator_order != "phi_w" else None
        self.outer: Any = make(inputs=rank, outputs=num_tokens) if operator_order != "w_phi" else None
        shape = (num_heads, num_tokens, rank)
        self.w: Any = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if operator_order != "phi_phi" else None
        self.reset_parameters()
        _announce_general(f"basis={basis}, base_function={base_function}, operator_order={operator_order}, projection={projection}")

    def reset_parameters(self) -> None:
        """Draw w; the edges have their own."""
        if self.w is not None:
            reset_map(self.w)

    def resampled(
        self, state: Mapping[str, Tensor], new_grid: Sequence[int], old_grid: Sequence[int], num_prefix: int
    ) -> dict[str, Tensor]:
        """Return parameters on another patch grid; weights alone are densities, not shifts, scales and denominators."""
        result = super().resampled(state, new_grid, old_grid, num_prefix)
        factor = old_grid[0] * old_grid[1] / (new_grid[0] * new_grid[1])
        for name, value in result.items():
            if name != "w" and self.basis != "fourier":
                axis = self.token_axes[name][0]
                value[6 if self.basis == "rational" else 1 :].narrow(axis, num_prefix, value.shape[axis] - num_prefix).div_(factor)
        return result

    def attention(self, logits: Tensor) -> Tensor:
        """Map rows of logits (B, h, M, N) to rows of the attention, same shape."""
        z = logits @ self.w if self.operator_order == "phi_w" else self.inner(logits)
        rows = z @ self.w.transpose(-1, -2) if self.operator_order == "w_phi" else self.outer(z)
        return project_simplex(rows) if self.projection == "simplex" else rows

    def _tile(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attention(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5) @ v

    def __prepare_scriptable__(self) -> "GeneralHeads":
        """Refuse torch.jit.script, which calls this and knows neither checkpointing nor a table of functions.

        Raises:
            ValueError: always.
        """
        raise self._refused("torch.jit.script", "torch.compile or torch.export.export")

    def _refused(self, capture: str, instead: str) -> ValueError:
        return ValueError(
            f"basis={self.basis}, operator_order={self.operator_order}, projection={self.projection} under {capture}: expected the "
            f"standard Fourier operator, or {instead}; this variant runs in tiles of plain PyTorch"
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend on (B, h, N, d).

        Raises:
            ValueError: another number of tokens than num_tokens, or traced by torch.fx.symbolic_trace, which cannot follow a loop
                over tiles.
        """
        if isinstance(q, torch.fx.Proxy):
            raise self._refused("torch.fx.symbolic_trace", "torch.export.export, or timm's create_feature_extractor")
        q = check_tokens(q, self.w.shape[1] if self.inner is None else self.inner.coefficients.shape[-1])
        # An exported model of any number of tokens cannot hold a number of tiles.
        tiles = [q] if isinstance(q.shape[2], torch.SymInt) else q.split(TILE_QUERIES, 2)
        # Under functional_call, a tile recomputed in the backward would find the module's own parameters again: keep it.
        # Transforms of torch.func do not know checkpointing.
        if all(isinstance(p, nn.Parameter) for p in self.parameters()) and not torch._C._are_functorch_transforms_active():
            outs = [checkpoint(self._tile, tile, k, v, use_reentrant=False) for tile in tiles]
        else:
            outs = [self._tile(tile, k, v) for tile in tiles]
        return torch.cat(outs, 2)
