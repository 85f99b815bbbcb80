"""The computation and the memory of one training step, counted without computing it: on tensors that have a shape only."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from kat_zoo.analysis.costs import SavedBytes
from kat_zoo.kernels.flops import OPERATOR_FLOPS

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCHES = (2, 3)  # what grows from one to the other is an image's; batch norm takes no single image
Loss = Callable[[nn.Module, int], Tensor]
FLOPS: dict[Any, Any] = {  # torch's counter knows attention on GPUs, but not the CPU's, on which the fake tensors lie
    **OPERATOR_FLOPS,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}

NORM_WEIGHT = {torch.ops.aten.native_layer_norm.default: 2, torch.ops.aten.native_batch_norm.default: 1}  # position among the arguments


@dataclass(frozen=True)
class Footprint:
    """Counts for one forward and backward pass; what grows with the batch is given per image.

    Attributes:
        parameters: all, trained or not.
        trained: parameters with gradients.
        buffers: elements of the buffers.
        largest_block: parameters of the largest block, which FSDP2 gathers at once; of the whole model where it has no blocks.
        forward_flops: floating-point operations per image, a multiply-add being two: matrix products, convolutions,
            attention and the learned activations.
        backward_flops: operations of the backward pass; with gradient checkpointing the second forward is here.
        saved: bytes per image that autograd holds between forward and backward.
        recomputed: bytes per image of the largest block, which checkpointing holds again while that block is
            differentiated; 0 without checkpointing.
        copies: bytes that autograd holds whatever the batch: under autocast, weights in 16 bits.
    """

    parameters: int
    trained: int
    buffers: int
    largest_block: int
    forward_flops: float
    backward_flops: float
    saved: float
    recomputed: float
    copies: float


class Float32Statistics(TorchDispatchMode):
    """Gives fake tensors the mean and deviation that norms keep in float32 where they normalize 16-bit values with float32 weights.

    PyTorch's shape rules of these operators say 16 bits; its kernels, on CPUs and GPUs, return float32.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operator; of a norm with float32 weights, widen the statistics."""
        found = func(*args, **(kwargs or {}))
        weight = args[NORM_WEIGHT[func]] if func in NORM_WEIGHT else None
        return found if weight is None else (found[0], *(t.to(weight.dtype) for t in found[1:]))


def count(build: Callable[[], nn.Module], loss: Loss, precision: str = "no") -> tuple[Footprint, ...]:
    """Count what a training step of one image computes and holds.

    The model runs as it is, forward and backward, on fake tensors; so frozen parameters, shared tensors, dropout masks and
    checkpoints count as they are. A pre-norm block of width D with N tokens, h heads and MLP ratio m, s bytes an element (4, or
    2 under autocast) and fused attention holds, in bytes per image:

    * N D (4 + 5 s) + 4 h N: the input of LayerNorm in float32, of qkv, q, k, v, the input of proj; row sums of the softmax;
    * N D (4 + s + 2 m s): the inputs of LayerNorm, fc1, the activation and fc2; a GR-KAN s N D more, the input of act1;
    * 16 N: mean and deviation of both LayerNorms.

    With checkpointing, a block holds its input, 4 N D, and one block at a time the rest. Counting turns off what a GR-KAN saves by
    computing act1's output again, s N D a block: the count is that much too high.

    Args:
        build: function that makes the model, on any device; on `meta` it costs no memory.
        loss: maps (model, batch size) to a scalar; makes its own input, on the CPU.
        precision: `no`, `bf16` or `fp16` autocast.

    Returns:
        The counts without gradient checkpointing, and with it if the model has timm's `set_grad_checkpointing`.

    Raises:
        ValueError: unknown precision.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(DTYPES)}")
    model = build().train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialize(model)
        plain = [_step(model, loss, precision, batch) for batch in BATCHES]
        found = [_footprint(model, plain, 0)]
        switch = next((m for m in model.modules() if hasattr(m, "set_grad_checkpointing")), None)
        if switch is not None:
            switch.set_grad_checkpointing()  # type: ignore[operator]
            largest = max((b - a for a, b in zip(plain[0].blocks, plain[1].blocks, strict=True)), default=0)
            found.append(_footprint(model, [_step(model, loss, precision, batch) for batch in BATCHES], largest))
    return tuple(found)


def _materialize(model: nn.Module) -> None:
    """New parameters on the (fake) CPU: up to torch 2.8, those of `meta` would keep their device, and autocast would pass over them."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.to_empty(device="cpu")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a timm model, or of the one within."""
    found = (getattr(module, "blocks", None) for module in model.modules())
    return list(next((blocks for blocks in found if isinstance(blocks, (nn.Sequential, nn.ModuleList))), ()))


def _footprint(model: nn.Module, steps: "list[_Counts]", recomputed: float) -> Footprint:
    """The counts per image, from steps of two sizes of batch."""
    parameters = list(model.parameters())
    blocks = [sum(p.numel() for p in block.parameters()) for block in _blocks(model)]
    saved = steps[1].saved - steps[0].saved
    return Footprint(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in model.buffers()),
        largest_block=max(blocks, default=sum(p.numel() for p in parameters)),
        forward_flops=steps[1].forward - steps[0].forward,
        backward_flops=steps[1].backward - steps[0].backward,
        saved=saved,
        recomputed=recomputed,
        copies=steps[0].saved - BATCHES[0] * saved,
    )


@dataclass(frozen=True)
class _Counts:
    """Totals of one step: FLOPs, bytes saved, and bytes saved inside each block."""

    forward: float
    backward: float
    saved: int
    blocks: list[int]


def _step(model: nn.Module, loss: Loss, precision: str, batch: int) -> _Counts:
    """One forward and backward pass of `batch` images."""
    blocks: list[int] = []
    with ExitStack() as stack:
        counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=FLOPS))
        autocast = torch.autocast("cpu", DTYPES[precision]) if precision != "no" else nullcontext()
        saved = SavedBytes([*model.parameters(), *model.buffers()])
        for block in _blocks(model):
            stack.callback(block.register_forward_pre_hook(lambda *_: blocks.append(-saved.total)).remove)
            stack.callback(block.register_forward_hook(lambda *_: blocks.append(blocks.pop() + saved.total)).remove)
        with saved, autocast, Float32Statistics():
            value = loss(model, batch)
        forward = counter.get_total_flops()
        if value.requires_grad:
            value.backward()
        total = counter.get_total_flops()
    model.zero_grad(set_to_none=True)
    return _Counts(forward, total - forward, saved.total, blocks)
