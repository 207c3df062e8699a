"""What can be given back by when: nothing that is promised already, and nothing unseen (I8)."""

import math
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.forecasts.reserve import Reserve
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.promises.flexibility import DEADLINES_S, flexibility
from wattshift_scheduler.promises.obligations import Obligation, needs, obligations
from wattshift_scheduler.promises.sheddable import shown
from wattshift_scheduler.promises.shortages import short
from wattshift_scheduler.signals.words import Cap, GridEvent
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import decide
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

NOW_S = 1000.0


def _device(name: str, down_s: float, *, fenced: bool = False) -> Device:
    points = (OperatingPoint("off", 0.0, 0.0, down_s), OperatingPoint("on", 1000.0, 1e12, 2.0))
    return Device(name, "asic", "a", "main", points, 1000.0, 0.0, fenced=fenced)


DEVICES = (_device("gate", 0.0, fenced=True), _device("mid", 5.0), _device("slow", 300.0))


def drawing(*watts_w: float, signals: ev.SignalChanged | None = None) -> State:
    """A site whose three devices are leased 1 kW each and seen to draw what is given."""
    tree = FeederTree.of([Feeder("main", None, 9000.0)])
    state = initial(Site("s", tree), Values(), 1)
    told = [ev.DeviceJoined(DEVICES), ev.AgentSeen("a", "b", 1.0, NOW_S)]
    for event in (*told, *([] if signals is None else [signals])):
        state, _ = reduce(state, event, NOW_S)
    ledger = replace(Ledger.empty(state.fleet), point=np.ones(3, np.int64), lease_w=np.full(3, 1e3))
    seen = Telemetry.unknown(3)
    seen.at_s[:], seen.watts_w[:] = NOW_S, watts_w
    return replace(state, ledger=ledger, seen=seen)


def by_deadline(state: State) -> list[float]:
    return [one.deliverable_w for one in flexibility(state, NOW_S)]


def event(name: str, starts_s: float, commitment_w: float) -> GridEvent:
    return GridEvent(name, "vtn", "dr", NOW_S - 500.0, starts_s, NOW_S + 9e4, commitment_w)


def promises(*events: GridEvent) -> ev.SignalChanged:
    return ev.SignalChanged("vtn", events=events)


def test_each_deadline_has_what_is_gone_by_then_and_when_it_is_there_again() -> None:
    rows = flexibility(drawing(1000.0, 1000.0, 1000.0), NOW_S)
    assert [one.deadline_s for one in rows] == list(DEADLINES_S)
    assert [one.deliverable_w for one in rows] == [1000.0, 1000.0, 2000.0, 3000.0, 3000.0]
    assert [one.rearm_s for one in rows] == [0.1, 0.1, 2.0, 2.0, 2.0]
    assert [one.sure_share for one in rows] == [1.0] * 5
    assert {one.duration_s for one in rows} == {None}
    assert {one.promised_w for one in rows} == {0.0}


def test_what_no_sensor_shows_is_not_offered_and_makes_it_less_sure() -> None:
    rows = flexibility(drawing(1000.0, math.nan, 500.0), NOW_S)
    assert [one.deliverable_w for one in rows] == [1000.0, 1000.0, 1000.0, 1500.0, 1500.0]
    assert [one.sure_share for one in rows] == [1.0, 1.0, 0.5, 0.5, 0.5]
    stale = flexibility(drawing(1000.0, 1000.0, 1000.0), NOW_S + 60.0)
    assert {one.deliverable_w for one in stale} == {0.0}


def test_a_promise_is_kept_by_the_slowest_watts_that_are_in_time() -> None:
    everything = (1000.0, 1000.0, 1000.0)
    later = event("e", NOW_S + 400.0, 1000.0)
    assert by_deadline(drawing(*everything, signals=promises(later))) == [1e3, 1e3, 2e3, 2e3, 2e3]
    soon = event("e", NOW_S + 6.0, 1000.0)
    assert by_deadline(drawing(*everything, signals=promises(soon))) == [1e3, 1e3, 1e3, 2e3, 2e3]
    both = promises(soon, replace(later, id="f", commitment_w=1500.0))
    assert by_deadline(drawing(*everything, signals=both)) == [500.0] * 5
    called_off = promises(replace(later, cancelled_s=NOW_S - 1.0))
    assert by_deadline(drawing(*everything, signals=called_off))[-1] == 3000.0


def test_what_is_held_goes_by_the_notice_and_what_is_offered_by_what_is_left_of_it() -> None:
    """In the last minutes the slow machine still keeps the promise, and nobody is sold the fast
    watts that stand in for it until it is down."""
    drawn = (1000.0, 0.0, 1000.0)
    long_before = event("e", NOW_S + 1000.0, 1000.0)
    state = drawing(*drawn, signals=promises(long_before))
    assert by_deadline(state) == [1e3, 1e3, 1e3, 1e3, 1e3]
    near = event("e", NOW_S + 100.0, 1000.0)
    state = drawing(*drawn, signals=promises(near))
    assert obligations(state, NOW_S) == (Obligation(1000.0, 100.0),)
    assert by_deadline(state) == [0.0, 0.0, 0.0, 1e3, 1e3]
    (need,) = needs(state, math.inf, NOW_S)
    assert (need.watts_w, need.within_s, need.starts_in_s) == (1000.0, 600.0, 100.0)
    alone = drawing(0.0, 0.0, 1000.0, signals=promises(near))
    assert short((need,), shown(alone, NOW_S), Reserve()) is None
    assert by_deadline(alone) == [0.0] * 5


def test_an_event_of_short_notice_needs_what_is_gone_within_it_however_far_it_is() -> None:
    ahead = replace(event("e", NOW_S + 1000.0, 1000.0), notified_s=NOW_S + 995.0)
    state = drawing(1000.0, 1000.0, 1000.0, signals=promises(ahead))
    assert obligations(state, NOW_S) == (Obligation(1000.0, 5.0),)
    assert by_deadline(state) == [1e3, 1e3, 1e3, 2e3, 2e3]


def test_the_reserve_for_bursts_is_not_for_sale() -> None:
    state = replace(drawing(1000.0, 1000.0, 1000.0), reserve=Reserve(plan_w=700.0))
    rows = flexibility(state, NOW_S)
    assert [one.deliverable_w for one in rows] == [300.0, 300.0, 1300.0, 2300.0, 2300.0]
    assert {one.promised_w for one in rows} == {700.0}


@pytest.mark.parametrize(("plan_w", "open_w"), [(4000.0, 500.0), (4500.0, 0.0), (math.nan, 1500.0)])
def test_an_event_in_force_is_owed_only_what_it_has_not_got(plan_w: float, open_w: float) -> None:
    state = drawing(1000.0, 1000.0, 1000.0, signals=promises(event("e", NOW_S - 60.0, 1500.0)))
    plans = MappingProxyType({("vtn", "e"): plan_w})
    state = replace(state, memory=replace(state.memory, plans=plans))
    assert obligations(state, NOW_S) == ((Obligation(open_w, 0.0),) if open_w else ())
    assert by_deadline(state) == [max(w - open_w, 0.0) for w in (1e3, 1e3, 2e3, 3e3, 3e3)]


def test_a_known_lower_cap_ends_what_can_be_offered() -> None:
    cap = ev.SignalChanged("vtn", (Cap("c", "vtn", 1500.0, NOW_S + 120.0),))
    state, _, _ = decide(drawing(1000.0, 1000.0, 1000.0, signals=cap), NOW_S)
    assert {one.duration_s for one in flexibility(state, NOW_S)} == {120.0}
