"""`vit_to_kat`: turn a trained ViT into a KAT that computes almost the same function."""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from .._checks import interval
from ..kernels import rational_reference
from ..layers.gr_kan import GRKAN
from ..layers.init import FIT_RANGE, FUNCTIONS, rational_coefficients
from ..layers.rational_fit import fit_rational, fit_rational_to_samples
from ..models.kat import KAT
from .architecture import check_plain_vit, create_like

SAMPLES = 200_000  # pre-activations kept per block
BATCH = 64  # images per forward pass when one tensor holds them all


@dataclass(frozen=True)
class BlockFit:
    """How well act2 of one block follows the ViT's activation: range, largest and root-mean-square error there.

    The mean is over the calibration images' pre-activations, or uniform over the range without images.
    """

    range: tuple[float, float]
    max_error: float
    rms_error: float


@dataclass(frozen=True)
class TransferReport:
    """Result of `vit_to_kat`.

    Attributes:
        activation: class of the ViT's activation.
        calibrated: whether act2 was fitted to the images' pre-activations.
        blocks: a `BlockFit` per block.
        relative_logits_error: |kat(x) - vit(x)| / |vit(x)|, Euclidean, over the images given or, without, over noise.
        top1_agreement: fraction of those inputs where the largest outputs agree.
    """

    activation: str
    calibrated: bool
    blocks: tuple[BlockFit, ...]
    relative_logits_error: float
    top1_agreement: float

    def __str__(self) -> str:
        lines = ["block          range   max error   rms error"]
        for i, fit in enumerate(self.blocks):
            low, high = fit.range
            lines.append(f"{i:5d} {f'[{low:.1f}, {high:.1f}]':>14s}   {fit.max_error:9.1e}   {fit.rms_error:9.1e}")
        lines.append(f"{self.activation}: logits differ by {self.relative_logits_error:.2%}, top-1 agreement {self.top1_agreement:.1%}")
        return "\n".join(lines)


def vit_to_kat(
    vit: nn.Module | str,
    images: Tensor | Iterable[Tensor] | None = None,
    init_range: tuple[float, float] | None = None,
) -> tuple[KAT, TransferReport]:
    """Copy a ViT into a KAT: act1 is the identity, act2 the ViT's activation (arXiv 2409.10594, section 4.4).

    No rational of order (5, 4) under the kernel's formula follows a ReLU-like function everywhere, so one has to choose where it
    does: with images, act2 of each block minimizes the mean squared error over its own pre-activations.

    Args:
        vit: a timm VisionTransformer with plain blocks and an elementwise activation (GELU, QuickGELU, SiLU, ReLU, ...)
            or the name of a pretrained one. Layer scale, register tokens, norms and pooling are kept.
        images: normalized images (B, C, H, W), or batches of them, to calibrate on and to report on; a few dozen do.
        init_range: interval (low, high) of a minimax fit of every act2, in place of calibration; [-6, 6] if neither is given.

    Returns:
        (kat, report): a KAT in eval mode on the ViT's device, and how close it is.

    Raises:
        ValueError: a model that a KAT cannot represent (the message names the part), or images of the wrong shape.
    """
    source: Any = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    check_plain_vit(source)
    with _evaluating(source):
        batches = list(images.split(BATCH) if isinstance(images, Tensor) else () if images is None else images)
        if images is not None and not batches:
            raise ValueError("images without a batch: expected at least one")
        if init_range is not None:
            init_range = interval("init_range", init_range)
        calibrate = bool(batches) and init_range is None
        samples = _pre_activations(source, batches) if calibrate else [None] * len(source.blocks)
        activations = [block.mlp.act for block in source.blocks]
        kat = _empty_kat(source)
        # The ViT has no rationals: they follow from the fits below.
        rationals = {key: value for key, value in kat.state_dict().items() if ".mlp.act" in key}
        kat.load_state_dict({**source.state_dict(), **rationals})
        fits = [_fit(block.mlp, act, values, init_range) for block, act, values in zip(kat.blocks, activations, samples, strict=True)]
        return kat, _report(source, kat, batches, fits, calibrate)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _empty_kat(vit: Any) -> Any:
    size = {192: "tiny", 384: "small"}.get(int(vit.embed_dim), "base")
    return create_like(vit, f"kat_{size}_patch16_224", weight_init="skip")


def _pre_activations(vit: Any, batches: list[Tensor]) -> list[Tensor]:
    """Return an even subset of the activation's inputs in each block, with the extremes."""
    kept: list[list[Tensor]] = [[] for _ in vit.blocks]
    share = SAMPLES // len(batches) + 1

    def keep(values: list[Tensor], module: nn.Module, inputs: Any, output: Tensor) -> None:
        flat = output.flatten()
        step = -(-flat.numel() // share)
        values.append(torch.cat([flat[::step], flat.amin()[None], flat.amax()[None]]).double().cpu())

    hooks = [block.mlp.fc1.register_forward_hook(functools.partial(keep, values)) for block, values in zip(vit.blocks, kept, strict=True)]
    try:
        for batch in batches:
            vit(_placed(batch, vit))
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(values) for values in kept]


def _placed(images: Any, model: Any) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ValueError("images: expected tensors (B, C, H, W), or an iterable of them")
    channels = model.patch_embed.proj.in_channels
    if not images.numel() or images.shape[1] != channels:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected (B, {channels}, H, W) with at least one image")
    parameter = next(model.parameters())
    return images.to(parameter.device, parameter.dtype)


def _fit(mlp: GRKAN, activation: nn.Module, samples: Tensor | None, init_range: tuple[float, float] | None) -> BlockFit:
    """Set act1 and act2 and measure the fit."""
    mlp.act1.set_coefficients(*rational_coefficients("identity"))
    if samples is not None:
        numerator, denominator, _ = fit_rational_to_samples(activation, samples)
        values, (low, high) = samples, (samples.min().item(), samples.max().item())
    else:
        low, high = init_range or FIT_RANGE
        numerator, denominator = _minimax(activation, low, high)
        values = torch.linspace(low, high, 2001, dtype=torch.float64)
    mlp.act2.set_coefficients(numerator, denominator)
    points = torch.linspace(low, high, 2001, dtype=torch.float64)
    residuals = [rational_reference(x, numerator[None], denominator[None]) - activation(x.clone()) for x in (points, values)]
    return BlockFit((low, high), residuals[0].abs().max().item(), residuals[1].square().mean().sqrt().item())


def _minimax(activation: nn.Module, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the minimax fit, from the table where it is there (no scipy needed)."""
    if (low, high) == FIT_RANGE:
        x = torch.linspace(low, high, 101, dtype=torch.float64)
        for name, function in FUNCTIONS.items():
            if name != "swish" and torch.equal(function(x), activation(x.clone())):  # which may work in place
                return rational_coefficients(name)
    return fit_rational(activation, (low, high))[:2]


def _report(vit: Any, kat: KAT, batches: list[Tensor], fits: list[BlockFit], calibrated: bool) -> TransferReport:
    height, width = vit.patch_embed.img_size or (224, 224)
    noise = torch.randn(8, vit.patch_embed.proj.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    difference = total = agreed = count = 0.0
    for batch in batches or [noise]:
        x = _placed(batch, vit)
        a, b = vit(x).double(), kat(x).double()
        difference += (a - b).square().sum().item()
        total += a.square().sum().item()
        agreed += (a.argmax(-1) == b.argmax(-1)).sum().item()
        count += a.argmax(-1).numel()
    error = (difference / total) ** 0.5 if total else math.inf if difference else 0.0  # a zero head's outputs are zero
    return TransferReport(type(vit.blocks[0].mlp.act).__name__, calibrated, tuple(fits), error, agreed / count)
