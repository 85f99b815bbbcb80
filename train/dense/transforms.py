"""Transforms that the recipes of detection and segmentation share."""

from typing import Any

from torchvision.transforms import v2


class PhotometricDistort(v2.RandomPhotometricDistort):
    """torchvision's photometric distortion without its permutation of the channels, which no recipe of ours has."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the strengths."""
        return {**super().make_params(flat_inputs), "channel_permutation": None}
