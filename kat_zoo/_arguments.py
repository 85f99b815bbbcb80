"""Command-line parsing whose errors are exceptions, so that the command reports every bad input in one line."""

import argparse
import difflib
import os
from pathlib import Path
from typing import Any, NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser; `error` raises ValueError instead of printing the usage."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """As argparse's, but an option that is not known is answered with the one that may have been meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{f'; did you mean {close[0]}?' if close else ''}")
        return options

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message and where to read more."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def require_writable(option: str, path: Path | None) -> None:
    """Check that a file can be written, before the work whose result it gets.

    Args:
        option: name of the argument, for the message.
        path: the file; None is not checked.

    Raises:
        ValueError: the folder is missing, or the path is one.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option} {path}: expected a file, this is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{option} {path}: no permission to write there")
