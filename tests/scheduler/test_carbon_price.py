"""The operator's price on carbon counts in what a MWh costs mining, as it does for batch."""

import math
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.decisions import Moves
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.in_force import carbon
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

USD_PER_T = 80.0
POINTS = (OperatingPoint("rest", 0.0, 0.0, 1.0), OperatingPoint("run", 1000.0, 1e15, 1.0))
RIG = Device("rig", "asic", "a", "main", POINTS, 1000.0, 0.0)
"""1 PH/s at 1 kW: at 2.4 USD/PH/day a MWh of it is worth 100 USD."""


class Play:
    """One machine that obeys, at an energy price of 70 USD/MWh."""

    def __init__(self, usd_per_t: float = USD_PER_T) -> None:
        tree = FeederTree.of([Feeder("main", None, 1e5)])
        values = Values(2.4, 0.0, 0.0, 70.0, usd_per_t)
        self.state: State = initial(Site("s", tree, (), Rules(margin_share=0.0)), values, 1)
        self.now_s, self.owed = 0.0, list[ev.Event]()
        self.inputs: dict[str, Any] = {}
        self.why = ""
        mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
        self.turn(ev.DeviceJoined((RIG,)), ev.JobSubmitted(mine))
        self.turn()

    def turn(self, *events: ev.Event) -> "Play":
        for told in (events, ()):
            self.now_s += 30.0
            heard = [*self.owed, ev.AgentSeen("a", "boot", self.now_s, self.now_s), self._read()]
            self.state, commands, why = step(self.state, [*told, *heard], self.now_s)
            self.owed = [_taken(one) for one in commands if isinstance(one, GrantLeases)]
            for one in why:
                if isinstance(one, Moves):
                    self.inputs, self.why = dict(one.inputs), next(one.rows()).reason
        return self

    def _read(self) -> ev.Readings:
        lease_w = self.state.ledger.lease_w if len(self.state.fleet) else np.zeros(1)
        none, no = np.full(1, np.nan), np.zeros(1, dtype=np.bool_)
        at_s, drawn_w = np.full(1, self.now_s), np.nan_to_num(lease_w)
        return ev.Readings(("rig",), at_s, drawn_w, none, none, none, none, ("",), no, no)

    def planned(self, usd_per_mwh: float | None) -> ev.PlanUpdated:
        price = np.full(12, 70.0 + (usd_per_mwh or 0.0))
        column = None if usd_per_mwh is None else np.full(12, usd_per_mwh)
        plan = Standing(
            self.now_s, self.now_s, 300.0, self.now_s + 900.0, price, price, np.zeros(12),
            carbon_usd_per_mwh=column,
        )  # fmt: skip
        return ev.PlanUpdated(plan)

    @property
    def runs(self) -> bool:
        return bool(self.state.ledger.point[0] > 0)

    @property
    def costs(self) -> float | None:
        return carbon.usd_per_mwh(self.state, self.now_s)


def _taken(command: GrantLeases) -> ev.LeasesReplied:
    yes = np.ones(len(command.devices), dtype=np.bool_)
    return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, ("",) * len(yes))


def test_mining_rests_while_energy_and_its_carbon_cost_more_than_it_earns() -> None:
    play = Play()
    assert play.runs, "100 earned, 70 for energy"
    play.turn(ev.CarbonSeen(400.0))
    assert play.costs == pytest.approx(32.0), "400 g/kWh at 80 USD/t"
    assert not play.runs
    assert (play.inputs["price_usd_per_mwh"], play.inputs["carbon_usd_per_mwh"]) == (
        70.0,
        pytest.approx(32.0),
    )
    assert play.why.endswith(
        "its next rung is worth 100.0 USD/MWh, not more than energy at 70.0 USD/MWh and its carbon "
        "at 32.0"
    )
    play.turn(ev.CarbonSeen(370.0))
    assert play.runs, "29.60 leave 0.40"


def test_without_a_price_on_it_carbon_changes_nothing() -> None:
    play = Play(0.0)
    play.turn(ev.CarbonSeen(9000.0), play.planned(500.0))
    assert play.costs is None
    assert play.runs
    assert carbon.mining_usd_per_mwh(play.state, play.now_s) == 70.0


def test_unknown_carbon_is_not_priced_as_the_plan_does_not() -> None:
    play = Play()
    play.turn(ev.CarbonSeen(400.0)).turn(ev.CarbonSeen(None))
    assert (play.costs, play.runs) == (None, True)
    play.turn(play.planned(None))
    assert (play.costs, play.runs) == (None, True)


def test_while_no_source_tells_the_plan_s_carbon_of_now_counts() -> None:
    play = Play()
    play.turn(play.planned(40.0))
    assert (play.costs, play.runs) == (40.0, False)
    play.turn(ev.CarbonSeen(100.0))
    assert play.costs == pytest.approx(8.0), "what a source tells goes before"
    assert play.runs
    play.turn(ev.CarbonSeen(None))
    assert not play.runs
    play.now_s += 900.0
    play.turn()
    assert (play.costs, play.runs) == (None, True), "a plan that has expired says nothing"


@pytest.mark.parametrize("told", [math.nan, math.inf, None])
def test_carbon_that_is_no_number_is_unknown(told: float | None) -> None:
    play = Play().turn(ev.CarbonSeen(400.0)).turn(ev.CarbonSeen(told))
    assert play.state.signals.carbon_g_per_kwh is None


def test_nothing_takes_carbon_away() -> None:
    assert Play().turn(ev.CarbonSeen(-50.0)).costs == 0.0


def test_other_words_of_sources_leave_it_as_it_is() -> None:
    play = Play().turn(ev.CarbonSeen(400.0), ev.SignalChanged("price", (), 60.0, True))
    assert play.costs == pytest.approx(32.0)
    assert carbon.mining_usd_per_mwh(play.state, play.now_s) == pytest.approx(92.0)
    play.turn(ev.SignalChanged("price", (), None, True))
    assert play.costs == pytest.approx(32.0)


@pytest.mark.parametrize("usd", [-1.0, math.nan, math.inf])
def test_a_price_on_carbon_that_cannot_be_is_refused(usd: float) -> None:
    with pytest.raises(SiteInvalid, match="carbon"):
        Values(carbon_usd_per_t=usd)
