"""`vit_to_kat`: turn a trained ViT into a KAT that computes almost the same function."""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers.attention import Attention
from timm.layers.create_norm import get_norm_layer
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ..layers.gr_kan import GRKAN
from ..layers.init import FIT_RANGE, FUNCTIONS, rational_coefficients
from ..layers.rational_fit import evaluate_rational, fit_rational, fit_rational_to_samples
from ..models._norm import NORMS
from ..models.kat import KAT

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

    No rational of order (5, 4) under the kernel's formula follows a ReLU-like function everywhere, so where it does is
    the choice: with images, act2 of each block minimises the mean squared error over its own pre-activations.

    Args:
        vit: a timm VisionTransformer with plain blocks and an elementwise activation (GELU, QuickGELU, SiLU, ReLU, ...)
            or the name of a pretrained one. Layer scale, register tokens, norms and pooling are kept.
        images: normalised images (B, C, H, W), or batches of them, to calibrate on and to report on; a few dozen do.
        init_range: (low, high), minimax fit of every act2 on this interval, in place of calibration; [-6, 6] if neither
            is given.

    Returns:
        (kat, report): a KAT in eval mode on the ViT's device, and how close it is.

    Raises:
        ValueError: a model this cannot represent (the message says what), or images that are none.
    """
    source: Any = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    check_plain_vit(source)
    with _evaluating(source):
        batches = list(images.split(BATCH) if isinstance(images, Tensor) else () if images is None else images)
        if images is not None and not batches:
            raise ValueError("images holds no batch")
        if init_range is not None and not (isinstance(init_range, Sequence) and len(init_range) == 2):
            raise ValueError(f"init_range={init_range!r}: expected two numbers, low < high")
        calibrate = bool(batches) and init_range is None
        samples = _pre_activations(source, batches) if calibrate else [None] * len(source.blocks)
        activations = [block.mlp.act for block in source.blocks]
        kat = _empty_kat(source)
        # The rationals are no entries of the ViT's: they follow from the fits below.
        rationals = {key: value for key, value in kat.state_dict().items() if ".mlp.act" in key}
        kat.load_state_dict({**source.state_dict(), **rationals})
        fits = [_fit(block.mlp, act, values, init_range) for block, act, values in zip(kat.blocks, activations, samples, strict=True)]
        return kat, _report(source, kat, batches, fits, calibrate)


def check_plain_vit(vit: Any) -> None:
    """Refuse a model whose parts a KAT or a KArAt does not have.

    Args:
        vit: of timm.

    Raises:
        ValueError: naming the part.
    """
    if type(vit) is not VisionTransformer:
        raise ValueError(
            f"vit: expected timm's plain VisionTransformer, not {type(vit).__name__} (distilled and other relatives hold "
            "parts of their own)"
        )
    if type(vit.patch_embed) is not PatchEmbed or not isinstance(vit.patch_embed.norm, nn.Identity):
        raise ValueError(f"patch embedding {type(vit.patch_embed).__name__}: expected timm's PatchEmbed without a norm")
    if vit.attn_pool is not None:
        raise ValueError(f"unsupported global_pool={vit.global_pool!r}: attention pooling has an MLP of its own")
    for i, block in enumerate(vit.blocks):
        parts = (block, Block), (getattr(block, "mlp", None), Mlp), (getattr(block, "attn", None), Attention)
        for part, kind in parts:
            if type(part) is not kind:
                raise ValueError(f"blocks.{i}: unsupported {type(part).__name__}, expected timm's {kind.__name__}")
        if getattr(block.attn, "gate", None) is not None:
            raise ValueError(f"blocks.{i}: unsupported gated attention")
        if any(True for _ in block.mlp.act.parameters()):
            raise ValueError(f"blocks.{i}: activation {type(block.mlp.act).__name__} has parameters, expected none")


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


def architecture(vit: Any) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer that build the likes of `vit`."""
    block = vit.blocks[0]
    norm: nn.Module = block.norm1
    arguments: dict[str, Any] = dict(
        img_size=tuple(vit.patch_embed.img_size or (224, 224)),
        patch_size=tuple(vit.patch_embed.patch_size),
        in_chans=vit.patch_embed.proj.in_channels,
        num_classes=vit.num_classes,
        global_pool=vit.global_pool,
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / vit.embed_dim,
        qkv_bias=block.attn.qkv.bias is not None,
        qk_norm=not isinstance(block.attn.q_norm, nn.Identity),
        scale_attn_norm=not isinstance(block.attn.norm, nn.Identity),
        scale_mlp_norm=not isinstance(block.mlp.norm, nn.Identity),
        proj_bias=block.attn.proj.bias is not None,
        init_values=None if isinstance(block.ls1, nn.Identity) else 1e-5,
        class_token=vit.has_class_token,
        pos_embed="none" if vit.pos_embed is None else "learn",
        no_embed_class=vit.no_embed_class,
        reg_tokens=vit.num_reg_tokens,
        pre_norm=not isinstance(vit.norm_pre, nn.Identity),
        final_norm=not (isinstance(vit.norm, nn.Identity) and isinstance(vit.fc_norm, nn.Identity)),
        fc_norm=not isinstance(vit.fc_norm, nn.Identity),
        pool_include_prefix=vit.pool_include_prefix,
        dynamic_img_size=vit.dynamic_img_size,
        dynamic_img_pad=vit.patch_embed.dynamic_img_pad,
        drop_rate=vit.head_drop.p,
        pos_drop_rate=vit.pos_drop.p,
        patch_drop_rate=getattr(vit.patch_drop, "prob", 0.0),
        proj_drop_rate=block.attn.proj_drop.p,
        attn_drop_rate=block.attn.attn_drop.p,
        drop_path_rate=getattr(vit.blocks[-1].drop_path1, "drop_prob", 0.0),
    )
    if type(norm) is not LayerNorm or getattr(norm, "eps", None) != 1e-6:
        arguments.update(norm_layer=_norm_name(norm), norm_eps=block.norm1.eps)
    return arguments


def _norm_name(norm: nn.Module) -> str:
    """timm's name of a norm's class."""
    kind = LayerNorm if type(norm) is nn.LayerNorm else type(norm)
    for name in NORMS:
        if get_norm_layer(name) is kind:
            return name
    raise ValueError(f"unsupported norm {type(norm).__name__}: expected one of {', '.join(NORMS)}")


def create_like(vit: Any, name: str, **kwargs: Any) -> Any:
    """Create a model with the ViT's architecture, under a registered name so that it can be saved and pushed.

    Args:
        vit: accepted by `check_plain_vit`.
        name: registered with timm.
        **kwargs: of the model; they win over those of the ViT's architecture.

    Returns:
        The model in eval mode, on the ViT's device and in its dtype, with the ViT's preprocessing and licence.
    """
    # The address of weights published under the name is not this model's.
    keep = ("license", "input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes")
    overlay = {key: value for key, value in getattr(vit, "pretrained_cfg", {}).items() if key in keep}
    overlay.update(num_classes=vit.num_classes, hf_hub_id=None, tag=None)
    parameter = next(vit.parameters())
    model = timm.create_model(name, pretrained_cfg_overlay=overlay, **{**architecture(vit), **kwargs})
    return model.to(parameter.device, parameter.dtype).eval()


def _empty_kat(vit: Any) -> Any:
    size = {192: "tiny", 384: "small"}.get(int(vit.embed_dim), "base")
    return create_like(vit, f"kat_{size}_patch16_224", weight_init="skip")


def _pre_activations(vit: Any, batches: list[Tensor]) -> list[Tensor]:
    """Per block, an even subset of what enters the activation, with the extremes."""
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
        raise ValueError(f"images: shape {tuple(images.shape)}, expected (B, {channels}, H, W) with one image or more")
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
    residuals = [
        torch.from_numpy(evaluate_rational(x.numpy(), numerator.numpy(), denominator.numpy())) - activation(x.clone())
        for x in (points, values)
    ]
    return BlockFit((low, high), residuals[0].abs().max().item(), residuals[1].square().mean().sqrt().item())


def _minimax(activation: nn.Module, low: float, high: float) -> tuple[Tensor, Tensor]:
    """fit_rational, or the table where it holds the answer (no scipy needed)."""
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
