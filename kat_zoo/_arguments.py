"""Command-line parsing whose errors are exceptions, so that the command reports every bad input in one line."""

import argparse
import os
from pathlib import Path
from typing import NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser; `error` raises ValueError instead of printing the usage."""

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
