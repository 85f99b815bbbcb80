"""Rationals in place of an MLP's activation: measure its arguments, group channels of like range, fit each group."""

import collections
import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from ..layers.init import FIT_RANGE, FUNCTIONS, rational_coefficients
from ..layers.rational_fit import fit_rational
from ..models._group_fits import GroupFits as GroupFits
from ..models._group_fits import PreActivations as PreActivations
from ..models._group_fits import fit_groups as fit_groups
from ..models._group_fits import power_of_two

ROWS = 256  # tokens kept per MLP

# Norms that do not care about the order of their channels, whatever their class is called in a version of timm.
NORMS = (nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d, GlobalResponseNorm)


def channel_dim(mlp: Any) -> int:
    """Dimension of an MLP's channels: 1 for convolutions, -1 for linear layers."""
    return 1 if isinstance(mlp.fc2, nn.Conv2d) else -1


def portable(activation: nn.Module) -> nn.Module:
    """Copy of an activation that takes float64 tensors on the CPU."""
    return copy.deepcopy(activation).cpu().double()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients and without autocast, restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for kind in {"cpu", next(model.parameters()).device.type}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def own_activations(mlps: Mapping[str, Any]) -> None:
    """Give each MLP a copy of its activation: one module may serve them all, and its arguments would be those of all."""
    for mlp in mlps.values():
        mlp.act = copy.deepcopy(mlp.act)


class Recorder:
    """Hook in front of an activation that keeps its arguments.

    Args:
        dim: dimension of the channels.
        share: number of tokens to keep of each call.
    """

    def __init__(self, dim: int, share: int) -> None:
        self.dim, self.share = dim, share
        self.generator = torch.Generator().manual_seed(0)
        self.rows: list[Tensor] = []
        self.extremes: list[Tensor] = []

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        """Keep a random subset of the tokens, and the range of every channel."""
        rows = inputs[0].movedim(self.dim, -1).flatten(0, -2)
        self.extremes.append(torch.stack([rows.amin(0), rows.amax(0)]).float().cpu())
        # At random: evenly spaced tokens may be the same patches of every image.
        chosen = torch.randperm(len(rows), generator=self.generator)[: self.share]
        self.rows.append(rows[chosen.to(rows.device)].float().cpu())

    def result(self) -> PreActivations:
        """Everything kept so far."""
        extremes = torch.stack(self.extremes)
        return PreActivations(torch.cat(self.rows), extremes[:, 0].amin(0), extremes[:, 1].amax(0))


def observe(
    model: nn.Module, watched: Mapping[str, tuple[nn.Module, int]], batches: Sequence[Tensor]
) -> tuple[dict[str, PreActivations], list[Tensor]]:
    """Run a model and watch the arguments of some of its modules.

    Args:
        model: model in eval mode.
        watched: modules of the model, each with the dimension of its argument's channels, by name.
        batches: inputs of the model.

    Returns:
        (arguments, outputs): arguments by name, without modules that the model does not call, and the model's outputs.
    """
    share = -(-ROWS // len(batches))
    recorders = {name: Recorder(dim, share) for name, (_, dim) in watched.items()}
    hooks = [module.register_forward_pre_hook(recorders[name]) for name, (module, _) in watched.items()]
    try:
        outputs = [model(batch) for batch in batches]
    finally:
        for hook in hooks:
            hook.remove()
    return {name: recorder.result() for name, recorder in recorders.items() if recorder.rows}, outputs


def uniform_fit(activation: nn.Module, interval: tuple[float, float], order: tuple[int, int], channels: int) -> GroupFits:
    """One minimax fit for all channels, from the table where it is there (no scipy needed)."""
    numerator, denominator = _minimax(activation, interval, order)
    scale = torch.tensor([power_of_two(max(-interval[0], interval[1]))], dtype=torch.float64)
    return GroupFits(torch.arange(channels), numerator[None], denominator[None], scale)


def _minimax(activation: nn.Module, interval: tuple[float, float], order: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if interval == FIT_RANGE and order == (5, 4):
        x = torch.linspace(*interval, 101, dtype=torch.float64)
        for name, function in FUNCTIONS.items():
            if name != "swish" and torch.equal(function(x), activation(x.clone())):  # which may work in place
                return rational_coefficients(name)
    return fit_rational(activation, interval, order)[:2]


def column_weights(mlp: Any) -> Tensor:
    """Squared norm of the column of fc2 that each hidden channel is multiplied with; (hidden,) float32 on the CPU."""
    return mlp.fc2.weight.detach().flatten(1).float().square().sum(0).cpu()


def tied_parameters(model: nn.Module) -> set[int]:
    """Identities of the parameters that a model holds in several places."""
    counts = collections.Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {key for key, count in counts.items() if count > 1}


def may_permute(mlp: Any, tied: Set[int] = frozenset()) -> bool:
    """Whether the hidden channels of an MLP may change places.

    Not under a gate, with a layer between that knows channels by their place, or with linear layers that are more than a weight and a
    bias of their own: those of adapters and parametrizations, pruned or shared ones.

    Args:
        mlp: MLP of timm.
        tied: identities of parameters that other layers share.
    """
    for name in ("fc1", "fc2"):
        layer: Any = getattr(mlp, name, None)
        if type(layer) not in (nn.Linear, nn.Conv2d) or {*layer._parameters, *layer._buffers} != {"weight", "bias"}:
            return False
        if not tied.isdisjoint(map(id, layer.parameters())):
            return False
    gated = len(mlp.fc1.weight) != mlp.fc2.weight.shape[1]
    return not gated and all(isinstance(getattr(mlp, name, nn.Identity()), NORMS) for name in ("norm", "grn"))


@torch.no_grad()
def permute_hidden(mlp: Any, channels: Tensor) -> None:
    """Put the hidden channels of an MLP into another order, which changes nothing it computes; in place.

    Args:
        mlp: MLP that `may_permute` accepts.
        channels: permutation of the hidden channels.
    """
    for name, tensor in [*mlp.named_parameters(), *mlp.named_buffers()]:
        layer = name.partition(".")[0]
        if layer in ("fc1", "norm", "grn") and tensor.ndim:
            tensor.copy_(tensor[channels.to(tensor.device)])
        elif name == "fc2.weight":
            tensor.copy_(tensor[:, channels.to(tensor.device)])
