"""A model as the files of a Hub repository: model.safetensors, config.json for timm and transformers, README.md.

`kat-zoo train` leaves such a folder and `convert` makes one, so that timm's `local-dir:FOLDER`, transformers and the Hub's client
read it without code of ours. The rest lies under the key `kat_zoo` of config.json: the task, the data, how it was
trained.
"""

import json
import logging
import math
import re
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

from .._files import replaced
from .._text import one_line
from ..layers import GroupRational
from ..models._download import weights_damage
from ..models._pretrained import grid_metadata, require_model
from . import cards
from .samples import load_samples

logger = logging.getLogger("kat_zoo")

WEIGHTS, CONFIG, CARD, RECIPE, RESULT = "model.safetensors", "config.json", "README.md", "recipe.yaml", "result.json"
RUN_FILES = (CONFIG, "metrics.jsonl", "curves.csv", "curves.png")  # besides weights, recipe, result and card
CODE = "modeling_kat_zoo.py"  # for transformers' trust_remote_code
# Architectures that this code knows: the keys of its SIZES, which are not read from it, as it imports transformers.
REMOTE_MODELS = (
    "kat_tiny_patch16_224",
    "kat_small_patch16_224",
    "kat_base_patch16_224",
    "kat_pico_patch4_28",
    "karat_tiny_g3b_patch16_224",
    "karat_tiny_g3u_patch16_224",
    "karat_small_g3b_patch16_224",
    "karat_small_g3u_patch16_224",
    "karat_base_g1b_patch16_224",
    "karat_base_g1u_patch16_224",
    "karat_pico_patch4_28",
    "karat_kat_pico_patch4_28",
)
OWN_FILES = (WEIGHTS, CARD, RECIPE, RESULT, CODE, *RUN_FILES)  # what push writes, and therefore removes where it is out of date


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
        classes: names of the classes; none by default, for those registered for the architecture may belong to other weights.
        data_config: preprocessing that differs from the architecture's (input_size, mean, std, interpolation, crop_pct).
        origin: origin of the weights.

    Raises:
        ValueError: a model argument that JSON cannot hold, or a model of `kat_zoo.to_kat`.
    """
    for name, module in model.named_modules():
        if type(module).__module__.startswith("timm.") and isinstance(getattr(module, "act", None), GroupRational):
            raise ValueError(
                f"model of class {type(model).__name__} with the rational {name}.act, made by to_kat: expected one that timm.create_model "
                "makes again; save its state_dict(), which loads into a conversion of the same order"
            )
    labels = {"label_names": list(classes)} if classes else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        save_config_for_hf(model, str(path), model_config=labels, data_config=dict(data_config or {}))
        config = json.loads(path.read_text(encoding="utf-8"))
    # transformers passes num_labels and model_args on together, and num_classes in both is one too many.
    config.get("model_args", {}).pop("num_classes", None)
    for key in ("tag", "license", "origin_url", "label_names", "label_descriptions"):  # of the registry's weights, not of these
        config["pretrained_cfg"].pop(key, None)
    if config["architecture"] in REMOTE_MODELS and not _has_numerators_of_groups(model):
        config["auto_map"] = {"AutoModelForImageClassification": f"{CODE.removesuffix('.py')}.KatForImageClassification"}
    return config | {"kat_zoo": asdict(origin or Origin())}


def _has_numerators_of_groups(model: nn.Module) -> bool:
    """Whether a checkpoint gave rationals a numerator for each group, of which no argument tells `CODE`; says so."""
    grown = any(isinstance(m, GroupRational) and m.scale is None and len(m.weight_numerator) > 1 for m in model.modules())
    if grown:
        logger.warning("the rationals have a numerator for each group: transformers can load this model with the package kat_zoo alone")
    return grown


def write_code(config: Mapping[str, Any], folder: Path) -> None:
    """Write the code that config.json names, which lets transformers load the model without this package.

    Args:
        config: content of config.json.
        folder: folder to write to; nothing is written for a model without such code.
    """
    if "auto_map" in config:
        (folder / CODE).write_bytes((Path(__file__).parent / CODE).read_bytes())


def dumps(config: Mapping[str, Any]) -> bytes:
    """The bytes of config.json or result.json; what is not a finite number, as the figure of a class without images, is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (json.dumps(plain(config), indent=2, allow_nan=False) + "\n").encode()


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
        ValueError: a model argument that JSON cannot hold, or a model of `kat_zoo.to_kat`.
    """
    folder = Path(folder)
    config = model_config(model, classes, data_config, origin)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "architecture": config["architecture"], **grid_metadata(model)}
    with replaced(folder / WEIGHTS) as partial:
        partial.write_bytes(serialize(model.state_dict(), metadata))
        (folder / CONFIG).write_bytes(dumps(config))
        write_code(config, folder)


def label_names(config: Mapping[str, Any]) -> list[str]:
    """Names of the classes in a config.json or a configuration of timm's: a list, or a mapping of their numbers; empty without any.

    Raises:
        ValueError: other things than names.
    """
    names = config.get("label_names") or []
    if isinstance(names, Mapping):
        names = [names.get(str(i), names.get(i)) for i in range(len(names))]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"label_names={str(names)[:80]}: expected a list of names")
    return list(names)


def _described(names: list[str], descriptions: Any) -> list[str]:
    """Names as people read them: by the descriptions beside them, or, of synsets as n01440764, by those of ImageNet in timm."""
    if isinstance(descriptions, Mapping):
        return [str(descriptions.get(name) or name) for name in names]
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return names
    info = ImageNetInfo("imagenet-22k-ms")
    return [_of_synset(info, name) for name in names]


def _of_synset(info: ImageNetInfo, name: str) -> str:
    try:
        return info.label_name_to_description(name)
    except KeyError:
        return name


def class_names(model: nn.Module, registered: bool) -> list[str]:
    """Names of a model's classes.

    Args:
        model: model of timm's, its `pretrained_cfg` that of the weights it holds.
        registered: whether the weights are those of timm's registry; only then do its tags tell the classes.

    Returns:
        `label_names` of the configuration, synsets of ImageNet as the words they mean; of registered weights those of Fashion-MNIST or
        ImageNet; else numbers.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    count = int(model.num_classes)  # type: ignore[arg-type]
    names = label_names(config)
    if len(names) == count and count:
        return _described(names, config.get("label_descriptions"))
    if registered and count == 10 and str(config.get("tag", "")).startswith("fmnist"):
        return list(load_samples().classes)
    if registered and count == 1000:
        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(i) for i in range(count)]
    return [str(i) for i in range(count)]


def check_config(config: Any, where: str) -> dict[str, Any]:
    """Check what a config.json holds, which may be anybody's.

    Args:
        config: its content.
        where: file or repository, for the message.

    Returns:
        The content, with the key `kat_zoo` where it had none.

    Raises:
        ValueError: not the description of a model.
    """
    kinds = {"architecture": str, "num_classes": int, "pretrained_cfg": dict, "model_args": dict, "kat_zoo": dict}
    if not isinstance(config, dict):
        raise ValueError(f"{where}: expected an object with the keys {', '.join(kinds)}")
    if "pretrained_cfg" not in config and "kat_zoo" not in config and "input_size" in config:  # timm's older files have one level
        config = {"pretrained_cfg": config, **{key: config[key] for key in ("architecture", "num_classes") if key in config}}
    if isinstance(config.get("pretrained_cfg"), dict):
        config = {"num_classes": config["pretrained_cfg"].get("num_classes"), **config}
    config = {"kat_zoo": asdict(Origin()), "model_args": {}, **config}
    dense = isinstance(config["kat_zoo"], dict) and config["kat_zoo"].get("task") in ("detection", "segmentation")
    if dense:
        config = {"pretrained_cfg": {}, **config}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind) or isinstance(config.get(key), bool):
            name = {str: "a name", int: "an integer", dict: "an object"}[kind]
            raise ValueError(f"{where}: {key}={str(config.get(key))[:80]}: expected {name}")
    config["kat_zoo"] = asdict(Origin()) | {key: str(value) for key, value in config["kat_zoo"].items()}
    if config["kat_zoo"]["task"] not in ("classification", "detection", "segmentation"):
        raise ValueError(f"{where}: task={config['kat_zoo']['task']!r}: expected one of classification, detection, segmentation")
    try:
        label_names(config)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder.

    Raises:
        FileNotFoundError: the folder does not hold a model.
        ValueError: the file does not describe one.
    """
    path = folder / CONFIG
    if not path.is_file():
        advice = f"; an older version left it, and kat-zoo train --config {folder / RECIPE} --output {folder} --resume auto writes it"
        old = (folder / RECIPE).is_file() and any(folder.glob("checkpoints/update_*"))
        raise FileNotFoundError(f"{folder} has no {CONFIG}: expected a folder of kat-zoo train, convert or pull{advice if old else ''}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return check_config(config, str(path))


def lay_out(run: Path, folder: Path, repo: str, weights: str = "last", license: str | None = None) -> None:
    """Put into `folder` the files that a repository gets of a run, or of a folder made by `convert`.

    Args:
        run: folder with config.json and model.safetensors.
        folder: empty folder.
        repo: `org/name`, for the card.
        weights: "last", or "best" for those of the best evaluation, without figures, for they were chosen by them.
        license: license of the weights, for the card; none is claimed by default.

    Raises:
        FileNotFoundError: `run` does not hold a model.
        ValueError: damaged weights or recipe, or a model that cannot be made.
    """
    config = read_config(run)
    source = run / (WEIGHTS if weights == "last" else "best.safetensors")
    if not source.is_file():
        raise FileNotFoundError(f"{run} has no {source.name}")
    if damage := weights_damage(source):
        raise ValueError(f"{source} {damage}")
    kept = [*RUN_FILES, *([RESULT] if weights == "last" else [])]  # nothing else that may lie in the folder
    for name in kept:
        if (run / name).is_file():
            (folder / name).write_bytes((run / name).read_bytes())
    if (run / RECIPE).is_file():
        try:
            recipe = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{run / RECIPE} is not YAML: {one_line(error)[:200]}") from error
        if not isinstance(recipe, dict) or not isinstance(recipe.get("data"), dict):
            raise ValueError(f"{run / RECIPE}: expected the recipe of a run")
        (folder / RECIPE).write_text(yaml.safe_dump(_without_places(recipe), sort_keys=False), encoding="utf-8")
    if weights == "best":
        config["kat_zoo"]["training"] += " These are the weights of the best evaluation, chosen on the split that was evaluated."
        (folder / CONFIG).write_bytes(dumps(config))
    (folder / WEIGHTS).write_bytes(source.read_bytes())
    write_code(config, folder)
    (folder / CARD).write_text(folder_card(folder, config, repo, license), encoding="utf-8")


def folder_card(folder: Path, config: Mapping[str, Any], repo: str = "", license: str | None = None) -> str:
    """The card of the model in a folder, from its config.json and result.json.

    Args:
        folder: folder of a run, or what is to be uploaded of it.
        config: content of config.json.
        repo: `org/name` that it is for; without it, the card speaks of the folder.
        license: license of the weights.

    Raises:
        ValueError: an architecture that is not registered, or arguments that it does not have.
    """
    result = json.loads((folder / RESULT).read_text(encoding="utf-8")) if (folder / RESULT).is_file() else {}
    if config["kat_zoo"]["task"] != "classification":
        return cards.render_dense(config, result, folder.resolve().name, repo, license)
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    try:
        require_model(config["architecture"])
        meta = timm.create_model(config["architecture"], device="meta", **arguments)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{CONFIG} does not describe a model: {one_line(error)[:300]}") from error
    return cards.render_folder(meta, config, result, folder.resolve().name, repo, license)


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the folders of the machine it ran on; the root of a data set of the Hub is its name, and stays."""

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shorten(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [shorten(inner) for inner in value]
        if not isinstance(value, str):
            return value
        # NAME@FILE too; a name on the Hub has one slash, other paths are cut to their last part.
        return "@".join(
            part if re.fullmatch(r"[\w.-]+/[\w.-]+", part) and ".." not in part else Path(part).name for part in value.split("@")
        )

    data = dict(recipe["data"])
    if data.get("dataset") != "hub":
        data["root"] = None
    return {**shorten({**recipe, "data": data}), "output": f"runs/{Path(str(recipe.get('output', ''))).name}"}
