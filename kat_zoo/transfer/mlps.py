"""`to_kat`: rationals in place of the activations of any timm model with timm's MLPs."""

import copy
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import timm
from timm.layers.helpers import to_2tuple
from timm.layers.mlp import ConvMlp, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

from .. import _checks
from ..layers.rational import GroupRational
from .calibration import channel_dim, evaluating, may_permute, own_activations, permute_hidden, tied_parameters
from .fitting import Calibration, check_materialized
from .report import TransferReport, compare

__all__ = ["to_kat"]

MLPS = (Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU)


def to_kat(
    model: nn.Module | str,
    images: Tensor | Iterable[Tensor] | None = None,
    init_range: tuple[float, float] | None = None,
    order: Sequence[int] | None = None,
    num_groups: int = 8,
) -> tuple[nn.Module, TransferReport]:
    """Copy a timm model and put a group-rational activation, fitted to compute the same, in the place of every MLP's.

    For models that `vit_to_kat` does not take: Swin, ConvNeXt, MLP-Mixer, BEiT, EVA, CaiT, XCiT, MaxViT, distilled DeiT, SigLIP and
    others whose blocks hold timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp or SwiGLU. The class stays: the copy is a model of
    timm with a `GroupRational` in place of each `act`, fitted as `vit_to_kat` does; there is no act1. Hidden channels stay in their
    places where another layer, an adapter or a parametrization knows them. To load its weights again, convert a model of the same
    architecture with the same order and num_groups, and call load_state_dict.

    Args:
        model: a timm model, or the name of a pretrained one; it is left as it is.
        images: normalized images (B, C, H, W), or batches of them, to calibrate on and to report on; 16 do. Without, the report is on
            noise.
        init_range: interval (low, high) of a minimax fit of every activation, in place of calibration; [-6, 6] if neither is given.
        order: degrees (m, n) of numerator and denominator; by default (8, 7) with calibration and (5, 4) without.
        num_groups: number of groups of channels, each with its own rational; the next smaller divisor where it does not divide the
            hidden width of an MLP.

    Returns:
        (kat, report): the copy in eval mode, and how close it is.

    Raises:
        ValueError: a model without such an MLP (the message names the ones it has), without weights or with an output other than
            tensors, images that it does not take, or a bad argument.
        ModuleNotFoundError: scipy is not installed, as for `vit_to_kat`.
    """
    num_groups = _checks.count("num_groups", num_groups)
    calibration = Calibration(images, init_range, order)
    source = timm.create_model(model, pretrained=True) if isinstance(model, str) else model
    if not isinstance(source, nn.Module):
        raise ValueError(f"model={source!r}: expected a timm model, or the name of one")
    find_mlps(source)
    check_materialized("model", source)
    kat = copy.deepcopy(source).eval()
    mlps, left = find_mlps(kat)
    own_activations(mlps)
    kinds = sorted({type(mlp.act).__name__ for mlp in mlps.values()})
    tied = tied_parameters(kat)
    with evaluating(kat):
        watched = {name: (mlp.act, channel_dim(mlp)) for name, mlp in mlps.items()}
        measured, batches, outputs = calibration.observe(kat, watched, _noise_shapes(kat))
        if not measured:
            raise ValueError(f"model of class {type(kat).__name__}: expected one that calls its MLPs, {', '.join(mlps)}")
        blocks = []
        for name, arguments in measured.items():
            mlp = mlps[name]
            hidden = arguments.rows.shape[1]
            groups = max(count for count in range(1, min(num_groups, hidden) + 1) if hidden % count == 0)
            permute = may_permute(mlp, tied)
            fit, report = calibration.fit(name, mlp, arguments, groups, permute)
            parameter = mlp.fc2.weight
            act = GroupRational(
                groups, "identity", calibration.order, share_numerator=False, channel_dim=channel_dim(mlp), scaled=True,
                device=parameter.device, dtype=parameter.dtype,
            )  # fmt: skip
            act.load_state_dict(fit.state())
            if permute:
                permute_hidden(mlp, fit.channels)
            mlp.act = act.eval()
            blocks.append(report)
        left = (*left, *(name for name in mlps if name not in measured))
        error = compare(kat, batches, outputs)
        return kat, TransferReport(", ".join(kinds), calibration.calibrated, tuple(blocks), *error, left)


def find_mlps(model: nn.Module) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Find the MLPs whose activation a rational can replace.

    Args:
        model: any model.

    Returns:
        (mlps, left): these MLPs by name, and the names of other MLPs.

    Raises:
        ValueError: there is none.
    """
    mlps: dict[str, Any] = {}
    others: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # An activation with a parameter for each channel is another function in each.
        if type(module) in MLPS and _is_convertible(module):
            mlps[name] = module
        elif name and _is_mlp(module):
            others[name] = module
    # Of modules inside one another, the innermost.
    left = tuple(name for name in others if not any(other.startswith(f"{name}.") for other in (*mlps, *others)))
    if not mlps:
        kinds = sorted({type(others[name]).__name__ for name in left})
        raise ValueError(
            f"model of class {type(model).__name__} with {', '.join(kinds) or 'no MLP'}: expected timm's "
            f"{', '.join(kind.__name__ for kind in MLPS)} with an activation without parameters of its channels"
        )
    return mlps, left


def _is_mlp(module: nn.Module) -> bool:
    """Whether a module is called an MLP, as ConvMlpWithNorm is, and not only holds one, as a head of that name may."""
    kind = type(module).__name__.lower()
    return kind.endswith(("mlp", "swiglu", "feedforward", "grkan")) or ("mlp" in kind and hasattr(module, "fc2"))


def _is_convertible(mlp: Any) -> bool:
    weight = getattr(mlp.fc2, "weight", None)
    return isinstance(weight, Tensor) and all(parameter.numel() == 1 for parameter in mlp.act.parameters())


def _noise_shapes(model: nn.Module) -> list[tuple[int, int, int]]:
    """Shapes (C, H, W) that a model may take, the likeliest first: timm's configuration does not follow the arguments of the model."""
    channels, *size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    stems = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)][:1]
    sizes = [to_2tuple(module.img_size) for module in model.modules() if getattr(module, "img_size", None)]
    shapes = itertools.product([*stems, channels], [*sizes, tuple(size)])
    return list(dict.fromkeys((count, *found) for count, found in shapes))
