"""The controller as a program: what it refuses at the start, what it says of a shortfall."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from wattshift_cluster.api.metrics import exposition
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.errors import NotFound, Refused
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap, GridEvent
from wattshift_scheduler.site import Device, OperatingPoint

SITE = """
[site]
name = "s"
state_dir = "state"
other_load = "500W"
[[feeders]]
name = "main"
limit = "10kW"
[grid]
schedule = "schedule.csv"
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
[api]
listen = "127.0.0.1:{port}"
"""
RIG = Device(
    "rig",
    "asic",
    "rack",
    "main",
    (OperatingPoint("sleep", 30, 0, 5), OperatingPoint("full", 3000, 1e14, 5)),
    3000.0,
)


def _folder(tmp_path: Path, schedule: str) -> Path:
    (tmp_path / "schedule.csv").write_text(f"starts,ends,limit,kind\n{schedule}")
    (tmp_path / "site.toml").write_text(SITE.format(port=18099))
    return tmp_path / "site.toml"


def test_a_scheduled_cap_below_the_floor_starts_nothing(tmp_path: Path) -> None:
    site = _folder(tmp_path, "2030-01-01T00:00:00Z,,400W,cap\n")
    run = subprocess.run(
        [sys.executable, "-m", "wattshift_cluster.controller.process", "--site", str(site)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 3
    assert "schedule.csv:2: limit = 400 W" in run.stderr
    assert "at least 500 W" in run.stderr


@pytest.fixture
def front(tmp_path: Path) -> Front:
    config = load_site(_folder(tmp_path, ""), environ={})
    journal = Journal.open(tmp_path / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({}, None))
    controller.inbox.put([ev.DeviceJoined((RIG,))])
    controller.turn(controller.inbox.take())
    return Front(controller)


def test_a_live_cap_below_the_floor_is_taken_and_its_shortfall_stated(front: Front) -> None:
    view = asyncio.run(front.set_cap(450.0, None, None, "operator", False))
    assert view["in_force"]
    assert view["shortfall_w"] == pytest.approx(500 + 31.5 - 450)
    alarms = {alarm["id"]: alarm for alarm in front.site()["alarms"]}
    assert alarms["cap-below-floor"]["severity"] == "critical"


def test_cap_alarm_and_site_miss_a_cap_by_the_same_two_figures(front: Front) -> None:
    """The rig has never answered: it counts at nameplate and 5 %, and could be asked to 30 W."""
    told = asyncio.run(front.set_cap(450.0, None, None, "operator", False))
    missed = (told["shortfall_w"], told["shortfall_counted_w"])
    assert missed == pytest.approx((81.5, 500 + 3150 - 450))
    site = front.site()
    assert (site["shortfall_w"], site["shortfall_counted_w"]) == pytest.approx(missed)
    text = {alarm["id"]: alarm["text"] for alarm in site["alarms"]}["cap-below-floor"]
    assert "lies 82 W below the 532 W that the site can be asked down to" in text
    assert "3,200 W below the 3,650 W that are counted" in text
    later = asyncio.run(front.set_cap(400.0, front._c.clock.now_s() + 60, None, "operator", False))
    assert later["shortfall_w"] == pytest.approx(131.5)
    assert later["shortfall_counted_w"] is None, "what will be counted then is not known"
    asyncio.run(front.clear_cap(None))
    assert "shortfall_w" not in front.site()


def test_the_alarm_says_what_the_cap_says_and_the_margin_counts_in_neither(front: Front) -> None:
    front._c.inbox.put([ev.DeviceLeft((RIG.id,), "sold")])
    view = asyncio.run(front.set_cap(450.0, None, None, "operator", False))
    assert view["shortfall_w"] == 50.0
    texts = {alarm["id"]: alarm["text"] for alarm in front.site()["alarms"]}
    assert texts["cap-below-floor"] == (
        "the cap of 450 W lies 50 W below the 500 W that the site can be asked down to"
    )
    assert front._c.state.outlook.margin_w > 2.0
    asyncio.run(front.clear_cap(None))
    view = asyncio.run(front.set_cap(501.0, None, None, "operator", False))
    assert view["shortfall_w"] is None
    names = {alarm["id"] for alarm in front.site()["alarms"]}
    assert "cap-below-floor" not in names, "a floor that lies in the margin is below the cap"


def test_metrics_tell_what_is_promised_to_the_grid_held_for_it_and_short(front: Front) -> None:
    assert front.metrics_snapshot()["promise_w"] == {"owed": 0.0, "held": 0.0, "short": 0.0}
    now_s = front._c.clock.now_s()
    peak = GridEvent("e", "vtn", "dr", now_s - 1500.0, now_s + 300.0, now_s + 900.0, 700.0)
    front._c.inbox.put([ev.SignalChanged("vtn", events=(peak,))])
    front._c.turn(front._c.inbox.take())
    text = exposition(front.metrics_snapshot()).decode()
    assert 'wattshift_promise_watts{kind="owed"} 700.0' in text
    assert 'wattshift_promise_watts{kind="held"} 0.0' in text
    assert 'wattshift_promise_watts{kind="short"} 700.0' in text, "nothing is drawn yet"


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_s(self) -> float:
        return self.at_s


def test_a_cap_that_begins_just_after_a_turn_is_not_left_for_the_next_tick(tmp_path: Path) -> None:
    """A timer fires a hair early, the turn sees no cap yet, and then the cap begins."""
    config = load_site(_folder(tmp_path, ""), environ={})
    clock = HandClock()
    journal = Journal.open(tmp_path / "journal.sqlite")
    controller = Controller(config, journal, clock, Tokens({}, None))
    cap = Cap("c", "schedule", 5_000.0, 1_000.0005, None)
    controller.inbox.put([ev.SignalChanged("schedule", (cap,))])
    controller.turn(controller.inbox.take())
    assert controller.state.outlook.cap_w == 10_000.0
    clock.at_s = 1_000.02
    assert controller._pause_s() == 0.0
    controller.turn(controller.inbox.take())
    assert controller.state.outlook.cap_w == 5_000.0
    assert controller._pause_s() == 1.0
    journal.close()


def test_strict_refuses_it(front: Front) -> None:
    with pytest.raises(Refused, match="short by"):
        asyncio.run(front.set_cap(450.0, None, None, "operator", True))
    assert front.caps() == []


def test_the_lowest_operator_cap_wins_and_each_can_be_lifted(front: Front) -> None:
    low = asyncio.run(front.set_cap(4_000.0, None, None, "operator", False))
    asyncio.run(front.set_cap(6_000.0, None, None, "operator", False))
    assert front.site()["cap_w"] == 4_000.0
    assert front.metrics_snapshot()["cap_w"] == {"connection": 10_000.0, "operator": 4_000.0}
    asyncio.run(front.clear_cap(low["id"]))
    assert front.site()["cap_w"] == 6_000.0
    with pytest.raises(NotFound):
        asyncio.run(front.clear_cap("no-such-cap"))
    asyncio.run(front.clear_cap(None))
    assert front.site()["cap_origin"] == "connection"


def test_a_job_is_on_disk_before_it_is_acknowledged_and_its_key_makes_one(front: Front) -> None:
    spec = {"kind": "mining", "name": "soak", "devices": ["rig"]}
    first = asyncio.run(front.submit_job(spec, "key-1"))
    again = asyncio.run(front.submit_job(spec, "key-1"))
    assert first["id"] == again["id"]
    with pytest.raises(Refused, match="Idempotency-Key"):
        asyncio.run(front.submit_job({**spec, "devices": ["other"]}, "key-1"))
    assert first["id"] in front._c.journal.jobs()
    asyncio.run(front.job_action(first["id"], "cancel"))
    assert front.job(first["id"])["state"] == "cancelled"
    with pytest.raises(Refused, match="cancelled"):
        asyncio.run(front.job_action(first["id"], "pause"))


def test_a_device_that_was_never_read_is_unknown_and_not_zero(front: Front) -> None:
    (device,) = front.devices()
    assert device["watts_w"] is None
    assert device["ceiling_w"] == pytest.approx(3150.0)
    assert device["state"] == "unreachable"
    assert front.site()["mining_w"] is None
