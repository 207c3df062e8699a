"""One number out of a message: the message itself, or what a JSON pointer (RFC 6901) leads to."""

import json
import math
from datetime import datetime
from typing import Any

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DEPTH = 16
LEAST_MS = 1e11
"""Unix times from here on are in milliseconds: as seconds they lie in the year 5138."""


def parts_of(pointer: str) -> tuple[str, ...]:
    """The steps of a JSON pointer. Raises: ValueError, what is wrong with it."""
    if pointer == "":
        return ()
    if not pointer.startswith("/"):
        raise ValueError('not a JSON pointer; allowed: for example "/power/total"')
    steps = pointer[1:].split("/")
    if len(steps) > MAX_DEPTH:
        raise ValueError(f"a JSON pointer of more than {MAX_DEPTH} steps")
    if any("~" in step.replace("~0", "").replace("~1", "") for step in steps):
        raise ValueError("not a JSON pointer; a ~ in a name is written ~0, a / is written ~1")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def parse(payload: bytes) -> Any:
    """The JSON value of a message. Raises: ValueError."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message larger than {MAX_MESSAGE_BYTES} bytes")
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        pass
    try:
        return float(payload)  # +1.5 and 01.5 are no JSON, and nan is what it says
    except ValueError:
        raise ValueError("the message is neither JSON nor a number") from None


def number_at(message: Any, steps: tuple[str, ...]) -> float | None:
    """The number that the steps lead to; None for null, NaN for a number that is none.

    Raises:
        ValueError: nothing stands there, or something else.
    """
    found = _at(message, steps)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise ValueError(f"{_shown(steps)} is no number")
    try:
        number = float(found)
    except OverflowError:
        return math.nan
    except ValueError:
        raise ValueError(f"{_shown(steps)} is no number") from None
    return number if math.isfinite(number) else math.nan


def time_at(message: Any, steps: tuple[str, ...]) -> float:
    """Unix time, s, of a number (s or ms) or ISO 8601 text with its zone. Raises: ValueError."""
    found = _at(message, steps)
    if isinstance(found, str):
        try:
            at = datetime.fromisoformat(found)
        except ValueError:
            at = None
        if at is not None:
            if at.tzinfo is None:
                raise ValueError(f"{_shown(steps)} is a time without a zone")
            return at.timestamp()
    at_s = number_at(message, steps)
    if at_s is None or math.isnan(at_s):
        raise ValueError(f"{_shown(steps)} is no time")
    return at_s / 1000.0 if at_s >= LEAST_MS else at_s


def _at(message: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if isinstance(message, dict) and step in message:
            message = message[step]
        elif isinstance(message, list) and step.isascii() and step.isdigit():
            at = int(step) if len(step) < 6 else len(message)
            if at >= len(message):
                raise ValueError(f"nothing at {_shown(steps)}")
            message = message[at]
        else:
            raise ValueError(f"nothing at {_shown(steps)}")
    return message


def _shown(steps: tuple[str, ...]) -> str:
    return "/" + "/".join(steps)[:80] if steps else "the message"
