"""The one reader of run folders: what `kat-zoo train` of any task leaves, finished or not, and what `kat-zoo pull` brings back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kat_zoo._text import one_line
from kat_zoo._weights import check_weights
from kat_zoo.hub.repository import CONFIG, RECIPE, RESULT, WEIGHTS, check_config, label_names

from .config import RunRecipe, parse
from .log import read_log
from .yaml_file import read_settings

Recipe = TypeVar("Recipe", bound=RunRecipe)

OLD_WEIGHTS = "last.safetensors"  # the name of model.safetensors in folders of older versions


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        folder: path of the folder.
        task: "classification", "detection" or "segmentation".
        classes: names of the classes, by index; empty where an older version did not write them.
        config: content of config.json; empty in folders of older versions.
        result: content of result.json; empty while the run is not finished.
    """

    folder: Path
    task: str
    classes: tuple[str, ...]
    config: dict[str, Any]
    result: dict[str, Any]

    def recipe(self, recipe_class: type[Recipe]) -> Recipe:
        """The recipe of the run.

        Args:
            recipe_class: class of the task's recipes.

        Raises:
            ValueError: a setting that this version does not know.
        """
        return parse(recipe_class, ["--config", str(self.folder / RECIPE)], "kat-zoo")[0]

    @property
    def weights(self) -> Path:
        """File of the last weights, which are the averaged ones where there are any."""
        new = self.folder / WEIGHTS
        return new if new.is_file() else self.folder / OLD_WEIGHTS

    def load_weights(self) -> dict[str, Tensor]:
        """The last weights, by name."""
        return load_file(self.weights)

    def fill(self, model: nn.Module) -> None:
        """Give a model the last weights.

        Args:
            model: model as the recipe builds it.

        Raises:
            ValueError: weights that do not fit, or that are NaN, infinite or of another kind than the model's.
        """
        try:
            weights = self.load_weights()
            check_weights(weights, model.state_dict(), str(self.weights))
            model.load_state_dict(weights)
        except (RuntimeError, SafetensorError) as error:  # of load_state_dict
            raise ValueError(f"{self.weights} does not fit the recipe beside it: {one_line(error)[:300]}") from error

    @property
    def log(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return read_log(self.folder / "metrics.jsonl")


def is_run(folder: str | Path) -> bool:
    """Whether a path is the folder of a run, by its recipe.yaml."""
    return (Path(folder) / RECIPE).is_file()


def read_run(folder: str | Path, task: str | None = None) -> RunFolder:
    """Read the folder of a run.

    Args:
        folder: folder with recipe.yaml and model.safetensors, or last.safetensors of older versions.
        task: task that the run must be of.

    Raises:
        FileNotFoundError: not the folder of a run, or one without an evaluation yet.
        ValueError: a run of another task, or a file that does not hold what it should.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise FileNotFoundError(f"{folder} has no {RECIPE}: expected the folder of a run of kat-zoo train")
    found = run_task(folder)
    if task is not None and found != task:
        raise ValueError(f"{folder} is a run of {found}: expected one of {task}")
    if not any((folder / name).is_file() for name in (WEIGHTS, OLD_WEIGHTS)):
        raise FileNotFoundError(f"{folder} has no {WEIGHTS} yet: expected a run of kat-zoo train that has been evaluated")
    config, result = (read_json(folder / name) for name in (CONFIG, RESULT))
    config = check_config(config, str(folder / CONFIG)) if config else {}
    classes = label_names(config) or label_names({"label_names": result.get("classes")})
    return RunFolder(folder, found, tuple(classes), config, result)


def run_task(folder: str | Path) -> str:
    """The task of a run, by its recipe.yaml.

    Raises:
        ValueError: recipe.yaml is not a recipe.
    """
    return str(read_settings(Path(folder) / RECIPE).get("task") or "classification")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        ValueError: the file does not hold an object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}: expected an object")
    return value
