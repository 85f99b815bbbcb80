"""Derivatives of an operator: its backward in reverse mode, its formula wherever PyTorch looks through a function."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import Library

logger = logging.getLogger("kat_zoo")


@functools.cache
def _announce(operator: str) -> None:
    logger.warning("kat_zoo: under torch.func or forward mode %s runs as its formula in plain PyTorch, which is slower.", operator)


def seen_through(operator: str) -> bool:
    """Whether forward-mode differentiation or a transform of torch.func is under way; says once that it makes an operator slow.

    An operator has no rule for tangents, and PyTorch would drop them: the derivative would be zero.
    """
    if forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active():
        return False
    _announce(operator)
    return True


def second_order(
    gradients: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Differentiate the gradients of an operator, by autograd through their formula.

    Args:
        gradients: formula of the operator's gradients in differentiable PyTorch operations, a function of `tensors`.
        tensors: saved inputs of the operator's backward.
        grads: gradients of the loss with respect to each of the operator's gradients; None where it does not depend on one.

    Returns:
        Gradients of the loss with respect to `tensors`; None where it does not depend on one.
    """
    with torch.enable_grad():
        # Aliases, for one tensor may itself be a function of another: the engine adds the gradient that flows through it, not this.
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        first = gradients(*inputs)
    used = [(y, g) for y, g in zip(first, grads, strict=True) if g is not None]
    return torch.autograd.grad([y for y, _ in used], inputs, [g for _, g in used], create_graph=torch.is_grad_enabled(), allow_unused=True)


def register_autograd(
    library: Library, name: str, backward: Callable[..., Any], setup_context: Callable[..., None], formula: Callable[..., Any]
) -> None:
    """Make an operator differentiable, as torch.library.register_autograd does, and in forward mode too.

    Args:
        library: library that defines the operator.
        name: name of the operator, which has kernels and takes its arguments by position.
        backward: gradients as `backward(ctx, *grads)`, made of differentiable operations.
        setup_context: hook `setup_context(ctx, inputs, output)`, which saves the tensors that `backward` needs.
        formula: same function of the same arguments in differentiable PyTorch operations.
    """
    operator = getattr(torch.ops.kat_zoo, name).default
    defaults = tuple(argument.default_value for argument in operator._schema.arguments if argument.has_default_value())
    count = len(operator._schema.arguments)

    def below(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    def forward(ctx: Any, *args: Any) -> Any:
        output = below(*args)
        setup_context(ctx, args, output)
        return output

    function: Any = type(name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})

    def kernel(*args: Any) -> Any:
        missing = count - len(args)  # the dispatcher leaves out arguments that equal their default
        args = (*args, *defaults[len(defaults) - missing :])
        if seen_through(name):
            return formula(*args)
        if torch.is_grad_enabled() and any(isinstance(t, torch.Tensor) and t.requires_grad for t in args):
            return function.apply(*args)
        return below(*args)

    library.impl(name, kernel, "Autograd")
