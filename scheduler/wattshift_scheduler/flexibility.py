"""How many watts the site can give back, by when, how surely, and when they are there again (I8).

Only watts that are drawn now can be shed: an idle device has nothing to give. A gate gives its
watts within one launch of its agent's answer; everything else within its own transition time. What
is promised to grid events already, and the reserve that is kept for bursts of inference, by what
was seen of them or by the plan, is taken off: no watt is offered twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.signals.effective import all_events, standing_caps
from wattshift_scheduler.state import State

DEADLINES_S = (0.25, 1.0, 10.0, 600.0, 1800.0)
"""The deadlines that grid products ask for, s."""

GATE_S = 0.1
"""What a gate needs to shed, s: one exchange with its agent and the launches in flight."""


@dataclass(frozen=True, slots=True)
class Flexibility:
    """Watts deliverable within a deadline.

    Attributes:
        deadline_s: from the signal to the watts being gone, s.
        deliverable_w: watts that are gone by then and promised to nobody yet, W.
        rearm_s: time after a restore until the same watts can be shed again, s; 0 if none.
        duration_s: how long they can be kept away, s: until a known lower cap takes them in any
            case; None: no end is known, for what mines can stay off.
        sure_share: of what could be shed by the leases, the part that sensors lately showed to be
            drawn and that alone is offered, 0 to 1; NaN where nothing could be.
        promised_w: watts of that deadline that events and the reserve hold back, W.
    """

    deadline_s: float
    deliverable_w: float
    rearm_s: float
    duration_s: float | None = None
    sure_share: float = math.nan
    promised_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Obligation:
    """Watts that are promised already, and within which time they must be gone; now is 0 s."""

    watts_w: float
    within_s: float


@dataclass(frozen=True, slots=True)
class _Sheddable:
    """Per device: watts that sensors show, watts that leases say, times down and up again."""

    shown_w: Floats
    leased_w: Floats
    down_s: Floats
    up_s: Floats

    def by_w(self, deadline_s: float) -> float:
        """Shown watts that can be gone by a deadline, W."""
        return float(self.shown_w[self.down_s <= deadline_s].sum())


def flexibility(state: State, now_s: float) -> tuple[Flexibility, ...]:
    """What the site can shed within each deadline, tightest first."""
    shed, owed = _sheddable(state, now_s), obligations(state, now_s)
    duration_s = _duration_s(state, now_s)
    kept_w = state.reserve.services_w
    return tuple(_within(deadline_s, shed, owed, kept_w, duration_s) for deadline_s in DEADLINES_S)


def obligations(state: State, now_s: float) -> tuple[Obligation, ...]:
    """What is promised to grid events: those to come, and what those in force have not got yet."""
    leased_w = state.leased_w()
    live = [e for e in all_events(state.signals) if e.stands(now_s) and e.commitment_w > 0]
    begun = [event for event in live if event.starts_s <= now_s]
    plans_w = [state.memory.plans.get((e.source, e.id), math.nan) for e in begun]
    given_w = max([0.0, *(plan_w - leased_w for plan_w in plans_w if not math.isnan(plan_w))])
    open_w = max(sum(event.commitment_w for event in begun) - given_w, 0.0)
    coming = (Obligation(e.commitment_w, e.starts_s - now_s) for e in live if e.starts_s > now_s)
    return (Obligation(open_w, 0.0), *coming) if open_w > 0 else tuple(coming)


def _sheddable(state: State, now_s: float) -> _Sheddable:
    fleet, ledger = state.fleet, state.ledger
    fresh = now_s - state.seen.at_s <= state.site.rules.stale_after_s
    drawn_w = np.where(fresh, np.nan_to_num(state.seen.watts_w, nan=0.0), 0.0)
    lowest = fleet.first[:-1]
    usable = ~state.silent(now_s) & ~state.seen.foreign & (ledger.point >= 0)
    held = fleet.first[:-1] + np.maximum(ledger.point, 0)
    least_w = fleet.point_w[lowest]
    return _Sheddable(
        shown_w=np.where(usable, np.maximum(drawn_w - least_w, 0.0), 0.0),
        leased_w=np.where(usable, np.maximum(ledger.lease_w - least_w, 0.0), 0.0),
        down_s=np.where(fleet.fenced, GATE_S, fleet.point_transition_s[lowest]),
        up_s=np.where(fleet.fenced, GATE_S, fleet.point_transition_s[held]),
    )


def _within(
    deadline_s: float,
    shed: _Sheddable,
    owed: tuple[Obligation, ...],
    reserve_w: float,
    duration_s: float | None,
) -> Flexibility:
    quick = (shed.down_s <= deadline_s) & (shed.shown_w > 0)
    shown_w = float(shed.shown_w[quick].sum())
    free_w = max(min(_free_w(deadline_s, shed, owed)) - reserve_w, 0.0)
    in_time = shed.down_s <= deadline_s
    could_w = float(np.maximum(shed.shown_w, shed.leased_w)[in_time].sum())
    return Flexibility(
        deadline_s=deadline_s,
        deliverable_w=free_w,
        rearm_s=float(shed.up_s[quick].max()) if quick.any() else 0.0,
        duration_s=duration_s,
        sure_share=shown_w / could_w if could_w > 0 else math.nan,
        promised_w=shown_w - free_w,
    )


def _free_w(deadline_s: float, shed: _Sheddable, owed: tuple[Obligation, ...]) -> Iterator[float]:
    """What is left at this and at every later deadline: whatever is promised by then must fit.

    A promise is kept by the slowest watts that are in time for it, so that of the fast ones only
    those are held back that no slower one can stand in for.
    """
    for by_s in {deadline_s, *(one.within_s for one in owed if one.within_s > deadline_s)}:
        yield shed.by_w(by_s) - sum(one.watts_w for one in owed if one.within_s <= by_s)


def _duration_s(state: State, now_s: float) -> float | None:
    """Until a known cap, lower than the one in force, takes watts away that are drawn now, s."""
    cap_w = math.inf if state.verdict is None else state.verdict.cap_w
    starts = [
        cap.starts_s
        for cap in standing_caps(state, now_s)
        if cap.starts_s is not None and cap.starts_s > now_s and cap.limit_w < cap_w
    ]
    return min(starts) - now_s if starts else None
