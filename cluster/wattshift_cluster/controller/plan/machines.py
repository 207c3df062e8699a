"""Which devices a plan may count on, by kind, and what the others draw meanwhile."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from wattshift_scheduler import cycles, leases
from wattshift_scheduler.arrays import Bools
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.plan.classes import kinds_of
from wattshift_scheduler.plan.words import Kind
from wattshift_scheduler.state import State


@dataclass(frozen=True, slots=True)
class Machines:
    """Devices that may be planned, by kind, and what the rest draws, W."""

    kinds: tuple[Kind, ...]
    apart_w: float


def machines(state: State, now_s: float) -> Machines:
    """The devices that a running job lets mine and that answer.

    One that does not answer, or that somebody else has set, counts at its ceiling, as in the
    control loop; one that no job names rests.
    """
    fleet, stale_s = state.fleet, state.site.rules.stale_after_s
    if not len(fleet):
        return Machines((), 0.0)
    seen, ledger = state.seen, state.ledger
    lost = seen.failed & (now_s - seen.at_s > stale_s)
    stuck = state.silent(now_s) | seen.foreign | lost
    free = _named(state) & ~stuck
    ceiling_w = leases.ceilings(fleet, ledger, seen, now_s, stale_s)
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    apart_w = np.where(stuck, ceiling_w, base_w)[~free].sum()
    if not free.any():
        return Machines((), float(apart_w))
    kinds, of = kinds_of(
        fleet, state.values, ledger, seen, now_s, rules=state.site.rules, turns=state.turns
    )
    up = cycles.awake(ledger, seen, base_w, now_s, stale_s)
    count = np.bincount(of[free], minlength=len(kinds))
    running = np.bincount(of[free & up], minlength=len(kinds))
    counted = zip(kinds, count.tolist(), running.tolist(), strict=True)
    able = (replace(kind, count=n, running=m) for kind, n, m in counted if n)
    return Machines(tuple(able), float(apart_w))


def _named(state: State) -> Bools:
    """Devices that a running mining job names; shape (n,)."""
    patterns = {
        str(pattern)
        for job in state.of_kind(JobKind.MINING)
        if job.state is JobState.RUNNING
        for pattern in job.spec.get("devices", ())
    }
    if "*" in patterns:
        return np.ones(len(state.fleet), dtype=np.bool_)
    named = (any(fnmatchcase(id_, one) for one in patterns) for id_ in state.fleet.index)
    return np.fromiter(named, dtype=np.bool_, count=len(state.fleet))
