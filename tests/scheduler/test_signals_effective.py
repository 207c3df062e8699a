"""From what sources say to the effective cap: overrides, forecasts, windows, ramps, holds, targets,
and no raise between an event's notice and its start."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.in_force.effective import arbitrated, next_edge_s
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.leases import Ledger
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.signals.minutes import HOUR_S, MOST_MINUTES, Minutes
from wattshift_scheduler.signals.words import Cap, CapKind, GridEvent, Override, Target, Work
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import Outlook, State, initial
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

CONNECTION_W = 10_000.0
T = 1_800_000_000.0
"""A whole hour on the UTC clock."""


def fresh(**rules: float) -> State:
    tree = FeederTree.of([Feeder("main", None, CONNECTION_W)])
    return initial(Site("s", tree, (), Rules(**rules)), Values(), 1)


def told(state: State, now_s: float, *events: ev.Event) -> tuple[State, Arbitrated]:
    for event in events:
        state, _ = reduce(state, event, now_s)
    return arbitrated(state, now_s)


def cap_w(state: State, now_s: float, *events: ev.Event) -> float:
    return told(state, now_s, *events)[1].cap_w


def says(source: str, *caps: Cap, **more: Any) -> ev.SignalChanged:
    return ev.SignalChanged(source, caps, **more)


# what is refused where it is made


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cap("c", "o", 1.0, math.nan),
        lambda: Cap("c", "o", 1.0, None, math.nan),
        lambda: Cap("c", "o", 1.0, 20.0, 10.0),
        lambda: Target("t", "o", math.nan),
        lambda: Target("t", "o", 1.0, 20.0, 10.0),
        lambda: Override("s", "c", math.nan, 1.0, "ann", "why"),
        lambda: Override("s", "c", 1.0, math.inf, "ann", "why"),
        lambda: GridEvent("e", "s", "p", math.nan, 1.0, 2.0),
        lambda: GridEvent("e", "s", "p", 0.0, 3.0, 2.0),
        lambda: GridEvent("e", "s", "p", 0.0, 1.0, 2.0, -5.0),
        lambda: Rules(ramp_up_w_per_s=0.0),
        lambda: Rules(ramp_down_w_per_s=math.nan),
        lambda: Rules(hold_s=-1.0),
        lambda: Rules(stagger_s=math.inf),
        lambda: Rules(act_at_confidence=2.0),
    ],
)
def test_a_word_that_means_nothing_is_refused_where_it_is_made(make: Any) -> None:
    with pytest.raises(SiteInvalid):
        make()


def test_a_price_that_is_no_number_is_unknown_and_not_zero() -> None:
    state = replace(fresh(), values=Values(45.0, 0.0, 0.0, None))
    state, _ = reduce(state, ev.SignalChanged("p", (), math.nan, True), 1.0)
    assert state.signals.price_usd_per_mwh is None
    assert math.isinf(state.price_usd_per_mwh())


# overrides and forecasts


def test_an_override_replaces_the_named_cap_alone_and_ends() -> None:
    caps = (Cap("a", "vtn", 3000.0), Cap("b", "vtn", 5000.0))
    word = Override("vtn", "a", 8000.0, 100.0, "ann", "hospital feeds from us")
    state, now = told(fresh(), 0.0, says("vtn", *caps), says("operator", overrides=(word,)))
    assert (now.cap_w, now.cap_id, now.overrides) == (5000.0, "b", (word,))
    assert next_edge_s(state, 0.0) == 100.0
    state, now = told(state, 100.0)
    assert (now.cap_w, now.cap_id, now.overrides) == (3000.0, "a", ())
    # The word of another source names no cap of this one.
    other = replace(word, source="schedule", ends_s=200.0)
    assert cap_w(state, 101.0, says("operator", overrides=(other,))) == 3000.0


def test_an_override_that_outlasts_its_cap_leaves_nothing_of_it() -> None:
    cap = Cap("a", "vtn", 3000.0, starts_s=10.0, ends_s=60.0)
    word = Override("vtn", "a", 8000.0, 100.0, "ann", "hospital feeds from us")
    state, now = told(fresh(), 20.0, says("vtn", cap), says("operator", overrides=(word,)))
    assert (now.cap_w, now.cap_id) == (8000.0, "a")
    for now_s in (60.0, 99.0, 100.0, 1000.0):
        state, now = told(state, now_s)
        assert (now.cap_w, now.cap_id) == (float(state.site.tree.limit_w[0]), NO_CAP)
    # Nor does one that ended before the cap begins hold anything of it back.
    later = replace(cap, starts_s=200.0, ends_s=300.0)
    state, now = told(fresh(), 20.0, says("vtn", later), says("operator", overrides=(word,)))
    assert next_edge_s(state, 20.0) == 200.0
    assert told(state, 200.0)[1].cap_w == 3000.0


def test_only_the_operator_overrides_and_never_a_breaker() -> None:
    word = Override("vtn", "a", 8000.0, 100.0, "mallory", "because")
    state = fresh()
    state, facts = reduce(state, says("vtn", Cap("a", "vtn", 3000.0), overrides=(word,)), 0.0)
    assert "not taken" in facts[0].reason
    assert cap_w(state, 0.0) == 3000.0
    breaker = Cap("a", "vtn", 3000.0, kind=CapKind.BREAKER)
    state, _ = reduce(state, says("vtn", breaker), 1.0)
    state, facts = reduce(state, says("operator", overrides=(word,)), 1.0)
    assert "breaker" in facts[0].reason
    assert cap_w(state, 1.0) == 3000.0
    # Nor does anything lift the connection.
    assert cap_w(fresh(), 0.0, says("operator", Cap("c", "o", 99_000.0))) == CONNECTION_W


def test_of_two_overrides_of_one_cap_the_lower_holds() -> None:
    words = [Override("vtn", "a", w, 100.0, "ann", "why") for w in (8000.0, 6000.0, 7000.0)]
    said = (says("vtn", Cap("a", "vtn", 3000.0)), says("operator", overrides=tuple(words)))
    assert cap_w(fresh(), 0.0, *said) == 6000.0


def test_a_forecast_binds_when_it_is_sure_enough_and_is_advice_otherwise() -> None:
    sure, unsure = Cap("s", "peaks", 6000.0, confidence=0.5), Cap("u", "peaks", 2000.0)
    unsure = replace(unsure, confidence=0.49)
    _, now = told(fresh(), 0.0, says("peaks", sure, unsure))
    assert (now.cap_id, now.advice) == ("s", unsure)
    assert cap_w(fresh(act_at_confidence=0.4), 0.0, says("peaks", sure, unsure)) == 2000.0


# windows


def test_a_window_gives_back_what_its_beginning_left_and_no_more_than_the_connection() -> None:
    state = fresh()
    quarter = Cap("q", "tariff", 4000.0, kind=CapKind.INTERVAL, window_s=900.0)
    state, now = told(state, T, says("tariff", quarter), ev.MeterRead(1000.0, T))
    assert now.cap_w == 4000.0
    for second in range(1, 451):
        state, now = told(state, T + second, ev.MeterRead(1000.0, T + second))
    assert now.cap_w == pytest.approx(7000.0)
    assert (now.stated_w, now.kind) == (4000.0, CapKind.INTERVAL)
    for second in range(451, 900):
        state, now = told(state, T + second, ev.MeterRead(7000.0, T + second))
        assert 0.0 <= now.cap_w <= CONNECTION_W
    assert next_edge_s(state, T + 899.0) == T + 900.0
    state, now = told(state, T + 900.0, ev.MeterRead(7000.0, T + 900.0))
    assert now.cap_w == 4000.0


@pytest.mark.parametrize("window_s", [7.0, 90.0, 7200.0])
def test_a_window_that_cannot_be_followed_is_held_at_every_sample(window_s: float) -> None:
    state, now = told(fresh(), T, says("t", Cap("q", "t", 4000.0, window_s=window_s)))
    state, now = told(state, T + 5, ev.MeterRead(0.0, T + 5))
    assert now.cap_w == 4000.0


def test_the_longest_window_that_is_followed_is_an_hour() -> None:
    state, now = told(fresh(), T, says("t", Cap("q", "t", 4000.0, window_s=HOUR_S)))
    for minute in range(31):
        at_s = T + 60.0 * minute
        events = [ev.MeterRead(1000.0, at_s - 60.0 + s) for s in range(0, 61, 5)] if minute else []
        state, now = told(state, at_s, *events, ev.MeterRead(1000.0, at_s))
    assert now.cap_w == pytest.approx(7000.0)


def test_a_lost_meter_counts_at_what_was_committed_and_a_restart_at_the_connection() -> None:
    cap = says("t", Cap("q", "t", 4000.0, window_s=900.0))
    state = replace(fresh(), outlook=Outlook(committed_w=6000.0))
    state, _ = told(state, T, cap, ev.MeterRead(0.0, T))
    for second in range(1, 301):
        state, now = told(state, T + second, ev.MeterRead(None, T + second))
    assert now.cap_w == pytest.approx((4000.0 * 900 - 6000.0 * 300) / 600, rel=0.01)
    # A controller that starts now knows nothing of the window so far.
    _, now = told(fresh(), T + 300, cap, ev.MeterRead(0.0, T + 300))
    assert now.cap_w == pytest.approx(1000.0)
    # Samples of before, told again, are known.
    state, _ = told(fresh(), T + 300, *(ev.MeterRead(1000.0, T + s) for s in range(0, 301, 5)), cap)
    assert arbitrated(state, T + 300)[1].cap_w == pytest.approx(5500.0)


def test_a_meter_that_is_negative_or_speaks_of_the_future_gives_nothing_away() -> None:
    cap = says("t", Cap("q", "t", 4000.0, window_s=900.0))
    state, _ = told(fresh(), T, cap, ev.MeterRead(0.0, T))
    for second in range(1, 61):
        state, now = told(state, T + second, ev.MeterRead(-9e6, T + second))
    assert now.cap_w <= 4000.0 * 900 / 840 + 1e-6
    state, _ = reduce(state, ev.MeterRead(5.0, T + 1e6), T + 61)
    assert state.meter_at_s == T + 61
    state, _ = reduce(state, ev.MeterRead(math.nan, T + 62), T + 62)
    state, _ = reduce(state, ev.MeterRead(7.0, T + 3), T + 62)
    assert (state.meter_w, state.meter_at_s) == (5.0, T + 61)


def test_minutes_are_bounded_and_what_is_not_counted_is_not_zero() -> None:
    kept = Minutes().until(T, 100.0)
    for hour in range(1, 4):
        kept = kept.until(T + hour * HOUR_S, 100.0)
    assert len(kept.rows) <= MOST_MINUTES
    assert kept.energy_j(T + 2 * HOUR_S, 5.0) == pytest.approx(100.0 * HOUR_S)
    holed = kept.until(kept.upto_s + 60.0, math.nan)
    assert holed.energy_j(kept.upto_s, 7.0) == pytest.approx(420.0)
    assert holed.until(T, 1.0) is holed
    assert math.isnan(Minutes().mean_w(0.0, T, 1.0))


# ramps and holds


def test_a_rise_is_ramped_and_a_fall_without_notice_is_not() -> None:
    state = fresh(ramp_up_w_per_s=100.0, ramp_down_w_per_s=100.0)
    state, now = told(state, 0.0, says("o", Cap("c", "o", 4000.0)))
    assert now.cap_w == 4000.0
    state, now = told(state, 1.0, says("o"))
    assert (now.cap_w, now.waits) == (4100.0, "ramp up")
    state, now = told(state, 11.0)
    assert now.cap_w == 5100.0
    state, now = told(state, 12.0, says("o", Cap("c", "o", 1000.0)))
    assert (now.cap_w, now.waits) == (1000.0, "")


def test_after_a_fall_the_cap_is_held() -> None:
    state = fresh(hold_s=60.0)
    state, _ = told(state, 0.0, says("o"))
    state, _ = told(state, 10.0, says("o", Cap("c", "o", 4000.0)))
    state, now = told(state, 20.0, says("o"))
    assert (now.cap_w, now.waits) == (4000.0, "hold after a fall")
    state, now = told(state, 69.0)
    assert now.cap_w == 4000.0
    state, now = told(state, 70.0)
    assert (now.cap_w, now.waits) == (CONNECTION_W, "")


@pytest.mark.parametrize(("own", "site"), [(100.0, math.inf), (math.inf, 100.0), (100.0, 500.0)])
def test_a_known_cap_is_reached_at_its_start_by_its_ramp(own: float, site: float) -> None:
    state = fresh(ramp_down_w_per_s=site)
    cap = Cap("c", "vtn", 4000.0, 100.0, 200.0, ramp_w_per_s=own)
    state, now = told(state, 30.0, says("vtn", cap))
    assert (now.cap_w, now.waits) == (CONNECTION_W, "")
    state, now = told(state, 80.0)
    assert now.cap_w == 6000.0
    assert now.waits.startswith("ramp down to 4,000 W (vtn c)")
    assert now.cap_id != "c"
    state, now = told(state, 100.0)
    assert (now.cap_w, now.cap_id, now.waits) == (4000.0, "c", "")


def test_without_ramps_an_instant_may_be_decided_twice() -> None:
    state, _ = told(fresh(), 5.0, says("o", Cap("c", "o", 4000.0)))
    assert cap_w(state, 5.0, says("o")) == CONNECTION_W


# targets


def test_the_highest_priority_holds_and_among_equals_the_lowest() -> None:
    low = Target("low", "a", 2000.0, priority=5)
    high = [Target("x", "b", 7000.0), Target("y", "b", 6000.0), Target("m", "b", 5000.0)]
    high[2] = replace(high[2], work=Work.MINING)
    _, now = told(fresh(), 0.0, says("a", targets=(low,)), says("b", targets=tuple(high)))
    assert now.target == high[1]
    assert (now.aim_w, now.mining_w, now.conflict) == (6000.0, 5000.0, ("x", "y"))
    assert now.cap_w == CONNECTION_W
    _, now = told(fresh(), 0.0, says("a", targets=(low,)))
    assert (now.target, now.conflict) == (low, ())


def test_a_target_above_the_cap_changes_nothing() -> None:
    said = (says("o", Cap("c", "o", 4000.0)), says("t", targets=(Target("t", "t", 9000.0),)))
    _, now = told(fresh(), 0.0, *said)
    assert (now.cap_w, now.aim_w) == (4000.0, 4000.0)


def test_targets_are_ramped_both_ways_and_fall_from_what_is_drawn() -> None:
    state = fresh(ramp_up_w_per_s=100.0, ramp_down_w_per_s=200.0)
    state, _ = told(state, 0.0, ev.MeterRead(6000.0, 0.0))
    aim = says("t", targets=(Target("t", "t", 5000.0, 0.0, 10.0),))
    state, now = told(state, 1.0, aim, ev.MeterRead(6000.0, 1.0))
    assert now.aim_w == 5800.0
    state, now = told(state, 6.0, ev.MeterRead(5000.0, 6.0))
    assert now.aim_w == 5000.0
    state, now = told(state, 10.0, ev.MeterRead(5000.0, 10.0))
    assert (now.target, now.aim_w) == (None, 5400.0)
    state, now = told(state, 56.0)
    assert math.isinf(now.aim_w)


def test_a_controller_that_starts_holds_what_its_journal_says() -> None:
    state, _ = told(fresh(), 0.0, says("vtn", Cap("c", "vtn", 3000.0)))
    again = initial(state.site, Values(), 2, signals=state.signals)
    assert cap_w(again, 1.0) == 3000.0


# the notice of an event


RIG = Device(
    "rig", "asic", "a", "main", (OperatingPoint("top", 9000.0, 1e14, 1.0),), 9000.0, continuous=True
)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)


def mining(**rules: float) -> State:
    """A site with a machine and a job that mines."""
    state, _ = told(fresh(**rules), T - 2.0, ev.DeviceJoined((RIG,)), ev.JobSubmitted(MINE))
    return state


def _leasing(state: State, watts_w: float) -> State:
    ledger = Ledger.empty(state.fleet)
    return replace(state, ledger=replace(ledger, lease_w=np.array([watts_w])))


def test_mining_keeps_to_its_plan_between_notice_and_start() -> None:
    state = _leasing(mining(), 3000.0)
    for minute in range(16):
        state, now = told(state, T + 60.0 * minute)
    assert math.isinf(now.notice_w)
    now_s = T + 930.0
    event = GridEvent("e", "vtn", "dr", now_s, now_s + 600.0, now_s + 1200.0, 1000.0)
    state, now = told(state, now_s, says("vtn", events=(event,)))
    assert (now.notice, now.notice_w) == ("e", pytest.approx(1.02 * 3000.0))
    # What is leased later does not move it, and telling the event again does not either.
    state, now = told(_leasing(state, 9000.0), now_s + 300.0, says("vtn", events=(event,)))
    assert now.notice_w == pytest.approx(1.02 * 3000.0)
    called_off = replace(event, cancelled_s=now_s + 301.0)
    assert told(state, now_s + 302.0, says("vtn", events=(called_off,)))[1].notice == ""
    assert told(state, now_s + 302.0, says("vtn"))[1].notice == ""
    assert told(state, now_s + 600.0)[1].notice == ""


def test_an_event_without_a_commitment_bars_nothing() -> None:
    state = _leasing(mining(), 3000.0)
    event = GridEvent("e", "vtn", "dr", T, T + 600.0, None)
    assert math.isinf(told(state, T, says("vtn", events=(event,)))[1].notice_w)


def test_after_a_restart_mining_keeps_to_what_it_holds_until_the_plan_is_known() -> None:
    event = GridEvent("e", "vtn", "dr", T - 300.0, T + 600.0, None, 1000.0)
    state, now = told(_leasing(mining(), 2000.0), T, says("vtn", events=(event,)))
    assert now.notice_w == pytest.approx(2000.0)
    state, now = told(_leasing(state, 2500.0), T + 30.0)
    assert now.notice_w == pytest.approx(2500.0), (
        "an agent's leases were found: nothing is raised by that"
    )
    state, now = told(_leasing(state, 2500.0), T + 90.0)
    assert now.notice_w == pytest.approx(2500.0)
    state, now = told(_leasing(state, 9000.0), T + 120.0)
    assert now.notice_w == pytest.approx(2500.0)
