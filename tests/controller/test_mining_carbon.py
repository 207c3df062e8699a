"""The operator's price on carbon, from the site file to what is told of a machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.cli.economics_text import economics_text
from wattshift_cluster.cli.explain_rung import rung_text
from wattshift_cluster.controller import money, rung_views
from wattshift_cluster.controller.books import Books
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.said import Said, Steps
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device, OperatingPoint

POINTS = (OperatingPoint("rest", 0.0, 0.0, 1.0), OperatingPoint("run", 1000.0, 1e15, 1.0))
RIG = Device("rig", "asic", "a", "main", POINTS, 1000.0, 0.0)
"""1 PH/s at 1 kW: at 2.4 USD/PH/day a MWh of it is worth 100 USD; energy costs 20."""
MORE = """
[values]
hashprice_usd_per_ph_day = 2.4
pool_fee_pct = 0
[mining]
devices = ["*"]
[plan]
enabled = false
carbon_usd_per_t = {usd_per_t}
[[market.carbon]]
name = "air"
file = "air.csv"
"""


class Stage:
    """A controller whose one machine answers."""

    def __init__(self, folder: Path, usd_per_t: float) -> None:
        (folder / "air.csv").write_text("time,value\n2030-01-01T10:00:00Z,400\n")
        self.clock = rig.HandClock()
        self.c: Controller = rig.controller(folder, self.clock, MORE.format(usd_per_t=usd_per_t))
        self.c.outlet.send = lambda command: None  # type: ignore[method-assign]
        self.turn(ev.DeviceJoined((RIG,)))

    def emits(self, *grams: float) -> None:
        now_s = self.clock.now_s()
        steps = Steps(tuple(now_s + 10.0 * i for i in range(len(grams))), grams, now_s + 900, now_s)
        self.c.sources.heard("air", Said("air", now_s, carbon_g_per_kwh=steps), now_s)

    def turn(self, *events: ev.Event) -> list[ev.Event]:
        """One turn; what the core was told of carbon meanwhile."""
        told: list[Any] = []
        inner = self.c._carbon
        self.c._carbon = lambda now_s: told.extend(inner(now_s)) or told  # type: ignore[func-returns-value, method-assign]
        now_s = self.clock.now_s()
        self.c.turn([ev.AgentSeen("a", "boot", now_s, now_s), *events])
        self.c._carbon = inner  # type: ignore[method-assign]
        return told

    def rung(self) -> dict[str, Any]:
        return rung_views.rung(self.c.state, 0, self.clock.now_s())

    def money(self) -> dict[str, Any]:
        now_s = self.clock.now_s()
        return money.economics(self.c.state, Books(), None, "fpps", now_s, None, 10)


@pytest.fixture
def priced(tmp_path: Path) -> Any:
    stage = Stage(tmp_path, 300.0)
    yield stage
    stage.c.journal.close()


def test_the_core_is_told_what_energy_emits_when_that_changes(priced: Stage) -> None:
    assert priced.turn() == []
    priced.emits(400.0, 250.0)
    assert priced.turn() == [ev.CarbonSeen(400.0)]
    assert priced.turn() == [], "the same is told once"
    priced.clock.at_s += 11.0
    assert priced.turn() == [ev.CarbonSeen(250.0)]
    priced.clock.at_s += 1000.0
    assert priced.turn() == [ev.CarbonSeen(None)], "the series has ended"


def test_what_takes_carbon_away_is_told_once_as_none(priced: Stage) -> None:
    priced.emits(-5.0)
    assert priced.turn() == [ev.CarbonSeen(0.0)]
    assert priced.turn() == []


def test_without_a_price_on_it_nothing_is_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 0.0)
    stage.emits(400.0)
    assert stage.turn() == []
    assert stage.rung()["carbon_usd_per_mwh"] is None
    assert stage.money()["carbon_usd_per_mwh"] is None
    assert "carbon" not in rung_text(stage.rung()) + economics_text(stage.money())
    stage.c.journal.close()


def test_explain_says_that_carbon_keeps_a_machine_off(priced: Stage) -> None:
    priced.emits(400.0)
    priced.turn()
    one = priced.rung()
    assert (one["rule"], one["carbon_usd_per_mwh"]) == ("carbon", pytest.approx(120.0))
    assert one["why"] == (
        "rig is off because its next rung is worth 100 USD/MWh and energy costs 20 and its "
        "carbon 120"
    )
    text = rung_text(one)
    assert "rule       carbon: rig is off because" in text
    assert "energy     20.00 USD/MWh, its carbon 120.00 USD/MWh" in text
    priced.emits(100.0)
    priced.turn()
    assert priced.rung()["rule"] not in ("carbon", "energy")
    priced.turn(ev.SignalChanged("price", (), 110.0, True))
    assert priced.rung()["rule"] == "energy", "energy alone costs more"


def test_the_money_counts_it_and_says_so(priced: Stage) -> None:
    (point,) = priced.money()["devices"][0]["points"]
    assert (point["carbon_usd_per_h"], point["net_usd_per_h"]) == (0.0, pytest.approx(0.08))
    priced.emits(400.0)
    priced.turn()
    view = priced.money()
    (device,) = view["devices"]
    (point,) = device["points"]
    assert view["carbon_usd_per_mwh"] == pytest.approx(120.0)
    assert point["energy_usd_per_h"] == pytest.approx(0.02), "what is billed"
    assert point["carbon_usd_per_h"] == pytest.approx(0.12)
    assert point["net_usd_per_h"] == pytest.approx(0.1 - 0.14)
    assert device["verdict"] == "idles"
    assert device["sentence"] == (
        "hashing on rig costs 0.14 USD/h (0.12 of it for carbon) and earns 0.1: it idles"
    )
    text = economics_text(view)
    assert "carbon     120.00 USD/MWh of your own price" in text
    assert "0.14" in next(line for line in text.splitlines() if line.startswith("rig "))


def test_what_a_machine_earns_now_leaves_carbon_to_be_paid(priced: Stage) -> None:
    priced.emits(400.0)
    priced.turn()
    now_s, none, no = priced.clock.now_s(), np.full(1, np.nan), np.zeros(1, dtype=np.bool_)
    at_s, drawn_w, hashes = np.full(1, now_s), np.full(1, 1000.0), np.full(1, 1e15)
    priced.turn(ev.Readings(("rig",), at_s, drawn_w, none, hashes, none, none, ("",), no, no))
    (device,) = priced.c.device_views(now_s)
    assert device["value_usd_per_h"] == pytest.approx(0.1 - 0.02 - 0.12)
