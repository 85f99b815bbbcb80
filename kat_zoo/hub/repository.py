"""A model as the files of a Hub repository: weights, config.json for timm and transformers, card, and a run's records."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import yaml
from safetensors.torch import load_file, save
from timm.models import get_pretrained_cfg
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from ..cli.predict import class_names
from . import cards
from . import registry as zoo
from .samples import load_samples

logger = logging.getLogger("kat_zoo")

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
RUN_FILES = ("metrics.jsonl", "result.json")


def one_line(error: Exception) -> str:
    """The error's text without line breaks."""
    return " ".join(str(error).split())


def count_classes(tensors: Mapping[str, Any], architecture: str) -> int:
    """Rows of the classifier in a state dict of `architecture`; 0 if it has none."""
    cfg = get_pretrained_cfg(architecture)
    head = tensors.get(f"{cfg.classifier}.weight") if cfg else None
    return 0 if head is None else len(head)


def _serialise(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Safetensors whose bytes depend on the content alone: the library writes the metadata in a random order."""
    data = save(tensors, metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + ordered.ljust(size) + data[8 + size :]


def save_model(model: nn.Module, folder: Path, data_config: dict[str, Any] | None = None, tag: str = "") -> None:
    """Write model.safetensors and config.json, as a Hub repository has them; `local-dir:FOLDER` loads them in timm.

    Args:
        model: made by `timm.create_model`.
        folder: it is made if need be.
        data_config: preprocessing that differs from the model's own (input_size, mean, std, interpolation, crop_pct).
        tag: of the weights; what they were trained on.

    Raises:
        ValueError: a model argument that JSON cannot hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    facts = {"format": "pt", "architecture": cfg["architecture"], "tag": tag}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(_serialise(tensors, facts))
    labels = {} if model.num_classes in (0, 1000) else {"label_names": class_names(model)}
    save_config_for_hf(model, str(folder / CONFIG), model_config=labels, data_config=data_config)
    config = json.loads((folder / CONFIG).read_text())
    # transformers passes num_labels and model_args on together, and num_classes in both is one too many.
    config.get("model_args", {}).pop("num_classes", None)
    config["pretrained_cfg"]["tag"] = tag  # timm has put the registry's there
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def load_run(run: Path, weights: str = "last") -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The model of a `kat-zoo train` run.

    Args:
        run: run folder.
        weights: "last", or "best" for those of the best evaluation (chosen on the evaluated split).

    Returns:
        (model, recipe, preprocessing that the recipe overrides).

    Raises:
        FileNotFoundError: not a run folder, or no weights yet.
        ValueError: weights that do not fit the recipe's model.
    """
    for name in ("recipe.yaml", f"{weights}.safetensors"):
        if not (run / name).is_file():
            raise FileNotFoundError(f"{run} is not the folder of a finished kat-zoo train run: it has no {name}")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    name, kwargs = recipe["model"]["name"], dict(recipe["model"].get("kwargs") or {})
    if not timm.is_model(name):
        raise ValueError(f"{run / 'recipe.yaml'}: model.name {name!r} is not a registered model")
    tensors = load_file(run / f"{weights}.safetensors")
    kwargs.setdefault("num_classes", count_classes(tensors, name))
    model = timm.create_model(name, **kwargs)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{run / weights}.safetensors does not fit {name}: {one_line(error)}") from error
    classes = _result(run).get("classes")
    if not classes and recipe["data"]["dataset"] == "fashion_mnist":
        classes = load_samples().classes
    if classes:
        model.pretrained_cfg = {**model.pretrained_cfg, "label_names": tuple(classes)}  # type: ignore[assignment,dict-item]
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct")
    return model, recipe, {key: recipe["data"][key] for key in keys if recipe["data"].get(key) is not None}


def write_folder(run: Path, folder: Path, repo: str, weights: str = "last") -> None:
    """Lay out the repository of a run, or of a folder made by `convert`, in `folder`.

    Args:
        run: folder of `kat-zoo train`, or one with config.json and model.safetensors.
        folder: empty.
        repo: `org/name`, for the card.
        weights: of a run, see `load_run`.

    Raises:
        FileNotFoundError: `run` is neither.
        ValueError: damaged, see `load_run`.
    """
    results: list[zoo.Result] = []
    training = "See the repository this was converted from."
    if (run / CONFIG).is_file() and (run / WEIGHTS).is_file():
        for path in sorted(run.iterdir()):
            if path.is_file() and path.name != CARD:
                (folder / path.name).write_bytes(path.read_bytes())
        model = timm.create_model(f"local-dir:{run}", pretrained=True)
    else:
        model, recipe, data_config = load_run(run, weights)
        save_model(model, folder, data_config, tag=_dataset(recipe))
        for path in [*(run / name for name in RUN_FILES), *sorted(run.glob("*.png"))]:
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        (folder / "recipe.yaml").write_text(yaml.safe_dump(_without_places(recipe), sort_keys=False))
        draw_log(run / "metrics.jsonl", folder / "training.png")
        results = _results(run, recipe, repo) if weights == "last" else []
        training = (
            f"By `kat-zoo train --config recipe.yaml`, seed {recipe['seed']}; recipe.yaml, the log metrics.jsonl and its "
            "picture training.png are in this repository. The results are those of the last weights, not of the best."
        )
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    config = json.loads((folder / CONFIG).read_text())
    item = zoo.Entry(
        name=cfg["architecture"],
        size=zoo.measure(_on_meta(config), config["pretrained_cfg"]["input_size"]),
        input_size=tuple(config["pretrained_cfg"]["input_size"]),
        num_classes=config["num_classes"],
        weights=f"hub:{repo}",
        license=config["pretrained_cfg"].get("license", "mit"),
        results=tuple(results),
    )
    card = cards.render(item, title=repo.split("/")[1], load=f"hf-hub:{repo}", training=training, measurer=repo.split("/")[0])
    (folder / CARD).write_text(card)


def _on_meta(config: dict[str, Any]) -> nn.Module:
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    return timm.create_model(config["architecture"], device="meta", **arguments)


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the folders of the machine it ran on; that of a data set of the Hub is its name, and stays."""
    data = dict(recipe["data"])
    if data.get("dataset") != "hub":
        data["root"] = None
    return {**recipe, "output": f"runs/{Path(recipe['output']).name}", "data": data}


def _result(run: Path) -> dict[str, Any]:
    """result.json, or nothing while the run is not finished."""
    path = run / "result.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _dataset(recipe: dict[str, Any]) -> str:
    """Name of the recipe's data, as the cards call it: a data set of the Hub by its repository."""
    name, root = recipe["data"]["dataset"], recipe["data"].get("root")
    return {"imagenet": "imagenet-1k", "hub": root or name}.get(name, name)


def _results(run: Path, recipe: dict[str, Any], repo: str) -> list[zoo.Result]:
    """The result of a finished run; one measured on a part of the training split says so."""
    if not (result := _result(run)):
        return []
    split = "held-out part of train" if recipe["data"].get("holdout") else "test"
    url = f"https://huggingface.co/{repo}/blob/main/result.json"
    return [zoo.Result(_dataset(recipe), split, round(result["top1"], 2), "ours", url)]


def draw_log(log: Path, picture: Path) -> None:
    """Draw loss and accuracy over the updates of a run; without matplotlib or records there is no picture, and it is said.

    Args:
        log: metrics.jsonl.
        picture: PNG to write.
    """
    records = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.is_file() else []
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.warning("no %s: matplotlib is not installed (pip install 'kat_zoo[train]')", picture.name)
        return
    if not records:
        logger.warning("no %s: %s has no records", picture.name, log)
        return
    figure = Figure(figsize=(8, 3), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, keys, label in (
        (loss, {"loss": "training", "eval_loss": "evaluation"}, "loss"),
        (accuracy, {"top1": "weights", "ema_top1": "averaged weights"}, "top-1 (%)"),
    ):
        for key, name in keys.items():
            points = [(record["update"], record[key]) for record in records if key in record]
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 50 else None) if points else None
        axes.set(xlabel="update", ylabel=label)
        if axes.lines:
            axes.legend()
    figure.savefig(picture, dpi=120, metadata={"Software": None})
