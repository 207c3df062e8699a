"""Which devices a plan may count on, by kind, and what the others draw meanwhile."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from wattshift_scheduler import leases
from wattshift_scheduler.arrays import Bools, Floats, summed
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.plan.binding import even_w
from wattshift_scheduler.plan.classes import Classes, kinds_of
from wattshift_scheduler.plan.words import Kind
from wattshift_scheduler.state import State


@dataclass(frozen=True, slots=True)
class Machines:
    """Devices that may be planned, by kind, and what the rest draws.

    Attributes:
        kinds: those that may be planned.
        apart_w: what all others draw at the most, W.
        apart_by_w: the same at their own feeders, W; shape (feeders,).
        classes: how kinds were told apart.
    """

    kinds: tuple[Kind, ...]
    apart_w: float
    apart_by_w: Floats
    classes: Classes


def machines(state: State, now_s: float) -> Machines:
    """The devices that a running job lets mine and that answer.

    One that does not answer, or that somebody else has set, counts at its ceiling, as in the
    control loop; one that no job names rests.
    """
    fleet, stale_s = state.fleet, state.site.rules.stale_after_s
    classes = Classes.among(fleet, site=state.site)
    if not len(fleet):
        return Machines((), 0.0, np.zeros(len(state.site.tree.names)), classes)
    seen, ledger = state.seen, state.ledger
    lost = seen.failed & (now_s - seen.at_s > stale_s)
    stuck = state.silent(now_s) | seen.foreign | lost
    free = _named(state) & ~stuck
    ceiling_w = leases.ceilings(fleet, ledger, seen, now_s, stale_s)
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    apart_w = np.where(free, 0.0, np.where(stuck, ceiling_w, base_w))
    apart_by_w = summed(fleet.feeder, apart_w, len(state.site.tree.names))
    total_w = float(np.where(stuck, ceiling_w, base_w)[~free].sum())
    if not free.any():
        return Machines((), total_w, apart_by_w, classes)
    kinds, of = kinds_of(
        fleet,
        state.values,
        ledger,
        seen,
        now_s,
        rules=state.site.rules,
        turns=state.turns,
        classes=classes,
        most_w=_even_w(state, classes, apart_by_w, free),
    )
    up = cycles.awake(ledger, seen, base_w, now_s, stale_s)
    count = np.bincount(of[free], minlength=len(kinds))
    running = np.bincount(of[free & up], minlength=len(kinds))
    counted = zip(kinds, count.tolist(), running.tolist(), strict=True)
    able = (replace(kind, count=n, running=m) for kind, n, m in counted if n)
    return Machines(tuple(able), total_w, apart_by_w, classes)


def _even_w(state: State, classes: Classes, apart_by_w: Floats, free: Bools) -> Floats | None:
    """What each device may draw under feeders that have no limit of their own in the plan, W: with
    the compute that nodes hold now, as the control loop counts it."""
    if not len(classes.loose):
        return None
    bounds_w = {name: node.bound_w for name, node in state.nodes.items()}
    rooms_w = rooms(state, budget.compute_w(state, bounds_w) + apart_by_w)
    return even_w(state.site.tree, state.fleet, rooms_w, classes.loose, free)


def rooms(state: State, spoken_w: Floats) -> Floats:
    """What each feeder may carry of what is planned, W: its limit less its margin, what was not
    asked for on nodes, and what is spoken for otherwise; shape (feeders,).

    Args:
        state: of the core.
        spoken_w: what that draws at the most, at its own feeders, W; shape (feeders,).
    """
    tree = state.site.tree
    usable_w = tree.usable_w(state.site.rules.margin_share)
    found: Floats = usable_w - tree.totals(budget.unasked_w(state) + spoken_w)
    return found


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
