"""The zoo: every registered model with its size, its weights and its results; `kat-zoo list`.

The figures of authors and our own are kept apart, in `kat_zoo/weights/results.json`.
"""

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .. import kernels as kernels
from .. import models as models
from ..kernels.flops import OPERATOR_FLOPS
from ..layers import KANLinear
from ..models._pretrained import require_model
from .facts import DERIVED

RESULTS = Path(__file__).parent.parent / "weights" / "results.json"
PREFIX = f"{models.__name__}."


@dataclass(frozen=True)
class Result:
    """A measured or reported figure.

    Attributes:
        dataset: name of the data set, a key of `facts.DATASETS` where the card says more of it.
        split: split of the data set.
        top1: percent.
        source: "ours", or "authors" for a figure of the model's authors.
        url: page that reports it, or the file that holds it.
        command: reproduces it, for our own.
        seeds: top-1 of the runs of all seeds, in percent, for weights that are the best of them.
    """

    dataset: str
    split: str
    top1: float
    source: str
    url: str
    command: str = ""
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Size:
    """The cost of a model on one image.

    Attributes:
        params: number of parameters.
        gmacs: 1e9 multiply-adds outside attention's products: linear layers, convolutions, learned activations; as the
            tables of KAT's paper and of timm count.
        attention_gmacs: 1e9 multiply-adds of the products inside attention, learned or softmax.
        activations: elements of the outputs of linear layers and convolutions.
        num_features: width of the embedding.
    """

    params: int
    gmacs: float
    attention_gmacs: float
    activations: int
    num_features: int


@dataclass(frozen=True)
class Entry:
    """A registered model, with a tag if it has weights.

    Attributes:
        name: name for `timm.create_model`.
        size: its cost, at `input_size`.
        input_size: (channels, height, width).
        num_classes: number of classes of the weights.
        weights: "package", "hub:" and the repository, or "none".
        license: license of the weights.
        results: figures of the weights.
    """

    name: str
    size: Size
    input_size: tuple[int, int, int]
    num_classes: int
    weights: str
    license: str
    results: tuple[Result, ...]


def measure(model: nn.Module, input_size: Sequence[int]) -> Size:
    """Count what one image costs, without computing it.

    Args:
        model: model on the meta device.
        input_size: (channels, height, width).

    Returns:
        The counts.
    """
    outputs: list[int] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.append(output.numel())

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, KANLinear))]
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=OPERATOR_FLOPS) as counter:
        model.eval()(torch.empty(1, *input_size, device="meta"))
    for hook in hooks:
        hook.remove()
    flops = {str(op): value for op, value in counter.get_flop_counts()["Global"].items()}
    inside = sum(value for op, value in flops.items() if "attention" in op or "bmm" in op)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Size(params, (sum(flops.values()) - inside) / 2e9, inside / 2e9, sum(outputs), int(model.num_features))  # type: ignore[arg-type]


@cache
def _size(name: str, num_classes: int, input_size: tuple[int, int, int]) -> Size:
    return measure(timm.create_model(name, num_classes=num_classes, device="meta"), input_size)


def names() -> list[str]:
    """All models of the zoo: `architecture.tag` where there are weights, else the architecture."""
    found = []
    for architecture in timm.list_models():
        if not timm.model_entrypoint(architecture).__module__.startswith(PREFIX):
            continue
        tags = timm.list_pretrained(f"{architecture}.*")
        found += tags or [architecture]
    return [name for name in found if not name.startswith("test_")]


@cache
def load_results() -> dict[str, tuple[Result, ...]]:
    """The figures of all weights, by `architecture.tag`."""
    known: dict[str, list[dict[str, Any]]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {name: tuple(Result(**{**row, "seeds": tuple(row.get("seeds", ()))}) for row in rows) for name, rows in known.items()}


@cache
def entry(name: str) -> Entry:
    """Look up one model.

    Args:
        name: `architecture.tag`, or an architecture.

    Raises:
        ValueError: not in the zoo.
    """
    require_model(name)
    cfg = get_pretrained_cfg(name)
    if cfg is None:
        raise ValueError(f"model={name!r}: expected a model that has a configuration; `kat-zoo list` prints the names")
    has_file = cfg.file is not None and Path(cfg.file).is_file()
    weights = "package" if has_file else f"hub:{cfg.hf_hub_id}" if cfg.hf_hub_id else "none"
    size = _size(name, cfg.num_classes, tuple(cfg.input_size))
    known = load_results().get(name, ()) if weights != "none" else ()
    return Entry(name, size, cfg.input_size, cfg.num_classes, weights, cfg.license or "", known)


def select(pattern: str = "") -> list[Entry]:
    """Entries whose name contains `pattern`, or matches it if it has wildcards."""
    return [entry(name) for name in names() if fnmatch.fnmatch(name, pattern if "*" in pattern else f"*{pattern}*")]


HEADER = ("model", "params (M)", "GMACs", "in attention", "input", "weights", "top-1 (%)", "source", "license")


def row(item: Entry) -> tuple[str, ...]:
    """An entry's cells, in the order of HEADER."""
    size = item.size
    best = item.results[0] if item.results else None
    return (
        item.name,
        f"{size.params / 1e6:.2f}",
        f"{size.gmacs:#.3g}",
        f"{size.attention_gmacs:#.3g}",
        "x".join(map(str, item.input_size)),
        item.weights,
        f"{best.top1:.1f} {best.dataset}" if best else "",
        best.source if best else "",
        item.license if item.weights != "none" else "",
    )


def markdown(entries: Sequence[Entry]) -> str:
    """The entries as a Markdown table; docs/models.md contains this table."""
    lines = [HEADER, ("---",) * len(HEADER), *(row(item) for item in entries)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(entries: Sequence[Entry]) -> str:
    """The entries in columns, for a terminal."""
    lines = [HEADER, *(row(item) for item in entries)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = {1, 2, 3}
    return "".join(
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip() + "\n"
        for line in lines
    )


def shipped_models() -> list[str]:
    """Names (architecture.tag) of the registered models whose weights are files of the package, each file once."""
    files = ((name, getattr(get_pretrained_cfg(name), "file", None)) for name in timm.list_pretrained() if name not in DERIVED)
    return [name for name, file in files if file and Path(file).exists()]
