"""Memory layouts in which the kernels read and write tensors."""

import math

import torch
from torch import Tensor


def as_rows(x: Tensor, channel_dim: int) -> tuple[Tensor, int]:
    """Return x in a layout the kernels read as contiguous rows, and the elements per channel within a row.

    Each group of channels is then one contiguous run of a row: (C / G) elements for channels last, (C / G) * H * W for
    NCHW. Anything else is copied once to the contiguous layout.
    """
    if channel_dim != x.ndim - 1:
        if x.movedim(channel_dim, -1).is_contiguous():
            return x, 1
        return x.contiguous(), math.prod(x.shape[channel_dim + 1 :])
    return x.contiguous(), 1


def like_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Bring a gradient to the memory layout of `rows` (a result of `as_rows`), copying only if it differs."""
    if tensor.stride() == rows.stride():
        return tensor
    return torch.empty_like(rows, dtype=tensor.dtype).copy_(tensor)


def heads_inside(like: Tensor) -> Tensor:
    """Return an empty (B, h, N, d) tensor whose memory is (B, N, h, d): a token's heads lie side by side."""
    batch, heads, tokens, dim = like.shape
    return like.new_empty(batch, tokens, heads, dim).transpose(1, 2)


def contiguous_channels(t: Tensor) -> Tensor:
    """Return t with contiguous channels, copying only where they are not."""
    return t if t.stride(-1) == 1 else t.contiguous()
