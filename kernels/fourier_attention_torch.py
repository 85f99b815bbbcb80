"""Fourier-KArAt attention in plain PyTorch: the oracle, and the tiled form for machines without a compiled kernel."""

import torch
from torch import Tensor

TILE_QUERIES = 64


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def fourier_scores_reference(q: Tensor, k: Tensor, a: Tensor, b: Tensor, scale: float | None = None) -> Tensor:
    """Compute z_kp = sum_q sum_m a_pqm cos(m A_kq) + b_pqm sin(m A_kq), A = scale q k^T (arXiv 2503.10632, section 4.2).

    Args:
        q: (B, h, M, d) queries; any number of rows.
        k: (B, h, N, d) keys.
        a: (h, r, N, G) coefficients of the cosines of frequency 1 to G.
        b: (h, r, N, G) coefficients of the sines.
        scale: factor of the logits; 1 / sqrt(d) if None.

    Returns:
        (B, h, M, r).
    """
    logits = _scale(q, scale) * (q @ k.transpose(-1, -2))
    z = torch.zeros((), dtype=q.dtype, device=q.device)
    for m in range(a.shape[-1]):
        angle = (m + 1) * logits
        z = z + angle.cos() @ a[..., m].transpose(-1, -2) + angle.sin() @ b[..., m].transpose(-1, -2)
    return z


def fourier_attention_portable(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The operator `fourier_attention` in standard operators, for exported models: its output and z."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k, values, a, b, w = (t.to(dtype) for t in (q, k, v, a, b, w))
    z = fourier_scores_reference(q, k, a, b, scale)
    return (z @ (w.transpose(-1, -2) @ values)).to(v.dtype), z


def fourier_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    w: Tensor,
    scale: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute sig(A) v with sig(A_k) = w z_k, literally: the N x N attention is built and multiplied with the values.

    The operator of Fourier-KArAt (arXiv 2503.10632, section 4), differentiable any number of times by autograd.

    Args:
        q: (B, h, N, d) queries.
        k: (B, h, N, d) keys.
        v: (B, h, N, d_v) values.
        a: (h, r, N, G) coefficients of the cosines.
        b: (h, r, N, G) coefficients of the sines.
        w: (h, N, r) map from the r components back to N values.
        scale: factor of the logits; 1 / sqrt(d) if None.
        compute_dtype: dtype of the arithmetic; by default float64 for float64 inputs and float32 for all others.

    Returns:
        (B, h, N, d_v) in v's dtype. Nothing is checked here; `fourier_attention` does that.
    """
    if compute_dtype is None:
        compute_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    dtype = v.dtype
    q, k, v, a, b, w = (t.to(compute_dtype) for t in (q, k, v, a, b, w))
    attention = fourier_scores_reference(q, k, a, b, scale) @ w.transpose(-1, -2)
    return (attention @ v).to(dtype)


def fourier_attention_tiled(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The same as `fourier_attention_reference` in tiles of queries, without the N x N map.

    Returns:
        (B, h, N, d_v) in v's dtype, and z (B, h, N, r) in the dtype of the arithmetic.
    """
    dtype, compute_dtype = v.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k, v, a, b, w = (t.to(compute_dtype) for t in (q, k, v, a, b, w))
    z = torch.cat([fourier_scores_reference(tile, k, a, b, scale) for tile in q.split(TILE_QUERIES, 2)], 2)
    return (z @ (w.transpose(-1, -2) @ v)).to(dtype), z


def fourier_attention_tiled_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    w: Tensor,
    z: Tensor,
    scale: float | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of `fourier_attention_tiled` with respect to q, k, v, a, b and w, again tile by tile."""
    scale, dtypes = _scale(q, scale), [t.dtype for t in (q, k, v, a, b, w)]
    grad, q, k, v, a, b, w = (t.detach().to(z.dtype) for t in (grad, q, k, v, a, b, w))
    du = z.transpose(-1, -2) @ grad
    dz = grad @ (v.transpose(-1, -2) @ w)
    dq, dk, da, db = [], torch.zeros_like(k), torch.zeros_like(a), torch.zeros_like(b)
    for tile, dz_tile in zip(q.split(TILE_QUERIES, 2), dz.split(TILE_QUERIES, 2), strict=True):
        logits = scale * (tile @ k.transpose(-1, -2))
        dlogits, dz_t = torch.zeros_like(logits), dz_tile.transpose(-1, -2)
        for m in range(a.shape[-1]):
            cosine, sine = ((m + 1) * logits).cos(), ((m + 1) * logits).sin()
            da[..., m] += (dz_t @ cosine).sum(0)
            db[..., m] += (dz_t @ sine).sum(0)
            dlogits += (m + 1) * (cosine * (dz_tile @ b[..., m]) - sine * (dz_tile @ a[..., m]))
        dq.append(scale * (dlogits @ k))
        dk += scale * (dlogits.transpose(-1, -2) @ tile)
    gradients = torch.cat(dq, 2), dk, w @ du, da, db, (v @ du.transpose(-1, -2)).sum(0)
    return tuple(g.to(dtype) for g, dtype in zip(gradients, dtypes, strict=True))
