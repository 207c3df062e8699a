"""Wear in the simulator: cycles are counted and paid for, and dear ones are not wasted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.simulate.clock import jumped
from wattshift_cluster.simulate.run import SimulationResult, run_simulation
from wattshift_scheduler.ladder.cycles import Turns
from wattshift_scheduler.site import Feeder, FeederTree, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.values import Values

SITE = """
[site]
name = "sim"
state_dir = "state"
[[feeders]]
name = "main"
limit = "30kW"
[values]
hashprice_usd_per_ph_day = 45
[mining]
devices = ["*"]
"""
RIGS = 3


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    (tmp_path / "signal.csv").write_text("starts,ends,limit,kind\n")
    (tmp_path / "event.csv").write_text("starts,ends,limit,kind\n600,900,500W,event\n")
    # A rig earns 80 to 95 USD/MWh: every five minutes that is more than energy costs, or less.
    rows = "".join(f"{300 * i},{(60, 130)[i % 2]}\n" for i in range(13))
    (tmp_path / "prices.csv").write_text(f"time,usd_per_mwh\n{rows}")
    (tmp_path / "flat.csv").write_text("time,usd_per_mwh\n0,10\n1,10\n")
    return path


def _run(site: Path, prices: str, signal: str, **row: Any) -> SimulationResult:
    fleet = site.parent / "fleet.json"
    fleet.write_text(json.dumps([{"count": RIGS, "model": "profiled-asic", **row}]))
    return run_simulation(
        site,
        prices=str(site.parent / prices),
        signal=str(site.parent / signal),
        fleet=fleet,
        days=1.0 / 24.0,
        seed=3,
        faults_per_day=0.0,
    )


def test_a_flapping_price_costs_no_cycles_once_they_cost_something(site: Path) -> None:
    free = _run(site, "prices.csv", "signal.csv")
    dear = _run(site, "prices.csv", "signal.csv", wear_usd_per_cycle=0.5)
    assert free.cycles == 6 * RIGS, "it boots within seconds, so each dip is worth a cycle"
    assert dear.cycles == RIGS, "the first wake"
    assert free.wear_usd == 0.0
    assert dear.wear_usd == pytest.approx(0.5 * RIGS)
    spent = dear.cost_usd + dear.wear_usd
    assert dear.net_usd == pytest.approx(sum(dear.revenue_usd.values()) - spent)


def test_a_cap_is_obeyed_whatever_the_wear_and_all_come_back_after_it(site: Path) -> None:
    result = _run(site, "flat.csv", "event.csv", wear_usd_per_cycle=100.0)
    (shed,) = result.sheds
    assert shed["seconds_to_cap"] is not None
    assert not result.breaches
    assert result.cycles == 2 * RIGS


def test_what_a_machine_loses_in_a_jump_it_has_lost() -> None:
    state = initial(Site("s", FeederTree.of([Feeder("main", None, 1.0)])), Values(), 1)
    turns = replace(Turns.none(1), losing_usd_per_h=np.array([0.5]))
    after = jumped(replace(state, turns=turns), 1800.0)
    assert after.turns.regret_usd.tolist() == [0.25]


@pytest.mark.parametrize("wear", ["1", True, -1, 1e4, None])
def test_wear_that_cannot_be_is_refused_with_its_place(site: Path, wear: object) -> None:
    with pytest.raises(ConfigInvalid, match=r"\[0\].wear_usd_per_cycle"):
        _run(site, "flat.csv", "signal.csv", wear_usd_per_cycle=wear)
