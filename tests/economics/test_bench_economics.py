"""The bench `economics`: money by hand, breaches that are forced, nobody above the best."""

import importlib
import math
from typing import Any

import numpy as np
import pytest

cases: Any = importlib.import_module("benchmarks.economics_case")
clairvoyant: Any = importlib.import_module("benchmarks.economics_clairvoyant")
core: Any = importlib.import_module("benchmarks.economics_core")
data: Any = importlib.import_module("benchmarks.economics_data")
economics: Any = importlib.import_module("benchmarks.economics")
playing: Any = importlib.import_module("benchmarks.economics_play")
policies: Any = importlib.import_module("benchmarks.economics_policies")
site: Any = importlib.import_module("benchmarks.economics_site")
worlds: Any = importlib.import_module("benchmarks.economics_world")

YARD = site.small_yard(2)
OLD, NEW = YARD.kinds
"""Two banks of S19 (break-even 51.5 USD/MWh) and two of S21 Pro (117.5)."""

TOP_W = float(YARD.top_w.sum())


def trace(price: list[float], ahead: list[float] | None = None, share: float = 0.0) -> Any:
    """A market of quarters that begins at midnight."""
    n = len(price)
    known = np.array(price if ahead is None else ahead)
    return data.Trace("made up", 0.0, 900.0, np.zeros(n), known, np.array(price),
                      np.full(n, share), np.zeros(0))  # fmt: skip


def one(price: list[float], **more: Any) -> Any:
    share = more.pop("share", 0.0)
    return cases.Case(trace(price, share=share), 0, len(price), **more)


def play(case: Any, policy: Any) -> Any:
    return policies.played(case, YARD, policy)


def watts_wh(points: list[float]) -> float:
    """Energy of some quarters, Wh."""
    return sum(points) / 4.0


def test_always_on_pays_every_watt_and_earns_every_hash() -> None:
    books = play(one([20.0, 40.0, 200.0, -10.0]), policies.always_on).books
    mwh = TOP_W / 4.0 / 1e6
    assert books.usd["energy"] == pytest.approx(-mwh * (20 + 40 + 200 - 10))
    assert books.usd["mining"] == pytest.approx(2 * (OLD.usd_per_h[-1] + NEW.usd_per_h[-1]))
    assert books.usd["cycles"] == 0.0
    assert books.cycles == 0
    assert books.total_usd == pytest.approx(books.usd["energy"] + books.usd["mining"])


def test_a_threshold_sleeps_above_its_break_even_and_pays_for_the_wake() -> None:
    # The old banks rest for the second quarter and come up in the third: 300 of its 900 s are lost.
    books = play(one([20.0, 80.0, 20.0, 20.0]), policies.Threshold()).books
    old_w, rest_w, new_w = 2 * OLD.points_w[-1], 2 * OLD.points_w[0], 2 * NEW.points_w[-1]
    wh = [watts_wh([old_w + new_w] * 3) * 20.0, watts_wh([rest_w + new_w]) * 80.0]
    assert books.usd["energy"] == pytest.approx(-sum(wh) / 1e6)
    mined = 2 * NEW.usd_per_h[-1] + 2 * OLD.usd_per_h[-1] * (0.25 + 600 / 3600 + 0.25)
    assert books.usd["mining"] == pytest.approx(mined)
    assert books.usd["cycles"] == pytest.approx(-2 * OLD.wear_usd)
    assert books.cycles == 2


def test_what_rests_at_the_end_is_charged_its_way_back() -> None:
    books = play(one([20.0, 80.0]), policies.Threshold()).books
    assert books.cycles == 0
    assert books.usd["cycles"] == pytest.approx(-2 * OLD.cycle_usd)


def test_a_static_split_runs_what_it_runs() -> None:
    split = policies.StaticSplit(np.array([False, True]), 4)
    job = cases.BatchJob("job", 0, 4, 3.0, 10)
    world = play(one([20.0] * 4, jobs=(job,)), split)
    assert world.books.usd["mining"] == pytest.approx(2 * NEW.usd_per_h[-1])
    # Four units for three quarters are three hours: paid, and burnt at 20 USD/MWh.
    assert world.books.usd["batch"] == pytest.approx(3.0 * cases.BATCH_USD_PER_UNIT_H)
    drawn_w = 2 * (NEW.points_w[-1] + OLD.points_w[0])
    wh = watts_wh([drawn_w] * 4) + 3.0 * site.UNIT_W
    assert world.books.usd["energy"] == pytest.approx(-wh * 20.0 / 1e6)


def test_an_event_pays_for_what_is_reduced_and_no_more() -> None:
    """The site lies a megawatt below its base: of two that were promised one is paid."""
    event = cases.Event("event", 0, 1, 2, 2e6, 100.0, 50.0, False)
    site_w = TOP_W
    below_w = cases.BASE_W - site_w
    assert below_w > 2e6
    books = play(one([20.0] * 3, events=(event,)), policies.always_on).books
    assert books.usd["events"] == pytest.approx(2.0 * 0.25 * 100.0)
    deep = cases.Event("event", 0, 1, 2, below_w + 1e6, 100.0, 50.0, False)
    books = play(one([20.0] * 3, events=(deep,)), policies.always_on).books
    assert books.usd["events"] == pytest.approx((below_w * 100.0 - 1e6 * 50.0) * 0.25 / 1e6)


def test_a_coincident_peak_is_charged_by_the_mean_of_its_interval() -> None:
    books = play(one([20.0] * 3, season=(1,), peaks=(1,)), policies.always_on).books
    assert books.usd["peaks"] == pytest.approx(-TOP_W * cases.CP_USD_PER_W)


def test_breaches_are_counted_when_they_are_forced() -> None:
    limit_w = TOP_W - 1e5
    firm = cases.Event("firm", 0, 1, 2, cases.BASE_W - limit_w, 100.0, 0.0, True)
    job = cases.BatchJob("job", 0, 2, 3.0, 10)
    case = one([20.0] * 3, events=(firm,), jobs=(job,), share=0.1)
    on = policies.Replayed([YARD.top] * 3)
    world = play(case, on)
    assert world.books.breaches == {"cap_s": 900.0, "ramp": 0.0, "deadline": 1.0, "slo": 0.0}

    def starved(world: Any) -> None:
        world.set_units({}, 0)

    assert play(one([20.0] * 3, share=0.1), starved).books.breaches["slo"] == 3.0


def test_a_rise_beyond_the_ramp_is_counted() -> None:
    full = site.yard()
    case = one([20.0, 20.0, 20.0])
    none = np.zeros_like(full.top)
    world = policies.played(case, full, policies.Replayed([none, full.top, full.top]))
    assert world.books.breaches["ramp"] == 1.0
    # A policy that fits what it asks for into the ramp comes up in two steps.
    world = worlds.World(case, full)
    world.set_points(none)
    world.hold(world.ends_s)
    for _ in range(2):
        policies.always_on(world)
        world.hold(world.ends_s)
    assert world.books.breaches["ramp"] == 0.0


def made_up(seed: int, n: int = 14) -> Any:
    """A rough day: spikes, an event, a job."""
    dice = np.random.default_rng(seed)
    price = np.round(dice.normal(45.0, 25.0, n) + 300.0 * (dice.random(n) < 0.1), 2)
    begins = int(dice.integers(4, 9))
    pays, firm = float(dice.choice((60.0, 250.0))), bool(dice.random() < 0.5)
    reduces_w = cases.BASE_W - 0.5e6
    event = cases.Event("event", begins - 4, begins, begins + 4, reduces_w, pays, 30.0, firm)
    job = cases.BatchJob("job", 2, 13, 9.0, 12)
    return one(price.tolist(), events=(event,), jobs=(job,), share=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_nobody_earns_more_than_the_clairvoyant(seed: int) -> None:
    case = made_up(seed)
    bound = clairvoyant.best(case, YARD, integer=False)
    exact = clairvoyant.best(case, YARD, integer=True)
    assert exact.usd <= bound.usd + 1e-6
    assert exact.late == 0
    played = {
        "always-on": play(case, policies.always_on),
        "static": play(case, policies.StaticSplit(np.array([True, True]), 8)),
        "threshold": play(case, policies.Threshold(0.1, 2)),
        "ladder": play(case, core.Core()),
    }
    for name, world in played.items():
        assert world.books.total_usd <= exact.bound_usd + 1e-6, name
    assert not any(played["ladder"].books.breaches.values())


def test_the_clairvoyant_is_its_own_replay() -> None:
    """What the programme counts is what the world pays: without ends and events to the cent."""
    case = one([20.0, 2000.0, 2000.0, 2000.0, 20.0, 20.0])
    exact = clairvoyant.best(case, YARD, integer=True)
    world = play(case, policies.Threshold())
    assert exact.usd == pytest.approx(world.books.total_usd)
    assert exact.usd_by["cycles"] == pytest.approx(world.books.usd["cycles"])


def test_day_ahead_prices_are_seen_from_half_past_one() -> None:
    market = trace([20.0] * 96 * 3)
    known = [market.published(i) for i in (0, 53, 54, 96)]
    assert known == [96, 96, 192, 192]


def test_regret_is_a_share_of_what_the_best_baseline_leaves() -> None:
    assert economics.regret_share(90.0, 80.0, 100.0) == 0.5
    assert math.isnan(economics.regret_share(90.0, 100.0, 100.0))
    usd = {"always-on": 1.0, "static-split": 2.0, "threshold": 3.0, "ladder": 80.0, "ours": 95.0}
    found = economics.scores(usd, 100.0)
    assert (found["best_baseline"], found["regret_share"]) == ("ladder", 0.75)
    assert found["ratio_vs_clairvoyant"] == 0.95


def result(ours_usd: float, *, breaches: float = 0.0, late: int = 0) -> Any:
    """A case in which everybody mines for so many dollars."""
    usd = {"always-on": 10.0, "static-split": 20.0, "threshold": 30.0, "ladder": 80.0}
    played = {}
    for name, mined in {**usd, "ours": ours_usd}.items():
        books = worlds.Books()
        books.usd["mining"] = mined
        played[name] = playing.Played(books, [1.0], [1.0])
    played["ours"].books.breaches["deadline"] = breaches
    played["ours"].books.breaches["ramp"] = breaches
    by = {**dict.fromkeys(worlds.ITEMS, 0.0), "mining": 100.0}
    return playing.Result(0, played, by, 100.0, 100.0, 100.0, late, [1.0])


def test_parts_add_up_and_say_where_the_money_is() -> None:
    found = economics.part([result(95.0), result(85.0)])
    assert found["policies"]["ours"] == 180.0
    assert found["policies"]["clairvoyant"] == 200.0
    assert found["best_baseline"] == "ladder"
    assert found["regret_share"] == 0.5
    assert found["clairvoyant_less_ours_by"]["mining"] == 20.0
    assert found["ours_less_baseline_by"]["mining"] == 20.0


def test_a_deadline_that_nobody_could_meet_is_no_breach_of_ours() -> None:
    assert economics.together([result(95.0)])["breaches"] == 0.0
    assert economics.together([result(95.0, breaches=2.0)])["breaches"] == 4.0
    assert economics.together([result(95.0, breaches=2.0, late=1)])["breaches"] == 3.0
