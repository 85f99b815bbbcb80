"""Settings that the recipes of detectors and segmentation models share."""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

Config = TypeVar("Config", bound="DenseModelConfig")


@dataclass(frozen=True)
class DenseModelConfig:
    """A head of `kat_zoo.dense` on a plain ViT.

    Attributes:
        head: name of the function of `kat_zoo.dense`.
        backbone: timm model name.
        pretrained: start the backbone from its published weights.
        checkpoint: start the backbone from this file (.safetensors, .pth), as a classifier's run leaves it.
        backbone_args: arguments of `timm.create_model`, as drop_path_rate.
        kwargs: arguments of the head.
    """

    head: str
    backbone: str = "kat_small_patch16_224"
    pretrained: bool = False
    checkpoint: str | None = None
    backbone_args: dict[str, Any] = field(default_factory=dict)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def untrained(self: Config) -> Config:
        """The same model, whose backbone starts from random weights; of `local-dir:` and `hf-hub:` the config.json is still read."""
        return replace(self, pretrained=False, checkpoint=None)

    def check(self) -> None:
        """Refuse two sources of weights; recipes call it.

        Raises:
            ValueError: naming both.
        """
        if self.pretrained and self.checkpoint:
            raise ValueError("model.pretrained and model.checkpoint both name weights of the backbone; give one")
