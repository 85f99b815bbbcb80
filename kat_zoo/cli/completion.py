"""`kat-zoo completion`: a script that lets bash, zsh or fish complete commands, options, their choices, and the keys and names of recipes.

The script holds all words, so that completing starts no Python.
"""

import argparse
import ast
import shlex
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from . import parsers
from .main import COMMANDS

Choices = dict[str, tuple[str, ...]]  # option -> its choices; none where they are not known

# Modules of commands that take seconds to import: their options are read from the source.
SOURCES = {
    "analyze": ("kat_zoo.train.classification.analyze",),
    "formula": ("kat_zoo.kan.command",),
    "plan": ("kat_zoo.train.planning.plan",),
    "predict": ("kat_zoo.train.detection.predict",),
    "validate": tuple(f"kat_zoo.train.{name}" for name in ("classification.evaluate", "detection.validate", "segmentation.validate")),
    "kernels": ("kat_zoo.kernels.report", "kat_zoo.kernels.hub_export"),
    "recipes": ("kat_zoo.train.recipes",),
    "scenes": ("kat_zoo.train.scenes",),
}


@dataclass(frozen=True)
class Words:
    """The words that may follow a command.

    Attributes:
        text: line of the help.
        options: choices of each option.
        names: words that may stand for themselves.
    """

    text: str
    options: Choices = field(default_factory=dict)
    names: tuple[str, ...] = ()


def words() -> dict[str, Words]:
    """The words of every command, by its name."""
    return {name: _words(name, command.text, command.parser) for name, command in COMMANDS.items()}


def _words(name: str, text: str, parser: str) -> Words:
    own = _read_options(name) if name in SOURCES else {}
    if name in ("train", "check-data", "plan", "validate"):
        return Words(text, _settings(name) | own)
    if not parser and hasattr(parsers, name):
        parser = name
    if not parser:
        return Words(text, own, _read_subcommands() if name == "kernels" else ())
    actions = getattr(parsers, parser)()._actions
    choices = [(option, action.choices or ()) for action in actions for option in action.option_strings]
    options = {option: tuple(map(str, values)) for option, values in choices if option.startswith("--")}
    names = tuple(str(choice) for action in actions if not action.option_strings for choice in action.choices or ())
    return Words(text, options | own, names)


def _settings(command: str) -> Choices:
    """The options of a command that takes recipes: the settings of all tasks, and the names of the packaged recipes."""
    from kat_zoo.train.classification.recipe import Recipe
    from kat_zoo.train.core.config import RECIPES
    from kat_zoo.train.core.explain import settings_of
    from kat_zoo.train.detection.recipe import DetectionRecipe
    from kat_zoo.train.segmentation.recipe import SegmentationRecipe

    options: Choices = {"--config": tuple(sorted(path.stem for path in RECIPES.glob("*.yaml"))), "--help": ()}
    if command == "train":
        options |= {"--resume": ("no", "auto"), "--dry-run": ()}
    for recipe in (Recipe, DetectionRecipe, SegmentationRecipe):
        for key, hint in settings_of(recipe).items():
            choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ("true", "false") if hint is bool else ()
            options[f"--{key}"] = tuple(dict.fromkeys((*options.get(f"--{key}", ()), *map(str, choices))))
    return options


def _source(module: str) -> ast.Module:
    """The source of a module, which is not imported, nor is anything below the packages of `kat_zoo`."""
    package, *names = module.split(".")[1:]
    spec = find_spec(f"kat_zoo.{package}")
    assert spec is not None and spec.submodule_search_locations is not None
    return ast.parse(Path(spec.submodule_search_locations[0], *names).with_suffix(".py").read_text(encoding="utf-8"))


def _read_options(command: str) -> Choices:
    """The options that a command adds to a parser, or the fields of its settings: a class named ...Config, or Machine."""
    options: Choices = {"--help": ()}
    for node in (node for module in SOURCES[command] for node in ast.walk(_source(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            choices = [keyword.value for keyword in node.keywords if keyword.arg == "choices" and isinstance(keyword.value, ast.Tuple)]
            values = tuple(str(ast.literal_eval(choice)) for choice in (choices[0].elts if choices else ()))
            options |= {name: values for name in map(ast.literal_eval, node.args) if name.startswith("--")}
        elif isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Machine")):
            fields = [line.target.id for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
            options |= {f"--{field.replace('_', '-') if node.name == 'Machine' else field}": () for field in fields}
    return options


def _read_subcommands() -> tuple[str, ...]:
    """The subcommands of `kat-zoo kernels`."""
    tables = (node for node in _source("kat_zoo.kernels.command").body if isinstance(node, ast.Assign))
    return tuple(next(ast.literal_eval(node.value) for node in tables if ast.unparse(node.targets[0]) == "SUBCOMMANDS"))


def bash(commands: Mapping[str, Words]) -> str:
    """The script for bash; other words are completed as files."""
    cases = [
        f"    {name}) options={shlex.quote(' '.join(entry.options))} names={shlex.quote(' '.join(entry.names))} ;;"
        for name, entry in commands.items()
    ]
    choices = [f"    {place}) names={shlex.quote(' '.join(values))} ;;" for place, values in _choices(commands)]
    return "\n".join(
        [
            "_kat_zoo() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" options="" names=""',
            f'  if ((COMP_CWORD == 1)); then COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word")); return; fi',
            '  case "${COMP_WORDS[1]}" in',
            *cases,
            "  esac",
            '  case "${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]}" in',
            *choices,
            "  esac",
            '  if [[ "$word" == -* ]]; then names="$options"; fi',
            '  COMPREPLY=($(compgen -W "$names" -- "$word"))',
            "}",
            "complete -o default -F _kat_zoo kat-zoo",
            "",
        ]
    )


def zsh(commands: Mapping[str, Words]) -> str:
    """The script for zsh; other words are completed as files."""
    described = " ".join(shlex.quote(f"{name}:{entry.text}") for name, entry in commands.items())
    cases = [f"    {name}) options=({' '.join((*entry.options, *entry.names))}) ;;" for name, entry in commands.items()]
    choices = [f"    {place}) compadd -- {' '.join(values)} ;|" for place, values in _choices(commands)]
    return "\n".join(
        [
            "#compdef kat-zoo",
            "_kat_zoo() {",
            "  local -a commands options; local command=$words[2] before=$words[CURRENT-1] word=$words[CURRENT]",
            f"  commands=({described})",
            "  if ((CURRENT == 2)); then _describe command commands; return; fi",
            '  case "$command $before" in',
            *choices,
            "  esac",
            '  case "$command" in',
            *cases,
            "  esac",
            "  if [[ $word == -* ]]; then compadd -- $options; else _files; fi",
            "}",
            "compdef _kat_zoo kat-zoo",
            "",
        ]
    )


def fish(commands: Mapping[str, Words]) -> str:
    """The script for fish."""
    lines = []
    for name, entry in commands.items():
        lines.append(f"complete -c kat-zoo -n __fish_use_subcommand -f -a {name} -d {shlex.quote(entry.text)}")
        inside = f"complete -c kat-zoo -n '__fish_seen_subcommand_from {name}'"
        for option, values in entry.options.items():
            lines.append(f"{inside} -l {option[2:]}" + (f" -x -a {shlex.quote(' '.join(values))}" if values else ""))
        if entry.names:
            lines.append(f"{inside} -a {shlex.quote(' '.join(entry.names))}")
    return "\n".join([*lines, ""])


def _choices(commands: Mapping[str, Words]) -> list[tuple[str, tuple[str, ...]]]:
    """A pattern of `case` for a command and the option before the word, and the choices of the option."""
    return [(f"{name}\\ {option}", values) for name, entry in commands.items() for option, values in entry.options.items() if values]


def run(options: argparse.Namespace) -> None:
    """Print the script of a shell."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](words()), end="")
