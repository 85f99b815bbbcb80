"""Attention within windows of a map of tokens (ViTDet, arXiv 2203.16527, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut a map into windows, the last row and column padded with zeros.

    Args:
        x: map (B, H, W, C).
        window: (height, width) h, w of a window.

    Returns:
        (B, number of windows, h w, C).
    """
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    x = x.reshape(batch, x.shape[1] // window[0], window[0], x.shape[2] // window[1], window[1], channels)
    return x.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def join_windows(x: Tensor, window: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Undo `split_windows`.

    Args:
        x: windows (B, number of windows, h w, C).
        window: (height, width) h, w of a window.
        grid: (height, width) H, W of the map without padding.

    Returns:
        (B, H, W, C).
    """
    rows, columns = (-(-size // step) for size, step in zip(grid, window, strict=True))
    x = x.reshape(x.shape[0], rows, columns, *window, x.shape[-1]).transpose(2, 3)
    return x.reshape(x.shape[0], rows * window[0], columns * window[1], -1)[:, : grid[0], : grid[1]]


def windowed_attention(attn: nn.Module, x: Tensor, grid: tuple[int, int], window_size: int, num_prefix: int) -> Tensor:
    """Attend within windows; equals `attn(x)` where one window covers the map.

    Unlike ViTDet, which drops the class token, prefix tokens (class, registers) are keys and queries of every window, and their
    results of all windows are averaged: a pretrained model misses neither its class token nor its registers. Padding is masked.

    Args:
        attn: module that is called as attn(tokens, attn_mask=additive mask), as timm's Attention.
        x: tokens (B, num_prefix + H W, C).
        grid: (height, width) H, W of the map.
        window_size: side of a window, in tokens.
        num_prefix: number of tokens before the map.

    Returns:
        A tensor of x's shape.
    """
    window = (min(window_size, grid[0]), min(window_size, grid[1]))
    if window == grid:
        return attn(x)
    batch, _, channels = x.shape
    prefix, patches = x[:, :num_prefix], x[:, num_prefix:]
    windows = split_windows(patches.reshape(batch, *grid, channels), window)
    count = windows.shape[1]
    tokens = torch.cat([prefix.unsqueeze(1).expand(-1, count, -1, -1), windows], 2)
    mask = None
    if any(size % step for size, step in zip(grid, window, strict=True)):
        inside = F.pad(split_windows(x.new_ones(1, *grid, 1), window).squeeze(-1), (num_prefix, 0), value=1.0)
        mask = torch.zeros_like(inside).masked_fill(inside == 0, float("-inf"))
        mask = mask.expand(batch, -1, -1).reshape(batch * count, 1, 1, -1)
    out = attn(tokens.flatten(0, 1), attn_mask=mask).unflatten(0, (batch, count))
    patches = join_windows(out[:, :, num_prefix:], window, grid).reshape(batch, -1, channels)
    return torch.cat([out[:, :, :num_prefix].mean(1), patches], 1)
