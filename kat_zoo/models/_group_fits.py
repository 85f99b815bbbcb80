"""One rational for each group of channels, fitted to the arguments of an activation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels import rational
from ..layers.init import rational_coefficients
from ..layers.rational import GroupRational, in_units
from ..layers.rational_fit import fit_rational_to_samples

MARGIN = 0.25  # of a group's range, on either side: other images reach beyond those measured
LARGEST = 4096.0  # coefficient in units of the scale: float16 ends at 65504


@dataclass(frozen=True)
class PreActivations:
    """Arguments of one activation over some images.

    Attributes:
        rows: (tokens, hidden) float32 on the CPU, a random subset of all tokens.
        low: (hidden,) smallest argument of each channel, over all tokens.
        high: (hidden,) largest argument of each channel, over all tokens.
    """

    rows: Tensor
    low: Tensor
    high: Tensor

    @property
    def reach(self) -> Tensor:
        """How far each channel reaches from 0 on the farther side, (hidden,)."""
        return torch.maximum(-self.low, self.high)


@dataclass(frozen=True)
class GroupFits:
    """Rationals of one activation.

    Attributes:
        channels: (hidden,) permutation of the channels that puts those of a group beside each other.
        numerator: (num_groups or 1, m + 1) float64.
        denominator: (num_groups or 1, n) float64.
        scale: (num_groups or 1,) float64, powers of two not below the arguments' sizes.
    """

    channels: Tensor
    numerator: Tensor
    denominator: Tensor
    scale: Tensor

    def state(self) -> dict[str, Tensor]:
        """State dict of a `GroupRational` that is scaled; scales are smaller where coefficients would leave float16."""
        scale = self.scale
        numerator, denominator = in_units(self.numerator, self.denominator, scale)
        while (large := torch.cat([numerator, denominator], 1).abs().amax(1) > LARGEST).any():
            scale = torch.where(large, scale / 2, scale)
            numerator, denominator = in_units(self.numerator, self.denominator, scale)
        return {"weight_numerator": numerator, "weight_denominator": denominator, "scale": scale}

    def __call__(self, rows: Tensor) -> Tensor:
        """Rational of every channel in the order before the permutation; (tokens, hidden)."""
        out = torch.empty_like(rows)
        out[:, self.channels] = rational(rows[:, self.channels], self.numerator, self.denominator)
        return out


def identity_fit(reach: Tensor, act: GroupRational) -> GroupFits:
    """The identity as the rational of a first activation.

    Args:
        reach: () largest size of its arguments; one that is not positive counts as 1.
        act: activation that gets it.
    """
    numerator, denominator = (row[None].double() for row in rational_coefficients("identity", act.order))
    scale = torch.full((act.num_groups,), power_of_two(float(reach)), dtype=torch.float64)
    return GroupFits(torch.arange(act.num_groups), numerator, denominator, scale)


def power_of_two(reach: float) -> float:
    """The next power of two, by which numbers are divided without rounding."""
    return 2.0 ** math.ceil(math.log2(reach)) if 0 < reach < math.inf else 1.0


def fit_groups(
    activation: nn.Module, measured: PreActivations, importance: Tensor, order: tuple[int, int], num_groups: int, permute: bool
) -> GroupFits:
    """Fit a rational to the arguments of each group of channels.

    Args:
        activation: elementwise function of a float64 tensor.
        measured: arguments of the activation.
        importance: (hidden,) weight of each channel's squared error.
        order: degrees (m, n) of numerator and denominator.
        num_groups: number of groups, which divides the channels.
        permute: whether channels may change places, so that those whose arguments reach equally far share a group.
    """
    channels = torch.argsort(measured.reach, stable=True) if permute else torch.arange(len(measured.low))
    fits, scales = [], []
    for group in channels.view(num_groups, -1):
        low, high = measured.low[group].min().item(), measured.high[group].max().item()
        margin = MARGIN * (high - low) or 1.0  # dead channels hold a single value
        samples = measured.rows[:, group]
        weights = importance[group].expand_as(samples) if importance[group].sum() > 0 else torch.ones_like(samples)
        scales.append(power_of_two(max(margin - low, high + margin)))
        fits.append(fit_rational_to_samples(activation, samples, order, weights, (low - margin, high + margin))[:2])
    return GroupFits(channels, torch.stack([a for a, _ in fits]), torch.stack([b for _, b in fits]), torch.tensor(scales).double())
