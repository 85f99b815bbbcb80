"""B-spline operators: `bspline_basis` (dense) and `spline_linear` (a KAN layer's contraction, bases never written out).

Three operators are closed under differentiation, so derivatives of any degree run compiled:
    contract    y[b, o]    = sum_i s[b, i] sum_j B_j(x[b, i]) c[i, j, o]
    project     u[b, i]    = sum_jo B_j(x[b, i]) c[i, j, o] g[b, o]
    accumulate  w[i, j, o] = sum_b s[b, i] B_j(x[b, i]) g[b, o]
A derivative with respect to x only replaces B by B'. Each keeps x and its other inputs, never the bases.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import batching, cpu_library, dispatch
from . import bspline_arguments as arguments
from .autocast import register_autocast
from .bspline_arguments import MAX_SPLINE_ORDER as MAX_SPLINE_ORDER
from .bspline_torch import bspline_basis_reference, spline_accumulate_reference, spline_contract_reference, spline_project_reference
from .derivatives import register_autograd
from .launching import register_traced

logger = logging.getLogger("kat_zoo")

_CONTRACT, _PROJECT, _ACCUMULATE, _DENSE = range(4)

BAD_KNOTS, TOO_NARROW = 3, 4  # of the C library

_LIBRARY = torch.library.Library("kat_zoo", "FRAGMENT")
_TAIL = "int spline_order, int derivative) -> Tensor"
for _schema in (
    f"bspline_basis(Tensor x, Tensor knots, {_TAIL}",
    f"spline_contract(Tensor x, Tensor knots, Tensor coef, Tensor? scale, {_TAIL}",
    f"spline_project(Tensor grad, Tensor x, Tensor knots, Tensor coef, {_TAIL}",
    f"spline_accumulate(Tensor grad, Tensor x, Tensor knots, Tensor? scale, {_TAIL}",
):
    _LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def bspline_basis(x: Tensor, knots: Tensor, spline_order: int = 3, derivative: int = 0, extrapolate: str = "linear") -> Tensor:
    """Values of all B-spline basis functions, or of one of their derivatives.

    Args:
        x: (..., C), float32, float64, bfloat16 or float16 (16-bit types are computed in float32).
        knots: (1 or C, G + 2 k + 1) non-decreasing knots of each channel; the grid of G intervals is [knots[k], knots[k + G]]. Those that
            require gradients get them by the formula in plain PyTorch, which is slower, as a warning says once.
        spline_order: degree k of the pieces, 0 to 7.
        derivative: number of derivatives with respect to x that are taken.
        extrapolate: "linear": value and slope continue smoothly outside the grid; "zero": bases keep their bounded
            support and vanish beyond the outermost knots, which belong to it.

    Returns:
        (..., C, G + k) in x's dtype; NaN in every basis and derivative where x is NaN or infinite, whatever `extrapolate` is.
        Differentiable in x any number of times; only x is kept for the backward.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit.
    """
    z, knots, pad = _prepare(x, knots, spline_order, derivative, extrapolate)
    operator = bspline_basis_reference if _by_formula(knots) else torch.ops.kat_zoo.bspline_basis
    basis = operator(z, knots, spline_order, derivative)
    return (basis[..., pad : basis.shape[-1] - pad] if pad else basis).to(x.dtype)


def spline_linear(
    x: Tensor, knots: Tensor, coef: Tensor, spline_order: int = 3, derivative: int = 0, extrapolate: str = "linear"
) -> Tensor:
    """Sum of splines of the inputs, one spline per input and output: y_o = sum_i sum_j coef[i, j, o] B_j(x_i).

    The spline part of a KAN layer (Liu et al., arXiv 2404.19756, equation 2.10), evaluated without writing the bases: a
    sample costs k + 1 multiply-adds per input and output, whatever the grid size. Gradients are deterministic.

    Args:
        x: (..., C_in), float32, float64, bfloat16 or float16 (16-bit types are computed in float32).
        knots: (1 or C_in, G + 2 k + 1) non-decreasing knots of each input; the grid of G intervals is [knots[k], knots[k + G]]. Those that
            require gradients get them as in `bspline_basis`.
        coef: (C_in, G + k, C_out) coefficients, x's dtype.
        spline_order: degree k of the pieces, 0 to 7.
        derivative: number of derivatives of the splines that are taken.
        extrapolate: "linear" or "zero" outside the grid, with the meaning they have for `bspline_basis`.

    Returns:
        (..., C_out) in x's dtype, differentiable in x and coef any number of times; NaN where any x of the sample is NaN or infinite.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit.
    """
    z, knots, pad = _prepare(x, knots, spline_order, derivative, extrapolate)
    if coef.ndim != 3 or coef.shape[0] != x.shape[-1] or coef.shape[1] + 2 * pad != knots.shape[1] - spline_order - 1:
        expected = (x.shape[-1], knots.shape[1] - spline_order - 1 - 2 * pad)
        raise ValueError(f"coef of shape {tuple(coef.shape)}: expected ({expected[0]}, {expected[1]}, C_out)")
    arguments.check_like_x("coef", coef, x)
    if pad:
        zeros = coef.new_zeros([coef.shape[0], pad, coef.shape[2]])  # not pad(), which refuses coefficients of no output up to torch 2.8
        coef = torch.cat([zeros, coef, zeros], 1)
    rows = z.reshape(-1, x.shape[-1])
    operator = spline_contract_reference if _by_formula(knots) else torch.ops.kat_zoo.spline_contract
    y = operator(rows, knots, wide(coef), None, spline_order, derivative)
    return y.to(x.dtype).reshape(*x.shape[:-1], coef.shape[-1])


def wide(x: Tensor) -> Tensor:
    """Return bfloat16 and float16 as float32, in which the operators compute."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _by_formula(knots: Tensor) -> bool:
    """Whether the formula takes an operator's place: in ONNX, which has none of ours, and for knots that learn."""
    if torch.onnx.is_in_onnx_export():
        return True
    learns = knots.requires_grad and torch.is_grad_enabled()
    if learns:
        _announce_knots()
    return learns


@functools.cache
def _announce_knots() -> None:
    logger.warning("kat_zoo: knots that require gradients run as the formula of B-splines in plain PyTorch, which is slower.")


def _prepare(x: Tensor, knots: Tensor, spline_order: int, derivative: int, extrapolate: str) -> tuple[Tensor, Tensor, int]:
    """Check the arguments; return x for the operators, float64 knots, and the number of bases that "zero" adds on either side."""
    if x.dtype not in cpu_library.DTYPES:
        raise ValueError(f"x of dtype {x.dtype}: expected float32, float64, bfloat16 or float16")
    arguments.check_grid(x, knots, spline_order, derivative)
    z = wide(x)
    if x.device.type != "mps":
        knots = knots.double()
    if extrapolate == "linear":
        return z, knots, 0
    if extrapolate != "zero":
        raise ValueError(f"extrapolate={extrapolate!r}: expected one of linear, zero")
    # One interval more than the support on either side: every basis is zero there, and so is its linear continuation.
    pad = spline_order + 1
    steps = torch.arange(1, pad + 1, device=knots.device, dtype=knots.dtype)
    width = (knots[:, -1:] - knots[:, :1]) / (knots.shape[1] - 1)
    # The last knot belongs to the support; to the operators it would be the first point of the interval behind.
    low, high = knots[:, 0].to(z.dtype), knots[:, -1].to(z.dtype)
    z = torch.where(z == high, z - 4 * torch.finfo(z.dtype).eps * torch.maximum(low.abs(), high.abs()), z)
    return z, torch.cat([knots[:, :1] - steps.flip(0) * width, knots, knots[:, -1:] + steps * width], 1), pad


def _checked(check: Callable[..., None], run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def checked(*args: Any) -> Tensor:
        check(*args)
        return run(*args)

    return checked


def _call(
    task: int,
    x: Tensor,
    scale: Tensor | None,
    coef: Tensor | None,
    grad: Tensor | None,
    result: Tensor,
    sizes: tuple[Tensor, int, int, int],
) -> Tensor:
    """Run one task of the C library; `sizes` = (knots, outputs, spline_order, derivative)."""
    knots, outputs, spline_order, derivative = sizes
    if result.numel() == 0 or x.numel() == 0 or outputs == 0:
        return result.zero_()
    tensors = [None if t is None else t.contiguous() for t in (x, scale, coef, grad)]
    knots = knots.double().contiguous()  # the library reads doubles, and a module's .to() may have made another dtype of them
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
        knots.shape[1] - 2 * spline_order - 1,
        spline_order,
        derivative,
        cpu_library.num_threads(),
        cpu_library.isa(),
    )
    if code == BAD_KNOTS:
        raise ValueError("knots that fall, or that are not finite: expected numbers that stay or rise along every row")
    if code == TOO_NARROW:  # float32 does not tell these knots apart, as those of years or of a column that hardly varies
        operands = [None if t is None else t.double() for t in (scale, coef, grad)]
        wide_result = torch.empty_like(result, dtype=torch.float64)
        return result.copy_(_call(task, x.double(), operands[0], operands[1], operands[2], wide_result, sizes))
    cpu_library.check_status(code)
    return result


@functools.cache
def _c_function() -> Any:
    from ctypes import c_int, c_int64, c_void_p

    function = cpu_library.load().kat_spline  # type: ignore[union-attr]
    function.argtypes = [c_int, c_int, *[c_void_p] * 6, *[c_int64] * 5, *[c_int] * 4]
    return function


def _basis_cpu(x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return bspline_basis_reference(x, knots, spline_order, derivative).to(x.dtype)
    return _call(_DENSE, x, None, None, None, _basis_fake(x, knots, spline_order, derivative), (knots, 1, spline_order, derivative))


def _contract_cpu(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_contract_reference(x, knots, coef, scale, spline_order, derivative)
    y = x.new_empty(x.shape[0], coef.shape[2])
    return _call(_CONTRACT, x, scale, coef, None, y, (knots, coef.shape[2], spline_order, derivative))


def _project_cpu(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, spline_order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_project_reference(grad, x, knots, coef, spline_order, derivative)
    u = torch.empty_like(x, memory_format=torch.contiguous_format)
    return _call(_PROJECT, x, None, coef, grad, u, (knots, coef.shape[2], spline_order, derivative))


def _accumulate_cpu(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    if cpu_library.load() is None:
        return spline_accumulate_reference(grad, x, knots, scale, spline_order, derivative)
    w = _accumulate_fake(grad, x, knots, scale, spline_order, derivative)
    return _call(_ACCUMULATE, x, scale, None, grad, w, (knots, grad.shape[1], spline_order, derivative))


def _gpu(reference: Callable[..., Tensor], fake: Callable[..., Tensor], launch: str) -> Callable[..., Tensor]:
    """One of the operators by its Triton kernel; by its formula, said once, where there is no Triton."""

    def run(*args: Any) -> Tensor:
        kernels = dispatch.triton_module("bspline_triton")
        if kernels is None:
            return _elsewhere(reference)(*args)
        result = fake(*args)
        *operands, spline_order, derivative = args
        sizes = [t.numel() for t in operands if t is not None]
        if not result.numel() or not all(sizes):
            return result.zero_()
        if derivative > spline_order:  # zero, or NaN
            return _formula(reference)(*args)
        operands = [None if t is None else t.contiguous() for t in operands]
        place = 2 if launch in ("project", "accumulate") else 1
        operands[place] = operands[place].double()
        function = getattr(kernels, launch)
        function(*operands, result, spline_order, derivative)
        return result

    return run


def _basis_fake(x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> Tensor:
    return x.new_empty(*x.shape, knots.shape[1] - spline_order - 1)


def _contract_fake(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    return x.new_empty(x.shape[0], coef.shape[2])


def _project_fake(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, spline_order: int, derivative: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _accumulate_fake(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    return x.new_empty(x.shape[1], knots.shape[1] - spline_order - 1, grad.shape[1])


def _formula(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: reference(*args).to(args[0].dtype)


def _elsewhere(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*args: Any) -> Tensor:
        dispatch.announce("B-splines", args[0].device.type)
        return _formula(reference)(*args)

    return run


def _times(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a * b


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.spline_order, ctx.derivative = inputs
    ctx.save_for_backward(*tensors)


def _basis_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, knots = ctx.saved_tensors
    slope = torch.ops.kat_zoo.bspline_basis(x, knots, ctx.spline_order, ctx.derivative + 1)
    return (grad * slope).sum(-1), None, None, None


def _contract_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, knots, coef, scale = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.spline_order, ctx.derivative, torch.ops.kat_zoo
    dx = _times(ops.spline_project(grad, x, knots, coef, k, d + 1), scale) if needs[0] else None
    dcoef = ops.spline_accumulate(grad, x, knots, scale, k, d) if needs[2] else None
    dscale = ops.spline_project(grad, x, knots, coef, k, d) if scale is not None and needs[3] else None
    return dx, None, dcoef, dscale, None, None


def _project_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, knots, coef = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.spline_order, ctx.derivative, torch.ops.kat_zoo
    dgrad = ops.spline_contract(x, knots, coef, v, k, d) if needs[0] else None
    dx = v * ops.spline_project(grad, x, knots, coef, k, d + 1) if needs[1] else None
    dcoef = ops.spline_accumulate(grad, x, knots, v, k, d) if needs[3] else None
    return dgrad, dx, None, dcoef, None, None


def _accumulate_backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, knots, scale = ctx.saved_tensors
    needs, k, d, ops = ctx.needs_input_grad, ctx.spline_order, ctx.derivative, torch.ops.kat_zoo
    dgrad = ops.spline_contract(x, knots, c, scale, k, d) if needs[0] else None
    dx = _times(ops.spline_project(grad, x, knots, c, k, d + 1), scale) if needs[1] else None
    dscale = ops.spline_project(grad, x, knots, c, k, d) if scale is not None and needs[3] else None
    return dgrad, dx, None, dscale, None, None


GPU: dict[str, Callable[..., Tensor]] = {}
for _name, _check, _cpu, _fake, _reference, _backward in (
    ("bspline_basis", arguments.check_basis, _basis_cpu, _basis_fake, bspline_basis_reference, _basis_backward),
    ("spline_contract", arguments.check_contract, _contract_cpu, _contract_fake, spline_contract_reference, _contract_backward),
    ("spline_project", arguments.check_project, _project_cpu, _project_fake, spline_project_reference, _project_backward),
    ("spline_accumulate", arguments.check_accumulate, _accumulate_cpu, _accumulate_fake, spline_accumulate_reference, _accumulate_backward),
):
    GPU[_name] = _checked(_check, _gpu(_reference, _fake, _name.rpartition("_")[2]))
    _LIBRARY.impl(_name, _checked(_check, _cpu), "CPU")
    _LIBRARY.impl(_name, GPU[_name], "CUDA")
    _LIBRARY.impl(_name, GPU[_name], "XPU")
    _LIBRARY.impl(_name, _checked(_check, _elsewhere(_reference)), "CompositeExplicitAutograd")
    torch.library.register_fake(f"kat_zoo::{_name}", _checked(_check, _fake), lib=_LIBRARY)
    register_autograd(_LIBRARY, _name, _backward, _setup, _checked(_check, _formula(_reference)))
    register_traced(_LIBRARY, _name, GPU[_name], "bspline_triton")
    register_autocast(_LIBRARY, _name)
    batching.register_vmap(_LIBRARY, _name, getattr(batching, _name))
