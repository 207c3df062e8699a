"""The intervals of a plan put together for showing: an hour in a row, or each as it is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Row = Mapping[str, Any]

HOUR_S = 3600.0
MEANS = (
    "price_usd_per_mwh",
    "price_low_usd_per_mwh",
    "price_high_usd_per_mwh",
    "shadow_usd_per_mwh",
    "services_w",
    "services_high_w",
    "batch_w",
    "mining_w",
    "other_w",
    "solar_w",
    "site_w",
    "hold_w",
)
WORKS = (("other_w", "other"), ("services_w", "inference"), ("batch_w", "batch"),
         ("mining_w", "mining"))  # fmt: skip
"""What is drawn, from the ground up, with its name for people."""


def at_s(row: Row) -> float:
    """When a row begins, unix time, s."""
    return datetime.fromisoformat(row["starts_at"]).timestamp()


def shown(rows: Sequence[Row], step_s: float, each_s: float) -> list[dict[str, Any]]:
    """The rows, as many together as lie in `each_s` of the UTC clock."""
    if each_s <= step_s:
        return [{**row, "length_s": step_s} for row in rows]
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(math.floor(at_s(row) / each_s), []).append(row)
    return [_together(group, step_s) for group in groups.values()]


def _together(rows: Sequence[Row], step_s: float) -> dict[str, Any]:
    """Means, but the lowest cap and the highest reserve, and all that begins."""
    found: dict[str, Any] = {name: _mean(row[name] for row in rows) for name in MEANS}
    caps = [row["cap_w"] for row in rows if row["cap_w"] is not None]
    return found | {
        "starts_at": rows[0]["starts_at"],
        "length_s": step_s * len(rows),
        "price_published": all(row["price_published"] for row in rows),
        "cap_w": min(caps, default=None),
        "reserve_w": max(row["reserve_w"] for row in rows),
        "begins": list(dict.fromkeys(text for row in rows for text in row["begins"])),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Unknown as soon as one is."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(listed) else None


def clock(row: Row) -> str:
    """When a row begins, for people: the day and the time, UTC."""
    return datetime.fromtimestamp(at_s(row), UTC).strftime("%a %H:%M")
