"""A promise to the grid that the site could not keep now, by how much, and why (I8).

Bursts of services and promises are two accounts: of the watts behind gates inference has its
reserve first, as far as nothing is free for it, and what is left is for promises. So what the alarm
says may be missing although each account alone would be filled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.fixed import GATE_S
from wattshift_scheduler.forecasts.reserve import Reserve
from wattshift_scheduler.promises.obligations import Need, needs
from wattshift_scheduler.promises.sheddable import Shown, kept_shown, shown
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.state import State

LEAST_W = 0.5
"""Less is a rounding."""

Cause = tuple[str, tuple[str, str]]
"""An alarm: its id, and its severity and text."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """What lacks for promises.

    Attributes:
        need: the promises that lack most.
        short_w: what must be drawn for them and is not, W.
        ready_w: what is drawn, can be gone in time and is no reserve of services, W.
        services_w: watts behind gates that are kept for bursts of services before, W.
    """

    need: Need
    short_w: float
    ready_w: float
    services_w: float


def short(owed: Sequence[Need], shed: Shown, reserve: Reserve) -> Shortage | None:
    """What lacks most; None where every promise has its watts.

    Args:
        owed: what promises need devices for now.
        shed: what could be given back now.
        reserve: what is kept for bursts of services, and what is free for them.
    """
    kept_w = min(max(reserve.services_w - reserve.free_w, 0.0), shed.by_w(GATE_S))
    found = None
    for need in owed:
        ready_w = max(shed.by_w(need.within_s) - kept_w, 0.0)
        short_w = need.watts_w - ready_w
        if short_w > (LEAST_W if found is None else found.short_w):
            found = Shortage(need, short_w, ready_w, kept_w)
    return found


def by_kind(state: State, now_s: float) -> dict[str, float]:
    """For metrics, W: `owed` the most that promises need devices for at one moment, `held` the
    mining that is held up for them, `short` what of it could not be given in time now."""
    owed = needs(state, state.outlook.cap_w, now_s)
    shed = shown(state, now_s, kept_shown(state)) if owed else None
    found = None if shed is None else short(owed, shed, state.reserve)
    return {
        "owed": max((need.watts_w for need in owed), default=0.0),
        "held": state.held.held_w,
        "short": 0.0 if found is None else found.short_w,
    }


def causes(state: State, verdict: Arbitrated, now_s: float) -> Iterator[Cause]:
    """The alarm of a promise that is short; none while every promise has its watts."""
    owed = needs(state, verdict.cap_w, now_s)
    if not owed:
        return
    shed = shown(state, now_s, kept_shown(state))
    found = short(owed, shed, state.reserve)
    if found is None:
        return
    need = found.need
    text = (
        f"{need.watts_w:,.0f} W are promised to {need.named} with a notice of "
        f"{need.within_s:,.0f} s: {found.short_w:,.0f} W are short; "
        f"{'; '.join(_why(state, found, shed))}"
    )
    yield "promise-short", ("warning", text)


def _why(state: State, found: Shortage, shed: Shown) -> Iterator[str]:
    """What the watts that lack are at, or what keeps them from being drawn."""
    yield f"{found.ready_w:,.0f} W are drawn that can be gone in such a time"
    slow_w = shed.total_w - shed.by_w(found.need.within_s)
    if slow_w > LEAST_W:
        yield f"{slow_w:,.0f} W take longer to come down"
    if found.services_w > LEAST_W:
        yield f"{found.services_w:,.0f} W behind gates are kept for bursts of services"
    stuck = int(np.count_nonzero(state.present.facts.stuck & (state.ledger.point > 0)))
    if stuck:
        yield f"{stuck} devices with leases do not answer or obey"
    if state.held.barred:
        yield state.held.barred
