"""Text of messages."""

import os
from pathlib import Path


def one_line(error: object) -> str:
    """Return the text of an error, or of anything else, on one line; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(path: str | Path) -> str:
    """The text of a path, or of a message with one; bytes of a name that are not text, as Linux allows, become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")
