"""The JSONL log of a run: one record a line, cut back to the checkpoint when a run is continued."""

import json
from pathlib import Path
from typing import Any

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
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
