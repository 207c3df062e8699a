"""From a controller's state to what a plan is made from: loads, sun, carbon, demand, peaks."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller.plan.ahead import SERIES, Prepared, other_w, prepared
from wattshift_cluster.controller.plan.feed import PlanFeed
from wattshift_cluster.controller.plan.history import Past
from wattshift_cluster.grid.curves.readers import Told
from wattshift_cluster.grid.peaks.coincident import PeakSource, PeakTerms
from wattshift_cluster.grid.peaks.kept_highest import KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Said, Steps
from wattshift_scheduler.events import ComputeSeen, SignalChanged
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.signals.peaks import Duty

T0_S = 1_900_022_400.0
PLAN = '[plan]\nenabled = true\nhorizon = "24h"\ncarbon_usd_per_t = 50\n'
METER = '[meter]\nurl = "http://127.0.0.1:9/p"\nexports = true\n'
DEMAND = '[plan]\ndemand_charge = 12\nperiod = "60s"\n'


def made(folder: Path, more: str = PLAN) -> tuple[Any, PlanFeed]:
    controller = rig.controller(folder, rig.HandClock(T0_S), more)
    return controller, PlanFeed(controller)


def asked(feed: PlanFeed, controller: Any, **changes: Any) -> Prepared:
    feed.look()
    known = feed._snapshot(controller.clock.now_s())
    return prepared(replace(known, **changes), controller.config)


def days(value: float, count: int = 14) -> Past:
    times_s = np.asarray(T0_S + np.arange(-96 * count, 0) * 900.0, dtype=np.float64)
    return Past(times_s, np.full(len(times_s), value))


def past(**series: Past) -> Mapping[str, Past]:
    none = Past(np.zeros(0), np.zeros(0))
    return dict.fromkeys(SERIES, none) | series


def service(units: int) -> Job:
    return Job(
        "chat", JobKind.SERVICE, "chat", {}, T0_S, unit_w=1000.0, min_units=2, max_units=8,
        state=JobState.RUNNING, units=units, wanted=units + 1,
    )  # fmt: skip


def test_without_a_feed_the_price_of_the_site_file_holds(tmp_path: Path) -> None:
    controller, feed = made(tmp_path)
    found = asked(feed, controller)
    assert found.ahead.price.mid.tolist() == [20.0] * 96
    assert found.priced.all(), "what the owner says is no forecast"
    assert found.ahead.start_s == T0_S
    assert found.ahead.services.high.tolist() == [0.0] * 96
    assert found.ahead.other.mid.tolist() == [500.0] * 96, "the bound that the control loop keeps"
    assert found.ahead.solar is None
    assert found.notes == ("carbon is not known, and is not priced",)


def test_a_price_that_is_told_for_now_alone_goes_on(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, PLAN + '[[market.prices]]\nname = "now"\nfile = "p.csv"\n')
    curve = Steps((T0_S,), (35.0,), T0_S + 600.0, T0_S)
    controller.sources.heard("now", Said("now", T0_S, prices_usd_per_mwh=curve), T0_S)
    price = SignalChanged("now", price_usd_per_mwh=35.0, sets_price=True)
    controller.inbox.put([price])
    rig.turned(controller)
    found = asked(feed, controller)
    assert found.ahead.price.mid.tolist() == [35.0] * 96
    assert found.priced.tolist() == [True] + [False] * 95
    assert "the price beyond what is published is foreseen from its last value" in found.notes[0]


def test_inference_is_foreseen_within_what_it_may_have(tmp_path: Path) -> None:
    controller, feed = made(tmp_path)
    controller.state = replace(controller.state, jobs={"chat": service(5)})
    now = asked(feed, controller).ahead.services
    assert now.mid[0] == pytest.approx(6000.0), "what it could use now"
    assert now.low.min() >= 2000.0
    assert now.high.max() <= 8000.0
    usual = asked(feed, controller, past=past(services=days(50_000.0))).ahead.services
    assert usual.mid.tolist() == [8000.0] * 96, "its most, however much there was once"


def test_other_load_has_a_past_once_there_is_enough_of_it(tmp_path: Path) -> None:
    controller, feed = made(tmp_path)
    assert other_w(controller.state) == 500.0
    short = asked(feed, controller, past=past(other=days(900.0, 1))).ahead.other
    assert short.mid[0] == 500.0
    usual = asked(feed, controller, past=past(other=days(900.0))).ahead.other
    assert usual.mid == pytest.approx(900.0)


def test_carbon_is_what_its_source_says(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, PLAN + '[[market.carbon]]\nname = "air"\nfile = "a.csv"\n')
    curve = Steps((T0_S,), (300.0,), T0_S + 90_000.0, T0_S)
    controller.sources.heard("air", Said("air", T0_S, carbon_g_per_kwh=curve), T0_S)
    found = asked(feed, controller)
    assert found.ahead.carbon_g_per_kwh is not None
    assert found.ahead.carbon_g_per_kwh.mid.tolist() == [300.0] * 96
    assert found.ahead.carbon_usd_per_t == 50.0


def test_the_sun_is_foreseen_from_what_it_made(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, PLAN + METER + "[solar]\nfloor = 0\n")
    assert asked(feed, controller).ahead.solar is None, "nobody has read the connection yet"
    state = controller.state
    controller.state = replace(state, meter_w=-3000.0, meter_at_s=T0_S)
    found = asked(feed, controller)
    assert found.ahead.solar is not None
    assert found.ahead.solar.mid[0] == pytest.approx(3500.0), "500 W are drawn, 3 kW flow out"
    assert any("the sun is foreseen" in note for note in found.notes)


def test_the_month_s_highest_demand_is_kept_over_a_restart(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, METER + DEMAND)
    sample = controller.samplers[-1]
    for second in range(0, 1901, 50):
        sample(4e6 if second <= 900 else None, T0_S + second)
    found = asked(feed, controller)
    (peak,) = found.ahead.peaks
    assert peak.so_far_w == pytest.approx(4e6)
    assert 0.0 < peak.usd_per_w < 0.012, "most of the month lies beyond the horizon"
    again = PlanFeed(controller)
    assert again._snapshot(T0_S).demand_so_far_w == pytest.approx(4e6)
    later = asked(again, controller, now_s=T0_S + 40 * 86_400.0)
    assert later.ahead.peaks[0].so_far_w == pytest.approx(4e6)
    assert math.isnan(again._snapshot(T0_S + 40 * 86_400.0).demand_so_far_w), "a month anew"


NODES = """
limit = "2kW"
[[compute.nodes]]
name = "gpu-1"
feeder = "main"
max = "1.6kW"
[[compute.nodes]]
name = "gpu-2"
feeder = "main"
max = "1.2kW"
[grid]
default_price_usd_per_mwh = 20
"""


def test_batch_has_the_nodes_that_answer(tmp_path: Path) -> None:
    hall = rig.HALL.format(port=9) + NODES
    clock = rig.HandClock(T0_S)
    controller = rig.controller(tmp_path, clock, PLAN, hall, rig.BRIDGE_TOKEN)
    feed = PlanFeed(controller)
    assert math.isinf(asked(feed, controller).ahead.compute_w), "none has answered yet"
    controller.inbox.put([ComputeSeen("gpu-1", True, 0.0)])
    rig.turned(controller)
    assert asked(feed, controller).ahead.compute_w == 1600.0


class _Forecast:
    """A grid's load that is known by the hour, highest at noon."""

    local = True

    async def read(self, now_s: float) -> Told:
        hours = np.arange(48)
        load_w = 5e10 * (1.0 + 0.3 * np.cos((hours - 12) / 12.0 * np.pi))
        times = tuple((T0_S + 3600.0 * hours).tolist())
        return Told(Steps(times, tuple(load_w.tolist()), times[-1] + 3600.0, now_s))

    async def close(self) -> None:
        """Nothing is held open."""


def test_a_peak_source_tells_the_chance_of_each_interval(tmp_path: Path) -> None:
    terms = PeakTerms(Duty("4cp", 1e6, 3600.0), Season())
    source = PeakSource(terms, _Forecast(), None, KeptHighest(None), clock_s=lambda: T0_S)
    assert source.ahead is None
    asyncio.run(source.refresh())
    assert source.ahead is not None
    starts_s, chance = source.ahead
    assert len(starts_s) == len(chance) == 48
    assert (source.name, source.interval_s) == ("4cp", 3600.0)
    assert starts_s[int(np.argmax(chance[:24]))] == T0_S + 12 * 3600.0
    assert chance.sum() == pytest.approx(1.0, abs=1e-6), "two such days are not two peaks"
    controller, feed = made(tmp_path)
    controller.peaks_ahead.append(source)
    config = controller.config.model_copy(
        update={"plan": controller.config.plan.model_copy(update={"peak_charge_usd_per_kw": 60.0})}
    )
    (peak,) = prepared(feed._snapshot(T0_S), config).ahead.peaks
    assert peak.chance is not None
    assert peak.chance.sum() == pytest.approx(chance[:24].sum(), rel=1e-6)
