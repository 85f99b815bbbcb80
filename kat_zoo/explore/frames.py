"""Messages between the server and its worker processes: a head of two lengths, JSON, and bytes."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

from .figures import known

HEAD = struct.Struct(">II")
Message = dict[str, Any]


def pack(message: Message, blob: bytes = b"") -> bytes:
    """One message as bytes; a NaN or infinity in it, which JSON does not have and the page could not read, becomes null."""
    try:
        text = json.dumps(message, allow_nan=False).encode()
    except ValueError:  # seldom, so that only then all of it is gone through
        text = json.dumps(known(message), allow_nan=False).encode()
    return HEAD.pack(len(text), len(blob)) + text + blob


def unpack(text: bytes) -> Message:
    """The JSON part of a message."""
    message: Message = json.loads(text)
    return message


def read(stream: IO[bytes]) -> tuple[Message, bytes]:
    """Wait for the next message of a stream.

    Raises:
        EOFError: the stream has ended.
    """
    head = _exactly(stream, HEAD.size)
    text, blob = HEAD.unpack(head)
    return unpack(_exactly(stream, text)), _exactly(stream, blob)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
