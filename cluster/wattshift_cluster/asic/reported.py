"""What a machine reported, taken apart without trust: a value of the wrong kind is unknown.

A figure that no machine can have is no figure: pyasic-style readers pass on -1, NaN or a thousand
megawatts as they come, and a controller would act on them.
"""

import math
from typing import Any

MOST_WATTS_W = 100_000.0
"""No single miner draws as much; the largest hydro models are rated below 12 kW."""

MOST_HASHRATE_H_PER_S = 1e17
"""100 PH/s; the largest models are rated below 1 PH/s."""

Json = dict[str, Any]


def number(value: object) -> float | None:
    """A reported quantity as a float; None unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) and parsed >= 0.0 else None


def watts(value: object) -> float | None:
    """A reported draw or limit, W; None where it is not a number that a miner can draw."""
    parsed = number(value)
    return parsed if parsed is not None and parsed <= MOST_WATTS_W else None


def hashes(value: object, unit_h_per_s: float) -> float | None:
    """A reported rate in hashes per second; None where it is not one that a miner can have.

    Args:
        value: as reported.
        unit_h_per_s: what 1 means, e.g. 1e9 for GH/s.
    """
    parsed = number(value)
    rate = None if parsed is None else parsed * unit_h_per_s
    return rate if rate is not None and rate <= MOST_HASHRATE_H_PER_S else None


def text(value: object, longest: int = 128) -> str | None:
    """A reported name; None unless it is a string with something in it."""
    return value.strip()[:longest] or None if isinstance(value, str) else None


def rows(reply: object, key: str) -> list[Json]:
    """The list of objects under `key`; empty where the reply does not hold one."""
    found = reply.get(key) if isinstance(reply, dict) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def first(reply: object, key: str) -> Json:
    """The first object of the list under `key`; empty where there is none."""
    return next(iter(rows(reply, key)), {})


def under(reply: object, key: str) -> Json:
    """The object under `key`; empty where there is none."""
    found = reply.get(key) if isinstance(reply, dict) else None
    return found if isinstance(found, dict) else {}
