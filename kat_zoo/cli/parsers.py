"""The arguments of the commands, read before anything heavy is imported: help and mistakes are answered at once."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from .._arguments import ArgumentParser
from .._checks import MOST_PORT

BENCH_PARTS = ("ceilings", "rational", "attention", "splines", "models")
FORMATS = ("onnx", "pt2", "aoti")


def list_models() -> ArgumentParser:
    """`kat-zoo list`."""
    parser = ArgumentParser(prog="kat-zoo list", description="The models: sizes, weights and results; of authors and our own, apart.")
    parser.add_argument("filter", nargs="?", default="", help="part of a name, or a pattern with *")
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table", help="default: %(default)s")
    return parser


def demo() -> ArgumentParser:
    """`kat-zoo demo`."""
    parser = ArgumentParser(prog="kat-zoo demo", description="The shipped weights classify the shipped images.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures (default: %(default)s)")
    return parser


def predict() -> ArgumentParser:
    """`kat-zoo predict` of classifiers; detectors and segmentation models have options of their own."""
    parser = ArgumentParser(
        prog="kat-zoo predict",
        usage="kat-zoo predict [RUN] IMAGE [IMAGE ...] [options]",
        description="Classify image files, or draw the objects or regions that a trained model finds in them.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, folders of them, or quoted patterns")
    parser.add_argument("--model", required=True, help="folder of a run (or first, before the images), timm name, or hf-hub:org/name")
    parser.add_argument("--checkpoint", help="file of weights in place of the published ones, or of those in the folder")
    parser.add_argument("--top", type=int, default=3, help="classes to show (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file for the answers, .csv or .json")
    parser.add_argument("--batch-size", type=int, default=32, help="images that are classified together (default: %(default)s)")
    parser.add_argument("--device", help="device of torch; by default cuda where there is a GPU")
    parser.add_argument("--flip", action="store_true", help="average with the answer for the mirrored image")
    parser.add_argument("--task", default="classification", help="options of another task: kat-zoo predict --task detection --help")
    return parser


def export() -> ArgumentParser:
    """`kat-zoo export`."""
    parser = ArgumentParser(
        prog="kat-zoo export",
        description="Write a model as ONNX, as a torch.export program, or compiled ahead of time by AOTInductor; run it, and compare it.",
    )
    parser.add_argument("model", help="timm name (see kat-zoo list), folder of a run, or hf-hub:org/name")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, help="file to write; default MODEL plus the format's suffix")
    parser.add_argument("--checkpoint", type=Path, help="file of weights")
    parser.add_argument("--pretrained", action="store_true", help="load the model's published weights")
    parser.add_argument("--batch-size", type=int, help="fix the batch size; by default any batch runs")
    parser.add_argument("--repeats", type=int, default=10, help="runs to time (default: %(default)s)")
    return parser


def push() -> ArgumentParser:
    """`kat-zoo push`."""
    parser = ArgumentParser(prog="kat-zoo push", description="Upload a run in one commit; the same content again makes none.")
    parser.add_argument("run", type=Path, help="folder of kat-zoo train or kat-zoo convert")
    parser.add_argument("--repo", required=True, help="org/name")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to commit to (made if need be)")
    parser.add_argument("--pr", action="store_true", help="open a pull request")
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded")
    parser.add_argument("--replace", action="store_true", help="overwrite a repository that holds another model")
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="default: %(default)s")
    parser.add_argument("--message", default="", help="message of the commit")
    parser.add_argument("--license", help="license of the weights, for example mit; the card names none by default")
    return parser


def pull() -> ArgumentParser:
    """`kat-zoo pull`."""
    parser = ArgumentParser(prog="kat-zoo pull", description="Download a model's repository.")
    parser.add_argument("repo", help="org/name")
    parser.add_argument("folder", nargs="?", type=Path, help="default: the name")
    parser.add_argument("--revision", help="branch, tag, commit or refs/pr/N")
    return parser


def convert() -> ArgumentParser:
    """`kat-zoo convert`."""
    parser = ArgumentParser(prog="kat-zoo convert", description="Turn a checkpoint into safetensors and a config.json.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="folder that gets model.safetensors and config.json")
    parser.add_argument("--model", required=True, help="architecture")
    parser.add_argument("--num-classes", type=int, help="default: that of the checkpoint")
    return parser


def completion() -> ArgumentParser:
    """`kat-zoo completion`."""
    parser = ArgumentParser(
        prog="kat-zoo completion",
        description='Print a script for a shell. In ~/.bashrc: eval "$(kat-zoo completion bash)". In ~/.zshrc, after compinit: '
        'eval "$(kat-zoo completion zsh)". Once: kat-zoo completion fish > ~/.config/fish/completions/kat-zoo.fish',
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def env() -> ArgumentParser:
    """`kat-zoo env`."""
    return ArgumentParser(prog="kat-zoo env", description="Versions, device and kernels, for a report of a bug.")


def explore() -> ArgumentParser:
    """`kat-zoo explore`."""
    parser = ArgumentParser(
        prog="kat-zoo explore",
        description="Open a page in the browser on which a KAN is trained, pruned and read as a formula by clicks. "
        "It is served to this machine alone, and every file stays on it.",
    )
    parser.add_argument("data", nargs="?", type=Path, help="CSV file to begin with; the page takes others")
    parser.add_argument("--target", help="column to explain (default: the last one of numbers)")
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="print the address and open nothing")
    return parser


def cards() -> ArgumentParser:
    """`kat-zoo cards`."""
    parser = ArgumentParser(prog="kat-zoo cards", description="Write the cards of the registered weights, or check that they are current.")
    parser.add_argument("--out", type=Path, default=Path("model_cards"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a card is stale")
    return parser


def bench() -> ArgumentParser:
    """`kat-zoo bench`."""
    parser = ArgumentParser(
        prog="kat-zoo bench",
        description="Time our kernels beside those of PyTorch and our models beside timm's ViT, each checked against float64 first. "
        "On a CPU, a dry run at tiny sizes.",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda where torch sees a GPU")
    parser.add_argument("--parts", type=_names(BENCH_PARTS), default=list(BENCH_PARTS), help="some of " + ",".join(BENCH_PARTS))
    parser.add_argument(
        "--seconds", type=float, default=325.0, help="time after which no figure is begun, the most important first (default: %(default)s)"
    )
    parser.add_argument("--csv", type=Path, help="file of rows, written as they come; rows that it holds are not measured again")
    parser.add_argument("--page", type=Path, help="file of the tables in Markdown, written as the rows come")
    return parser


def _port(text: str) -> int:
    """A type for argparse: a port of TCP, or 0."""
    if not text.isascii() or not text.isdigit() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: expected 0 to {MOST_PORT}")
    return int(text)


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A type for argparse: names separated by commas, each of them known."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError(f"{text!r} is empty: expected some of {', '.join(known)}")
        return names

    return parse
