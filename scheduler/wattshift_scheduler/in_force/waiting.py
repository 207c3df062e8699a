"""Batch jobs that rest through dear hours: what a MWh of each is worth now, and until when it
rests.

The plan says in which hours a job with a deadline best runs. A MWh of it that is done now saves one
in the dearest of those, so that is what it is worth now: at a price above it, in force and with
what the plan puts on top, the job rests, and goes on at one below. Where carbon has a price, that
of now counts in, as it does in the hours of the plan. A job without a deadline is worth its stated
value: an hour that costs more is one in which it loses money.

A job that runs rests only where that pays for its restart: what it did since its last checkpoint is
done again, and a worker has to come up. And none rests that has not time for its work twice over
when it goes on. Who gives way to work that is due is decided with the plan as without (`due`). A
job that is late is owed nothing any more: it is worth its stated value, as one without a deadline.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from wattshift_scheduler import worth
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.ladder.ladder import HOUR_S
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.state import State

ROUNDING = 1e-6
"""Relative; two prices that differ by less are one."""

_MAY = (JobState.PENDING, JobState.PAUSED, JobState.STARTING, JobState.RUNNING)


def rests_s(state: State, now_s: float, beyond_usd_per_mwh: float) -> Mapping[str, float]:
    """Batch jobs that rest now, and until when at first, our clock, by id.

    Args:
        state: its plan, its jobs and the price in force.
        now_s: our clock, s.
        beyond_usd_per_mwh: what the plan puts on top of that price.
    """
    plan = state.plan
    at = None if plan is None else plan.at(now_s)
    if plan is None or at is None:
        return {}
    price, found = state.price_usd_per_mwh() + beyond_usd_per_mwh, {}
    if plan.carbon_usd_per_mwh is not None:
        price += float(plan.carbon_usd_per_mwh[at])
    for job in _asked(state):
        worth_usd = usd_per_mwh(job, plan)
        if worth_usd is None or not price > _above(worth_usd):
            continue
        until_s = _cheaper_s(plan, at, worth_usd)
        if not _has_time(job, plan, until_s):
            continue
        if not job.units or _pays(job, price, worth_usd, until_s, now_s):
            found[job.id] = until_s
    return found


def _has_time(job: Job, plan: Standing, from_s: float) -> bool:
    """Whether a job that goes on at `from_s` has time for its work twice over; one whose need is
    not known has none."""
    if math.isinf(job.due_s):
        return True
    need_s = plan.needs_s.get(job.id, math.inf)
    own_s = worth.needs_s(job)
    if not math.isnan(own_s):
        need_s = max(need_s, own_s)
    return job.due_s - from_s >= worth.TIMES * need_s + worth.RESTART_S


def usd_per_mwh(job: Job, plan: Standing) -> float | None:
    """What a MWh of a batch job is worth now; None where it is owed whatever it costs."""
    if math.isfinite(job.due_s):
        return plan.batch_usd_per_mwh.get(job.id)
    return job.usd_per_mwh if job.value_usd_per_h > 0.0 else None


def _asked(state: State) -> Iterator[Job]:
    for job in state.jobs.values():
        if job.kind is JobKind.BATCH and job.unit_w > 0.0 and job.state in _MAY and not job.held:
            yield job


def _above(usd: float) -> float:
    return usd + ROUNDING * max(abs(usd), 1.0)


def _cheaper_s(plan: Standing, at: int, worth_usd: float) -> float:
    """When the next interval begins that is no dearer than a job is worth; else when those end that
    the plan tells of."""
    price = plan.shadow_usd_per_mwh[at + 1 :]
    if plan.capped_usd_per_mwh is not None:
        price = price - plan.capped_usd_per_mwh[at + 1 :]
    cheap = np.flatnonzero(price <= _above(worth_usd))
    later = int(cheap[0]) if len(cheap) else len(price)
    return plan.start_s + (at + 1 + later) * plan.step_s


def _pays(job: Job, price: float, worth_usd: float, until_s: float, now_s: float) -> bool:
    """Whether a unit that runs saves more by resting than its restart costs."""
    unit_mw = job.unit_w / 1e6
    saved_usd = (price - worth_usd) * unit_mw * (until_s - now_s) / HOUR_S
    again_h = (worth.unsaved_s(job, now_s) + worth.RESTART_S) / HOUR_S
    return saved_usd > again_h * (max(price, 0.0) * unit_mw + max(job.value_usd_per_h, 0.0))
