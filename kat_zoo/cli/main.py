"""The `kat-zoo` command: a table of subcommands, each imported only when it is called with arguments that can be read."""

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .._text import one_line
from . import parsers


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        target: "module:function"; the function takes the parsed arguments where `parsers` has a function of the name `parser`, else the
            arguments as they are, and returns an exit code or None.
        text: one line for the help.
        parser: name of a function of `parsers`; empty for a command that parses by itself.
    """

    target: str
    text: str
    parser: str = ""


USERS = {
    "list": Command("kat_zoo.cli.repositories:list_models", "the models: size, weights, results", "list_models"),
    "demo": Command("kat_zoo.cli.demo:run", "classify the shipped images with the shipped weights", "demo"),
    "predict": Command("kat_zoo.cli.predict:main", "classify image files, or draw objects or regions found in them"),
    "train": Command("kat_zoo.train.tasks:train_main", "train a classifier, detector or segmentation model from a recipe"),
    "recipes": Command("kat_zoo.train.recipes:main", "the recipes of the package: task, data, expected accuracy, hours"),
    "check-data": Command("kat_zoo.train.check_data:main", "read your own data once, and say what is wrong with it"),
    "plan": Command("kat_zoo.train.planning.plan:main", "what a recipe needs: parameters, FLOPs, memory, batch that fits, updates, time"),
    "validate": Command("kat_zoo.train.tasks:validate_main", "evaluate a run, or weights on a dataset's test split"),
    "analyze": Command("kat_zoo.train.classification.analyze:main", "pictures of finished runs: landscape, spectra, attention maps, ..."),
    "export": Command("kat_zoo.cli.export:run", "write a model as ONNX, torch.export program or AOTInductor package", "export"),
    "push": Command("kat_zoo.cli.repositories:push", "upload a training run to the Hugging Face Hub", "push"),
    "pull": Command("kat_zoo.cli.repositories:pull", "download a model from the Hugging Face Hub", "pull"),
    "convert": Command("kat_zoo.cli.repositories:convert", "turn a checkpoint into safetensors and a config.json", "convert"),
    "env": Command("kat_zoo.cli.env:run", "versions, device and kernels, for a report of a bug", "env"),
    "completion": Command("kat_zoo.cli.completion:run", "a script that completes this command in bash, zsh or fish", "completion"),
    "formula": Command("kat_zoo.kan.command:main", "find a formula for a column of a CSV file"),
    "explore": Command("kat_zoo.explore.command:run", "a page in the browser: train and prune a KAN, read its formula", "explore"),
}
MAINTAINERS = {
    "bench": Command("kat_zoo.cli.bench:run", "time kernels and models on a GPU beside PyTorch's and timm's", "bench"),
    "cards": Command("kat_zoo.cli.repositories:cards", "write the model cards, or check that they are current", "cards"),
    "kernels": Command("kat_zoo.kernels.command:main", "report on the compiled GPU kernels (no GPU needed)"),
    "scenes": Command("kat_zoo.train.scenes:main", "compose scenes of Fashion-MNIST items as COCO and ADE20K data"),
}
COMMANDS = USERS | MAINTAINERS

LEVELS = ("debug", "info", "warning", "error", "critical")

EXTRAS = "install what the command needs: pip install 'kat_zoo[all]'"

logger = logging.getLogger("kat_zoo")


def _help() -> str:
    width = max(map(len, COMMANDS))
    groups = (("", USERS), ("for those who work on kat_zoo itself:", MAINTAINERS))
    lines = ["usage: kat-zoo COMMAND [arguments]   (kat-zoo COMMAND --help for each; kat-zoo --version)"]
    for title, commands in groups:
        lines += ["", *filter(None, [title]), *(f"  {name:<{width}}  {command.text}" for name, command in commands.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments without the program's name; sys.argv by default.

    Returns:
        Exit code: 0, 2 after bad input or 1 where memory ran out, which are reported in one line on standard error. KAT_ZOO_LOG in
        the environment is the level of the log, warning by default; debug adds the traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    level = os.environ.get("KAT_ZOO_LOG", "warning")
    if level.lower() not in LEVELS:
        print(f"kat-zoo: KAT_ZOO_LOG={level!r} in the environment: expected one of {', '.join(LEVELS)}", file=sys.stderr)
        return 2
    handler = logging.StreamHandler()  # of our logger alone: the libraries we use print their own messages
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        return _run(arguments)
    finally:
        logger.removeHandler(handler)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"kat_zoo {version('kat_zoo')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(COMMANDS)}"
        print(f"kat-zoo: unknown command {name!r}: {advice}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    module, function = command.target.split(":")
    try:
        given = getattr(parsers, command.parser)().parse_args(rest) if command.parser else rest
        return getattr(importlib.import_module(module), function)(given) or 0
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        logger.debug("kat-zoo %s failed", name, exc_info=True)
        advice = "" if not isinstance(error, ModuleNotFoundError) or "pip install" in str(error) else f" ({EXTRAS})"
        print(f"kat-zoo {name}: {' '.join(str(error).split()) or type(error).__name__}{advice}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        logger.debug("kat-zoo %s failed", name, exc_info=True)
        text = one_line(error)[:150]
        print(f"kat-zoo {name}: out of memory: smaller batches, images or models need less ({text})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kat-zoo {name}: interrupted", file=sys.stderr)
        return 130


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python's, or torch's of a GPU or of a CPU, which does not have a class of its own."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
