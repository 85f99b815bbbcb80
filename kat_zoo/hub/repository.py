"""A model as the files of a Hub repository: model.safetensors, config.json for timm and transformers, README.md.

`kat-zoo train` leaves such a folder and `convert` makes one, so that timm's `local-dir:FOLDER`, transformers and the Hub's client
read it without code of ours. The rest lies under the key `kat_zoo` of config.json: the task, the data, how it was
trained.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import yaml
from safetensors.torch import save
from timm.data.imagenet_info import ImageNetInfo
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from . import cards
from .samples import load_samples

WEIGHTS, CONFIG, CARD, RECIPE, RESULT = "model.safetensors", "config.json", "README.md", "recipe.yaml", "result.json"
RUN_FILES = (CONFIG, "metrics.jsonl", "curves.csv")  # besides pictures, weights, recipe, result and card


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its card; it lies in config.json.

    Attributes:
        task: "classification", "detection" or "segmentation".
        dataset: name of the data, on the Hub if it is `org/name`.
        split: split that the figures are of.
        training: one or two sentences on how it was trained.
    """

    task: str = "classification"
    dataset: str = ""
    split: str = ""
    training: str = ""


def serialize(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Safetensors whose bytes depend on the content alone: the library writes the metadata in a random order."""
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + ordered.ljust(size) + data[8 + size :]


def model_config(
    model: nn.Module,
    classes: Sequence[str] = (),
    data_config: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """The content of config.json for a model of timm's.

    Args:
        model: made by `timm.create_model`.
        classes: names of the classes; none are written by default, for an architecture's own may be of other weights.
        data_config: preprocessing that differs from the architecture's (input_size, mean, std, interpolation, crop_pct).
        origin: origin of the weights.

    Raises:
        ValueError: a model argument that JSON cannot hold.
    """
    labels = {"label_names": list(classes)} if classes else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        save_config_for_hf(model, str(path), model_config=labels, data_config=dict(data_config or {}))
        config = json.loads(path.read_text())
    # transformers passes num_labels and model_args on together, and num_classes in both is one too many.
    config.get("model_args", {}).pop("num_classes", None)
    for key in ("tag", "license", "origin_url", "label_names", "label_descriptions"):  # of the registry's weights, not of these
        config["pretrained_cfg"].pop(key, None)
    config["pretrained_cfg"]["tag"] = origin.dataset if origin is not None else ""
    return config | {"kat_zoo": asdict(origin or Origin())}


def dumps(config: Mapping[str, Any]) -> bytes:
    """The bytes of config.json or result.json."""
    return (json.dumps(config, indent=2) + "\n").encode()


def save_model(
    model: nn.Module,
    folder: str | Path,
    classes: Sequence[str] = (),
    data_config: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> None:
    """Write model.safetensors and config.json, as a Hub repository has them; `local-dir:FOLDER` loads them in timm.

    Args:
        model: made by `timm.create_model`.
        folder: folder to write to; it is made if need be.
        classes: names of the classes; none are written by default.
        data_config: preprocessing that differs from the architecture's.
        origin: origin of the weights.

    Raises:
        ValueError: a model argument that JSON cannot hold.
    """
    folder = Path(folder)
    config = model_config(model, classes, data_config, origin)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(serialize(model.state_dict(), {"format": "pt", "architecture": config["architecture"]}))
    (folder / CONFIG).write_bytes(dumps(config))


def class_names(model: nn.Module, published: bool) -> list[str]:
    """Names of a model's classes.

    Args:
        model: model of timm's, its `pretrained_cfg` that of the weights it holds.
        published: whether the weights are those that the registry or a repository names; only then do its words hold for them.

    Returns:
        `label_names` of the configuration; of published weights those of Fashion-MNIST or ImageNet; else numbers.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    count = int(model.num_classes)  # type: ignore[arg-type]
    if published and (names := config.get("label_names")) and len(names) == count:
        return [names[key] for key in sorted(names, key=int)] if isinstance(names, Mapping) else list(names)
    if published and str(config.get("tag", "")).startswith("fmnist"):
        return list(load_samples().classes)
    if published and count == 1000:
        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(i) for i in range(count)]
    return [str(i) for i in range(count)]


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder.

    Raises:
        FileNotFoundError: the folder does not hold a model.
    """
    if not (folder / CONFIG).is_file():
        advice = f"; an older version left it, and kat-zoo train --config {folder / RECIPE} --output {folder} --resume auto writes it"
        old = (folder / RECIPE).is_file()
        raise FileNotFoundError(f"{folder} has no {CONFIG}: expected a folder of kat-zoo train, convert or pull{advice if old else ''}")
    return json.loads((folder / CONFIG).read_text())


def lay_out(run: Path, folder: Path, repo: str, weights: str = "last", license: str | None = None) -> None:
    """Put into `folder` the files that a repository gets of a run, or of a folder made by `convert`.

    Args:
        run: folder with config.json and model.safetensors.
        folder: empty folder.
        repo: `org/name`, for the card.
        weights: "last", or "best" for those of the best evaluation (chosen on the evaluated split), without figures.
        license: license of the weights, for the card; none is claimed by default.

    Raises:
        FileNotFoundError: `run` does not hold a model.
    """
    config = read_config(run)
    trained = (run / RECIPE).is_file()
    source = run / (WEIGHTS if weights == "last" else "best.safetensors")
    if not source.is_file():
        raise FileNotFoundError(f"{run} has no {source.name}")
    copied = [path for path in sorted(run.iterdir()) if path.is_file() and path.name not in (CARD, RECIPE, WEIGHTS)]
    if trained:
        kept = {*RUN_FILES, *([RESULT] if weights == "last" else [])}
        copied = [path for path in copied if path.name in kept or path.suffix == ".png"]
        recipe = yaml.safe_load((run / RECIPE).read_text())
        (folder / RECIPE).write_text(yaml.safe_dump(_without_places(recipe), sort_keys=False))
    for path in copied:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / WEIGHTS).write_bytes(source.read_bytes())
    (folder / CARD).write_text(folder_card(folder, config, repo, license))


def folder_card(folder: Path, config: Mapping[str, Any], repo: str = "", license: str | None = None) -> str:
    """The card of the model in a folder, from its config.json and result.json.

    Args:
        folder: folder of a run, or what is to be uploaded of it.
        config: content of config.json.
        repo: `org/name` that it is for; without it, the card speaks of the folder.
        license: license of the weights.
    """
    result = json.loads((folder / RESULT).read_text()) if (folder / RESULT).is_file() else {}
    if config["kat_zoo"]["task"] != "classification":
        return cards.render_dense(config, result, folder.resolve().name, repo, license)
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    meta = timm.create_model(config["architecture"], device="meta", **arguments)
    return cards.render_folder(meta, config, result, folder.resolve().name, repo, license)


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the folders of the machine it ran on; the root of a data set of the Hub is its name, and stays."""

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shorten(inner) for key, inner in value.items()}
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    data = dict(recipe["data"])
    if data.get("dataset") != "hub":
        data["root"] = None
    return shorten({**recipe, "output": f"runs/{Path(recipe['output']).name}", "data": data})
