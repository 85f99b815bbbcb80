"""Command-line parsing whose errors are exceptions, so that the command reports every bad input in one line."""

import argparse
from typing import NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser; `error` raises ValueError instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message and where to read more."""
        raise ValueError(f"{message} (see {self.prog} --help)")
