"""Mining held up for promises in a plan: what it draws, what it costs, and when it cannot be."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from tests.scheduler.plan_rig import HOURS, STEP_S, ahead
from tests.scheduler.promise_rig import VALUES, event

from wattshift_scheduler.plan import solve
from wattshift_scheduler.plan.limits import Hold
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.words import Ahead, Batch, Kind, Plan, PlanInvalid, Standing
from wattshift_scheduler.promises.obligations import coming, needs
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.site import Feeder, FeederTree, Site
from wattshift_scheduler.state import State, initial


def asic(name: str = "asic", count: int = 4, **rest: object) -> Kind:
    """30 W at rest, 2 kW at 150 USD/MWh; no kW more."""
    given = {"cycle_usd": 0.0, "running": count, "down_s": 20.0, **rest}
    return Kind(name, count, (30.0, 2030.0), (0.0, 0.30), **given)  # type: ignore[arg-type]


def hold(watts_w: float, first: float, end: float, **rest: object) -> Hold:
    """From one interval until another."""
    given = {"within_s": 600.0, **rest}
    return Hold("peak", first * STEP_S, end * STEP_S, watts_w, **given)  # type: ignore[arg-type]


def solved(given: Ahead) -> Plan:
    return planned(given, near_s=0.0)[0]


def test_what_a_dear_hour_would_let_rest_is_held_and_its_cost_is_in_the_money() -> None:
    given = ahead([40.0] * 2 + [190.0] * 6, kinds=(asic(),))
    free, held = solved(given), solved(replace(given, holds=(hold(5000.0, 4, 6),)))
    assert free.mining_w[:, 0] == pytest.approx([8120.0] * 2 + [120.0] * 6)
    assert held.mining_w[:, 0] == pytest.approx(
        [8120.0] * 2 + [120.0] * 2 + [5120.0] * 2 + [120.0] * 2
    )
    # 5 kW lose 190 - 150 USD/MWh for half an hour.
    assert free.usd - held.usd == pytest.approx(0.04 * 5.0 * 0.5)
    assert held.shadow_usd_per_mwh == pytest.approx(free.shadow_usd_per_mwh)
    assert held.status == "optimal"
    assert any(
        text == "in 1 h 00, for 30 min: 5,000 W of mining are held up for peak"
        for text in held.events
    )


def test_what_is_cheap_to_hold_is_held_first() -> None:
    kinds = (asic("dear", 2), Kind("cheap", 2, (30.0, 2030.0), (0.0, 0.36), running=2, down_s=9.0))
    plan = solved(ahead([190.0] * 2, kinds=kinds, holds=(hold(3000.0, 0, 2),)))
    assert plan.mining_w == pytest.approx(np.array([[60.0, 3060.0]] * 2))


def test_a_machine_stays_up_for_a_promise_that_comes_soon() -> None:
    """Asleep through the dear hour before it, it would pay a cycle to be up again."""
    kinds = (asic("dear", 2, cycle_usd=0.10), asic("cheap", 1, cycle_usd=0.10))
    kinds = (kinds[0], replace(kinds[1], usd_per_h=(0.0, 0.31)))
    given = ahead([40.0] + [160.0] * 3 + [190.0] * 2 + [900.0] * 3, kinds=kinds)
    free, plan = solved(given), solved(replace(given, holds=(hold(3000.0, 4, 6),)))
    assert free.awake[1:].max() < 0.5
    assert plan.awake[:6, 1] == pytest.approx([1.0] * 6), "to stay costs 1.4 cents, a cycle 10"
    assert plan.awake[1:6, 0] == pytest.approx([0.5] * 5), "so much is asked of the dear ones"
    assert plan.awake[6:].max() < 0.5
    # What the dear ones would lose more by 2 kW in five quarters: 5 USD/MWh.
    told = Standing.of(plan).awake_usd["cheap"]
    assert told[0] == pytest.approx(5e-3 * 2.0 * 5 * HOURS)
    assert Standing.of(free).awake_usd["cheap"][0] == pytest.approx(0.0, abs=1e-6)


def test_a_part_of_an_interval_counts_as_a_part() -> None:
    plan = solved(ahead([190.0] * 3, kinds=(asic(),), holds=(hold(4000.0, 0.75, 1.5),)))
    assert plan.mining_w[:, 0] == pytest.approx([1120.0, 2120.0, 120.0])


def test_what_is_down_too_late_is_of_no_use_and_what_lacks_is_told() -> None:
    slow, fast = asic("slow", down_s=601.0), asic("fast", 1)
    plan = solved(ahead([190.0] * 2, kinds=(slow, fast), holds=(hold(5000.0, 0, 2),)))
    assert plan.mining_w == pytest.approx(np.array([[120.0, 2030.0]] * 2))
    words = "promise peak: 3,000 W of the mining that it needs before it cannot be held"
    assert plan.infeasible == (f"{words} from Thu 00:00 UTC at the worst, for 30 min in all",)
    assert plan.usd == pytest.approx(-0.5 * (0.04 * 2.0 + 0.15 * 0.190)), "what lacks is no money"


def test_caps_and_deadlines_go_before_what_is_held() -> None:
    job = Batch("render", 1000.0, 2000.0, 0.0, 2 * STEP_S)
    given = ahead([190.0] * 2, 3120.0, kinds=(asic(),), batches=(job,),
                  holds=(hold(4000.0, 0, 2),))  # fmt: skip
    plan = solved(given)
    assert plan.site_w == pytest.approx([3120.0] * 2)
    assert plan.batch_w[:, 0] == pytest.approx([2000.0] * 2)
    assert plan.mining_w[:, 0] == pytest.approx([1120.0] * 2)
    assert plan.infeasible[0].startswith("promise peak: 3,000 W")


def test_a_large_plan_finds_what_is_held_although_no_price_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    kinds = tuple(
        asic(f"k{i}", int(rng.integers(5, 40)), cycle_usd=float(rng.uniform(0.02, 0.3)),
             up_s=600.0, down_s=float(rng.choice([20.0, 900.0])))
        for i in range(20)
    )  # fmt: skip
    price = rng.uniform(120.0, 260.0, 120)
    given = ahead(price.tolist(), 5e5, kinds=kinds,
                  holds=(hold(1.5e5, 50, 52), hold(4e4, 51, 52, within_s=30.0)))  # fmt: skip
    plan = solved(given)
    monkeypatch.setattr(solve, "SMALL", 10**9)
    whole = solved(given)
    assert plan.status == whole.status == "optimal"
    assert plan.usd == pytest.approx(whole.usd, rel=5e-4)
    rest_w = np.array([kind.count * 30.0 for kind in kinds])
    in_time = np.array([kind.down_s <= 600.0 for kind in kinds])
    risen_w = (plan.mining_w - rest_w)[:, in_time].sum(axis=1)
    assert risen_w[50:52].min() >= 1.5e5 - 1e-3
    assert risen_w.min() < 1.0e5, "and nothing is held where nothing is promised"


def test_what_mines_in_any_case_needs_not_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "SMALL", 0)
    given = ahead([40.0] * 8, kinds=(asic(),))
    plan = solved(replace(given, holds=(hold(8000.0, 2, 4),)))
    assert plan.status == "optimal"
    assert not plan.infeasible
    assert plan.usd == pytest.approx(solved(given).usd)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_foreseen_to_be_held_is_what_the_control_loop_then_needs(seed: int) -> None:
    """At every moment, if what has begun by then has got its watts."""
    dice = random.Random(seed)
    events = tuple(
        event(
            f"e{i}", 60.0 * dice.randrange(1, 90), dice.choice((200.0, 1000.0)),
            notice_s=dice.choice((30.0, 600.0, 3600.0)), lasts_s=dice.choice((300.0, 3600.0)),
        )
        for i in range(dice.randrange(1, 6))
    )  # fmt: skip
    state = told(events)
    until_s = 100 * 60.0
    found = list(coming(state, until_s, 0.0))
    assert all(one.begins_s < one.ends_s for one in found)
    for now_s in [30.0 * i for i in range(200)]:
        open_ = told(tuple(one for one in events if one.starts_s > now_s))
        owed = [
            (one.watts_w, one.within_s, round(now_s + one.starts_in_s), one.names)
            for one in needs(open_, math.inf, now_s)
        ]
        foreseen = [
            (one.need.watts_w, one.need.within_s, round(one.begins_s + one.need.starts_in_s),
             one.need.names)
            for one in found
            if one.begins_s <= now_s < one.ends_s
        ]  # fmt: skip
        assert sorted(foreseen) == sorted(owed), now_s


def told(events: tuple[GridEvent, ...]) -> State:
    state = initial(Site("s", FeederTree.of([Feeder("main", None, 1e5)])), VALUES, 1)
    return replace(state, signals=replace(state.signals, events={"vtn": events}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: hold(1.0, 2.0, 2.0),
        lambda: hold(-1.0, 2.0, 3.0),
        lambda: hold(math.nan, 2.0, 3.0),
        lambda: hold(1.0, math.nan, 3.0),
        lambda: hold(1.0, 1.0, 3.0, within_s=-1.0),
    ],
)
def test_a_hold_that_cannot_be_is_refused_by_name(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanInvalid, match=r"^peak: "):
        make()
