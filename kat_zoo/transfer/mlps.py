"""`to_kat`: rationals in place of the activations of any timm model with timm's MLPs."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
from timm.layers.mlp import ConvMlp, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

from .. import _checks
from ..layers.rational import GroupRational
from .calibration import channel_dim, evaluating, may_permute, observe, permute_hidden
from .fitting import Calibration
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
    timm with a `GroupRational` in place of each `act`, fitted as `vit_to_kat` does; there is no act1. To load its weights again,
    convert a model of the same architecture with the same order and num_groups, without images, and call load_state_dict.

    Args:
        model: a timm model, or the name of a pretrained one; it is left as it is.
        images: normalized images (B, C, H, W), or batches of them, to calibrate on and to report on; 16 do.
        init_range: interval (low, high) of a minimax fit of every activation, in place of calibration; [-6, 6] if neither is given.
        order: degrees (m, n) of numerator and denominator; by default (8, 7) with calibration and (5, 4) without.
        num_groups: number of groups of channels, each with its own rational; the next smaller divisor where it does not divide the
            hidden width of an MLP.

    Returns:
        (kat, report): the copy in eval mode, and how close it is.

    Raises:
        ValueError: a model without such an MLP (the message names the ones it has), images of the wrong shape, or a bad argument.
        ModuleNotFoundError: scipy is not installed, as for `vit_to_kat`.
    """
    source: nn.Module = timm.create_model(model, pretrained=True) if isinstance(model, str) else model
    num_groups = _checks.count("num_groups", num_groups)
    calibration = Calibration(images, init_range, order)
    kat = copy.deepcopy(source).eval()
    mlps, left = find_mlps(kat)
    with evaluating(source), torch.no_grad():
        # timm's configuration does not follow the arguments of the model.
        size = getattr(getattr(source, "patch_embed", None), "img_size", None) or _input_size(source)
        batches = calibration.batches(source, _channels(source), size)
        watched = {name: (mlp.act, channel_dim(mlp)) for name, mlp in find_mlps(source)[0].items()}
        measured, outputs = observe(source, watched, batches)
        blocks = []
        for name, arguments in measured.items():
            mlp = mlps[name]
            hidden = arguments.rows.shape[1]
            groups = max(count for count in range(1, min(num_groups, hidden) + 1) if hidden % count == 0)
            fit, report = calibration.fit(name, mlp, arguments, groups)
            parameter = mlp.fc2.weight
            act = GroupRational(
                groups, "identity", calibration.order, share_numerator=False, channel_dim=channel_dim(mlp), scaled=True,
                device=parameter.device, dtype=parameter.dtype,
            )  # fmt: skip
            act.load_state_dict(fit.state())
            if may_permute(mlp):
                permute_hidden(mlp, fit.channels)
            mlp.act = act.eval()
            blocks.append(report)
        kinds = sorted({type(mlp.act).__name__ for name, mlp in find_mlps(source)[0].items() if name in measured})
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
    mlps, left = {}, []
    for name, module in model.named_modules():
        # An activation with a parameter for each channel is another function in each.
        if type(module) in MLPS and all(parameter.numel() == 1 for parameter in module.act.parameters()):
            mlps[name] = module
        elif type(module).__name__.lower().endswith(("mlp", "swiglu")):
            left.append(name)
    if not mlps:
        kinds = sorted({type(model.get_submodule(name)).__name__ for name in left})
        raise ValueError(
            f"model of class {type(model).__name__} with {', '.join(kinds) or 'no MLP'}: expected timm's "
            f"{', '.join(kind.__name__ for kind in MLPS)} with an activation without parameters of its channels"
        )
    return mlps, tuple(name for name in left if not any(other.startswith(f"{name}.") for other in mlps))


def _channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return _config(model).get("input_size", (3, 224, 224))[0]


def _input_size(model: nn.Module) -> tuple[int, int]:
    _, height, width = _config(model).get("input_size", (3, 224, 224))
    return height, width


def _config(model: Any) -> dict[str, Any]:
    return dict(getattr(model, "pretrained_cfg", None) or {})
