"""Images and options of `vit_to_kat` and `to_kat`, checked once, and the fits that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from .._text import one_line
from ..layers.init import FIT_RANGE
from .calibration import GroupFits, PreActivations, column_weights, fit_groups, observe, portable, uniform_fit
from .report import BlockFit, assess, tensors

BATCH = 64  # images per forward pass when one tensor holds them all
ORDER, CALIBRATED_ORDER = (5, 4), (8, 7)


class Calibration:
    """Images and options of a conversion.

    Args:
        images: normalized images (B, C, H, W), batches of them, or None.
        init_range: interval (low, high) of a minimax fit in place of calibration, or None.
        order: degrees (m, n), or None for the default.

    Raises:
        ValueError: no image, images that are not finite floating-point tensors (B, C, H, W), a bad interval or a bad order.
    """

    def __init__(
        self, images: Tensor | Iterable[Tensor] | None, init_range: tuple[float, float] | None, order: Sequence[int] | None
    ) -> None:
        if images is not None and not isinstance(images, Tensor | Iterable):
            raise ValueError(f"images={images!r}: expected tensors (B, C, H, W), or an iterable of them")
        self.images = list(images.split(BATCH) if isinstance(images, Tensor) else () if images is None else images)
        if images is not None and not self.images:
            raise ValueError("images without a batch: expected at least one")
        for batch in self.images:
            _check(batch)
        self.init_range = None if init_range is None else _checks.interval("init_range", init_range)
        self.calibrated = bool(self.images) and init_range is None
        self.order = (CALIBRATED_ORDER if self.calibrated else ORDER) if order is None else _checks.order("order", order)

    def observe(
        self, model: nn.Module, watched: Mapping[str, tuple[nn.Module, int]], shapes: Sequence[Sequence[int]]
    ) -> tuple[dict[str, PreActivations], list[Tensor], list[list[Tensor]]]:
        """Run a model on the images, or on eight of noise, and watch the arguments of some of its modules.

        Args:
            model: model in eval mode.
            watched: modules of the model, each with the dimension of its argument's channels, by name.
            shapes: shapes (C, H, W) of noise, of which the first that the model takes is used.

        Returns:
            (arguments, batches, outputs): arguments by name, without modules that the model does not call; inputs; the model's outputs.

        Raises:
            ValueError: the model does not take the images, or none of the shapes, or does not return tensors.
        """
        parameter = next(model.parameters())
        noise = ([torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))] for shape in shapes)
        failure: Exception | None = None
        for images in [self.images] if self.images else noise:
            batches = [batch.to(parameter.device, parameter.dtype) for batch in images]
            try:
                measured, outputs = observe(model, watched, batches)
            except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
                failure = failure or error
            else:
                return measured, batches, [tensors(output) for output in outputs]
        said = f"the model does not take them ({one_line(failure)[:200]})"
        if self.images:
            raise ValueError(f"images of shape {tuple(self.images[0].shape)}: {said}") from failure
        raise ValueError(f"images=None, noise of shape {' or '.join(map(str, shapes))}: {said}; pass images") from failure

    def fit(self, name: str, mlp: Any, measured: PreActivations, num_groups: int, permute: bool) -> tuple[GroupFits, BlockFit]:
        """Fit the rationals of an MLP and measure them.

        Args:
            name: name of the MLP, for the report.
            mlp: MLP of timm, before its conversion.
            measured: arguments of its activation.
            num_groups: number of groups of hidden channels, which divides them.
            permute: whether the hidden channels may change places.
        """
        activation, hidden = portable(mlp.act), measured.rows.shape[1]
        steps = {}
        if self.calibrated:
            steps["default"] = uniform_fit(activation, FIT_RANGE, ORDER, hidden)
            importance = column_weights(mlp)
            steps["one fit"] = fit_groups(activation, measured, importance, self.order, 1, permute=False)
            steps["groups"] = fit_groups(activation, measured, importance, self.order, num_groups, permute)
            return steps["groups"], assess(name, mlp, activation, measured, steps, None)
        interval = self.init_range or FIT_RANGE
        fit = uniform_fit(activation, interval, self.order, hidden)
        return fit, assess(name, mlp, activation, measured, {"default" if interval == FIT_RANGE else "init_range": fit}, interval)


def _check(images: Any) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ValueError("images: expected tensors (B, C, H, W), or an iterable of them")
    if not images.numel() or not images.is_floating_point() or not images.isfinite().all():
        raise ValueError(
            f"images of shape {tuple(images.shape)} and {images.dtype}: expected normalized floating-point images, at least one, with "
            "finite values"
        )


def check_materialized(name: str, model: nn.Module) -> None:
    """Refuse a model without weights.

    Args:
        name: name of the argument.
        model: model to copy.

    Raises:
        ValueError: a parameter on the meta device, or no parameter at all.
    """
    if not any(True for _ in model.parameters()) or any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"{name} of class {type(model).__name__}: expected a model with weights, none of them on the meta device")
