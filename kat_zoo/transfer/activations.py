"""`vit_to_kat`: turn a trained ViT into a KAT that computes almost the same function."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..models._group_fits import MARGIN, identity_fit
from ..models.kat import KAT
from .architecture import check_hidden, check_plain_vit, create_like, load_weights
from .calibration import GroupFits, evaluating, own_activations, permute_hidden
from .fitting import Calibration
from .report import TransferReport, compare

__all__ = ["vit_to_kat"]


def vit_to_kat(
    vit: nn.Module | str,
    images: Tensor | Iterable[Tensor] | None = None,
    init_range: tuple[float, float] | None = None,
    order: Sequence[int] | None = None,
) -> tuple[KAT, TransferReport]:
    """Copy a ViT into a KAT: act1 is the identity, act2 the ViT's activation (arXiv 2409.10594, section 4.4).

    No rational under the kernel's formula follows a ReLU-like function everywhere, so one has to choose where it does. With images,
    the hidden channels of each MLP change places (rows of fc1, columns of fc2: the function stays), so that those that reach equally
    far share a group, and every group has its own numerator and denominator, fitted to the distribution of its own arguments.
    Without, all of act2 is one minimax fit. With images, an init_range or another order, the coefficients are those of x / scale
    (`GroupRational`, scaled=True), so that training them is as stable as training the linear layers; the default fit has the names and
    values of the published weights.

    Args:
        vit: a timm VisionTransformer with plain blocks and an elementwise activation (GELU, QuickGELU, SiLU, ReLU, ...)
            or the name of a pretrained one. Layer scale, register tokens, norms and pooling are kept.
        images: normalized images (B, C, H, W), or batches of them, to calibrate on and to report on; 16 do.
        init_range: interval (low, high) of a minimax fit of every act2, in place of calibration; [-6, 6] if neither is given.
        order: degrees (m, n) of numerator and denominator, which the KAT's arguments keep. By default (8, 7) with calibration, as
            the error of a ViT is ten times that with (5, 4), and (5, 4) without, the order of published weights.

    Returns:
        (kat, report): a KAT in eval mode on the ViT's device, and how close it is.

    Raises:
        ValueError: a model that a KAT cannot represent (the message names the part; `to_kat` may take it), images of the wrong
            shape, or a bad order.
        ModuleNotFoundError: scipy is not installed (`pip install 'kat_zoo[kan]'`), which all but the default fit of GELU, SiLU, ReLU
            and Mish without images need.
    """
    calibration = Calibration(images, init_range, order)
    source: Any = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    check_plain_vit(source)
    check_hidden(source)
    trainable = {name for name, parameter in source.named_parameters() if parameter.requires_grad}
    source = copy.deepcopy(source)
    mlps = {f"blocks.{i}": block.mlp for i, block in enumerate(source.blocks)}
    own_activations(mlps)
    kinds = sorted({type(mlp.act).__name__ for mlp in mlps.values()})
    with evaluating(source):
        watched = {name: (mlp.act, -1) for name, mlp in mlps.items()} | {f"{name} input": (mlp, -1) for name, mlp in mlps.items()}
        shape = source.patch_embed.proj.in_channels, *(source.patch_embed.img_size or (224, 224))
        measured, batches, outputs = calibration.observe(source, watched, [shape])
        published = not calibration.calibrated and init_range is None and calibration.order == (5, 4)
        kat = _empty_kat(source, calibration.order, not published)
        # The ViT has no rationals: they follow from the fits below.
        rationals = {key: value for key, value in kat.state_dict().items() if ".mlp.act" in key}
        load_weights(kat, {**source.state_dict(), **rationals})
        blocks = []
        for (name, mlp), block in zip(mlps.items(), kat.blocks, strict=True):
            fit, report = calibration.fit(name, mlp, measured[name], block.mlp.act2.num_groups, True)
            _install(block.mlp, fit, measured[f"{name} input"].reach.max())
            blocks.append(report)
        for name, parameter in kat.named_parameters():
            parameter.requires_grad_(name in rationals or name in trainable)
        kat.set_grad_checkpointing(source.grad_checkpointing)
        return kat, TransferReport(", ".join(kinds), calibration.calibrated, tuple(blocks), *compare(kat, batches, outputs))


def _empty_kat(vit: Any, order: tuple[int, int], scaled: bool) -> Any:
    size = {192: "tiny", 384: "small"}.get(int(vit.embed_dim), "base")
    arguments: dict[str, Any] = {"act_scaled": True} if scaled else {}
    if order != (5, 4):
        # The init of another order, unless it is the identity, would need scipy wherever the KAT is loaded.
        arguments |= {"order": list(order), "act_init": "identity-identity"}
    with torch.random.fork_rng(devices=[]):  # what is drawn is replaced
        return create_like(vit, f"kat_{size}_patch16_224", weight_init="skip", **arguments)


@torch.no_grad()
def _install(mlp: Any, fit: GroupFits, reach: Tensor) -> None:
    """Set the activations of a GR-KAN.

    Args:
        mlp: GR-KAN with the linear layers of the MLP.
        fit: rationals of its second activation.
        reach: largest size of its inputs; those of other images reach farther.
    """
    first = identity_fit((1 + MARGIN) * reach, mlp.act1)
    for act, one in ((mlp.act1, first), (mlp.act2, fit)):
        # Loading lets the numerator, which groups share otherwise, have a row for each.
        plain = {"weight_numerator": one.numerator, "weight_denominator": one.denominator}
        act.load_state_dict(plain if act.scale is None else one.state())
    permute_hidden(mlp, fit.channels)
