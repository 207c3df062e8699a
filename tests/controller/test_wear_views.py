"""What the controller makes of wear: into columns, views, and the words of explain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.cli.explain import device_text
from wattshift_cluster.config.site import AgentRef
from wattshift_cluster.controller import agent_words, views
from wattshift_cluster.controller.roster import Roster
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Feeder, FeederTree, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

REF = AgentRef.model_validate(
    {"name": "racks", "address": "127.60.0.1:1", "token_file": "t", "feeder": "main"},
    context={"folder": Path("/")},
)
POINTS = [
    {"mode": "sleep", "watts_w": 0.0, "hashrate_h_per_s": 0.0, "transition_s": 1.0},
    {"mode": "run", "watts_w": 1000.0, "hashrate_h_per_s": 1e15, "transition_s": 36.0},
]


def _info(**changes: Any) -> dict[str, Any]:
    return {
        "id": "rig",
        "kind": "asic",
        "model": "S21",
        "nameplate_w": 1000.0,
        "tolerance": 0.0,
        "continuous": False,
        "fenced": False,
        "safe_w": 0.0,
        "power_on_w": 1000.0,
        "points": POINTS,
        **changes,
    }


def test_wear_is_taken_and_an_agent_that_does_not_tell_of_it_wears_nothing() -> None:
    (told,) = agent_words.offer(REF, [_info(wear_usd_per_cycle=0.4)]).devices
    (old,) = agent_words.offer(REF, [_info()]).devices
    assert (told.wear_usd_per_cycle, old.wear_usd_per_cycle) == (0.4, 0.0)


@pytest.mark.parametrize("wear", [-0.4, float("nan"), float("inf"), "much", [0.4], 1e12])
def test_a_device_with_wear_that_cannot_be_is_refused(wear: object) -> None:
    offer = agent_words.offer(REF, [_info(wear_usd_per_cycle=wear)])
    assert (offer.devices, list(offer.refused)) == ((), ["rig"])


def _running(price: float) -> State:
    """A machine worth 100 USD/MWh that has just been leased its top, at a new price."""
    site = Site("s", FeederTree.of([Feeder("main", None, 1e5)]), (), Rules())
    state = initial(site, Values(2.4, 0.0, 0.0, 0.0), 1)
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    joined = ev.DeviceJoined(agent_words.offer(REF, [_info(wear_usd_per_cycle=0.4)]).devices)
    told: list[ev.Event] = [joined, ev.JobSubmitted(mine)]
    nan, no = np.full(1, np.nan), np.zeros(1, dtype=np.bool_)
    for now_s, drawn_w, paid in ((1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (40.0, 900.0, price)):
        seen = (np.full(1, now_s), np.full(1, drawn_w), nan, nan, nan, nan)
        told += [
            ev.AgentSeen("racks", "boot", now_s, now_s),
            ev.Readings(("rig",), *seen, ("",), no, no),
            ev.SignalChanged("price", (), paid, True),
        ]
        state, _, _ = step(state, told, now_s)
        told = []
    return state


def _view(state: State, **reading: Any) -> dict[str, Any]:
    roster = Roster()
    roster.offered("racks", [_info()])
    roster.read([{"device": "rig", "counters": {}, "quality": "emulated", **reading}], 40.0)
    (view,) = views.devices(state, roster, 40.0)
    return view


def test_a_kept_machine_says_so_and_what_a_cycle_costs() -> None:
    view = _view(_running(200.0), cycles=12)
    assert view["leased_w"] == 1000.0
    assert view["wear_usd_per_cycle"] == 0.4
    assert view["cycle_usd"] == pytest.approx(0.401)
    kept = "kept awake: a cycle costs 0.40 USD, sleep would save that back in 4.0 h"
    assert view["reason"].endswith(f"; {kept}")
    text = device_text(view)
    assert kept in text
    assert "12 so far, 0.40 USD each (wear 0.40 USD)" in text


def test_a_machine_that_earns_is_not_kept_and_unknown_cycles_are_not_zero() -> None:
    view = _view(_running(50.0))
    assert "kept" not in view["reason"]
    assert view["cycles"] is None
    assert "not counted, 0.40 USD each" in device_text(view)
