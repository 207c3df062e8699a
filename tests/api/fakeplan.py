"""A plan as a controller would show it, for pictures and tables."""

import math
from datetime import UTC, datetime
from typing import Any

STEP_S = 900.0
START_S = 1_900_022_400.0  # a Monday, 00:00 UTC
PUBLISHED = 80


def view(hours: float = 36.0, start_s: float = START_S) -> dict[str, Any]:
    """A day and a half: a cap in the afternoon, a price spike within, a batch job by night."""
    count = round(hours * 3600.0 / STEP_S)
    return {
        "state": "current",
        "reason": None,
        "made_at": _text(start_s),
        "status": "optimal",
        "gap": 0.0004,
        "solve_s": 0.42,
        "usd": 1234.5,
        "age_s": 130.0,
        "expires_at": _text(start_s + 900.0),
        "start_at": _text(start_s),
        "step_s": STEP_S,
        "horizon_s": 36.0 * 3600.0,
        "unmet": [],
        "notes": ["the price beyond what is published is foreseen by time of day from the past"],
        "events": [],
        "kinds": [{"name": "asic 30..3250 W", "count": 250}],
        "batches": [
            {"job": "night", "left_wh": 480_000.0, "deadline_at": None, "usd_per_mwh": 42.5}
        ],
        "rows": [_row(start_s + i * STEP_S, known=i < PUBLISHED) for i in range(count)],
        "made": [],
    }


def blank(state: str, reason: str) -> dict[str, Any]:
    """No plan, and why."""
    kept = {"state": state, "reason": reason, "step_s": None}
    empty: dict[str, Any] = {
        key: [] if isinstance(value, list) else None for key, value in view(0.0).items()
    }
    return empty | kept


def _row(at_s: float, *, known: bool) -> dict[str, Any]:
    hour = at_s / 3600.0 % 24.0
    dear = 17.5 <= hour < 18.5
    price = 35.0 + 25.0 * math.sin((hour - 9.0) / 12.0 * math.pi) + (300.0 if dear else 0.0)
    capped = 15.0 <= hour < 19.0
    cap_w = 8e5 if capped else 1.2e6
    services_w = 1.5e5 + 1e5 * max(0.0, math.sin((hour - 6.0) / 12.0 * math.pi))
    batch_w = 1.2e5 if 1.0 <= hour < 5.0 else 0.0
    mining_w = 0.0 if price > 60.0 else min(cap_w - services_w - batch_w - 6e4, 8e5)
    begins = {15.0: ["cap 800 kW: openadr dr-17"], 17.5: ["event: ERS <summer>"]}
    return {
        "starts_at": _text(at_s),
        "price_usd_per_mwh": price,
        "price_low_usd_per_mwh": price if known else 0.7 * price - 5.0,
        "price_high_usd_per_mwh": price if known else 1.4 * price + 5.0,
        "price_published": known,
        "shadow_usd_per_mwh": price + (15.0 if capped else 0.0),
        "cap_w": cap_w,
        "services_w": services_w,
        "services_high_w": 1.2 * services_w,
        "batch_w": batch_w,
        "mining_w": mining_w,
        "other_w": 6e4,
        "solar_w": None,
        "site_w": services_w + batch_w + mining_w + 6e4,
        "reserve_w": 0.2 * services_w,
        "hold_w": batch_w,
        "awake": {"asic 30..3250 W": mining_w / 3250.0} if mining_w else {},
        "batch_by_job_w": {"night": batch_w} if batch_w else {},
        "begins": begins.get(hour, []),
    }


def _text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
