"""I8: what is promised to the grid is drawn until it starts, or an alarm says how much lacks."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.scheduler.decided_twice import differences
from tests.scheduler.promise_rig import (
    CHEAP,
    DEAR,
    Play,
    asic,
    event,
    first_found,
    gate,
    story,
)

from wattshift_cluster.simulate.agents import ModelledAgent
from wattshift_scheduler import events as ev
from wattshift_scheduler import fixed
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.forecasts.reserve import Held
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.promises import (
    held_words,
    holdable,
    holding,
    obligations,
    sheddable,
    shortages,
)
from wattshift_scheduler.promises.filling import Filling
from wattshift_scheduler.signals.words import Cap, GridEvent
from wattshift_scheduler.site import Device, Rules
from wattshift_scheduler.step import decide

pytestmark = pytest.mark.timeout(400)

HISTORIES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99)), min_size=2, max_size=7)

GATES = (gate("g0"), gate("g1"), gate("g2"))
MIXED = (asic("a0"), asic("a1"), gate("g0"), gate("g1"))


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10_000), history=HISTORIES)
def test_every_promise_has_its_watts_or_the_alarm_says_what_lacks(
    seed: int, history: list[tuple[int, int]]
) -> None:
    assert story(seed, history).found == []


def test_the_seeds_of_the_mutation_tests_are_clean_with_all_guards() -> None:
    assert first_found([*range(12), 25, 52, 101]) == ""
    assert first_found([20_332, 21_467], long=True) == ""


def _nothing_held(state: Any, wanted: Any, *_: Any) -> Any:
    return wanted, replace(state, held=Held())


def _inference_last(owed: Any, shed: Any, reserve: Any, was: Any = shortages.short) -> Any:
    return was(owed, shed, replace(reserve, burst_w=0.0, plan_w=0.0))


def _slow_is_fast(state: Any, now_s: float, last: Any = None, was: Any = sheddable.shown) -> Any:
    seen_w = was(state, now_s, last)
    return replace(seen_w, fixed=replace(seen_w.fixed, times_s=0.0 * seen_w.fixed.times_s))


def _only_the_site(self: Any, *asked: Any, was: Any = Filling._left_w) -> Any:
    left_w = was(self, *asked)
    return np.where(np.arange(len(left_w)) > 0, 1e9, left_w)


def _endless_room(self: Any, *asked: Any, was: Any = Filling._left_w) -> Any:
    return was(self, *asked) + 1e9


def _never_over(self: Any, at_s: float, was: Any = GridEvent.stands) -> bool:
    return at_s != self.starts_s or bool(was(self, at_s))


MUTATIONS: list[tuple[str, Any, str, Any, int, str]] = [
    ("nothing is held", holding, "held", _nothing_held, 0, "I8"),
    ("no alarm", shortages, "causes", lambda *_: iter(()), 0, "I8"),
    ("bursts and promises share", shortages, "short", _inference_last, 7, "I8"),
    ("slow is fast", shortages, "shown", _slow_is_fast, 1, "I8"),
    ("slow is held", fixed, "down_s", lambda fleet: np.zeros(len(fleet)), 25, "I8"),
    ("given is owed again", obligations, "_given_w", lambda *_: 0.0, 2, "I8"),
    ("ended is owed", GridEvent, "stands", _never_over, 2, "I8"),
    ("room is endless", Filling, "_left_w", _endless_room, 3, "I1"),
    ("feeders are endless", Filling, "_left_w", _only_the_site, 101, "I1"),
    ("slower is raised", Filling, "_make_room", lambda *_: None, 52, "I1"),
    ("untold", held_words, "told", lambda *_: (), 0, "I7"),
]


@pytest.mark.parametrize(
    ("where", "name", "mutant", "seed", "broken"),
    [row[1:] for row in MUTATIONS],
    ids=[row[0] for row in MUTATIONS],
)
def test_without_its_guard_it_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any, seed: int, broken: str
) -> None:
    monkeypatch.setattr(where, name, mutant)
    assert first_found(range(seed, seed + 12)).startswith(broken)


def _no_gates_asked(self: Any) -> Any:
    """What machines draw beyond a promise is taken to serve a burst, too."""
    return np.arange(len(self.watts_w))


def _nothing_lent(now: Any, *_: Any) -> Any:
    return now


@pytest.mark.parametrize(
    ("where", "name", "mutant", "seed"),
    [
        (Filling, "_gates", _no_gates_asked, 21_467),
        (holding, "lent", _nothing_lent, 20_332),
    ],
    ids=["machines serve bursts", "what is lent is held"],
)
def test_without_its_guard_a_long_story_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any, seed: int
) -> None:
    monkeypatch.setattr(where, name, mutant)
    assert first_found([seed], long=True).startswith("I8")


def running(*devices: Device, **named: Any) -> Play:
    """A site on which everything mines, for long enough that a plan before a notice is known."""
    play = Play(devices, **named)
    play.run(70)
    assert play.drawn_w > 0.0
    return play


def test_a_low_price_puts_to_rest_what_no_promise_needs() -> None:
    play = running(*MIXED)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.price(DEAR)
    play.run(30)
    assert (play.found, play.alarm) == ([], "")
    assert play.state.ledger.point.tolist() == [0, 0, 1, 1], "two gates lose less than a machine"
    assert 1000.0 <= play.drawn_w <= 1.06 * 1000.0
    play.promise()
    play.run(30)
    assert play.drawn_w == 0.0
    assert play.reasons("site")[-1] == "release: no mining is held up for e any more"


def test_what_is_held_is_told_with_its_promise_and_its_loss() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 500.0, name="Evening peak"))
    play.price(DEAR)
    play.run(1)
    # 1e13 H/s at 50 USD/PH/day are 500/24 mUSD an hour for 600 W.
    lost = DEAR - 0.01 * 50.0 / 24.0 / 600e-6
    assert (
        f"held up at a loss of {lost:,.1f} USD/MWh for Evening peak, to which 500 W are promised "
        "with a notice of 30 min" in play.reasons("g0")[-1]
    )
    whole = next(one for one in play.told if isinstance(one, Decision) and one.action == "hold")
    held_w = whole.inputs["held_w"]
    assert isinstance(held_w, float)
    assert 500.0 <= held_w <= 1.06 * 500.0
    assert f"{held_w:,.0f} W of mining in 1 devices are held up for Evening peak" in whole.reason
    loss = f"it loses {held_w * 1e-6 * lost:,.2f} USD an hour, {lost:,.1f} USD/MWh"
    assert loss in whole.reason
    assert whole.inputs["held_usd_per_mwh"] == pytest.approx(lost)
    told = shortages.by_kind(play.state, play.now_s)
    assert (told["owed"], told["short"]) == (500.0, 0.0)
    assert 500.0 <= told["held"] <= 1.06 * 500.0


def test_a_loss_counts_the_carbon_that_the_operator_prices() -> None:
    play = running(*GATES)
    play.state = replace(play.state, values=replace(play.state.values, carbon_usd_per_t=80.0))
    play.promise(event("e", play.now_s + 300.0, 500.0))
    play.price(DEAR)
    play.hear(ev.CarbonSeen(400.0))
    play.run(1)
    whole = next(one for one in play.told if isinstance(one, Decision) and one.action == "hold")
    lost = DEAR + 0.4 * 80.0 - 0.01 * 50.0 / 24.0 / 600e-6
    assert whole.inputs["held_usd_per_mwh"] == pytest.approx(lost)


def test_the_price_that_a_plan_puts_on_top_is_no_reason_to_rest_either() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    price, n = np.full(12, CHEAP), 12
    plan = Standing(
        play.now_s, play.now_s, 300.0, play.now_s + 900.0,
        price_usd_per_mwh=price, shadow_usd_per_mwh=price + 1e3, reserve_w=np.zeros(n),
    )  # fmt: skip
    play.hear(ev.PlanUpdated(plan))
    play.run(20)
    assert 1000.0 <= play.drawn_w <= 1.06 * 1000.0
    assert (play.found, play.alarm) == ([], "")


def test_a_cap_comes_first_and_the_alarm_goes_by_itself() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.price(DEAR)
    play.cap(700.0)
    play.run(8)
    assert play.drawn_w <= 700.0
    assert "1,000 W are promised to e" in play.alarm
    short_w = shortages.by_kind(play.state, play.now_s)["short"]
    assert short_w >= 300.0
    assert f": {short_w:,.0f} W are short" in play.alarm
    assert "caps, feeders and what services have leave mining no more" in play.alarm
    play.cap(None)
    play.run(8)
    assert (play.found, play.alarm) == ([], "")
    assert 1000.0 <= play.drawn_w <= 1.06 * 1000.0
    assert [row[:9] for row in play.reasons("promise-short")] == ["alarm: 1,", "all clear"]


def test_a_fault_comes_first() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.world.agents["gpus"].silent = True
    play.run(8)
    assert "1,000 W are short; 0 W are drawn" in play.alarm
    assert "3 devices with leases do not answer or obey" in play.alarm
    play.world.agents["gpus"].silent = False
    play.run(12)
    assert (play.found, play.alarm) == ([], "")


def test_what_is_kept_for_bursts_is_promised_to_nobody() -> None:
    """1,800 W mine behind gates and nothing is free; 800 W of them are for the next burst."""
    play = Play((*GATES, asic("a0")), (1800.0 + 3150.0 + 400.0, 2e4, 2e4), units=4)
    play.bursts(2)
    play.wants(1)
    play.run(70)
    assert play.state.reserve.services_w == pytest.approx(800.0)
    gates_w = sum(one.watts_w for one in play.world.devices.values() if one.device.fenced)
    play.promise(event("e", play.now_s + 10.0, 1500.0, notice_s=10.0))
    play.run(2)
    left_w = gates_w - (800.0 - play.state.reserve.free_w)
    assert (
        f"{play.state.reserve.services_w - play.state.reserve.free_w:,.0f} W behind" in play.alarm
    )
    lacks_w = float(play.alarm.split(" W are short")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert lacks_w == pytest.approx(1500.0 - left_w, abs=25.0)
    assert play.found == []


def test_nothing_is_held_that_a_burst_would_take_again() -> None:
    """Gates could be raised into what is free: but that is kept for services, and to be held and
    counted once more would only cost."""
    play = Play(GATES, (400.0 + 900.0, 2e4, 2e4), units=4)
    play.bursts(2)
    play.wants(1)
    play.run(70)
    play.promise(event("e", play.now_s + 300.0, 1500.0))
    play.price(DEAR)
    play.run(8)
    kept_w = play.state.reserve.services_w
    assert kept_w == pytest.approx(800.0)
    assert play.state.held.held_w <= 900.0 - kept_w + 1.0
    assert play.found == []


def test_a_promise_needs_nobody_until_half_an_hour_before() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 1860.0, 1000.0, notice_s=86_400.0))
    play.price(DEAR)
    play.run(30)
    assert (play.drawn_w, play.alarm) == (0.0, "")
    play.run(45)
    assert 1000.0 <= play.drawn_w <= 1.06 * 1000.0, "what rested is up again"
    restored = [row for row in play.reasons("g2") if row.startswith("restore")]
    assert not restored, "what comes up counts before a sensor has shown it"
    assert (play.found, play.alarm) == ([], "")


def test_what_is_slower_than_the_notice_serves_no_promise() -> None:
    play = running(asic("a0", down_s=60.0))
    play.promise(event("e", play.now_s + 40.0, 1000.0, notice_s=40.0))
    play.run(1)
    assert "1,000 W are short; 0 W are drawn" in play.alarm
    assert "W take longer to come down" in play.alarm
    assert not len(play.state.held.rows)


def test_what_cannot_be_up_before_the_start_is_not_raised() -> None:
    play = running(asic("a0", down_s=20.0))
    play.promise(event("e", play.now_s + 60.0, 1000.0))
    play.price(DEAR)
    play.cap(500.0)
    play.run(45)
    play.cap(None)
    play.run(6)
    assert play.state.ledger.point.tolist() == [0]
    assert "1,000 W are short" in play.alarm


def test_who_may_not_mine_is_not_held() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.hear(ev.JobActed("mine", "pause"))
    play.run(8)
    assert play.drawn_w == 0.0
    assert "1,000 W are short" in play.alarm


def test_nothing_is_held_at_an_unknown_price() -> None:
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.state = replace(
        play.state, values=replace(play.state.values, default_price_usd_per_mwh=None)
    )
    play.price(None)
    play.run(8)
    assert play.drawn_w == 0.0
    assert "nothing mines while the energy price is unknown" in play.alarm


def test_events_that_follow_each_other_need_the_same_watts() -> None:
    play = running(*GATES)
    first_s = play.now_s + 20.0
    play.promise(event("e1", first_s, 1500.0, lasts_s=60.0), event("e2", first_s + 60.0, 1500.0))
    play.run(5)
    assert (play.alarm, play.found) == ("", [])
    play.hear(ev.SignalChanged("operator", (Cap("c", "operator", 300.0, first_s),)))
    play.run(40)
    assert play.drawn_w <= 300.0
    assert (play.alarm, play.found) == ("", []), "what the first has been given is the second's"


def test_what_a_ramp_sheds_before_the_start_is_given() -> None:
    rules = Rules(margin_share=0.0, burst_share=0.0, ramp_down_w_per_s=50.0)
    play = running(*GATES, rules=rules)
    starts_s = play.now_s + 40.0
    play.promise(event("e", starts_s, 1500.0))
    cap = Cap("c", "vtn", 300.0, starts_s, starts_s + 600.0)
    play.hear(ev.SignalChanged("caps", (cap,)))
    for _ in range(38):
        play.run(1)
        assert play.alarm == ""
    assert play.drawn_w <= 500.0


def test_a_gate_whose_card_inference_has_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is leased and draws nothing: others are held in its place, and nothing swings."""
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.price(DEAR)
    monkeypatch.setattr(ModelledAgent, "read", _busy("g0"))
    play.run(20)
    assert play.alarm == ""
    quiet = len([one for one in play.told if isinstance(one, Moves)])
    play.run(40)
    assert len([one for one in play.told if isinstance(one, Moves)]) == quiet
    assert play.alarm == ""


def test_a_cap_asks_no_gate_whose_card_inference_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may begin to draw whenever inference pauses."""
    play = running(*GATES)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    play.price(DEAR)
    play.run(20)
    monkeypatch.setattr(ModelledAgent, "read", _busy("g0"))
    play.run(20)
    assert play.state.ledger.lease_w[0] == 600.0
    play.cap(300.0)
    play.run(3)
    assert float(play.state.ledger.lease_w.sum()) <= 300.0
    assert play.found == []


def _busy(name: str, was: Any = ModelledAgent.read) -> Callable[[Any, float], ev.Readings]:
    def read(self: Any, now_s: float) -> ev.Readings:
        told: ev.Readings = was(self, now_s)
        return replace(told, watts_w=np.where(np.array(told.devices) == name, 0.0, told.watts_w))

    return read


def test_nothing_slower_is_raised_into_watts_that_a_promise_holds() -> None:
    """Under a cap the gates have the room; as it rises a machine that earns more would have it."""
    play = Play((asic("a0", down_s=60.0), *GATES), (3500.0, 2e4, 2e4))
    play.cap(1900.0)
    play.run(70)
    assert play.drawn_w > 1700.0
    play.promise(event("e", play.now_s + 40.0, 1500.0, notice_s=40.0))
    play.cap(None)
    play.run(5)
    assert play.alarm == ""
    assert play.state.ledger.point.tolist()[0] == 0
    play.promise()
    play.run(5)
    assert play.state.ledger.point.tolist()[0] > 0


def test_without_a_promise_nothing_looks_at_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: Any) -> Any:
        raise AssertionError("a pass over the fleet")

    play = running(*GATES)
    monkeypatch.setattr(holdable, "shown", looked)
    monkeypatch.setattr(shortages, "shown", looked)
    play.promise(replace(event("e", play.now_s + 300.0, 1.0), commitment_w=float("nan")))
    play.price(DEAR)
    play.run(5)
    play.promise(event("e", play.now_s + 300.0, 1000.0))
    with pytest.raises(AssertionError, match="a pass"):
        play.run(2)


def test_a_decision_is_the_same_from_what_is_carried_as_anew() -> None:
    rng = random.Random(5)
    for seed in range(12):
        history = [(rng.randrange(70), rng.randrange(100)) for _ in range(5)]
        play = story(seed, history)
        for _ in range(3):
            play.run(1)
            fast = decide(play.state, play.now_s)
            plain = decide(play.state.forgotten(), play.now_s)
            assert list(differences(fast, plain)) == []
