"""The `kat-zoo` command: a table of subcommands, each imported only when it is called."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

# name -> ("module:function", help). The function takes the remaining arguments and returns an exit code or None.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("kat_zoo.hub.registry:main", "the models: size, weights, results"),
    "demo": ("kat_zoo.cli.demo:main", "classify the shipped images with the shipped weights"),
    "predict": ("kat_zoo.cli.predict:main", "classify image files, or draw objects or regions found in them"),
    "scenes": ("kat_zoo.train.scenes:main", "compose scenes of Fashion-MNIST items as COCO and ADE20K data"),
    "train": ("kat_zoo.train.tasks:train_main", "train a classifier, detector or segmentation model from a recipe"),
    "plan": ("kat_zoo.train.planning.plan:main", "what a recipe needs: parameters, FLOPs, memory, batch that fits, updates, time"),
    "validate": ("kat_zoo.train.tasks:validate_main", "evaluate weights on a dataset's test split"),
    "analyze": ("kat_zoo.train.classification.analyze:main", "pictures of finished runs: landscape, spectra, attention maps, ..."),
    "bench": ("kat_zoo.cli.bench:main", "time the activation and KAT against GELU, a device copy and timm's ViT"),
    "export": ("kat_zoo.cli.export:main", "write a model as ONNX, torch.export program or AOTInductor package"),
    "push": ("kat_zoo.hub.sync:push_main", "upload a training run to the Hugging Face Hub"),
    "pull": ("kat_zoo.hub.sync:pull_main", "download a model from the Hugging Face Hub"),
    "convert": ("kat_zoo.hub.conversion:convert_main", "turn a checkpoint into safetensors and a config.json"),
    "cards": ("kat_zoo.hub.cards:main", "write the model cards, or check that they are current"),
    "kernels": ("kat_zoo.kernels.command:main", "report on the compiled GPU kernels (no GPU needed)"),
    "formula": ("kat_zoo.kan.command:main", "find a formula for a column of a CSV file"),
}

LEVELS = ("debug", "info", "warning", "error", "critical")

EXTRAS = "install what the command needs: pip install 'kat_zoo[all]'"

logger = logging.getLogger("kat_zoo")


def _help() -> str:
    width = max((len(name) for name in COMMANDS), default=0)
    rows = (f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return "\n".join(["usage: kat-zoo COMMAND [arguments]   (kat-zoo COMMAND --help for each)", "", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments without the program's name; sys.argv by default.

    Returns:
        Exit code: 0, or 2 after bad input, which is reported in one line on standard error. KAT_ZOO_LOG in the environment
        is the level of the log, warning by default; debug adds the traceback.
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
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"kat-zoo: unknown command {name!r}: expected one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module, function = COMMANDS[name][0].split(":")
    try:
        return getattr(importlib.import_module(module), function)(rest) or 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        logger.debug("kat-zoo %s failed", name, exc_info=True)
        advice = "" if not isinstance(error, ModuleNotFoundError) or "pip install" in str(error) else f" ({EXTRAS})"
        print(f"kat-zoo {name}: {' '.join(str(error).split()) or type(error).__name__}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"kat-zoo {name}: interrupted", file=sys.stderr)
        return 130
