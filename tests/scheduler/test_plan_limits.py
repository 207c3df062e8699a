"""Feeders below the connection in a plan: by hand, against brute force, and where they fail."""

import itertools
import math
from dataclasses import replace
from typing import Any

import highspy
import numpy as np
import pytest
from tests.scheduler.plan_rig import HOURS, STEP_S, ahead

from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan import solve
from wattshift_scheduler.plan.highs import Highs
from wattshift_scheduler.plan.limits import Limit, Zone
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.telling import full_feeders
from wattshift_scheduler.plan.words import Ahead, Batch, Kind, Plan, PlanInvalid, Standing


def asic(name: str, count: int = 1, *under: str, **rest: object) -> Kind:
    """30 W at rest, 2 kW at 150 USD/MWh, 3 kW with another kW at 60."""
    given = {"up_s": 300.0, "cycle_usd": 0.15, "running": count, "under": under, **rest}
    return Kind(name, count, (30.0, 2030.0, 3030.0), (0.0, 0.30, 0.36), **given)  # type: ignore[arg-type]


def solved(given: Ahead, near_s: float = 1e9) -> Plan:
    return planned(given, near_s=near_s)[0]


def test_a_full_feeder_holds_what_is_under_it_down_and_nothing_else() -> None:
    # 4,560 W under "a": two machines at 2,030 W, and half a kW of 60 USD/MWh at a price of 40.
    kinds = (asic("in", 2, "a"), asic("out", 2))
    plan = solved(ahead([40.0] * 3, kinds=kinds, limits=(Limit("a", 4560.0),)), 0.0)
    assert plan.status == "optimal"
    assert plan.mining_w[:, 0] == pytest.approx([4560.0] * 3)
    assert plan.mining_w[:, 1] == pytest.approx([6060.0] * 3)
    assert plan.limits == ("a",)
    assert plan.limit_usd_per_mwh is not None
    assert plan.limit_usd_per_mwh[:, 0] == pytest.approx([20.0] * 3)
    assert plan.shadow_usd_per_mwh == pytest.approx([40.0] * 3), "the site's watts cost no more"
    inside = 2 * 0.30 + 0.5 * 0.06 - 4.56 * 0.04
    outside = 2 * 0.36 - 6.06 * 0.04
    assert plan.usd == pytest.approx(3 * HOURS * (inside + outside))
    assert any(text.startswith("in 0 min, for 45 min: feeder a is full") for text in plan.events)


def test_a_feeder_that_is_never_full_changes_nothing() -> None:
    price = [40.0, 190.0, 30.0, 190.0, 190.0, 190.0, 190.0, 190.0, 190.0, 50.0]
    free = ahead(price, 8000.0, kinds=(asic("in", 2, "a"), asic("out", 2)),
                 limits=(Limit("a", 6060.1),))  # fmt: skip
    bare = replace(free, kinds=(asic("in", 2), asic("out", 2)), limits=())
    plan, other = solved(free), solved(bare)
    assert plan.usd == pytest.approx(other.usd, rel=1e-9)
    assert plan.mining_w.sum(axis=1) == pytest.approx(other.mining_w.sum(axis=1))
    assert plan.awake_usd == pytest.approx(other.awake_usd, abs=1e-6)


def test_what_awake_is_worth_counts_the_feeder() -> None:
    """Of three machines under a feeder for one, two are worth no more up than at rest."""
    kinds = (asic("in", 3, "a", running=1), asic("out", 3, running=3))
    plan = solved(ahead([40.0] * 8, kinds=kinds, limits=(Limit("a", 2000.0 + 90.0),)), 0.0)
    assert plan.awake[:, 0] == pytest.approx([1.0] * 8)
    told = Standing.of(plan).awake_usd
    assert told["out"][:4] == pytest.approx([0.15] * 4), "a cycle: it earns far more than that"
    assert told["in"][0] < 0.15
    assert any("2 of 3 in rest: a MWh costs up to" in text for text in plan.events)
    assert any("for feeder a is full" in text for text in plan.events)


def test_what_awake_is_worth_counts_the_feeder_where_prices_are_foreseen() -> None:
    kinds = (asic("in", 3, "a", running=1), asic("out", 3, running=3))
    given = ahead([40.0] * 8, kinds=kinds, limits=(Limit("a", 2000.0 + 90.0),))
    one = np.array([[1.0]])
    chain = Prospect(np.full((8, 1), 40.0), one, 0)
    band = Band(given.price.mid - 1.0, given.price.mid, given.price.mid + 1.0)
    for change in ({"price": band}, {"price": band, "prospect": chain}):
        plan = solved(replace(given, **change), 0.0)
        assert plan.awake_usd[:4, 1] == pytest.approx([0.15] * 4)
        assert plan.awake_usd[:4, 0].max() < 0.10


def test_the_dearest_of_many_full_feeders_are_named_and_the_rest_counted() -> None:
    names = [f"r{i}" for i in range(6)]
    kinds = tuple(
        replace(asic(one, 1, one, cycle_usd=0.0), usd_per_h=(0.0, 0.3, 0.36 + 0.01 * i))
        for i, one in enumerate(names)
    )
    limits = tuple(Limit(one, 2530.0 if one != "r5" else 1e5) for one in names)
    told = full_feeders(solved(ahead([40.0] * 4, kinds=kinds, limits=limits), 0.0))
    # A kW more earns 60 USD/MWh and 10 more for each number; energy costs 40 of it.
    assert told == (
        "feeder r4 is full for 1 h 00: a watt there is worth up to 60 USD/MWh more",
        "feeder r3 is full for 1 h 00: a watt there is worth up to 50 USD/MWh more",
        "feeder r2 is full for 1 h 00: a watt there is worth up to 40 USD/MWh more",
        "2 more feeders are full",
    )
    assert full_feeders(solved(ahead([40.0] * 4, kinds=(asic("free"),)))) == ()


def test_what_is_fed_from_two_sides_counts_on_both() -> None:
    rooms = (Limit("a", 6060.0), Limit("b", 3560.0))
    kinds = (asic("a-only", 1, "a"), asic("both", 1, "a", "b"), asic("b-only", 1, "b"))
    plan = solved(ahead([40.0] * 2, kinds=kinds, limits=rooms), 0.0)
    assert plan.mining_w[:, 0] == pytest.approx([3030.0] * 2)
    assert plan.mining_w[:, 1:].sum(axis=1) == pytest.approx([3560.0] * 2)


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_under_a_tree_is_as_good_as_the_best_of_all_schedules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = [("hall",), ("hall", "rack"), ("hall", "rack"), ()]
    rng.shuffle(places)
    kinds = tuple(
        Kind(
            f"k{i}", 1, (30.0, 2000.0 + 100 * i, 3000.0),
            (0.0, float(rng.uniform(0.1, 0.4)), 0.45),
            up_s=float(rng.choice([0.0, 300.0])), cycle_usd=float(rng.uniform(0.0, 0.3)),
            running=int(rng.integers(0, 2)), under=under,
        )
        for i, under in enumerate(places[:3])
    )  # fmt: skip
    limits = (
        Limit("hall", float(rng.uniform(2200.0, 6500.0))),
        Limit("rack", float(rng.uniform(200.0, 4500.0))),
    )
    cap_w = float(rng.uniform(3000.0, 9500.0))
    given = ahead(rng.uniform(-20.0, 220.0, 4).tolist(), cap_w, kinds=kinds, limits=limits)
    plan = solved(given)
    assert not plan.infeasible
    assert plan.usd == pytest.approx(best_by_hand(given), abs=2e-4)


def best_by_hand(given: Ahead) -> float:
    """Every schedule of sleep and work, each interval filled by value under the tree, USD."""
    n, best = len(given), -math.inf
    alone = [_schedules(kind, n) for kind in given.kinds]
    for chosen in itertools.product(*alone):
        total = -sum(wear for _, wear in chosen)
        for t in range(n):
            total += _filled(given, [shares[t] for shares, _ in chosen], t)
            if total == -math.inf:
                break
        best = max(best, total)
    return best


def _schedules(kind: Kind, n: int) -> list[tuple[tuple[float, ...], float]]:
    """What share of each interval a device works, -1 at rest, and what its wakes wear off."""
    wear = max(kind.cycle_usd - kind.usd_per_h[-1] * kind.up_s / 3600.0, 0.0)
    found = []
    for bits in itertools.product((False, True), repeat=n):
        states = (kind.running > 0, *bits)
        wakes = [t for t in range(n) if states[t + 1] and not states[t]]
        shares = tuple(
            -1.0 if not states[t + 1] else 1.0 - (kind.up_s / STEP_S if t in wakes else 0.0)
            for t in range(n)
        )
        found.append((shares, wear * len(wakes)))
    return found


def _filled(given: Ahead, shares: list[float], t: int) -> float:
    """Money of one interval: all at their least, then upwards by value; -inf if that is too much.
    With nested limits the best watt that fits is never wrong (a polymatroid)."""
    price, money, steps = float(given.price.mid[t]), 0.0, []
    room_w = {"": float(given.cap_w[t])} | {one.name: one.room_w for one in given.limits}
    for kind, share in zip(given.kinds, shares, strict=True):
        points, usd = kind.points_w, kind.usd_per_h
        draw_w, income = points[0], 0.0
        if share >= 0.0:
            draw_w, income = share * points[1] + (1.0 - share) * points[-1], share * usd[1]
            span_w = share * (points[2] - points[1])
            steps.append(((usd[2] - usd[1]) / (points[2] - points[1]) * 1e6, span_w, kind.under))
        money += income - draw_w * price / 1e6
        for name in ("", *kind.under):
            room_w[name] -= draw_w
    if min(room_w.values()) < -1e-9:
        return -math.inf
    for value, span_w, under in sorted(steps, reverse=True):
        taken_w = min(span_w, *(room_w[name] for name in ("", *under)))
        if value > price:
            money += (value - price) * taken_w / 1e6
            for name in ("", *under):
                room_w[name] -= taken_w
    return money * HOURS


@pytest.mark.parametrize("seed", range(6))
def test_with_second_feeds_and_batch_a_plan_is_as_good_as_a_program_written_by_hand(
    seed: int,
) -> None:
    """Machines whose turns cost nothing, so that a linear program of watts alone is exact."""
    given = _fed_from_two_sides(np.random.default_rng(seed))
    plan = solved(given, 0.0)
    assert not plan.infeasible
    assert plan.usd == pytest.approx(_best_by_program(given), abs=1e-6)


def _fed_from_two_sides(rng: np.random.Generator) -> Ahead:
    places = (("a",), ("b",), ("a", "b"), ("a", "b", "rack"), ())
    kinds = tuple(
        asic(f"k{i}", int(rng.integers(1, 5)), *under, up_s=0.0, cycle_usd=0.0)
        for i, under in enumerate(places)
    )
    services_w = rng.uniform(500.0, 1500.0, 6)
    zones = tuple(
        Zone(under, float(rng.uniform(1000.0, 3000.0)), services_w / 3.0, {"job": share})
        for under, share in zip((("a",), ("a", "b", "rack"), ()), (0.2, 0.1, 0.0), strict=True)
    )
    rooms_w = {"a": 9000.0, "b": 8000.0, "rack": 5000.0}
    limits = tuple(Limit(one, float(rng.uniform(0.7, 1.3)) * w) for one, w in rooms_w.items())
    job = Batch("job", 1200.0, 2000.0, 0.0, 5 * STEP_S)
    return ahead(
        rng.uniform(-20.0, 200.0, 6).tolist(), float(rng.uniform(15e3, 30e3)), kinds=kinds,
        zones=zones, limits=limits, batches=(job,), compute_w=5000.0,
        services=Band.of(services_w),
    )  # fmt: skip


def _best_by_program(given: Ahead) -> float:
    """The same as a program of watts by machine, zone and interval, USD."""
    api: Any = highspy
    program = api.Highs()
    program.setOptionValue("output_flag", False)
    (job,) = given.batches
    usd, energy = [], []
    for t, (price, cap_w) in enumerate(zip(given.price.mid, given.cap_w, strict=True)):
        below: dict[str, list[Any]] = {"": [], **{one.name: [] for one in given.limits}}
        rooms_w = {"": float(cap_w), **{one.name: one.room_w for one in given.limits}}
        for kind in given.kinds:
            steps = zip(itertools.pairwise(kind.points_w), itertools.pairwise(kind.usd_per_h),
                        strict=True)  # fmt: skip
            for name in ("", *kind.under):
                rooms_w[name] -= kind.count * kind.points_w[0]
            usd.append(-kind.count * kind.points_w[0] * price / 1e6)
            for (low_w, high_w), (low_usd, high_usd) in steps:
                most_w = kind.count * (high_w - low_w)
                drawn = program.addVariable(0.0, most_w)
                usd.append(drawn * ((high_usd - low_usd) / (high_w - low_w) - price / 1e6))
                for name in ("", *kind.under):
                    below[name].append(drawn)
        own = []
        for zone in given.zones:
            usd.append(-float(zone.services_w[t]) * price / 1e6)
            most_w = zone.most_w if t < 5 else 0.0
            own.append(program.addVariable(0.0, most_w))
            usd.append(own[-1] * (-price / 1e6))
            for name in ("", *zone.under):
                rooms_w[name] -= float(zone.services_w[t])
                below[name].append(own[-1])
        batch = sum(own[1:], own[0] * 1.0)
        energy.append(batch * HOURS)
        program.addConstr(batch <= job.most_w)
        program.addConstr(batch <= given.compute_w - float(given.services.mid[t]))
        for zone, drawn in zip(given.zones, own, strict=True):
            program.addConstr(drawn - zone.batch["job"] * batch >= 0.0)
        for name, drawn in below.items():
            program.addConstr(sum(drawn[1:], drawn[0] * 1.0) <= rooms_w[name])
    program.addConstr(sum(energy[1:], energy[0] * 1.0) == job.left_wh)
    fixed = sum(one for one in usd if isinstance(one, float))
    program.maximize(sum(one for one in usd if not isinstance(one, float)))
    assert program.getModelStatus() == api.HighsModelStatus.kOptimal
    return float(program.getObjectiveValue() + fixed) * HOURS


def _large(seed: int, n: int = 48) -> Ahead:
    """Machines of a dozen kinds in two halls and a rack, with a batch and inference."""
    rng = np.random.default_rng(seed)
    places = [(), ("west",), ("east",), ("east", "rack")]
    kinds = tuple(
        asic(
            f"k{i}", int(rng.integers(10, 60)), *places[i % 4],
            cycle_usd=float(rng.uniform(0.02, 0.3)), up_s=float(rng.uniform(0.0, 900.0)),
        )
        for i in range(12)
    )  # fmt: skip
    each_w = dict.fromkeys(("west", "east", "rack"), 0.0)
    for kind in kinds:
        for name in kind.under:
            each_w[name] += kind.count * kind.points_w[-1]
    limits = tuple(Limit(name, float(rng.uniform(0.3, 0.8)) * w) for name, w in each_w.items())
    services_w = 20e3 * (1.0 + 0.5 * np.sin(np.arange(n) / 8.0))
    zones = (
        Zone(("east", "rack"), 20e3, 0.3 * services_w, {"night": 0.5}),
        Zone((), 60e3, 0.7 * services_w),
    )
    return ahead(
        rng.uniform(10.0, 220.0, n).tolist(), float(rng.uniform(0.8, 1.0)) * 1.1e6,
        kinds=kinds, limits=limits, zones=zones, services=Band.of(services_w), compute_w=80e3,
        batches=(Batch("night", 60e3, 20e3, 0.0, 30 * STEP_S),),
    )  # fmt: skip


def drawn_w(given: Ahead, plan: Plan, limit: str) -> np.ndarray:
    """What machines and inference draw under a limit, W; and of batch what stays there."""
    found = sum(
        plan.mining_w[:, i] for i, kind in enumerate(given.kinds) if limit in kind.under
    ) + np.zeros(len(given))
    for zone in given.zones:
        if limit in zone.under:
            found = found + zone.services_w
            for i, one in enumerate(given.batches):
                found = found + zone.batch.get(one.name, 0.0) * plan.batch_w[:, i]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_a_plan_leaves_closed_under_feeders_was_not_needed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _large(seed, 80 if seed else 48)  # a long one begins with longer intervals
    monkeypatch.setattr(solve, "SMALL", 0)
    plan, warm = planned(given, near_s=0.0)
    monkeypatch.setattr(solve, "SMALL", 10**9)
    whole = solved(given, 0.0)
    assert plan.status == whole.status == "optimal"
    assert plan.usd == pytest.approx(whole.usd, rel=5e-4)
    for limit in given.limits:
        assert (drawn_w(given, plan, limit.name) <= limit.room_w * (1.0 + 1e-9)).all()
    assert warm is not None
    assert any(column.max() > 1.0 for column in warm.limit_usd_per_mwh.values())


def test_what_the_last_plan_paid_under_feeders_makes_the_next_one_no_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = _large(1)
    monkeypatch.setattr(solve, "SMALL", 0)
    _, warm = planned(given, near_s=0.0)
    assert warm is not None
    counts = []
    solves = Highs.solved
    for last in (warm, replace(warm, limit_usd_per_mwh={})):
        seen: list[int] = []

        def counted(self, program, **how):  # type: ignore[no-untyped-def]
            seen.append(len(program.cost))  # noqa: B023 - called before the next one is made
            return solves(self, program, **how)

        monkeypatch.setattr(Highs, "solved", counted)
        assert planned(given, near_s=0.0, warm=last)[0].status == "optimal"
        counts.append(sum(seen))
    assert counts[0] < counts[1]


def test_inference_and_batch_go_first_under_a_feeder() -> None:
    services = Band.of(np.full(4, 1500.0))
    job = Batch("render", 500.0, 1000.0, 0.0, 2 * STEP_S)
    zones = (
        Zone(("a",), 3000.0, np.full(4, 1000.0), {"render": 1.0}),
        Zone((), 2000.0, np.full(4, 500.0)),
    )
    given = ahead([40.0] * 4, kinds=(asic("in", 2, "a"),), limits=(Limit("a", 4560.0),),
                  zones=zones, services=services, batches=(job,), compute_w=5000.0)  # fmt: skip
    plan = solved(given, 0.0)
    assert plan.batch_w[:2, 0] == pytest.approx([1000.0] * 2), "it stays where it runs"
    # Two machines need 4,060 W; what they lack of it one of them rests for, in part.
    assert plan.mining_w[:2, 0] == pytest.approx([4560.0 - 2000.0] * 2)
    assert plan.mining_w[3, 0] == pytest.approx(4560.0 - 1000.0)
    moves = (replace(zones[0], batch={}), zones[1])
    plan = solved(replace(given, zones=moves), 0.0)
    assert plan.mining_w[:, 0] == pytest.approx([4560.0 - 1000.0] * 4), "where it costs less"
    narrow = (moves[0], replace(zones[1], most_w=600.0))
    plan = solved(replace(given, zones=narrow), 0.0)
    assert plan.mining_w[:2, 0] == pytest.approx([4560.0 - 1400.0] * 2), "so much has room there"


def test_a_floor_above_a_feeder_is_told_by_its_name_and_the_plan_goes_on() -> None:
    kinds = (asic("in", 10, "a{0}"), asic("out", 2))
    plan = solved(ahead([40.0] * 3, kinds=kinds, limits=(Limit("a{0}", 250.0),)))
    assert plan.status == "infeasible"
    words = "feeder a{0}: what cannot be shed lies 50 W above what it may carry from Thu 00:00 UTC"
    assert plan.infeasible == (f"{words} at the worst, for 45 min in all",)
    assert plan.mining_w[:, 0] == pytest.approx([300.0] * 3)
    assert plan.mining_w[:, 1] == pytest.approx([6060.0] * 3)
    rest = 0.3 * 0.04
    assert plan.usd == pytest.approx(3 * HOURS * (2 * 0.36 - 6.06 * 0.04 - rest)), "money alone"


def test_a_machine_that_must_stay_up_yields_to_a_feeder() -> None:
    fresh = asic("in", 1, "a", min_up_s=3600.0, since_s=60.0)
    free = ahead([400.0] * 6, kinds=(fresh,), limits=(Limit("a", 2100.0),))
    assert solved(free).awake[:2, 0].min() > 0.5
    plan = solved(replace(free, limits=(Limit("a", 1000.0),)))
    assert plan.awake.max() < 0.5
    assert plan.status == "optimal"


@pytest.mark.parametrize(
    ("item", "change"),
    [
        ("k", {"limits": ()}),
        ("a", {"limits": (Limit("a", 1.0), Limit("a", 2.0))}),
        ("zone of b", {"zones": (Zone(("b",), 1.0, np.zeros(2)),)}),
        ("zone of a", {"zones": (Zone(("a",), 1.0, np.zeros(3)),)}),
        ("zone of no limit", {"zones": (Zone((), 1.0, np.array([1.0, math.nan])),)}),
        ("limit", {"limits": tuple(Limit(f"f{i}", 1.0) for i in range(41))}),
    ],
)
def test_what_cannot_hang_so_is_refused_by_name(item: str, change: dict[str, object]) -> None:
    given = ahead([1.0, 2.0], kinds=(asic("k", 1, "a"),), limits=(Limit("a", 1.0),))
    with pytest.raises(PlanInvalid) as told:
        replace(given, **change)  # type: ignore[arg-type]
    assert told.value.item == item


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limit("x", math.nan),
        lambda: Zone(("x",), -1.0, np.zeros(2)),
        lambda: Zone(("x",), 1.0, np.zeros(2), {"job": 1.5}),
        lambda: Zone(("x",), 1.0, np.zeros(2), {"job": math.nan}),
        lambda: asic("x", down_s=-1.0),
    ],
)
def test_a_part_that_cannot_be_is_refused_by_name(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanInvalid, match=r"^(zone of )?x: "):
        make()
