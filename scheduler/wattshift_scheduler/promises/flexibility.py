"""How many watts the site can give back, by when, how surely, and when they are there again (I8).

What is promised to grid events already (`obligations`), and the reserve that is kept for bursts of
inference, by what was seen of them or by the plan, is taken off what can be shed (`sheddable`): no
watt is offered twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.in_force.effective import standing_caps
from wattshift_scheduler.promises.obligations import Obligation, obligations
from wattshift_scheduler.promises.sheddable import Sheddable, sheddable
from wattshift_scheduler.state import State

DEADLINES_S = (0.25, 1.0, 10.0, 600.0, 1800.0)
"""The deadlines that grid products ask for, s."""


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


def flexibility(state: State, now_s: float) -> tuple[Flexibility, ...]:
    """What the site can shed within each deadline, tightest first."""
    shed, owed = sheddable(state, now_s), obligations(state, now_s)
    duration_s = _duration_s(state, now_s)
    kept_w = state.reserve.services_w
    return tuple(_within(deadline_s, shed, owed, kept_w, duration_s) for deadline_s in DEADLINES_S)


def _within(
    deadline_s: float,
    shed: Sheddable,
    owed: tuple[Obligation, ...],
    reserve_w: float,
    duration_s: float | None,
) -> Flexibility:
    quick = (shed.down_s <= deadline_s) & (shed.shown.watts_w > 0)
    shown_w = float(shed.shown.watts_w[quick].sum())
    free_w = max(min(_free_w(deadline_s, shed, owed)) - reserve_w, 0.0)
    in_time = shed.down_s <= deadline_s
    could_w = float(np.maximum(shed.shown.watts_w, shed.leased_w)[in_time].sum())
    return Flexibility(
        deadline_s=deadline_s,
        deliverable_w=free_w,
        rearm_s=float(shed.up_s[quick].max()) if quick.any() else 0.0,
        duration_s=duration_s,
        sure_share=shown_w / could_w if could_w > 0 else math.nan,
        promised_w=shown_w - free_w,
    )


def _free_w(deadline_s: float, shed: Sheddable, owed: tuple[Obligation, ...]) -> Iterator[float]:
    """What is left at this and at every later deadline: whatever is promised by then must fit.

    A promise is kept by the slowest watts that are in time for it, so that of the fast ones only
    those are held back that no slower one can stand in for.
    """
    for by_s in {deadline_s, *(one.within_s for one in owed if one.within_s > deadline_s)}:
        yield shed.shown.by_w(by_s) - sum(one.watts_w for one in owed if one.within_s <= by_s)


def _duration_s(state: State, now_s: float) -> float | None:
    """Until a known cap, lower than the one in force, takes watts away that are drawn now, s."""
    cap_w = math.inf if state.verdict is None else state.verdict.cap_w
    starts = [
        cap.starts_s
        for cap in standing_caps(state, now_s)
        if cap.starts_s is not None and cap.starts_s > now_s and cap.limit_w < cap_w
    ]
    return min(starts) - now_s if starts else None
