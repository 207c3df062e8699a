"""What the site has promised to the grid: how many watts, within which time (I8).

A promise is a grid event with a commitment, and its notice is the time within which the watts must
be gone. From the notice until the start they must be drawn by something that can be gone in such a
time; once it has begun, what it has not got yet is owed at once. What has been given is the mining
that lies below its plan from before the notice.

What is held for a promise is judged by its notice: who comes down within it can be told after it
and be down at the start, and is no other machine in the last minutes. What is offered to others is
judged by what is left of it: what is not down by then is given by faster watts at the start, and
these are not for sale meanwhile.

A promise is counted from its notice on: nobody else is offered its watts. It needs devices for the
last half hour only: before that, whatever rests can be up again by the start. The response to the
grid's frequency promises a share of what happens to be drawn, no watts, and is none of these.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wattshift_scheduler.in_force.effective import all_events, standing_caps
from wattshift_scheduler.signals import ramps
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.state import State

HELD_S = 1800.0
"""So long before its start a promise needs devices, s: the longest time within which grid products
ask for watts."""

CENT_W = 1e-6


@dataclass(frozen=True, slots=True)
class Obligation:
    """Watts that are promised already, and within which time they must be gone if they are asked
    for now; at once is 0 s."""

    watts_w: float
    within_s: float


@dataclass(frozen=True, slots=True)
class Need:
    """Watts that must be drawn now by what can be gone within a time.

    Attributes:
        watts_w: all that is promised for one moment with such a notice or a shorter one, and not
            given yet, W.
        within_s: the longest of those notices, s: what is slower is of no use.
        starts_in_s: until that moment, s: what rests must be up before.
        names: what people call the promises that begin then.
    """

    watts_w: float
    within_s: float
    starts_in_s: float
    names: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """Its names in a sentence."""
        return " and ".join(self.names)


def obligations(state: State, now_s: float) -> tuple[Obligation, ...]:
    """What is promised to grid events: those to come, and what those in force have not got yet."""
    live = _committed(state, now_s)
    begun = [event for event in live if event.starts_s <= now_s]
    given_w = _given_w(state, begun)
    open_w = max(sum(event.commitment_w for event in begun) - given_w, 0.0)
    later = (event for event in live if event.starts_s > now_s)
    coming = (Obligation(event.commitment_w, _left_s(event, now_s)) for event in later)
    return (Obligation(open_w, 0.0), *coming) if open_w > 0 else tuple(coming)


@dataclass(frozen=True, slots=True)
class Coming:
    """A need that will hold from one time until another, our clock, s."""

    need: Need
    begins_s: float
    ends_s: float


def coming(state: State, until_s: float, now_s: float) -> Iterator[Coming]:
    """What promises will need devices for from now until a time, by the rules of `needs`.

    Only what is known now counts, and an event that has begun by then is taken to have what it was
    promised.
    """
    live = _committed(state, now_s)
    for starts_s in sorted({e.starts_s for e in live if now_s < e.starts_s < until_s + HELD_S}):
        first_s = max(starts_s - HELD_S, now_s)
        turns = (e.starts_s for e in live if first_s < e.starts_s < starts_s)
        edges = [first_s, *sorted(set(turns)), starts_s]
        for begins_s, ends_s in pairwise(edges):
            begun = (e for e in live if e.starts_s <= begins_s and e.stands(starts_s))
            given_w = sum(event.commitment_w for event in begun)
            for need in _needed(live, given_w, starts_s, begins_s):
                yield Coming(need, begins_s, ends_s)


def needs(state: State, cap_w: float, now_s: float) -> tuple[Need, ...]:
    """What promises need devices for now, the shortest notice first; empty while none does.

    Events of which one ends as the next begins need the same watts, not twice as many.

    Args:
        state: its signals, and the plans of mining from before each notice.
        cap_w: the effective cap, W: where it falls towards a start already, at a ramp, what has
            been shed for that is given and not missing.
        now_s: our clock, s.
    """
    live = _committed(state, now_s)
    if not any(now_s < event.starts_s <= now_s + HELD_S for event in live):
        return ()
    begun = [event for event in live if event.starts_s <= now_s]
    given_w = _given_w(state, live if _approaches(state, cap_w, now_s) else begun)
    later = {e.starts_s for e in live if now_s < e.starts_s <= now_s + HELD_S}
    found = [need for at_s in later for need in _needed(live, given_w, at_s, now_s)]
    return tuple(sorted(found, key=lambda need: (need.within_s, need.starts_in_s)))


def _needed(
    live: Sequence[GridEvent], given_w: float, starts_s: float, now_s: float
) -> Iterator[Need]:
    """What must be gone by the start of some events, notice by notice."""
    there = [event for event in live if event.starts_s <= starts_s and event.stands(starts_s)]
    coming = [event for event in there if event.starts_s > now_s]
    owed_w = sum(event.commitment_w for event in there if event.starts_s <= now_s) - given_w
    for within_s in sorted({_notice_s(event) for event in coming}):
        mine = [event for event in coming if _notice_s(event) <= within_s]
        watts_w = owed_w + sum(event.commitment_w for event in mine)
        if watts_w > CENT_W:
            names = tuple(sorted({event.name or event.id for event in mine}))
            yield Need(watts_w, within_s, starts_s - now_s, names)


def _notice_s(event: GridEvent) -> float:
    """From the notice of an event to its start, s."""
    return max(event.starts_s - event.notified_s, 0.0)


def _left_s(event: GridEvent, now_s: float) -> float:
    """Within which time the watts of an event to come must be gone if they are asked for now, s:
    its notice, or what is left of it."""
    return min(_notice_s(event), event.starts_s - now_s)


def _committed(state: State, now_s: float) -> list[GridEvent]:
    """Events that stand and for which watts are committed."""
    return [e for e in all_events(state.signals) if e.stands(now_s) and e.commitment_w > 0]


def _given_w(state: State, events: Iterable[GridEvent]) -> float:
    """By how much mining lies below its plan from before the notice of some events, W."""
    plans_w = [state.memory.plans.get((e.source, e.id), math.nan) for e in events]
    known_w = [plan_w for plan_w in plans_w if not math.isnan(plan_w)]
    return max(max(known_w) - state.leased_w(), 0.0) if known_w else 0.0


def _approaches(state: State, cap_w: float, now_s: float) -> bool:
    """Whether the effective cap falls towards one to come already."""
    ramp_w_per_s = state.site.rules.ramp_down_w_per_s
    early_w, _ = ramps.approached(standing_caps(state, now_s), ramp_w_per_s, now_s)
    return math.isfinite(early_w) and early_w <= cap_w
