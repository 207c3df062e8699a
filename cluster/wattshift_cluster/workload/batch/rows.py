"""The rows of a chunk as JSON lines: an output, or a dead letter for an item that always fails.

    {"index": 7, "output": …}
    {"index": 8, "dead": {"type": "ValueError", "message": "…"}, "attempts": 3, "item": …}

A chunk's file holds both, so that they are committed together. `results.jsonl` shows the second as
{"index": 8, "error": "ValueError: …"}; `dead_letters.jsonl` shows it with its item.
"""

import base64
import json
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

OUTPUT_BYTES_MAX = 16 << 20
ITEM_CHARS_MAX = 64 << 10
"""An item in a dead letter is cut to this; the index says where the whole of it is."""

MESSAGE_CHARS_MAX = 2000
DEAD = re.compile(rb'\{"index": \d+, "dead": ')


@dataclass(frozen=True, slots=True)
class Wrong:
    """Why an item has no output: the kind of the error, and its words."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


def wrong_of(fault: BaseException) -> Wrong:
    """An exception, in bounded words."""
    return Wrong(type(fault).__name__, str(fault)[:MESSAGE_CHARS_MAX])


def output_row(index: int, output: Any) -> bytes:
    """The row of an item that has an output.

    NumPy's arrays and numbers become lists and numbers, as does all else with a `tolist`.

    Raises:
        TypeError, ValueError: the output is no JSON, or too long.
    """
    row = encoded({"index": index, "output": output})
    if len(row) > OUTPUT_BYTES_MAX:
        raise ValueError(f"an output of {len(row)} bytes; allowed: {OUTPUT_BYTES_MAX}")
    return row


def dead_row(index: int, item: Any, wrong: Wrong, attempts: int) -> bytes:
    """The row of an item that has none."""
    try:
        text = encoded(item).decode()
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(repr(item))
    if len(text) > ITEM_CHARS_MAX:
        text = json.dumps(text[:ITEM_CHARS_MAX])
    told = json.dumps({"type": wrong.kind, "message": wrong.message})
    start = f'{{"index": {index}, "dead": {told}, "attempts": {attempts}, "item": '
    return f"{start}{text.strip()}}}\n".encode()


def is_dead(row: bytes) -> bool:
    """Whether a row is a dead letter."""
    return DEAD.match(row) is not None


def error_of(row: bytes) -> str:
    """The error of a dead row, in one line."""
    told = json.loads(row)["dead"]
    return str(Wrong(told["type"], told["message"]))


def as_result(row: bytes) -> bytes:
    """A row as `results.jsonl` shows it."""
    if not is_dead(row):
        return row
    return encoded({"index": json.loads(row)["index"], "error": error_of(row)})


def as_letter(row: bytes) -> bytes:
    """A dead row as `dead_letters.jsonl` shows it."""
    told = json.loads(row)
    return encoded(
        {
            "index": told["index"],
            "item": told["item"],
            "error": told["dead"],
            "attempts": told["attempts"],
        }
    )


def encoded(value: Any) -> bytes:
    """One line of JSON.

    Raises:
        TypeError, ValueError: it holds what JSON has no word for.
    """
    return json.dumps(value, allow_nan=False, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    """What JSON has no word for, as it is usually written."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if callable(listed := getattr(value, "tolist", None)):
        return listed()
    raise TypeError(f"a {type(value).__name__} is no JSON")
