"""The plan for people and scripts: plain dicts (api.plan_views), None is unknown."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattshift_cluster.controller.plan.ahead import Prepared
from wattshift_cluster.controller.plan.off import blank
from wattshift_cluster.controller.signal_views import time_of
from wattshift_cluster.controller.views import known
from wattshift_scheduler.plan.telling import full_feeders
from wattshift_scheduler.plan.words import Plan

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A plan, what it was made from, when, and until when the control loop uses it, s."""

    plan: Plan
    prepared: Prepared
    at_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """How the planning goes.

    Attributes:
        trouble: why the last try had no plan; empty where it had one.
        waits: that is something which is not known yet, and no fault.
    """

    trouble: str
    waits: bool


def plan(
    made: Made | None, last: Iterable[Made], said: Said, now_s: float, hours: float | None
) -> View:
    """The newest plan from the interval that runs on.

    Args:
        made: the newest; None before the first.
        last: the newest ones, oldest first.
        said: how the planning goes.
        now_s: our clock, s.
        hours: how much of it; None: all.
    """
    tries = [_brief(one) for one in last]
    if made is None:
        words = said.trouble or "the first plan is being made"
        state = "failed" if said.trouble and not said.waits else "waiting"
        return {**blank(state, words), "made": tries}
    state = "current" if now_s < made.expires_s else "late"
    reason = said.trouble
    if state == "late":
        age_min = (now_s - made.at_s) / 60.0
        reason = f"the last plan is {age_min:.0f} min old: the ladder alone decides"
        reason += f"; {said.trouble}" if said.trouble else ""
    ahead, figures = made.prepared.ahead, made.plan
    first = max(math.floor((now_s - figures.start_s) / figures.step_s), 0)
    past = len(figures)
    if hours is not None:
        past = min(first + math.ceil(hours * 3600.0 / figures.step_s), past)
    kinds = made.prepared.kinds
    return {
        "state": state,
        "reason": reason or None,
        **_brief(made),
        "age_s": now_s - made.at_s,
        "expires_at": time_of(made.expires_s),
        "start_at": time_of(figures.start_s),
        "step_s": figures.step_s,
        "horizon_s": figures.step_s * len(figures),
        "unmet": list(figures.infeasible),
        "notes": [*full_feeders(figures), *made.prepared.notes],
        "events": list(figures.events),
        "kinds": [{"name": name, "count": kinds.get(name, 0)} for name in figures.kinds],
        "batches": [
            {
                "job": one.name,
                "left_wh": one.left_wh,
                "deadline_at": time_of(made.at_s + one.deadline_s),
                "usd_per_mwh": known(usd),
            }
            for one, usd in zip(ahead.batches, _worths(figures), strict=True)
        ],
        "rows": [_row(made, i) for i in range(first, past)],
        "made": tries,
    }


def _worths(figures: Plan) -> list[float]:
    """What a MWh of each batch is worth now, USD; not finite where that is not told."""
    worth = figures.batch_usd_per_mwh
    return [math.nan] * len(figures.batches) if worth is None else worth.tolist()


def _brief(made: Made) -> View:
    return {
        "made_at": time_of(made.at_s),
        "status": made.plan.status,
        "gap": known(made.plan.gap),
        "solve_s": made.plan.solve_s,
        "usd": known(made.plan.usd),
    }


def _row(made: Made, i: int) -> View:
    """One interval; `mining_w` counts machines at rest too."""
    figures, ahead = made.plan, made.prepared.ahead
    other_w = float(ahead.other.mid[i])
    solar = ahead.solar
    row: View = {
        "starts_at": time_of(figures.start_s + i * figures.step_s),
        "price_usd_per_mwh": known(float(ahead.price.mid[i])),
        "price_low_usd_per_mwh": known(float(ahead.price.low[i])),
        "price_high_usd_per_mwh": known(float(ahead.price.high[i])),
        "price_published": bool(made.prepared.priced[i]),
        "shadow_usd_per_mwh": known(float(figures.shadow_usd_per_mwh[i])),
        "cap_w": known(float(figures.cap_w[i])),
        "services_w": float(figures.services_w[i]),
        "services_high_w": known(float(ahead.services.high[i])),
        "batch_w": float(figures.batch_w[i].sum()),
        "mining_w": float(figures.mining_w[i].sum()),
        "other_w": other_w,
        "solar_w": None if solar is None else known(float(solar.mid[i])),
        "site_w": known(float(figures.site_w[i])),
        "reserve_w": float(figures.reserve_w[i]),
        "hold_w": float(figures.hold_w[i].sum()),
        "awake": _by_name(figures.kinds, figures.awake[i]),
        "batch_by_job_w": _by_name(figures.batches, figures.batch_w[i]),
        "begins": [one.text for one in made.prepared.remarks if one.interval == i],
    }
    return row


def _by_name(names: Iterable[str], values: np.ndarray[Any, Any]) -> Mapping[str, float]:
    """What is more than nothing, by name."""
    rows = zip(names, values.tolist(), strict=True)
    return {name: round(value, 3) for name, value in rows if value > 1e-6}
