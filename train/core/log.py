"""The JSONL log of a run: one record a line, cut back to the checkpoint when a run is continued."""

import json
from pathlib import Path
from typing import Any

from kat_zoo._checks import is_count
from kat_zoo._text import one_line

from .checkpoint import write_atomically


class JsonlLog:
    """Appends records to a file.

    Args:
        path: the file; its folder exists.
        update: drop records after this update: they belong to work that a restart repeats.
        evaluated: drop evaluations (records without `loss`) after this update, likewise.
    """

    def __init__(self, path: Path, update: int = 0, evaluated: int = 0) -> None:
        self.path = path
        if path.exists():
            records = read_log(path)
            kept = [record for record in records if record["update"] <= (update if "loss" in record else evaluated)]
            write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it has the key `update`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:  # a full disk does not say of which file
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL log.

    Args:
        path: the file. A last line cut short by a crash is left out.

    Returns:
        The records, oldest first.

    Raises:
        ValueError: a line that is not a record; it is named.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], 1) if line]


def _record(line: str, place: str) -> dict[str, Any]:
    """The record in a line, which has the key `update`."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}, is damaged: {one_line(error)[:100]}") from error
    if not isinstance(record, dict) or not is_count(record.get("update"), 0):
        raise ValueError(f"{place}, is damaged: expected an object with the number of an update")
    return record
