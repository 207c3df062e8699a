"""One line of the evidence log: a number, a time, a kind, a body, the hash before, its own hash.

    {"seq":7,"at_s":1764000000.5,"kind":"meter","body":{…},"prev":"…","hash":"…"}

`hash` is the SHA-256 of the line's own bytes before `,"hash":`, and `prev` the hash of the line
before it, so that every byte is covered as it stands in the file and no spelling of JSON matters.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from wattshift_cluster.errors import WattshiftError

FIRST = "0" * 64
"""`prev` of the first line of all."""

LINE_BYTES_MOST = 1 << 20
"""A longer line is not written: it would be a mistake, and a reader must not be made to hold it."""

FIELDS = ("seq", "at_s", "kind", "body", "prev")
_MARK = b',"hash":"'
_END = b'"}\n'
_TAIL = len(_MARK) + 64 + len(_END)


class Kind(StrEnum):
    """What a line tells."""

    OPENED = "opened"
    TERMS = "terms"
    METER = "meter"
    CAP = "cap"
    EVENT = "event"
    DECISION = "decision"
    PLAN = "plan"
    DEVICES = "devices"
    TENANTS = "tenants"
    GAP = "gap"
    CLOCK = "clock"
    DROPPED = "dropped"
    RECOVERED = "recovered"
    PUT_AWAY = "put_away"
    CHECKPOINT = "checkpoint"


class LineInvalid(WattshiftError):
    """Bytes that are no line of the log; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as read: `hash` was checked against its bytes, `prev` not yet against another line."""

    seq: int
    at_s: float
    kind: Kind
    body: Mapping[str, Any]
    prev: str
    hash: str


def written(seq: int, at_s: float, kind: Kind, body: Mapping[str, Any], prev: str) -> bytes:
    """The bytes of a line with its newline. Raises: ValueError, TypeError: no JSON, or too long."""
    row = {"seq": seq, "at_s": float(at_s), "kind": str(kind), "body": body, "prev": prev}
    head = json.dumps(row, separators=(",", ":"), allow_nan=False)[:-1].encode()
    if len(head) + _TAIL > LINE_BYTES_MOST:
        raise ValueError(f"a line of {len(head) + _TAIL} bytes, more than {LINE_BYTES_MOST}")
    return head + _MARK + hashlib.sha256(head).hexdigest().encode() + _END


def hash_of(line: bytes) -> str:
    """The hash that `written` put into a line."""
    return line[-_TAIL + len(_MARK) : -len(_END)].decode()


def parsed(line: bytes) -> Line:
    """A line from its bytes, newline included. Raises: LineInvalid."""
    if not line.endswith(b"\n"):
        raise LineInvalid("the line is torn off" if len(line) < LINE_BYTES_MOST else "too long")
    head = line[:-_TAIL]
    if line[len(head) : len(head) + len(_MARK)] != _MARK or not line.endswith(_END):
        raise LineInvalid("it does not end in a hash")
    digest = hashlib.sha256(head).hexdigest()
    if digest.encode() != line[len(head) + len(_MARK) : -len(_END)]:
        raise LineInvalid("its hash is not that of its bytes")
    try:
        row = json.loads(head + b"}")
        return _line(row, digest)
    except (ValueError, RecursionError) as fault:
        raise LineInvalid(f"it is not a line of the log: {str(fault)[:200]}") from None


def _line(row: Any, digest: str) -> Line:
    if not isinstance(row, dict) or tuple(row) != FIELDS:
        raise ValueError(f"its fields are not {', '.join(FIELDS)}")
    seq, at_s, body, prev = row["seq"], row["at_s"], row["body"], row["prev"]
    whole = isinstance(seq, int) and not isinstance(seq, bool)
    timed = isinstance(at_s, int | float) and not isinstance(at_s, bool)
    if not (whole and timed and isinstance(body, dict) and isinstance(prev, str)):
        raise ValueError("a field is not of its type")
    return Line(seq, float(at_s), Kind(row["kind"]), body, prev, digest)


def day_of(at_s: float) -> str:
    """The UTC day of a unix time, as it names the file of that day."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
