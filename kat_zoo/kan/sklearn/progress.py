"""The live table of a search: the least error at each length."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..search.judge import Form
from ..search.tree import size

LINES = 12  # rows that are shown, the longest forms that earn theirs
PER_SECOND = 4  # renewals of the table


class _Progress:
    """Errors by length, and the table that shows them."""

    def __init__(self, seconds: float | None) -> None:
        self.began, self.seconds = time.monotonic(), seconds
        self.least: dict[int, float] = {}

    def report(self, form: Form) -> None:
        """Take note of a form."""
        length = round(size(form.tree))
        if form.error < self.least.get(length, float("inf")):
            self.least[length] = form.error

    def front(self) -> list[tuple[int, float]]:
        """Lengths and errors that no shorter form reaches."""
        rows: list[tuple[int, float]] = []
        for length, error in sorted(self.least.copy().items()):
            if not rows or error < rows[-1][1]:
                rows.append((length, error))
        return rows

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        passed = time.monotonic() - self.began
        left = "Ctrl-C ends it" if self.seconds is None else f"{max(self.seconds - passed, 0):.0f} s left at most"
        table = Table()
        table.add_column("length", justify="right")
        table.add_column("least relative error", justify="right")
        for length, error in self.front()[-LINES:]:
            table.add_row(str(length), f"{error:.2e}")
        return Group(f"formula search: {passed:.0f} s, {left}", table)


@contextlib.contextmanager
def live_table(shown: bool, seconds: float | None) -> Iterator[Callable[[Form], None] | None]:
    """Show the progress of a search on standard error, rewritten in place, if that is a terminal.

    Args:
        shown: whether it is wanted.
        seconds: time limit of the search; None for no limit.

    Yields:
        Function that takes every form, or None where nothing is shown.
    """
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    progress = _Progress(seconds)
    with Live(progress, console=Console(stderr=True), refresh_per_second=PER_SECOND, transient=True):
        yield progress.report
