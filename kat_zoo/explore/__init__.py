"""`kat-zoo explore`: a page in the browser from a table to a formula, by clicks, and the core behind it that needs no browser."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .command import explore as explore
    from .examples import example_table as example_table
    from .session import Session as Session
    from .tables import Table as Table
    from .tables import parse_table as parse_table
    from .tables import read_table as read_table

__all__ = ["Session", "Table", "example_table", "explore", "parse_table", "read_table"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Session": "session",
        "Table": "tables",
        "example_table": "examples",
        "explore": "command",
        "parse_table": "tables",
        "read_table": "tables",
    },
    extra="explore",
)
