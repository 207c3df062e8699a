"""The look-ahead plan: against brute force, by its duals, and in cases whose answer is known."""

import dataclasses
import itertools
import math
import sys
from typing import Any

import highspy
import numpy as np
import pytest
from tests.scheduler.plan_rig import HOURS, STEP_S, ahead

from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.telling import clock
from wattshift_scheduler.plan.words import (
    Ahead,
    Batch,
    Commitment,
    Kind,
    Peak,
    Plan,
    PlanInvalid,
    PlannerMissing,
    Standing,
)


def asic(name: str = "asic", count: int = 1, **rest: object) -> Kind:
    """30 W at rest, 2 kW at 150 USD/MWh, 3 kW with another kW at 60."""
    given = {"up_s": 300.0, "cycle_usd": 0.15, "running": count, **rest}
    return Kind(name, count, (30.0, 2030.0, 3030.0), (0.0, 0.30, 0.36), **given)  # type: ignore[arg-type]


def solved(given: Ahead, near_s: float = 1e9) -> Plan:
    plan, _ = planned(given, near_s=near_s)
    return plan


def best_by_hand(given: Ahead) -> float:
    """Every schedule of sleep and work of every device, each interval filled by value, USD."""
    n, devices = len(given), []
    for kind in given.kinds:
        devices += [(kind, i < kind.running) for i in range(kind.count)]
    best = -math.inf
    alone = [_schedules(kind, up, n) for kind, up in devices]
    for chosen in itertools.product(*alone):
        total = -sum(wear for _, wear in chosen)
        for t in range(n):
            pairs = zip(devices, chosen, strict=True)
            worth = _filled(given, [(kind, s[t]) for (kind, _), (s, _) in pairs], t)
            total += worth
            if worth == -math.inf:
                break
        best = max(best, total)
    return best


def _schedules(kind: Kind, up: bool, n: int) -> list[tuple[tuple[float, ...], float]]:
    """What share of each interval one device works, -1 at rest, and what its wakes wear off."""
    missed = kind.usd_per_h[-1] * kind.up_s / 3600.0
    wear, found = max(kind.cycle_usd - missed, 0.0), []
    for bits in itertools.product((False, True), repeat=n):
        states = (up, *bits)
        turns = [t for t in range(n) if states[t] != states[t + 1]]
        least = {
            True: math.ceil(kind.min_up_s / STEP_S),
            False: math.ceil(kind.min_down_s / STEP_S),
        }
        ends = [*turns[1:], None][: len(turns)]
        short = any(
            end is not None and end - begin < least[states[begin + 1]]
            for begin, end in zip(turns, ends, strict=True)
        )
        if short:
            continue
        wakes = [t for t in turns if states[t + 1]]
        shares = tuple(
            -1.0 if not states[t + 1] else 1.0 - (kind.up_s / STEP_S if t in wakes else 0.0)
            for t in range(n)
        )
        found.append((shares, wear * len(wakes)))
    return found


def _filled(given: Ahead, states: list[tuple[Kind, float]], t: int) -> float:
    """Money of one interval: all at their least, then upwards by value under the cap."""
    price, room_w = given.price.mid[t], given.cap_w[t] - given.other.mid[t] - given.services.mid[t]
    money, steps = -(given.other.mid[t] + given.services.mid[t]) * price / 1e6 * HOURS, []
    for kind, share in states:
        points, usd = kind.points_w, kind.usd_per_h
        draw_w, income = points[0], 0.0
        if share >= 0.0:
            draw_w = share * points[1] + (1.0 - share) * points[-1]
            income = share * usd[1]
            steps += [
                ((b - a) / (q - p) * 1e6, share * (q - p))
                for (p, q), (a, b) in zip(
                    itertools.pairwise(points[1:]), itertools.pairwise(usd[1:]), strict=True
                )
            ]
        room_w -= draw_w
        money += (income - draw_w * price / 1e6) * HOURS
    if room_w < -1e-9:
        return -math.inf
    for value, span_w in sorted(steps, reverse=True):
        taken_w = min(span_w, room_w) if value > price else 0.0
        room_w -= taken_w
        money += (value - price) * taken_w / 1e6 * HOURS
    return money


def test_a_plan_is_as_good_as_the_best_of_all_schedules() -> None:
    rng = np.random.default_rng(5)
    for case in range(9):
        n = 5 if case % 2 else 4
        kinds = tuple(
            Kind(
                f"k{i}",
                count,
                (30.0, 2000.0 + 100 * i, 3000.0),
                (0.0, float(rng.uniform(0.1, 0.4)), 0.45),
                up_s=float(rng.choice([0.0, 300.0, 900.0])),
                cycle_usd=float(rng.uniform(0.0, 0.4)),
                min_up_s=float(rng.choice([0.0, 2 * STEP_S])),
                min_down_s=float(rng.choice([0.0, 2 * STEP_S])),
                running=int(rng.integers(0, count + 1)),
            )
            for i, count in enumerate((1, 1) if case % 3 else (2,))
        )
        cap_w = rng.uniform(2500.0, 9500.0, n).tolist() if case % 4 else 20_000.0
        given = ahead(rng.uniform(-20.0, 320.0, n).tolist(), cap_w, kinds=kinds)
        plan = solved(given)
        assert not plan.infeasible, case
        assert plan.usd == pytest.approx(best_by_hand(given), abs=2e-4), case


def test_prices_tell_what_a_watt_more_of_the_cap_is_worth() -> None:
    given = ahead(
        [40.0, 90.0, 30.0, 200.0, 50.0, 45.0],
        [7000.0, 7000.0, 5000.0, 7000.0, 9000.0, 20_000.0],
        kinds=(asic("a", 2), asic("b", 2, cycle_usd=0.4)),
        services=Band.of(np.full(6, 1000.0)),
        other=Band.of(np.full(6, 10.0)),
        batches=(Batch("late", 2000.0, 2000.0, 0.0, 3600.0),),
    )
    plan = solved(given, near_s=0.0)
    assert plan.status == "optimal"
    for t in range(len(given)):
        beyond = (plan.shadow_usd_per_mwh - plan.price_usd_per_mwh)[t]
        # At a corner of the value its slope differs on both sides, and the dual lies between.
        more, less = (_moved(given, t, cap_w=by_w).usd - plan.usd for by_w in (1.0, -1.0))
        assert more * 1e6 / HOURS - 0.05 <= beyond <= -less * 1e6 / HOURS + 0.05, t
        load, relief = (_moved(given, t, other_w=by_w).usd - plan.usd for by_w in (1.0, -1.0))
        shadow = plan.shadow_usd_per_mwh[t]
        assert relief * 1e6 / HOURS - 0.05 <= shadow <= -load * 1e6 / HOURS + 0.05, t


def _moved(given: Ahead, t: int, *, cap_w: float = 0.0, other_w: float = 0.0) -> Plan:
    """The plan with a cap, or a load, moved in one interval."""
    at = np.arange(len(given)) == t
    other = Band.of(given.other.mid + np.where(at, other_w, 0.0))
    return solved(
        dataclasses.replace(given, cap_w=given.cap_w + np.where(at, cap_w, 0.0), other=other), 0.0
    )


@pytest.mark.parametrize(("spike", "asleep"), [(1, False), (8, True)])
def test_a_spike_is_slept_through_only_if_that_pays_for_the_cycle(spike: int, asleep: bool) -> None:
    # Awake through it loses (190 - 150) x 2 kW an hour, or 2 cents a quarter; a cycle costs 15.
    price = [40.0] * 4 + [190.0] * spike + [40.0] * 4
    plan = solved(ahead(price, kinds=(asic(),)))
    assert (plan.awake[4 : 4 + spike, 0] < 0.5).all() == asleep
    assert (plan.awake[:4, 0] > 0.5).all()
    assert plan.awake[-1, 0] > 0.5
    assert (plan.awake_usd >= 0.0).all()
    assert (plan.awake_usd <= 0.15).all()
    # Before it begins to be worth sleeping through, what is awake is worth what it will save.
    assert plan.awake_usd[3, 0] == pytest.approx(
        0.15 - 0.02 * spike if not asleep else 0.0, abs=0.02
    )
    assert (plan.mining_w[4 : 4 + spike, 0] < 2100.0).all(), "the dear kW is not drawn in any case"


def test_what_awake_is_worth_is_expected_over_the_band_of_the_price() -> None:
    """Eight dear intervals ahead that may as well not be: up is worth a part of its cycle."""
    middle = np.array([40.0] * 4 + [190.0] * 8 + [40.0] * 4)
    low = np.where(middle > 100.0, 40.0, middle)
    given = ahead(middle.tolist(), kinds=(asic(),))
    sure, foreseen = (
        solved(given),
        solved(dataclasses.replace(given, price=Band(low, middle, middle))),
    )
    assert sure.awake_usd[3, 0] == pytest.approx(0.0, abs=0.02)
    assert foreseen.awake_usd[3, 0] == pytest.approx(0.3 * 0.15, abs=0.02)


def test_a_foreseen_price_turns_no_machine() -> None:
    """What awake is worth is told as long as the prices of its hours are known, and only then."""
    price = np.array([40.0] * 4 + [190.0] * 8 + [40.0] * 8)
    for known, told in ((20, True), (17, True), (16, False), (1, False)):
        low = np.where(np.arange(20) < known, price, 0.5 * price)
        plan = solved(
            dataclasses.replace(
                ahead(price.tolist(), kinds=(asic(),)), price=Band(low, price, price)
            )
        )
        standing = Standing.of(plan)
        assert (plan.sure, set(standing.awake_usd)) == (known, {"asic"} if told else set())
        assert len(standing.shadow_usd_per_mwh) == 16, "the rest of the plan is told in any case"


def test_a_deadline_is_met_in_the_cheapest_hours_before_it() -> None:
    price = [80.0, 20.0, 70.0, 30.0, 90.0, 10.0, 5.0, 5.0]
    job = Batch("render", 1000.0, 2000.0, 0.0, 6 * STEP_S)
    plan = solved(ahead(price, batches=(job,)))
    # 1 kWh at 2 kW takes two quarters: those at 20 and 10, and not the cheaper ones after it.
    assert plan.batch_w[:, 0] == pytest.approx([0, 2000.0, 0, 0, 0, 2000.0, 0, 0], abs=1e-6)
    assert np.array_equal(plan.hold_w, plan.batch_w)
    assert any("render" in text for text in plan.events)


def test_what_has_no_deadline_does_not_wait() -> None:
    price = [80.0, 20.0, 10.0, 30.0]
    plan = solved(ahead(price, batches=(Batch("soon", 1000.0, 2000.0),)))
    assert plan.batch_w[:, 0] == pytest.approx([2000.0, 2000.0, 0, 0], abs=1e-6)
    assert not plan.hold_w.any()
    assert plan.usd == pytest.approx(-(80.0 + 20.0) * 2e-3 * HOURS, abs=1e-9)


@pytest.mark.parametrize(("charge", "asleep"), [(1e-4, False), (5e-3, True)])
def test_a_peak_is_avoided_when_its_chance_times_the_charge_exceeds_the_margin(
    charge: float, asleep: bool
) -> None:
    chance = np.array([0.0, 0.0, 0.2, 0.0, 0.0])
    peak = Peak("summer", charge, chance)
    plan = solved(ahead([40.0] * 5, kinds=(asic(),), peaks=(peak,)))
    # 2 kW: 0.2 x 2000 x charge is 4 cents, or 2 dollars, against a margin of 5.5 and a cycle.
    assert (plan.awake[2, 0] < 0.5) == asleep
    beyond = (plan.shadow_usd_per_mwh - plan.price_usd_per_mwh)[2]
    assert beyond == pytest.approx(0.2 * charge * 1e6 / HOURS, rel=1e-6)


def test_a_demand_charge_counts_only_above_the_months_highest() -> None:
    given = ahead([40.0] * 4, kinds=(asic("a", 2),))
    month = Peak("month", 1.0, None, 3030.0 + 30.0)
    plan = solved(dataclasses.replace(given, peaks=(month,)))
    assert plan.site_w.max() == pytest.approx(3060.0, abs=1.0)
    assert solved(given).site_w.max() == pytest.approx(6060.0, abs=1.0)


def test_a_promise_is_kept_where_it_pays_and_a_firm_one_always() -> None:
    given = ahead([40.0] * 6, kinds=(asic("a", 2),))
    span = (2 * STEP_S, 4 * STEP_S)
    poor = Commitment("poor", *span, 2000.0, 5.0, 4060.0, 1.0)
    rich = Commitment("rich", *span, 2100.0, 600.0, 3960.0, 500.0)
    firm = dataclasses.replace(poor, name="firm", firm=True)
    kept = [
        solved(dataclasses.replace(given, commitments=(one,))).site_w for one in (poor, rich, firm)
    ]
    assert kept[0].min() > 5000.0
    assert kept[1][2:4].max() <= 2100.0 + 1e-6
    assert kept[1][1] > 5000.0
    assert kept[2][2:4].max() <= 2000.0 + 1e-6


def test_what_cannot_be_met_is_given_up_in_order_and_named() -> None:
    job = Batch("hopeless", 9000.0, 2000.0, 0.0, 2 * STEP_S)
    plan = solved(ahead([40.0] * 4, 1500.0, batches=(job,), kinds=(asic(),)))
    assert plan.status == "infeasible"
    assert "hopeless" in plan.infeasible[0]
    assert "92 %" in plan.infeasible[0]
    assert plan.batch_w[:2, 0] == pytest.approx([1470.0, 1470.0]), "what can be done is done"
    short = ahead([40.0] * 4, [5000.0, 800.0, 5000.0, 5000.0], services=Band.of(np.full(4, 1000.0)))
    plan = solved(dataclasses.replace(short, kinds=(asic(),), batches=(job,)))
    assert plan.site_w.max() <= 5000.0 + 1e-6
    assert plan.site_w[1] <= 800.0 + 1e-6
    assert plan.infeasible[0].startswith("services lack 230 W")
    assert "hopeless" in plan.infeasible[1]
    floor = solved(dataclasses.replace(short, other=Band.of(np.full(4, 900.0))))
    words = "the cap lies 100 W below what cannot be shed from Thu 00:15 UTC"
    assert floor.infeasible[0] == f"{words}, for 15 min"
    longer = dataclasses.replace(short, cap_w=np.array([850.0, 800.0, 5000.0, 5000.0]))
    floor = solved(dataclasses.replace(longer, other=Band.of(np.full(4, 900.0))))
    assert floor.infeasible[0] == f"{words} at the worst, for 30 min in all"
    assert [clock(at_s) for at_s in (0.0, 1_796_189_100.0)] == ["Thu 00:00", "Wed 05:25"]


def test_the_reserve_of_services_is_free_or_held_behind_gates() -> None:
    services = Band(np.full(4, 900.0), np.full(4, 1000.0), np.full(4, 3000.0))
    gpu = Kind("gpu", 1, (0.0, 700.0), (0.0, 0.2), fenced=True, running=1)
    given = ahead([40.0] * 4, 6000.0, services=services, kinds=(asic("a", 2), gpu))
    plan = solved(given)
    assert plan.reserve_w == pytest.approx(np.full(4, 2000.0))
    assert (plan.cap_w - plan.site_w + plan.mining_w[:, 1] >= 2000.0 - 1e-6).all()
    assert not plan.infeasible


def test_the_site_changes_no_faster_than_its_ramps() -> None:
    given = ahead(
        [40.0] * 6 + [400.0] * 6, kinds=(asic("a", 10, running=0, cycle_usd=0.0, up_s=0.0),)
    )
    steep = np.abs(np.diff(solved(given).site_w)).max()
    ramp = 5.0
    plan = solved(dataclasses.replace(given, ramp_up_w_per_s=ramp, ramp_down_w_per_s=ramp), 0.0)
    assert steep > 20_000.0
    assert np.abs(np.diff(plan.site_w)).max() <= ramp * STEP_S + 1e-6


def test_sun_is_used_but_a_cap_counts_only_on_what_is_sure() -> None:
    solar = Band(np.full(2, 500.0), np.full(2, 2000.0), np.full(2, 2500.0))
    plan = solved(ahead([100.0] * 2, 1530.0, solar=solar, kinds=(asic(),)))
    assert plan.site_w == pytest.approx([30.0, 30.0]), "2 kW are drawn, all from the sun"
    plan = solved(ahead([100.0] * 2, 1500.0, solar=solar, kinds=(asic(),)))
    assert plan.awake.max() < 0.5, "without the sun that is not sure the cap would not hold"


def test_carbon_has_its_price() -> None:
    carbon = Band.of(np.array([0.0, 900.0]))
    plan = solved(
        ahead([100.0] * 2, kinds=(asic(cycle_usd=0.0, up_s=0.0),), carbon_g_per_kwh=carbon,
              carbon_usd_per_t=100.0)
    )  # fmt: skip
    assert plan.price_usd_per_mwh == pytest.approx([100.0, 190.0])
    assert plan.awake[0, 0] > 0.5
    assert plan.awake[1, 0] < 0.5


def test_a_warm_plan_says_what_a_cold_one_does_and_the_same_each_time() -> None:
    rng = np.random.default_rng(2)
    price = rng.uniform(20.0, 200.0, 40)
    kinds = tuple(asic(f"k{i}", 5 + i, cycle_usd=0.1 + 0.05 * i) for i in range(3))
    first, _ = planned(ahead(price.tolist(), 30_000.0, kinds=kinds))
    again, warm = planned(ahead(price.tolist(), 30_000.0, kinds=kinds))
    assert np.array_equal(first.site_w, again.site_w)
    assert first.usd == again.usd
    later = dataclasses.replace(ahead(price[1:].tolist(), 30_000.0, kinds=kinds), start_s=STEP_S)
    cold, _ = planned(later)
    warmed, _ = planned(later, warm=warm)
    assert warmed.usd == pytest.approx(cold.usd, rel=5e-4)


def test_without_its_solver_a_plan_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(PlannerMissing, match="install the package highspy"):
        planned(ahead([40.0] * 4, kinds=(asic(),)))


def test_whoever_else_solved_in_this_process_a_plan_is_made() -> None:
    """HiGHS keeps one set of threads a process, and takes no program for another number."""
    api: Any = highspy
    api.Highs.resetGlobalScheduler(True)
    other = api.Highs()
    other.setOptionValue("output_flag", False)
    other.setOptionValue("threads", 3)
    column = other.addVariable(0.0, 1.0, -1.0, api.HighsVarType.kInteger)
    other.addConstr(2.0 * column <= 1.5)
    assert other.run() == api.HighsStatus.kOk
    plan, _ = planned(ahead([40.0] * 4, kinds=(asic(),)))
    assert plan.status == "optimal"


def test_a_program_that_the_solver_refuses_is_no_lack_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(highspy.Highs, "run", lambda _: highspy.HighsStatus.kError)
    with pytest.raises(RuntimeError, match="HiGHS refused a program"):
        planned(ahead([40.0] * 4, kinds=(asic(),)))


def test_a_plan_out_of_time_says_so() -> None:
    plan, warm = planned(ahead([40.0] * 4, kinds=(asic(),)), time_limit_s=0.0)
    assert plan.status == "time-limit"
    assert not plan.usable
    assert warm is None


@pytest.mark.parametrize(("dear", "intervals"), [(200.0, 4), (210.0, 0)])
def test_what_wakes_stays_up_for_its_least_time(dear: float, intervals: int) -> None:
    # In the cheap quarter it earns 8.25 cents; in each dear one it loses 2.5, or 3 of them.
    slow = asic(running=0, up_s=0.0, cycle_usd=0.0, min_up_s=4 * STEP_S)
    plan = solved(ahead([dear, dear, 10.0, dear, dear, dear, dear], kinds=(slow,)))
    assert plan.awake[:, 0].sum() == pytest.approx(intervals)


def test_a_machine_that_must_stay_up_yields_to_a_cap() -> None:
    fresh = asic(min_up_s=3600.0, since_s=60.0)
    assert solved(ahead([400.0] * 6, kinds=(fresh,))).awake[:2, 0].min() > 0.5
    plan = solved(ahead([400.0] * 6, 1000.0, kinds=(fresh,)))
    assert plan.site_w.max() <= 1000.0
    assert plan.status == "optimal"


@pytest.mark.parametrize(
    ("item", "change"),
    [
        ("price.low", {"price": Band.of(np.array([1.0, math.nan]))}),
        ("cap_w", {"cap_w": np.array([1.0, math.nan])}),
        ("cap_w", {"cap_w": np.array([1.0, -1.0])}),
        ("services.low", {"services": Band.of(np.array([1.0, -1.0]))}),
        ("other.low", {"other": Band.of(np.zeros(3))}),
        ("asic", {"kinds": (asic(), asic())}),
        ("j", {"batches": (Batch("j", 1.0, 1.0), Batch("j", 1.0, 1.0))}),
        ("p", {"peaks": (Peak("p", 1.0, np.zeros(3)),)}),
        ("ramp_up_w_per_s", {"ramp_up_w_per_s": 0.0}),
        ("carbon_usd_per_t", {"carbon_usd_per_t": -1.0}),
    ],
)
def test_what_cannot_be_is_refused_by_name(item: str, change: dict[str, object]) -> None:
    with pytest.raises(PlanInvalid) as told:
        dataclasses.replace(ahead([1.0, 2.0]), **change)  # type: ignore[arg-type]
    assert told.value.item == item


@pytest.mark.parametrize(
    "make",
    [
        lambda: asic(up_s=math.nan),
        lambda: asic(running=2),
        lambda: Kind("asic", 1, (30.0, 20.0), (0.0, 1.0)),
        lambda: Kind("asic", 1, (30.0, math.inf), (0.0, 1.0)),
        lambda: Kind("asic", 1, (30.0, 60.0), (0.0,)),
        lambda: Batch("asic", -1.0, 1.0),
        lambda: Batch("asic", 1.0, 1.0, fewest_w=2.0),
        lambda: Batch("asic", 1.0, 1.0, deadline_s=math.nan),
        lambda: Commitment("asic", 0.0, 0.0, 1.0),
        lambda: Commitment("asic", 0.0, 1.0, -1.0),
        lambda: Peak("asic", 1.0, np.array([1.5])),
        lambda: Peak("asic", math.nan),
    ],
)
def test_a_part_that_cannot_be_is_refused_by_name(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanInvalid, match=r"^asic: "):
        make()
