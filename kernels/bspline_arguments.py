"""Arguments of the B-spline operators: the C library trusts every size that it is given."""

import torch
from torch import Tensor

MAX_SPLINE_ORDER = 7


def check_grid(x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> None:
    """Raise ValueError for a degree out of range, or for knots that do not fit x."""
    if not 0 <= spline_order <= MAX_SPLINE_ORDER:
        raise ValueError(f"spline_order={spline_order}: expected an integer of at least 0 and at most {MAX_SPLINE_ORDER}")
    if derivative < 0:
        raise ValueError(f"derivative={derivative}: expected an integer of at least 0")
    if x.ndim < 1 or knots.ndim != 2 or knots.shape[0] not in (1, x.shape[-1]) or knots.shape[1] < 2 * spline_order + 2:
        raise ValueError(
            f"x of shape {tuple(x.shape)} and knots of shape {tuple(knots.shape)}: "
            f"expected (..., C) and (1 or C, at least {2 * spline_order + 2})"
        )
    if knots.device != x.device:
        raise ValueError(f"knots on {knots.device}: expected the device of x, {x.device}")


def check_like_x(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise ValueError for a dtype or device other than x's."""
    if tensor.dtype != x.dtype or tensor.device != x.device:
        raise ValueError(f"{name} of dtype {tensor.dtype} on {tensor.device}: expected those of x, {x.dtype} on {x.device}")


def check_basis(x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> None:
    """Raise ValueError for arguments of an operator that do not fit."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x of dtype {x.dtype}: expected float32 or float64, the operators' own types")
    check_grid(x, knots, spline_order, derivative)


def check_operands(
    x: Tensor, knots: Tensor, coef: Tensor | None, scale: Tensor | None, grad: Tensor | None, spline_order: int, derivative: int
) -> None:
    """As `check_basis`, for the operators on rows x (B, C): coef (C, bases, O), scale (B, C) and grad (B, O), where they have them."""
    check_basis(x, knots, spline_order, derivative)
    if x.ndim != 2:
        raise ValueError(f"x of shape {tuple(x.shape)}: expected rows (B, C)")
    for name, tensor in (("coef", coef), ("scale", scale), ("grad", grad)):
        if tensor is not None:
            check_like_x(name, tensor, x)
    bases = knots.shape[1] - spline_order - 1
    if coef is not None and (coef.ndim != 3 or coef.shape[:2] != (x.shape[1], bases)):
        raise ValueError(f"coef of shape {tuple(coef.shape)}: expected ({x.shape[1]}, {bases}, C_out)")
    if scale is not None and scale.shape != x.shape:
        raise ValueError(f"scale of shape {tuple(scale.shape)}: expected that of x, {tuple(x.shape)}")
    if grad is not None and (grad.ndim != 2 or grad.shape[0] != x.shape[0] or (coef is not None and grad.shape[1] != coef.shape[2])):
        outputs = "C_out" if coef is None else coef.shape[-1]
        raise ValueError(f"grad of shape {tuple(grad.shape)}: expected ({x.shape[0]}, {outputs})")


def check_contract(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> None:
    """As `check_operands`, for `spline_contract`."""
    check_operands(x, knots, coef, scale, None, spline_order, derivative)


def check_project(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, spline_order: int, derivative: int) -> None:
    """As `check_operands`, for `spline_project`."""
    check_operands(x, knots, coef, None, grad, spline_order, derivative)


def check_accumulate(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> None:
    """As `check_operands`, for `spline_accumulate`."""
    check_operands(x, knots, None, scale, grad, spline_order, derivative)
