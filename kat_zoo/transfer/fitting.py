"""Images and options of `vit_to_kat` and `to_kat`, checked once, and the fits that follow from them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from ..layers.init import FIT_RANGE
from .calibration import GroupFits, PreActivations, column_weights, fit_groups, may_permute, portable, uniform_fit
from .report import BlockFit, assess

BATCH = 64  # images per forward pass when one tensor holds them all
ORDER, CALIBRATED_ORDER = (5, 4), (8, 7)


class Calibration:
    """Images and options of a conversion.

    Args:
        images: normalized images (B, C, H, W), batches of them, or None.
        init_range: interval (low, high) of a minimax fit in place of calibration, or None.
        order: degrees (m, n), or None for the default.

    Raises:
        ValueError: no image, a bad interval or a bad order.
    """

    def __init__(
        self, images: Tensor | Iterable[Tensor] | None, init_range: tuple[float, float] | None, order: Sequence[int] | None
    ) -> None:
        self.images = list(images.split(BATCH) if isinstance(images, Tensor) else () if images is None else images)
        if images is not None and not self.images:
            raise ValueError("images without a batch: expected at least one")
        self.init_range = None if init_range is None else _checks.interval("init_range", init_range)
        self.calibrated = bool(self.images) and init_range is None
        self.order = (CALIBRATED_ORDER if self.calibrated else ORDER) if order is None else _checks.order("order", order)

    def batches(self, model: nn.Module, channels: int, size: Sequence[int]) -> list[Tensor]:
        """Images on the model's device and in its dtype; without any, eight of noise.

        Args:
            model: model with at least one parameter.
            channels: number of channels of its images.
            size: height and width of the noise.

        Raises:
            ValueError: images of the wrong shape.
        """
        noise = torch.randn(8, channels, *size, generator=torch.Generator().manual_seed(0))
        parameter = next(model.parameters())
        return [_checked(batch, channels).to(parameter.device, parameter.dtype) for batch in self.images or [noise]]

    def fit(self, name: str, mlp: Any, measured: PreActivations, num_groups: int) -> tuple[GroupFits, BlockFit]:
        """Fit the rationals of an MLP and measure them.

        Args:
            name: name of the MLP, for the report.
            mlp: MLP of timm, before its conversion.
            measured: arguments of its activation.
            num_groups: number of groups of hidden channels, which divides them.
        """
        activation, hidden = portable(mlp.act), measured.rows.shape[1]
        steps = {}
        if self.calibrated:
            steps["default"] = uniform_fit(activation, FIT_RANGE, ORDER, hidden)
            importance = column_weights(mlp)
            steps["one fit"] = fit_groups(activation, measured, importance, self.order, 1, permute=False)
            steps["groups"] = fit_groups(activation, measured, importance, self.order, num_groups, may_permute(mlp))
            return steps["groups"], assess(name, mlp, activation, measured, steps, None)
        interval = self.init_range or FIT_RANGE
        fit = uniform_fit(activation, interval, self.order, hidden)
        return fit, assess(name, mlp, activation, measured, {"default" if interval == FIT_RANGE else "init_range": fit}, interval)


def _checked(images: Any, channels: int) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ValueError("images: expected tensors (B, C, H, W), or an iterable of them")
    if not images.numel() or images.shape[1] != channels:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected (B, {channels}, H, W) with at least one image")
    return images
