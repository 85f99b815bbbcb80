"""YAML files of settings, read within bounds: a file of a stranger costs neither time nor memory, and its content is never printed."""

from pathlib import Path
from typing import Any

import yaml

BYTES, NODES, DEPTH = 1_000_000, 100_000, 50


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Args:
        path: path of the file.

    Returns:
        Its settings, plain values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, not settings, or larger or deeper than any recipe is, its aliases written out.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = file.read(BYTES + 1)
    if len(raw) > BYTES:
        raise ValueError(f"{path} has more than {BYTES:,} bytes: expected the settings of a recipe")
    try:
        text = raw.decode()
        _check_depth(text, path)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _count(node, path, {})
        settings = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: expected YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{path}{place}, is not YAML: expected lines such as `seed: 0`") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ValueError(f"{path} holds no settings: expected lines such as `seed: 0`")
    return settings


def _check_depth(text: str, path: Path) -> None:
    """Look at the nesting before anything is built, which takes a call for each level."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"{path} is nested in more than {DEPTH} levels: expected the settings of a recipe")


def _count(node: yaml.Node, path: Path, counts: dict[int, int]) -> int:
    """The number of nodes below and with this one, aliases written out; 0 in `counts` while a node is being counted."""
    if counts.get(id(node)) == 0:
        raise ValueError(f"{path} has an alias that contains itself: expected the settings of a recipe")
    if id(node) not in counts:
        counts[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        below = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
        total = 1 + sum(_count(part, path, counts) for part in below)
        if total > NODES:
            raise ValueError(f"{path} has more than {NODES:,} values, its aliases written out: expected the settings of a recipe")
        counts[id(node)] = total
    return counts[id(node)]
