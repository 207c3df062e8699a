"""Where the JSON is in what a machine sends, whatever its protocol; found by looking at the bytes.

So faults can change answers without any firmware's knowledge: a cgminer answer is JSON with a NUL
at its end, Whatsminer's v3 puts a 4-byte little-endian length before it, HTTP a head with a
Content-Length.
"""

import json
import random
import re
import struct
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("<I")
_CONTENT_LENGTH = re.compile(rb"(?i)(\r\ncontent-length:[ \t]*)\d+")
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One answer: `head`, `body` and `tail` as sent; `head` tells of the body's length or not."""

    head: bytes
    body: bytes
    tail: bytes

    @classmethod
    def of(cls, data: bytes) -> "Frame":
        """Take an answer apart; bytes of no known shape are all body."""
        if data.startswith(b"HTTP/"):
            head, end, body = data.partition(b"\r\n\r\n")
            return cls(head + end, body, b"")
        if len(data) > 4 and _LENGTH.unpack_from(data)[0] == len(data) - 4:
            return cls(data[:4], data[4:], b"")
        if data.endswith(b"\x00"):
            return cls(b"", data[:-1], b"\x00")
        return cls(b"", data, b"")

    def telling(self, length: int) -> bytes:
        """The head for a body of another length."""
        if self.head.startswith(b"HTTP/"):
            return _CONTENT_LENGTH.sub(rb"\g<1>%d" % length, self.head)
        return _LENGTH.pack(length) if self.head else b""


def mistyped(data: bytes, rng: random.Random) -> bytes:
    """The same answer with no number left a number; an answer that is not JSON is left alone."""
    frame = Frame.of(data)
    try:
        value = json.loads(frame.body)
    except ValueError:
        return data
    body = json.dumps(_mistyped(value, rng, MAX_DEPTH)).encode()
    return frame.telling(len(body)) + body + frame.tail


def _mistyped(value: Any, rng: random.Random, depth: int) -> Any:
    if isinstance(value, dict) and depth:
        return {name: _mistyped(inner, rng, depth - 1) for name, inner in value.items()}
    if isinstance(value, list) and depth:
        return [_mistyped(inner, rng, depth - 1) for inner in value]
    if isinstance(value, bool | int | float):
        return rng.choice((f"{value} W", [value], {"value": value}, None, str(value)))
    return value
