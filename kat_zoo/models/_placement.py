"""Where a KArAt learns its attention: layers, heads, and the size of the operator of each head."""

from collections.abc import Sequence
from typing import Any

from .._checks import choice, count, is_count

__all__ = ["MODES", "PLACEMENTS", "head_sizes", "learnable_layers"]

MODES = ("blockwise", "universal")
PLACEMENTS = ("all", "early", "middle", "late")


def learnable_layers(layers: str | Sequence[int], depth: int) -> frozenset[int]:
    """Return the indices of the layers that learn their attention.

    Args:
        layers: indices (negative ones count from the end), or "all", "early", "middle", "late": all or a third.
        depth: number of layers.

    Raises:
        ValueError: an unknown name, an argument that is not a list of integers, or an index out of range.
    """
    if isinstance(layers, str):
        choice("layers", layers, PLACEMENTS)
        third = max(depth // 3, 1)
        start = {"all": 0, "early": 0, "middle": (depth - third) // 2, "late": depth - third}
        return frozenset(range(start[layers], depth if layers == "all" else start[layers] + third))
    indices: Any = layers  # may be anything at run time
    if not isinstance(indices, Sequence) or not all(is_count(i, -depth, depth - 1) for i in indices):
        raise ValueError(f"layers={layers!r}: expected a list of indices from {-depth} to {depth - 1}, or one of {', '.join(PLACEMENTS)}")
    return frozenset(i % depth for i in indices)


def head_sizes(
    grid_size: int | Sequence[Any], rank: int | Sequence[Any], layer: int, depth: int, heads: int, hybrid_heads: int, mode: str
) -> list[tuple[int, int] | None]:
    """Return (number of harmonics, rank) of each head of a layer, None for the heads that keep softmax.

    Args:
        grid_size: numbers of harmonics, as `KArAt` takes them.
        rank: ranks, as `KArAt` takes them.
        layer: index of the layer.
        depth: number of layers.
        heads: number of heads.
        hybrid_heads: number of the first heads that keep softmax.
        mode: "blockwise" or "universal".

    Raises:
        ValueError: a list of the wrong length, or a size that is not an integer of at least 1.
    """
    grids, ranks = (_per_head(n, v, layer, depth, heads, mode) for n, v in (("grid_size", grid_size), ("rank", rank)))
    learned = [(count("grid_size", grids[h]), count("rank", ranks[h])) for h in range(hybrid_heads, heads)]
    return [None] * hybrid_heads + learned


def _per_head(name: str, value: Any, layer: int, depth: int, heads: int, mode: str) -> list[Any]:
    """Expand a number, a list per layer, or a list per layer of lists per head; a universal operator has a list per head."""
    if mode == "universal" and isinstance(value, Sequence):
        if len(value) != heads or any(isinstance(entry, Sequence) for entry in value):
            raise ValueError(f"{name}={value!r} for mode='universal': expected one number, or one for each of {heads} heads")
        return list(value)
    if isinstance(value, Sequence):
        if len(value) != depth:
            raise ValueError(f"{name} of {len(value)} entries: expected one number, or one entry for each of {depth} layers")
        value = value[layer]
    if isinstance(value, Sequence):
        if len(value) != heads:
            raise ValueError(f"{name}[{layer}] of {len(value)} entries: expected one for each of {heads} heads")
        return list(value)
    return [value] * heads
