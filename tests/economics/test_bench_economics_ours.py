"""Our policy on the bench: what it may not know, and what it makes of prices that are known."""

import importlib
from typing import Any

import numpy as np
import pytest

ahead: Any = importlib.import_module("benchmarks.economics_ahead")
cases: Any = importlib.import_module("benchmarks.economics_case")
clairvoyant: Any = importlib.import_module("benchmarks.economics_clairvoyant")
data: Any = importlib.import_module("benchmarks.economics_data")
ours: Any = importlib.import_module("benchmarks.economics_ours")
policies: Any = importlib.import_module("benchmarks.economics_policies")
site: Any = importlib.import_module("benchmarks.economics_site")
watching: Any = importlib.import_module("benchmarks.economics_peaks")

YARD = site.small_yard(2)
DAY = 96


def market(price: Any, known: Any) -> Any:
    n = len(price)
    return data.Trace("made up", 0.0, 900.0, np.zeros(n), np.asarray(known), np.asarray(price),
                      np.full(n, 0.2), np.zeros(0))  # fmt: skip


def test_the_future_of_prices_is_not_seen() -> None:
    dice = np.random.default_rng(3)
    known = 30.0 + 10.0 * dice.random(DAY * 9)
    price = known + dice.normal(0.0, 5.0, len(known))
    i = DAY * 7 + 40
    other, beyond = price.copy(), known.copy()
    other[i + 1 :] += 500.0
    beyond[DAY * 8 :] += 500.0
    bands = [
        ahead.Foresight(cases.Case(market(p, k), i, i + DAY), None).price(i, DAY)[0]
        for p, k in ((price, known), (other, beyond))
    ]
    assert np.array_equal(bands[0].mid, bands[1].mid)
    assert np.array_equal(bands[0].high, bands[1].high)
    # The interval that begins is known, and so is the day-ahead market of this day.
    assert bands[0].mid[0] == pytest.approx(price[i])
    known[i + 4] += 300.0
    seen = ahead.Foresight(cases.Case(market(price, known), i, i + DAY), None).price(i, DAY)[0]
    assert seen.mid[4] > bands[0].mid[4]


def test_what_follows_day_ahead_prices_is_learnt_from_the_past() -> None:
    """Where dear hours are followed by half their price, that is what is foreseen."""
    dice = np.random.default_rng(4)
    known = np.where(np.arange(DAY * 30) % DAY >= 72, 200.0, 20.0)
    known = known * dice.uniform(0.8, 1.2, len(known))
    price = np.where(known > 100.0, known / 2.0, known)
    i = DAY * 29 + 40
    band = ahead.Foresight(cases.Case(market(price, known), i, i + DAY), None).price(i, 56)[0]
    dear = known[i : i + 56] > 100.0
    assert band.mid[dear] == pytest.approx(price[i : i + 56][dear], rel=0.1)


def test_known_prices_are_played_like_the_best() -> None:
    """Two long dear spells and a short one, all of them posted: within a per cent, no breach."""
    price = np.full(DAY, 25.0)
    price[4:12], price[16], price[24:32] = 300.0, 140.0, 70.0
    firm = cases.Event("firm", 2, 38, 42, cases.BASE_W - 0.4e6, 0.0, 0.0, True)
    job = cases.BatchJob("job", 12, 40, 40.0, 20)
    case = cases.Case(market(price, price), 0, 48, events=(firm,), jobs=(job,))
    policy = ours.Ours(period_s=3600.0)
    world = policies.played(case, YARD, policy)
    best = clairvoyant.best(case, YARD, integer=True)
    assert not any(world.books.breaches.values())
    assert best.usd * 0.99 - 1.0 <= world.books.total_usd <= best.bound_usd + 1e-6
    assert len(policy.solve_s) == 12


def test_work_that_nobody_knew_of_is_done_though_a_job_has_waited_for_cheap_hours() -> None:
    """The first job has rested and then holds all nodes that services leave, when one comes that is
    due in five hours and needs 12 of its 40 units for all of them."""
    price = np.full(DAY, 20.0)
    price[:4] = 60.0
    long = cases.BatchJob("long", 0, 90, 250.0, 40)
    due = cases.BatchJob("due", 8, 28, 60.0, 40)
    case = cases.Case(market(price, price), 0, 92, jobs=(long, due))
    world = policies.played(case, YARD, ours.Ours(period_s=900.0))
    assert not any(world.books.breaches.values())
    assert world.batch_w[:4] == [0.0] * 4, "it waits for the price to fall"
    assert world.left_h == {
        "long": pytest.approx(0.0, abs=1e-6),
        "due": pytest.approx(0.0, abs=1e-6),
    }


def test_an_event_is_followed_where_the_plan_sheds_for_it() -> None:
    price, full = np.full(DAY, 25.0), site.yard()
    for pays, follows in ((2.0, False), (400.0, True)):
        event = cases.Event("event", 2, 4, 6, 12e6, pays, 0.0, False)
        case = cases.Case(market(price, price), 0, 7, events=(event,))
        world = policies.played(case, full, ours.Ours(period_s=1800.0))
        assert [mean_w <= event.limit_w for mean_w in world.means_w[4:6]] == [follows] * 2


def test_a_peak_has_its_chance_where_the_load_is_foreseen_highest() -> None:
    """The last day of a month is higher than all before it, and nothing can follow."""
    n = 24 * 31
    hours = np.arange(n) % 24
    load_w = 50e9 + 10e9 * np.exp(-((hours - 17.0) ** 2) / 8.0)
    load_w[-24:] *= 1.2
    trace = data.Trace("made up", 0.0, 3600.0, np.zeros(n), np.full(n, 30.0), np.full(n, 30.0),
                       np.zeros(n), load_w)  # fmt: skip
    case = cases.Case(trace, 0, n, season=(1,), peaks=cases.coincident(trace, 0, n, (1,)),
                      load_forecast_w=load_w)  # fmt: skip
    watch = watching.Watch(case)
    chance = watch.by_interval(n - 24, 24)
    assert case.peaks == (n - 24 + 17,)
    assert int(np.argmax(chance)) == 17
    assert chance.sum() == pytest.approx(1.0, abs=0.02)
    assert watch.by_interval(24 * 10, 24).sum() < 0.5
    for i in range(0, n, 37):
        assert watch.by_interval(i, 96).sum() <= 1.0 + 1e-9, "of a month there is one peak"
