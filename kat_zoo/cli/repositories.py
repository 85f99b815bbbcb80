"""`kat-zoo list`, `push`, `pull`, `convert` and `cards`: the commands around the registry and the Hub."""

import argparse
import dataclasses
import json

from .. import models as zoo_models  # noqa: F401  (registers the models)
from ..hub import cards as model_cards
from ..hub import conversion, registry, sync


def list_models(options: argparse.Namespace) -> None:
    """Print the models, their sizes, weights and results.

    Raises:
        ValueError: nothing matches the filter.
    """
    entries = registry.select(options.filter)
    if not entries:
        raise ValueError(f"no model matches {options.filter!r}; kat-zoo list shows all")
    if options.format == "json":
        print(json.dumps([dataclasses.asdict(item) for item in entries], indent=2))
    else:
        print({"markdown": registry.markdown, "table": registry.table}[options.format](entries), end="")


def push(options: argparse.Namespace) -> None:
    """Upload a run, and say which files."""
    arguments = vars(options)
    arguments["create_pr"] = arguments.pop("pr")
    done = sync.push(arguments.pop("run"), arguments.pop("repo"), **arguments)
    for name, size in done.files.items():
        print(f"  {name:<20} {size:>12,} bytes")
    state = "dry run, nothing uploaded" if done.commit is None else "uploaded" if done.changed else "already up to date"
    print(f"{state}: {done.url}")


def pull(options: argparse.Namespace) -> None:
    """Download a repository, and say how to load it."""
    folder = sync.pull(options.repo, options.folder, revision=options.revision)
    print(f'{folder}: timm.create_model("local-dir:{folder}", pretrained=True) loads it')


def convert(options: argparse.Namespace) -> None:
    """Convert a checkpoint, and say how to load it."""
    folder = conversion.convert(options.checkpoint, options.model, options.folder, options.num_classes)
    print(f'{folder}: timm.create_model("local-dir:{folder}", pretrained=True) loads it')


def cards(options: argparse.Namespace) -> None:
    """Write the model cards, or check them.

    Raises:
        ValueError: with `--check`, if a card is stale.
    """
    changed = model_cards.stale(options.out)
    if options.check and changed:
        raise ValueError(f"stale model cards in {options.out}: {', '.join(changed)}; run kat-zoo cards")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in changed:
        path = options.out / name
        if path.stem in model_cards.published():
            path.write_text(model_cards.render(registry.entry(path.stem)), encoding="utf-8")
            print(path)
        else:
            print(f"{path} belongs to no model with weights: delete it")
