"""B-spline operators: `bspline_basis` (dense) and `spline_linear` (a KAN layer's contraction, bases never written out).

Three operators are closed under differentiation, so every order of derivative runs compiled:
    contract    y[b, o]    = sum_i s[b, i] sum_j B_j(x[b, i]) c[i, j, o]
    project     u[b, i]    = sum_jo B_j(x[b, i]) c[i, j, o] g[b, o]
    accumulate  w[i, j, o] = sum_b s[b, i] B_j(x[b, i]) g[b, o]
A derivative with respect to x only replaces B by B'. Each keeps x and its other inputs, never the bases.
"""

import functools

import torch
from torch import Tensor

from . import cpu_library, fallback
from .bspline_reference import bspline_basis_reference, spline_accumulate_reference, spline_contract_reference, spline_project_reference
from .derivatives import register_autograd

MAX_SPLINE_ORDER = 7
_CONTRACT, _PROJECT, _ACCUMULATE, _DENSE = range(4)

_LIBRARY = torch.library.Library("kat_zoo", "FRAGMENT")
_TAIL = "int order, int derivative) -> Tensor"
for _schema in (
    f"bspline_basis(Tensor x, Tensor knots, {_TAIL}",
    f"spline_contract(Tensor x, Tensor knots, Tensor coef, Tensor? scale, {_TAIL}",
    f"spline_project(Tensor grad, Tensor x, Tensor knots, Tensor coef, {_TAIL}",
    f"spline_accumulate(Tensor grad, Tensor x, Tensor knots, Tensor? scale, {_TAIL}",
):
    _LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def bspline_basis(x: Tensor, knots: Tensor, order: int = 3, derivative: int = 0, extrapolate: str = "linear") -> Tensor:
    """Values of all B-spline basis functions, or of one of their derivatives.

    Args:
        x: (..., C), float32, float64, bfloat16 or float16 (16-bit types are computed in float32).
        knots: (1 or C, G + 2 * order + 1) non-decreasing knots of each channel; the grid is [knots[order],
            knots[order + G]].
        order: degree k of the pieces, 0 to 7.
        derivative: how many times to differentiate with respect to x.
        extrapolate: "linear": value and slope continue smoothly outside the grid; "zero": bases keep their bounded
            support and vanish beyond the outermost knots.

    Returns:
        (..., C, G + order) in x's dtype. Differentiable in x any number of times; only x is kept for the backward.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit.
    """
    knots, pad = _prepare(x, knots, order, derivative, extrapolate)
    basis = torch.ops.kat_zoo.bspline_basis(wide(x), knots, order, derivative)
    return (basis[..., pad : basis.shape[-1] - pad] if pad else basis).to(x.dtype)


def spline_linear(x: Tensor, knots: Tensor, coef: Tensor, order: int = 3, derivative: int = 0, extrapolate: str = "linear") -> Tensor:
    """Sum of splines of the inputs, one spline per input and output: y_o = sum_i sum_j coef[i, j, o] B_j(x_i).

    The spline part of a KAN layer (Liu et al., arXiv 2404.19756, equation 2.10), evaluated without writing the bases: a
    sample costs order + 1 multiply-adds per input and output, whatever the grid size. Gradients are deterministic.

    Args:
        x: (..., C_in), float32, float64, bfloat16 or float16 (16-bit types are computed in float32).
        knots: (1 or C_in, G + 2 * order + 1), as in `bspline_basis`.
        coef: (C_in, G + order, C_out), x's dtype.
        order: degree k of the pieces, 0 to 7.
        derivative: evaluates the derivatives of the splines instead.
        extrapolate: as in `bspline_basis`.

    Returns:
        (..., C_out) in x's dtype, differentiable in x and coef any number of times.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit.
    """
    knots, pad = _prepare(x, knots, order, derivative, extrapolate)
    if coef.ndim != 3 or coef.shape[0] != x.shape[-1] or coef.shape[1] + 2 * pad != knots.shape[1] - order - 1:
        expected = (x.shape[-1], knots.shape[1] - order - 1 - 2 * pad)
        raise ValueError(f"coef has shape {tuple(coef.shape)}; expected {expected} and the outputs")
    if coef.dtype != x.dtype or coef.device != x.device:
        raise ValueError(f"coef is {coef.dtype} on {coef.device}, x is {x.dtype} on {x.device}; expected the same")
    if pad:
        coef = torch.nn.functional.pad(coef, (0, 0, pad, pad))
    rows = x.reshape(-1, x.shape[-1])
    y = torch.ops.kat_zoo.spline_contract(wide(rows), knots, wide(coef), None, order, derivative)
    return y.to(x.dtype).reshape(*x.shape[:-1], coef.shape[-1])


def wide(x: Tensor) -> Tensor:
    """Bfloat16 and float16 as float32, in which the operators compute."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _prepare(x: Tensor, knots: Tensor, order: int, derivative: int, extrapolate: str) -> tuple[Tensor, int]:
    """Check the arguments; return float64 knots, extended for "zero", and by how many bases on either side."""
    if x.dtype not in cpu_library.DTYPES:
        raise ValueError(f"x has dtype {x.dtype}; expected float32, float64, bfloat16 or float16")
    _check_grid(x, knots, order, derivative)
    if x.device.type != "mps":
        knots = knots.double()
    if extrapolate == "linear":
        return knots, 0
    if extrapolate != "zero":
        raise ValueError(f"extrapolate={extrapolate!r}; expected 'linear' or 'zero'")
    # One interval more than the support on either side: every basis is zero there, and so is its linear continuation.
    pad = order + 1
    steps = torch.arange(1, pad + 1, device=knots.device, dtype=knots.dtype)
    width = (knots[:, -1:] - knots[:, :1]) / (knots.shape[1] - 1)
    return torch.cat([knots[:, :1] - steps.flip(0) * width, knots, knots[:, -1:] + steps * width], 1), pad


def _check_grid(x: Tensor, knots: Tensor, order: int, derivative: int) -> None:
    """Raise ValueError for an order, or for knots that do not fit x."""
    if not 0 <= order <= MAX_SPLINE_ORDER or derivative < 0:
        raise ValueError(f"order={order}, derivative={derivative}; expected 0 <= order <= {MAX_SPLINE_ORDER}, derivative >= 0")
    if x.ndim < 1 or knots.ndim != 2 or knots.shape[0] not in (1, x.shape[-1]) or knots.shape[1] < 2 * order + 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and knots {tuple(knots.shape)}; expected (..., C) and (1 or C, at least {2 * order + 2})"
        )
    if knots.device != x.device:
        raise ValueError(f"knots are on {knots.device} and x on {x.device}; expected one device")


def _check_basis(x: Tensor, knots: Tensor, order: int, derivative: int) -> None:
    """Raise ValueError for arguments of an operator that do not fit: the C library trusts every size."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x has dtype {x.dtype}; expected float32 or float64, the operators' own types")
    _check_grid(x, knots, order, derivative)


def _check_operands(
    x: Tensor, knots: Tensor, coef: Tensor | None, scale: Tensor | None, grad: Tensor | None, order: int, derivative: int
) -> None:
    """As `_check_basis`, for the operators on rows x (B, C): coef (C, bases, O), scale (B, C) and grad (B, O), where they have them."""
    _check_basis(x, knots, order, derivative)
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected rows (B, C)")
    for name, tensor in (("coef", coef), ("scale", scale), ("grad", grad)):
        if tensor is not None and (tensor.dtype != x.dtype or tensor.device != x.device):
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}, x is {x.dtype} on {x.device}; expected the same")
    bases = knots.shape[1] - order - 1
    if coef is not None and (coef.ndim != 3 or coef.shape[:2] != (x.shape[1], bases)):
        raise ValueError(f"coef has shape {tuple(coef.shape)}; expected {(x.shape[1], bases)} and the outputs")
    if scale is not None and scale.shape != x.shape:
        raise ValueError(f"scale has shape {tuple(scale.shape)}; expected x's {tuple(x.shape)}")
    if grad is not None and (grad.ndim != 2 or grad.shape[0] != x.shape[0] or (coef is not None and grad.shape[1] != coef.shape[2])):
        outputs = "the outputs" if coef is None else f"the {coef.shape[-1]} outputs"
        raise ValueError(f"grad has shape {tuple(grad.shape)}; expected the {x.shape[0]} rows and {outputs}")


def _check_contract(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, order: int, derivative: int) -> None:
    _check_operands(x, knots, coef, scale, None, order, derivative)


def _check_project(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, order: int, derivative: int) -> None:
    _check_operands(x, knots, coef, None, grad, order, derivative)


def _check_accumulate(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, order: int, derivative: int) -> None:
    _check_operands(x, knots, None, scale, grad, order, derivative)


def _checked(check, run):
    def checked(*args):
        check(*args)
        return run(*args)

    return checked


def _call(task: int, x: Tensor, scale: Tensor | None, coef: Tensor | None, grad: Tensor | None, result: Tensor, sizes) -> Tensor:
    """Run one task of the C library; `sizes` = (knots, outputs, order, derivative)."""
    knots, outputs, order, derivative = sizes
    if result.numel() == 0 or x.numel() == 0:
        return result.zero_()
    tensors = [None if t is None else t.contiguous() for t in (x, scale, coef, grad)]
    knots = knots.double().contiguous()  # the library reads doubles, whatever a module's .to() made of them
    code = _c_function()(
        task,
        cpu_library.DTYPES[x.dtype],
        *(None if t is None else t.data_ptr() for t in tensors),
        result.data_ptr(),
        knots.data_ptr(),
        knots.shape[0],
        x.numel() // x.shape[-1],
        x.shape[-1],
        outputs,
        knots.shape[1] - 2 * order - 1,
        order,
        derivative,
        cpu_library.num_threads(),
        cpu_library.isa(),
    )
    if code:
        raise MemoryError("kat_zoo: the CPU kernel could not allocate its work space")
    return result


@functools.cache
def _c_function():
    from ctypes import c_int, c_int64, c_void_p

    function = cpu_library.load().kat_spline  # type: ignore[union-attr]
    function.argtypes = [c_int, c_int, *[c_void_p] * 6, *[c_int64] * 5, *[c_int] * 4]
    return function


def _basis_cpu(x: Tensor, knots: Tensor, order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return bspline_basis_reference(x, knots, order, derivative).to(x.dtype)
    return _call(_DENSE, x, None, None, None, _basis_fake(x, knots, order, derivative), (knots, 1, order, derivative))


def _contract_cpu(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_contract_reference(x, knots, coef, scale, order, derivative)
    y = x.new_empty(x.shape[0], coef.shape[2])
    return _call(_CONTRACT, x, scale, coef, None, y, (knots, coef.shape[2], order, derivative))


def _project_cpu(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_project_reference(grad, x, knots, coef, order, derivative)
    u = torch.empty_like(x, memory_format=torch.contiguous_format)
    return _call(_PROJECT, x, None, coef, grad, u, (knots, coef.shape[2], order, derivative))


def _accumulate_cpu(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_accumulate_reference(grad, x, knots, scale, order, derivative)
    w = _accumulate_fake(grad, x, knots, scale, order, derivative)
    return _call(_ACCUMULATE, x, scale, None, grad, w, (knots, grad.shape[1], order, derivative))


def _basis_fake(x: Tensor, knots: Tensor, order: int, derivative: int) -> Tensor:
    return x.new_empty(*x.shape, knots.shape[1] - order - 1)


def _contract_fake(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, order: int, derivative: int) -> Tensor:
    return x.new_empty(x.shape[0], coef.shape[2])


def _project_fake(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, order: int, derivative: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _accumulate_fake(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, order: int, derivative: int) -> Tensor:
    return x.new_empty(x.shape[1], knots.shape[1] - order - 1, grad.shape[1])


def _formula(reference):
    return lambda *args: reference(*args).to(args[0].dtype)


def _elsewhere(reference):
    def run(*args):
        fallback.announce("B-splines", args[0].device.type)
        return _formula(reference)(*args)

    return run


def _times(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a * b


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.order, ctx.derivative = inputs
    ctx.save_for_backward(*tensors)


def _basis_backward(ctx, grad: Tensor):
    x, knots = ctx.saved_tensors
    slope = torch.ops.kat_zoo.bspline_basis(x, knots, ctx.order, ctx.derivative + 1)
    return (grad * slope).sum(-1), None, None, None


def _contract_backward(ctx, grad: Tensor):
    x, knots, coef, scale = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.order, ctx.derivative, torch.ops.kat_zoo
    dx = _times(ops.spline_project(grad, x, knots, coef, k, d + 1), scale) if needs[0] else None
    dcoef = ops.spline_accumulate(grad, x, knots, scale, k, d) if needs[2] else None
    dscale = ops.spline_project(grad, x, knots, coef, k, d) if scale is not None and needs[3] else None
    return dx, None, dcoef, dscale, None, None


def _project_backward(ctx, v: Tensor):
    grad, x, knots, coef = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.order, ctx.derivative, torch.ops.kat_zoo
    dgrad = ops.spline_contract(x, knots, coef, v, k, d) if needs[0] else None
    dx = v * ops.spline_project(grad, x, knots, coef, k, d + 1) if needs[1] else None
    dcoef = ops.spline_accumulate(grad, x, knots, v, k, d) if needs[3] else None
    return dgrad, dx, None, dcoef, None, None


def _accumulate_backward(ctx, c: Tensor):
    grad, x, knots, scale = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.order, ctx.derivative, torch.ops.kat_zoo
    dgrad = ops.spline_contract(x, knots, c, scale, k, d) if needs[0] else None
    dx = _times(ops.spline_project(grad, x, knots, c, k, d + 1), scale) if needs[1] else None
    dscale = ops.spline_project(grad, x, knots, c, k, d) if scale is not None and needs[3] else None
    return dgrad, dx, None, dscale, None, None


for _name, _check, _cpu, _fake, _reference, _backward in (
    ("bspline_basis", _check_basis, _basis_cpu, _basis_fake, bspline_basis_reference, _basis_backward),
    ("spline_contract", _check_contract, _contract_cpu, _contract_fake, spline_contract_reference, _contract_backward),
    ("spline_project", _check_project, _project_cpu, _project_fake, spline_project_reference, _project_backward),
    ("spline_accumulate", _check_accumulate, _accumulate_cpu, _accumulate_fake, spline_accumulate_reference, _accumulate_backward),
):
    _LIBRARY.impl(_name, _checked(_check, _cpu), "CPU")
    _LIBRARY.impl(_name, _checked(_check, _elsewhere(_reference)), "CompositeExplicitAutograd")
    torch.library.register_fake(f"kat_zoo::{_name}", _checked(_check, _fake), lib=_LIBRARY)
    register_autograd(_LIBRARY, _name, _backward, _setup, _checked(_check, _formula(_reference)))
