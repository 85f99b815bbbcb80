"""`GRKAN`: the channel mixer of KAT, with the signature of a timm `mlp_layer`."""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers.helpers import to_2tuple
from torch import Tensor, nn

from .._checks import count
from ..kernels.rational_op import is_rational_node
from .init import rational_coefficients, variance_gain
from .rational import GroupRational

logger = logging.getLogger("kat_zoo")


@functools.cache
def _announce_mlp(activation: str) -> None:
    logger.warning(
        "kat_zoo: the checkpoint holds plain MLPs: act1 becomes the identity, act2 the %s as fitted on [-6, 6]. "
        "kat_zoo.vit_to_kat fits the activation and the range of the model it is given.",
        activation,
    )


def recompute_in_backward(y: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a layer applied to `y` keeps the way to compute it instead of y.

    An activation keeps its input and the linear layer after it the activation's output. GR-KAN has an activation more than
    an MLP, which would cost its block one more tensor.

    The context does nothing for a tensor of another operator, without a graph, while one is captured or traced, where hooks are
    disabled, and under hooks of others: gradient checkpointing hands out each kept tensor only once. Hooks whose pack has a true
    attribute `only_looks` are shown the kept tensors all the same.

    Args:
        y: output of `kat_zoo.kernels.rational`.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return contextlib.nullcontext()
    if type(y) is not Tensor or not is_rational_node(y.grad_fn):
        return contextlib.nullcontext()
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
        return contextlib.nullcontext()
    outer = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if outer is not None and not getattr(outer[0], "only_looks", False):
        return contextlib.nullcontext()
    node, address, size, version = y.grad_fn, y.data_ptr(), y.numel(), y._version

    def pack(tensor: Tensor) -> Any:
        same = tensor.data_ptr() == address and tensor.numel() == size and tensor.is_contiguous()
        # A module that works in place leaves other values at the same address, which cannot be computed again.
        if same and size and tensor._version == version:
            return node, tensor.shape
        return tensor if outer is None else outer[0](tensor)  # PyTorch asks the innermost hooks alone

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        node, shape = kept
        with torch.no_grad():
            return torch.ops.kat_zoo.rational(*node.saved_tensors, node.channel_dim).view(shape)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


_partial: contextvars.ContextVar[bool] = contextvars.ContextVar("_partial", default=False)


class LoadsParts(nn.Module):
    """A model whose activations stay as they are, and are named, where a checkpoint that is loaded without `strict` lacks them."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; see torch.nn.Module."""
        token = _partial.set(not strict)
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        finally:
            _partial.reset(token)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        _check_activations(self, state_dict, prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


class LoadsGoogle(LoadsParts):
    """A vision transformer of timm that takes Google's weights of a ViT (.npz), whatever its channel mixer."""

    @torch.jit.ignore
    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """Load a Google ViT (.npz) and let its MLPs become GR-KANs, where those are the mixers: act1 = identity, act2 = GELU.

        Args:
            checkpoint_path: path of the original JAX checkpoint.
            prefix: prefix of the names in the file.
        """
        super().load_pretrained(checkpoint_path, prefix)  # type: ignore[misc]  # timm's
        for module in self.modules():
            if isinstance(module, GRKAN):
                module.act1.set_coefficients(*rational_coefficients("identity", module.act1.order))
                module.act2.set_coefficients(*rational_coefficients(module.mlp_activation, module.act2.order))


def has_activations(state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict holds act1 or act2 of any GR-KAN."""
    return any(key.rpartition(".")[0].endswith(("act1", "act2")) for key in state_dict)


def _check_activations(model: nn.Module, state_dict: dict[str, Any], prefix: str, errors: list[str]) -> None:
    """Refuse a checkpoint in which some GR-KANs have activations and others none, rather than take these for MLPs.

    A module sees its own part of a state dict when it is loaded: a model sees the whole.

    Args:
        model: model that is being loaded.
        state_dict: checkpoint that is loaded.
        prefix: prefix of the model's entries.
        errors: list that gets a message for each GR-KAN without activations.
    """
    if not has_activations(state_dict):
        return
    for name, module in model.named_modules(prefix=prefix.removesuffix(".")):
        damaged = isinstance(module, GRKAN) and f"{name}.fc1.weight" in state_dict
        if damaged and not any(key.startswith(f"{name}.act") for key in state_dict):
            errors.append(f"{name} has no act1 and act2 in the checkpoint, though others have: the checkpoint is damaged")


class GRKAN(nn.Module):
    """act1 -> drop -> fc1 -> act2 -> drop -> fc2 with group-rational activations (KAT, arXiv 2409.10594, section 4).

    Shape: (..., in_features) -> (..., out_features).

    Args:
        in_features: width of the input, divisible by num_groups.
        hidden_features: width between the layers, divisible by num_groups; in_features by default.
        out_features: width of the result; in_features by default.
        act_layer: class of an activation, ignored; timm's blocks pass one to every mlp_layer; act1_init and act2_init name ours.
        norm_layer: class of the norm in front of fc2, as in timm's Mlp.
        bias: whether fc1 and fc2 have a bias.
        drop: dropout rates in front of fc1 and fc2.
        num_groups: number of groups of channels with their own denominator.
        act1_init: function that act1 starts from, one of those of `GroupRational`.
        act2_init: function that act2 starts from.
        order: degrees (m, n) of numerator and denominator.
        scaled: whether the coefficients are those of x / scale, as in `GroupRational`; each group then has a numerator of its own.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        mlp_activation: function that act2 becomes when weights of a plain MLP are loaded.

    Raises:
        ValueError: a number of groups or features that is not an integer of at least 1, or features that num_groups does not divide.
    """

    mlp_activation = "gelu"

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Any = None,
        norm_layer: Any = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        num_groups: int = 8,
        act1_init: str = "identity",
        act2_init: str = "swish",
        order: Sequence[int] = (5, 4),
        scaled: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_groups = count("num_groups", num_groups)
        in_features = count("in_features", in_features)
        out_features = count("out_features", in_features if out_features is None else out_features)
        hidden_features = count("hidden_features", in_features if hidden_features is None else hidden_features)
        for name, features in (("in_features", in_features), ("hidden_features", hidden_features)):
            if features % num_groups:
                raise ValueError(f"{name}={features}: expected a multiple of num_groups={num_groups}")
        biases, drops = to_2tuple(bias), to_2tuple(drop)
        dd = {"device": device, "dtype": dtype}
        self.act1 = GroupRational(num_groups, act1_init, order, share_numerator=not scaled, scaled=scaled, **dd)
        self.drop1 = nn.Dropout(drops[0])
        self.fc1 = nn.Linear(in_features, hidden_features, bias=biases[0], **dd)
        self.act2 = GroupRational(num_groups, act2_init, order, share_numerator=not scaled, scaled=scaled, **dd)
        self.drop2 = nn.Dropout(drops[1])
        self.norm = norm_layer(hidden_features, **dd) if norm_layer is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden_features, out_features, bias=biases[1], **dd)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = self.act1(x)
        if torch.jit.is_scripting():
            x = self.fc1(self.drop1(x))
        else:
            with recompute_in_backward(x):
                x = self.fc1(self.drop1(x))
        x = self.fc2(self.norm(self.drop2(self.act2(x))))
        return x

    def adapt_state_dict(self, state_dict: dict[str, Any], prefix: str = "", complete_mlp: bool = True) -> None:
        """Bring the entries under `prefix` to this module's names and shapes, in place; an MLP becomes a GR-KAN.

        Weights of an MLP (fc1 and fc2 but no activation) are completed with act1 = identity and act2 = `mlp_activation`, as fitted
        on [-6, 6]: the transfer of KAT section 4.4. `kat_zoo.vit_to_kat` also handles other activations and ranges.

        Args:
            state_dict: state dict of a checkpoint, changed.
            prefix: prefix of this module's entries.
            complete_mlp: whether to complete an MLP; False where other modules of the checkpoint have activations, so that they are
                missing here.
        """
        plain = prefix + "fc1.weight" in state_dict and not any(key.startswith(prefix + "act") for key in state_dict)
        if complete_mlp and plain:
            _announce_mlp(self.mlp_activation)
            for name, act, init in (("act1", self.act1, "identity"), ("act2", self.act2, self.mlp_activation)):
                numerator, denominator = rational_coefficients(init, act.order)
                state_dict[f"{prefix}{name}.weight_numerator"] = numerator[None].to(act.weight_numerator.dtype)
                state_dict[f"{prefix}{name}.weight_denominator"] = denominator[None].to(act.weight_denominator.dtype)
        self.act1.adapt_state_dict(state_dict, prefix + "act1.")
        self.act2.adapt_state_dict(state_dict, prefix + "act2.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Here as well as in checkpoint_filter_fn, because timm's create_model(checkpoint_path=...) calls no filter.
        whole = all(prefix + name in state_dict for name, _ in self.named_parameters() if not name.startswith("act"))
        self.adapt_state_dict(state_dict, prefix, complete_mlp=whole and not _partial.get())
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def init_variance_preserving(self) -> None:
        """Draw both weights from N(0, gain / fan_in), gain of the activation before; biases become 0."""
        for act, fc in ((self.act1, self.fc1), (self.act2, self.fc2)):
            nn.init.normal_(fc.weight, std=(variance_gain(act.init, act.order) / fc.in_features) ** 0.5)
            if fc.bias is not None:
                nn.init.zeros_(fc.bias)
