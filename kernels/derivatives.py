"""Derivatives of an operator: its backward in reverse mode, its formula wherever PyTorch looks through a function."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
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


def register_autograd(
    library: Library, name: str, backward: Callable[..., Any], setup_context: Callable[..., None], formula: Callable[..., Any]
) -> None:
    """Make an operator differentiable, as torch.library.register_autograd does, and in forward mode too.

    Args:
        library: that defines the operator.
        name: of the operator, which has kernels and takes its arguments by position.
        backward: backward(ctx, *grads), of differentiable operations.
        setup_context: setup_context(ctx, inputs, output), which saves what `backward` needs.
        formula: the same function of the same arguments in differentiable PyTorch operations.
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
        missing = count - len(args)  # the dispatcher leaves out what equals its default
        args = (*args, *defaults[len(defaults) - missing :])
        if seen_through(name):
            return formula(*args)
        if torch.is_grad_enabled() and any(isinstance(t, torch.Tensor) and t.requires_grad for t in args):
            return function.apply(*args)
        return below(*args)

    library.impl(name, kernel, "Autograd")
