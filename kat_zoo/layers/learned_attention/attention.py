"""timm's Attention with the heads of Fourier-KArAt (arXiv 2503.10632)."""

# `Operators` takes three tensors where nn.Sequential takes one; TorchScript refuses a comment on the line.
# mypy: disable-error-code="override"

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models._features_fx import register_notrace_function
from torch import Tensor, nn

from .fourier import OperatorHeads, same_grid


@torch.fx.wrap
@register_notrace_function
def check_no_mask(x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Return x, or raise ValueError: an operator over a fixed set of keys has no meaning under a mask."""
    if attn_mask is not None or is_causal:
        raise ValueError("attn_mask, is_causal: expected None and False, as Fourier-KArAt sums learned functions over all N keys")
    return x


class _Noted(threading.local):
    """The grid that a thread has noted: two threads may have images of two sizes in one model."""

    grid: tuple[int, int] | None = None

    def __reduce__(self) -> Any:
        return type(self), ()  # copies and files hold no grid: a copy has no images in work


@dataclass
class PatchGrid:
    """Where a model of dynamic image size notes the grid of the images it is working on, for its attention layers.

    Gradient checkpointing calls a block again in the backward, when images of another size may have been through the model:
    the grid is also noted on the block's input, which checkpointing keeps. Its reentrant form keeps a copy; `KArAt` refuses it.

    Attributes:
        native: (height, width) in patches that the operators have parameters for.
        num_prefix: number of tokens before the patches.
        noted: grid that this thread has noted.
    """

    native: tuple[int, int]
    num_prefix: int
    noted: _Noted = field(default_factory=_Noted, repr=False, compare=False)

    @property
    def current(self) -> tuple[int, int]:
        """(height, width) in patches of the images that this thread has in work."""
        return self.noted.grid or self.native

    def note(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Note the grid of an output (B, height, width, C); a forward hook of the patch embedding."""
        self.noted.grid = (output.shape[1], output.shape[2])

    def recall(self, module: nn.Module, inputs: Any) -> None:
        """Note the grid that a block's input was first seen with; a hook in front of the block."""
        x = inputs[0]
        if isinstance(x, torch.fx.Proxy) or torch.compiler.is_compiling():
            return
        self.noted.grid = x.patch_grid = getattr(x, "patch_grid", self.current)


def _with_parameters(module: nn.Module, parameters: Mapping[str, Tensor], prefix: str = "") -> nn.Module:
    """Return a shallow copy of a module with other parameters.

    torch.func.functional_call would exchange those of the module itself for the call, in the middle of other threads' calls.
    """
    twin: Any = copy.copy(module)
    twin._parameters = {name: parameters[prefix + name] for name in module._parameters}
    twin._modules = {name: _with_parameters(child, parameters, f"{prefix}{name}.") for name, child in module.named_children()}
    return twin


class Operators(nn.Sequential):
    """The operators of one layer, each for some of its heads: q, k, v (B, num_heads, N, d) -> (B, num_heads, N, d).

    A module with a forward, as PEFT's modules_to_save takes no plain list of modules.

    Args:
        operators: modules that are called as (q, k, v) on (B, heads, N, d).
        head_counts: number of heads of each operator.

    Raises:
        ValueError: there are not as many counts as operators.
    """

    def __init__(self, operators: Iterable[nn.Module], head_counts: Sequence[int]) -> None:
        super().__init__(*operators)
        self.head_counts = list(head_counts)
        if len(self.head_counts) != len(self):
            raise ValueError(f"head_counts={self.head_counts}: expected {len(self)} counts, one for each operator")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Give each operator its heads, in order."""
        if len(self.head_counts) == 0:
            raise ValueError("no operators: expected a call of KArAtAttention.set_operators, as a KArAt makes; use vit_to_karat or KArAt")
        outs = []
        start = 0
        for i, operator in enumerate(self):
            stop = start + self.head_counts[i]
            outs.append(operator(q[:, start:stop], k[:, start:stop], v[:, start:stop]))
            start = stop
        return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


class KArAtAttention(Attention):
    """timm's Attention (same qkv, proj and norms, same names) whose heads are given by `set_operators`.

    A class of its own because timm builds attention layers without telling them the number of tokens or the depth.
    """

    dynamic: bool
    __constants__ = ("dynamic",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.operators = Operators([], [])
        self.dynamic = False

    def set_dynamic(self, patch_grid: PatchGrid) -> None:
        """Interpolate the operators in every forward.

        Args:
            patch_grid: place where the model notes the grid of its images.
        """
        self.patch_grid = patch_grid
        self.dynamic = True

    def __prepare_scriptable__(self) -> "KArAtAttention":
        """Refuse a dynamic image size under torch.jit.script, which calls this and cannot interpolate.

        Raises:
            ValueError: the image size is dynamic.
        """
        if self.dynamic:
            raise ValueError("dynamic_img_size=True under torch.jit.script: expected False, or torch.export.export")
        return self

    @torch.jit.ignore
    def _interpolated(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Call the operators with their parameters on the current grid; gradients flow to the parameters as they are."""
        grid, operators = self.patch_grid, self.operators
        if same_grid(grid.current, grid.native):
            return operators(q, k, v)
        parameters: dict[str, Tensor] = {}
        for name, operator in operators.named_modules():
            if isinstance(operator, OperatorHeads):
                values = operator.resampled(dict(operator.named_parameters()), grid.current, grid.native, grid.num_prefix)
                parameters |= {f"{name}.{key}": value for key, value in values.items()}
        if torch.compiler.is_compiling():  # which cannot trace a copy
            return torch.func.functional_call(operators, parameters, (q, k, v))
        return _with_parameters(operators, parameters)(q, k, v)

    def set_operators(self, operators: Operators) -> None:
        """Give the heads to operators, which several layers may share.

        Args:
            operators: operators whose heads are num_heads in all.

        Raises:
            ValueError: the heads do not add up, or there is attention dropout, which has no N x N map to drop from.
        """
        if sum(operators.head_counts) != self.num_heads:
            raise ValueError(f"head_counts={operators.head_counts}: expected counts that sum to {self.num_heads}")
        if self.attn_drop.p > 0:
            raise ValueError(f"attn_drop_rate={self.attn_drop.p}: expected 0, as there is no attention map to drop from")
        self.operators = operators

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend: (B, N, C) -> (B, N, C).

        Raises:
            ValueError: a mask, or another number of tokens than the operators have parameters for.
        """
        x = check_no_mask(x, attn_mask, is_causal)
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q).type_as(v), self.k_norm(k).type_as(v)
        out = self._interpolated(q, k, v) if self.dynamic else self.operators(q, k, v)
        out = self.norm(out.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        return self.proj_drop(self.proj(out))
