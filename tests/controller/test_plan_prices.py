"""The price ahead of a live site: as published where that always held, else as others followed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller.plan.curves import Foreseen, Grid
from wattshift_cluster.controller.plan.feed import PlanFeed
from wattshift_cluster.controller.plan.history import LASTING_KEPT, SLOTS_KEPT, Past, PlanHistory
from wattshift_cluster.controller.plan.prices import FOLLOWS, posted_next, price
from wattshift_cluster.grid.said import Said, Steps
from wattshift_scheduler.events import SignalChanged
from wattshift_scheduler.forecasts.market import Market
from wattshift_scheduler.forecasts.market import Past as Prices

T0_S = 1_900_022_400.0
DAYS, SLOT_S = 60, 900.0
GRID = Grid(T0_S, SLOT_S, 96)
PLAN = '[plan]\nenabled = true\nhorizon = "24h"\n[[market.prices]]\nname = "da"\nfile = "p.csv"\n'


def series(noise: float) -> dict[str, Past]:
    """What was posted: 20 USD/MWh, and 200 from six in the evening on; what held beside it."""
    slots = np.arange(-96 * DAYS, 1)
    posted = np.where(slots % 96 >= 72, 200.0, 20.0)
    held = posted * np.exp(np.random.default_rng(7).normal(0.0, noise, len(slots)))
    times_s = np.asarray(T0_S + slots * SLOT_S, dtype=np.float64)
    return {"posted": Past(times_s, posted), "price": Past(times_s, held)}


def hourly(count: int = 24) -> Steps:
    times = tuple(T0_S + 3600.0 * h for h in range(count))
    values = tuple(200.0 if h >= 18 else 20.0 for h in range(count))
    return Steps(times, values, T0_S + 3600.0 * count, T0_S)


def at(folder: Path, now_usd: float) -> Any:
    made = rig.controller(folder, rig.HandClock(T0_S), PLAN)
    made.inbox.put([SignalChanged("da", price_usd_per_mwh=now_usd, sets_price=True)])
    return rig.turned(made).state


def found(folder: Path, noise: float, now_usd: float = 21.0) -> Foreseen:
    return price(at(folder, now_usd), hourly(), series(noise), GRID)


def test_a_market_that_keeps_its_word_is_taken_at_it(tmp_path: Path) -> None:
    told = found(tmp_path, 0.0, 20.0)
    assert told.published.all()
    assert told.prospect is None
    assert np.array_equal(told.band.low, told.band.high)


def test_day_ahead_prices_are_foreseen_as_real_time_ones_followed_them(tmp_path: Path) -> None:
    """The same band, and the same way on, as the bench has it of the same past."""
    told = found(tmp_path, 0.5, 55.0)
    assert told.words == FOLLOWS
    assert told.published.tolist() == [True] + [False] * 95
    assert told.band.low[0] == told.band.high[0] == pytest.approx(55.0)
    assert (told.band.high[1:] > 1.3 * told.band.mid[1:]).all()
    past = series(0.5)
    before = Prices(past["posted"].times_s, past["posted"].values, past["price"].values)
    market = Market.learnt(
        Prices(*(one[:-1] for one in (before.times_s, before.posted, before.price))), SLOT_S
    )
    now = replace(before, price=np.append(before.price[:-1], 55.0))
    posted = np.where(np.arange(96) >= 72, 200.0, 20.0)
    band, prospect = market.foreseen(now, posted, GRID.starts_s, SLOT_S)
    assert np.array_equal(told.band.mid, band.mid)
    assert np.array_equal(told.band.high, band.high)
    assert prospect is not None
    assert told.prospect is not None
    assert np.array_equal(told.prospect.price_usd_per_mwh, prospect.price_usd_per_mwh)
    assert told.prospect.state == prospect.state


def test_with_too_short_a_past_a_published_price_stands(tmp_path: Path) -> None:
    short = {name: Past(one.times_s[-100:], one.values[-100:]) for name, one in series(0.5).items()}
    told = price(at(tmp_path, 20.0), hourly(), short, GRID)
    assert told.published.all()
    # Without the word for the quarter that runs nobody knows how far the price now lies beside it.
    none = {name: Past(one.times_s[:-1], one.values[:-1]) for name, one in series(0.5).items()}
    assert price(at(tmp_path, 20.0), hourly(), none, GRID).published.all()


def test_what_is_posted_of_a_quarter_is_remembered_as_it_was_before_it_began(
    tmp_path: Path,
) -> None:
    controller = rig.controller(tmp_path, rig.HandClock(T0_S + 600.0), PLAN)
    feed = PlanFeed(controller)
    for usd in (30.0, 40.0):
        curve = Steps((T0_S,), (usd,), T0_S + 7200.0, T0_S)
        feed._post(*posted_next(curve, controller.clock.now_s()), controller.clock.now_s())
    controller.clock.at_s = T0_S + 900.0
    feed._post(T0_S + 1800.0, 70.0, T0_S + 900.0)
    for second in range(900, 1801, 60):
        controller.clock.at_s = T0_S + second
        feed.look()
    kept = feed._history.past("posted")
    assert kept.values[kept.times_s == T0_S + 900.0].tolist() == [40.0]
    assert math.isnan(posted_next(None, T0_S)[1])
    feed._post(T0_S + 2700.0, math.nan, T0_S + 1800.0)
    assert set(feed._posted) == {T0_S + 1800.0}


def test_the_past_of_prices_is_kept_for_half_a_year(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    history = PlanHistory(("price", "other"), path, lasting=("price",))
    rows = [(n, 1.0) for n in range(LASTING_KEPT + 5)]
    history.save({"price": rows, "other": rows})
    again = PlanHistory(("price", "other"), path, lasting=("price",))
    assert len(again.past("price").values) == LASTING_KEPT
    assert len(again.past("other").values) == SLOTS_KEPT


def test_a_plan_of_such_a_market_is_told_with_what_awake_is_worth(tmp_path: Path) -> None:
    from wattshift_cluster.controller.plan.ahead import prepared

    controller = rig.controller(tmp_path, rig.HandClock(T0_S), PLAN)
    controller.sources.heard("da", Said("da", T0_S, prices_usd_per_mwh=hourly()), T0_S)
    controller.inbox.put([SignalChanged("da", price_usd_per_mwh=20.0, sets_price=True)])
    rig.turned(controller)
    feed = PlanFeed(controller)
    feed.look()
    known = feed._snapshot(T0_S)
    made = prepared(replace(known, past={**known.past, **series(0.5)}), controller.config)
    assert made.ahead.prospect is not None
    assert made.posted == (T0_S + 900.0, 20.0)
    assert FOLLOWS in made.notes
