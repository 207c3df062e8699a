"""A rack that is fed from two sides, in a running controller: shown, counted, never accused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.cli.status import site_text
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeders
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device, OperatingPoint

TOKEN = b"t" * 32
SITE = """
[site]
name = "s"
state_dir = "state"
margin_pct = 2
[[feeders]]
name = "main"
limit = "40kW"
[[feeders]]
name = "pdu-a"
parent = "main"
limit = "10kW"
margin = "10%"
meter = "http://127.0.0.1:9/a"
[[feeders]]
name = "pdu-b"
parent = "main"
limit = "8kW"
meter = "http://127.0.0.1:9/b"
[[feeders]]
name = "rack"
parent = "pdu-a"
second_parent = "pdu-b"
limit = "12kW"
meter = "http://127.0.0.1:9/r"
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "rack"
[grid]
default_price_usd_per_mwh = 1
[mining]
devices = ["*"]
"""


def rig(name: str) -> Device:
    points = (OperatingPoint("sleep", 30.0, 0.0, 0.0), OperatingPoint("high", 3000.0, 3e14, 0.0))
    return Device(name, "asic", "rack", "rack", points, 3000.0, 0.0)


class Sides:
    """The controller, turned by hand."""

    def __init__(self, controller: Controller) -> None:
        self.c = controller
        self.front = Front(controller)

    def turn(self, *watts_w: float) -> None:
        """The rigs tell what they draw, and obey what they are told."""
        now_s, count = self.c.clock.now_s(), len(watts_w)
        none, no = np.full(count, np.nan), np.zeros(count, dtype=np.bool_)
        names = tuple(f"rig-{i}" for i in range(count))
        at_s, drawn_w = np.full(count, now_s), np.array(watts_w)
        told = ev.Readings(names, at_s, drawn_w, none, none, none, none, ("",) * count, no, no)
        state, yes = self.c.state, np.ones(count, dtype=np.bool_)
        replied = [
            ev.LeasesReplied(command, names, state.ledger.sequence, yes, ("",) * count)
            for command, sent in state.sent.items()
            if sent.kind == "grant_leases"
        ]
        self.c.turn([ev.AgentSeen("rack", "boot", now_s, now_s), *replied, told])

    def judged(self, **watts_w: float) -> set[str]:
        """Alarms after the meters said this for long enough."""
        for sample in range(feeders.DIFFERS_SAMPLES + 1):
            said = {
                name: MeterReading(watts_w[name.replace("-", "_")], float(sample), 0.0, "measured")
                for name in self.c.feeders.names
            }
            self.c.feeders.readings = lambda said=said: said  # type: ignore[method-assign,misc]
            self.c.feeders.judge(self.c.state, float(sample))
        return set(self.c.feeders.alarms)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    (tmp_path / "site.toml").write_text(SITE)
    config = load_site(tmp_path / "site.toml", environ={})
    journal = Journal.open(tmp_path / "journal.sqlite")
    made = Sides(Controller(config, journal, SteadyClock(), Tokens({"rack": TOKEN}, None)))
    made.c.turn([*made.c.inbox.take(), ev.DeviceJoined(tuple(rig(f"rig-{i}") for i in range(4)))])
    yield made
    journal.close()


def test_both_parents_and_margins_are_shown(sides: Sides) -> None:
    shown: dict[str, Any] = {one["id"]: one for one in sides.front.site()["feeders"]}
    assert (shown["rack"]["parent"], shown["rack"]["second_parent"]) == ("pdu-a", "pdu-b")
    assert "second_parent" not in shown["pdu-a"]
    assert [round(shown[name]["margin_w"]) for name in ("pdu-a", "pdu-b")] == [1000, 160]
    text = site_text(sides.front.site())
    assert "FED BY" in text
    assert next(line for line in text.splitlines() if line.startswith("rack ")).endswith(
        "pdu-a or pdu-b"
    )


def test_no_more_is_leased_than_either_side_carries_alone(sides: Sides) -> None:
    for drawn in ((30.0,) * 4, (30.0,) * 4, (30.0,) * 4, (3000.0, 3000.0, 30.0, 30.0)):
        sides.turn(*drawn)
    leased_w = sides.c.state.ledger.lease_w
    assert leased_w.sum() == pytest.approx(2 * 3000.0 + 2 * 30.0), "pdu-b carries 7,840 W"
    shown = {one["id"]: one["committed_w"] for one in sides.front.site()["feeders"]}
    assert shown["pdu-a"] == shown["pdu-b"] == shown["rack"] == shown["main"]
    assert "pdu-b" in sides.c.state.outlook.binding


def test_a_side_that_carries_a_part_is_not_accused_and_the_rack_itself_still_is(
    sides: Sides,
) -> None:
    sides.turn(*(3000.0,) * 4)
    assert sides.judged(pdu_a=5000.0, pdu_b=7000.0, rack=12_000.0) == set()
    assert sides.judged(pdu_a=5000.0, pdu_b=7000.0, rack=9_000.0) == {"feeder-differs:rack"}
    assert sides.judged(pdu_a=3000.0, pdu_b=9000.0, rack=12_000.0) == {"feeder-over:pdu-b"}


def test_without_a_second_side_the_same_meter_would_be_accused(sides: Sides) -> None:
    tree = sides.c.state.site.tree
    alone = replace(tree, shared=np.zeros(len(tree.names), dtype=np.bool_))
    sides.turn(*(3000.0,) * 4)
    sides.c.state = replace(sides.c.state, site=replace(sides.c.state.site, tree=alone))
    alarms = sides.judged(pdu_a=5000.0, pdu_b=7000.0, rack=12_000.0)
    assert alarms == {"feeder-differs:pdu-a", "feeder-differs:pdu-b"}
