"""Arguments that the builders hand on to classes of others, some of which take any name in silence."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

PARTS = {"backbone", "encoder", "pyramid", "num_classes", "args", "kwargs"}  # what the builders give themselves


class UnknownArgument(ValueError):
    """Nothing takes an argument of that name.

    Args:
        argument: name of the argument.
        message: message in one line.
    """

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


def check_arguments(given: Mapping[str, Any], *takers: Callable[..., Any]) -> None:
    """Refuse arguments that are unknown.

    Args:
        given: arguments by name.
        *takers: classes that take them; the first is named in the message.

    Raises:
        UnknownArgument: an argument that none of them has, with the one that was perhaps meant.
    """
    known = sorted({name for taker in takers for name in inspect.signature(taker).parameters} - PARTS)
    for name, value in given.items():
        if name not in known and name != "_skip_resize":  # torchvision's, which is not in a signature
            near = get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UnknownArgument(name, f"{name}={value!r}: expected an argument of {takers[0].__name__}; {advice}")
