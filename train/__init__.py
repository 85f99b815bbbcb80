"""Training of the zoo: recipes, the trainers of three tasks, and the folders that they leave."""

from typing import TYPE_CHECKING

from kat_zoo._lazy import lazy

if TYPE_CHECKING:
    from .classification.recipe import Recipe as Recipe
    from .core.runs import read_run as read_run
    from .detection.recipe import DetectionRecipe as DetectionRecipe
    from .segmentation.recipe import SegmentationRecipe as SegmentationRecipe
    from .tasks import train as train

__all__ = ["DetectionRecipe", "Recipe", "SegmentationRecipe", "read_run", "train"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Recipe": "classification.recipe",
        "read_run": "core.runs",
        "DetectionRecipe": "detection.recipe",
        "SegmentationRecipe": "segmentation.recipe",
        "train": "tasks",
    },
    extra="train",
)
