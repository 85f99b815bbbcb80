"""Settings that do not exist or have the wrong type, told in a line: what was meant, and what is expected."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union

from kat_zoo._text import one_line

SHOWN = 80  # characters of a wrong value


def settings_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """The settings of a dataclass, `section.key` -> annotation; a section has one too."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        found[prefix + field.name] = hints[field.name]
        if dataclasses.is_dataclass(hints[field.name]):
            found |= settings_of(hints[field.name], f"{prefix}{field.name}.")
    return found


def check_keys(settings: Mapping[str, Any], cls: type, place: str, flags: Iterable[str] = ()) -> None:
    """Check the keys of settings that were read from a file.

    Args:
        settings: the settings, sections being mappings.
        cls: dataclass that they are for.
        flags: names of further options of the command.
        place: name of the file, for the message.

    Raises:
        ValueError: a key that does not exist, or a section that is not one.
    """
    known = settings_of(cls) | dict.fromkeys(flags, str)
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"{place}: {unknown(key, known)}")
        if not dataclasses.is_dataclass(known[key]):
            continue
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: {key}={_shown(value)}: expected a section, as {key}: {{...}}")
        for name in value:
            if f"{key}.{name}" not in known:
                raise ValueError(f"{place}: {unknown(f'{key}.{name}', known)}")


def unknown(key: str, known: Iterable[str]) -> str:
    """That a setting does not exist, and which one was perhaps meant."""
    known = list(known)
    section, _, name = key.rpartition(".")
    same = [one for one in known if one.rpartition(".")[2] == name]
    siblings = [one for one in known if one.rpartition(".")[0] == section]
    near = same or difflib.get_close_matches(key, known, 3, 0.75)
    advice = did_you_mean(near) if near else f"there are {', '.join(siblings)}" if siblings else "see --help"
    return f"there is not a setting {key[:SHOWN]}; {advice}"


def did_you_mean(names: Sequence[str]) -> str:
    """A question with one name or more."""
    return f"did you mean {', '.join(names[:-1])}{' or ' if len(names) > 1 else ''}{names[-1]}?"


def explain(message: str, cls: type, files: Sequence[str] = ()) -> str:
    """A message of jsonargparse without the types of Python.

    Args:
        message: its message.
        cls: dataclass that was to be filled.
        files: files that were read for it.
    """
    known = settings_of(cls)
    wrong = re.search(r'Parser key "([\w.]+)": ', message)
    if wrong and wrong[1] in known:
        value = re.search(r"(?:Got value|Given value): (.*)", message, re.DOTALL) or re.search(r"base 10: '(.*)'", message)
        return f"{wrong[1]}{f'={_shown(value[1])}' if value else ''}: expected {describe(known[wrong[1]])}"
    stray = re.match(r"unrecognized arguments: (\S+)", message)
    if stray:
        option = stray[1].partition("=")[0]
        if not option.startswith("--"):
            return f"{stray[1][:SHOWN]}: expected options such as --seed 0"
        return f"{option}: {unknown(option[2:], known)}"
    lacking = re.match(r"the following arguments are required: (\w+)", message)
    if lacking and files:
        return f"--{lacking[1]} is needed: {' and '.join(files)} {'do' if len(files) > 1 else 'does'} not have {lacking[1]}"
    if lacking and lacking[1] == "output":
        return "--output is needed, a run folder, or --config with a recipe, which has one (`kat-zoo recipes` lists them)"
    if lacking:
        return f"--{lacking[1]} is needed (see --help)"
    if message.startswith("Unexpected config:"):  # of a file with one key and no value
        return "--config: expected a file of settings, as `seed: 0`"
    return one_line(message)[:300]


def describe(hint: Any) -> str:
    """An annotation in words."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = [describe(part) for part in arguments if part is not type(None)]
        return " or ".join([*parts, *(["null"] if type(None) in arguments else [])])
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(hint) is tuple:
        count = "" if Ellipsis in arguments else f"{len(arguments)} "
        noun = {float: "numbers", int: "integers", str: "names"}.get(arguments[0], "values")
        return f"a list of {count}{noun} in brackets"
    if hint is dict or typing.get_origin(hint) is dict:
        return "settings, as {key: value}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, "a section" if dataclasses.is_dataclass(hint) else "another value")


def _shown(value: Any) -> str:
    text = one_line(value)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
