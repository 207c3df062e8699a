"""A source's words in the controller: caps, alerts, prices, notes, faults, and restarts."""

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller import signal_feed
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.signal_feed import SourceFeed
from wattshift_cluster.grid.said import Alert, AlertSaid, Said, Say, Steps
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.signals.words import Cap, GridEvent, Target

NOW_S: float = rig.NOW_S
VTN: str = rig.VTN


class Stage:
    """A controller, and feeds of sources that say what the test says."""

    def __init__(self, folder: Path, more: str = VTN) -> None:
        self.folder = folder
        self.clock = rig.HandClock()
        self.feeds: dict[str, SourceFeed] = {}
        self.start(more)

    def start(self, more: str = VTN) -> None:
        self.c: Controller = rig.controller(self.folder, self.clock, more)
        self.feeds.clear()

    def restart(self, more: str = VTN) -> None:
        self.c.journal.close()
        self.start(more)

    def say(self, source: str = "utility", *, heard_s: float = NOW_S, **words: object) -> None:
        feed = self.feeds.setdefault(source, SourceFeed(self.c, rig.Quiet(source)))
        feed.take(Said(source, heard_s, **words))  # type: ignore[arg-type]
        rig.turned(self.c)

    @property
    def cap_w(self) -> float:
        return rig.turned(self.c).state.outlook.cap_w

    def reasons(self) -> list[str]:
        return [one.reason for one in self.c.recent]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.c.journal.close()


def cap(limit_w: float, name: str = "c", **more: float) -> Cap:
    return Cap(name, "utility", limit_w, **more)  # type: ignore[arg-type]


def test_all_that_a_source_says_is_taken_and_shown(stage: Stage) -> None:
    event = GridEvent("e", "utility", "peak", NOW_S, NOW_S + 60, None, 2e3)
    stage.say(caps=(cap(9e6),), targets=(Target("t", "utility", 8e6),), events=(event,))
    assert (stage.cap_w, stage.c.state.outlook.budget_w) == (9e6, 8e6)
    view = Front(stage.c).signals()["sources"]["utility"]
    assert (view["kind"], view["heard_age_s"], view["fault"]) == ("feed", 0.0, None)
    assert [view[key][0]["id"] for key in ("caps", "targets", "events")] == ["c", "t", "e"]
    site = Front(stage.c).site()
    assert (site["cap_id"], site["target_w"], site["target_id"]) == ("c", 8e6, "t")
    stage.say(caps=(cap(7e6),))
    assert (stage.cap_w, Front(stage.c).site()["target_w"]) == (7e6, None)


def test_the_same_words_again_wake_nobody(stage: Stage) -> None:
    stage.say(caps=(cap(9e6),))
    feed = stage.feeds["utility"]
    feed.take(Said("utility", NOW_S + 1, (cap(9e6),)))
    assert not stage.c.inbox.take()
    assert Front(stage.c).signals()["sources"]["utility"]["heard_age_s"] == 0.0


def test_an_alert_that_asks_for_the_least_sheds_to_the_floor(stage: Stage) -> None:
    alert = AlertSaid("a", "GRID_EMERGENCY", Alert.LEAST, "shed", NOW_S, NOW_S + 60)
    heat = AlertSaid("b", "FLEX_ALERT", Alert.NOTICE, "hot", NOW_S, None)
    never = AlertSaid("n", "BLACK_START", Alert.LEAST, "", NOW_S, NOW_S - 60)
    stage.say(alerts=(alert, heat, never))
    assert stage.cap_w == 0.0
    assert stage.c.state.outlook.shortfall_w == 500.0, "what the site cannot shed is stated"
    stage.c.tell(*stage.c.sources.judge(NOW_S))
    alarms = {a["id"]: a["severity"] for a in Front(stage.c).site()["alarms"]}
    assert alarms["alert:utility:a"] == alarms["cap-below-floor"] == "critical"
    assert alarms["alert:utility:b"] == "warning"
    assert any("BLACK_START is not taken" in why for why in stage.reasons())
    stage.clock.at_s += 61
    stage.c.tell(*stage.c.sources.judge(stage.clock.at_s))
    assert stage.cap_w == 10e6
    assert "alert:utility:a" not in {a["id"] for a in Front(stage.c).site()["alarms"]}


def test_a_restart_keeps_what_was_said_until_the_source_has_spoken(stage: Stage) -> None:
    stage.say(caps=(cap(3e6),), targets=(Target("t", "utility", 2e6),))
    stage.restart()
    assert stage.cap_w == 3e6
    assert stage.c.state.signals.targets["utility"][0].watts_w == 2e6
    # Its own memory is gone and nobody has answered yet: it adds and takes nothing back.
    stage.say(heard_s=0.0, caps=(cap(6e6, "subscription"),), fault="not asked yet")
    assert stage.cap_w == 3e6
    stage.say(caps=(cap(6e6, "subscription"),))
    assert stage.cap_w == 6e6
    stage.restart()
    assert stage.cap_w == 6e6


def test_a_source_that_is_named_no_more_is_dropped_and_told(stage: Stage) -> None:
    stage.say(caps=(cap(3e6),))
    asyncio.run(Front(stage.c).inject_signal({"source": "drill", "caps": [{"limit_w": 5e6}]}))
    stage.restart("")
    assert stage.cap_w == 5e6, "what a person injected is no feed's"
    assert any("does not name utility any more" in why for why in stage.reasons())
    stage.restart()
    assert stage.cap_w == 5e6, "it is gone for good"


def test_prices_follow_the_clock_and_the_first_source_holds(stage: Stage) -> None:
    steps = Steps((NOW_S, NOW_S + 60, NOW_S + 120), (40.0, -5.0, math.nan), NOW_S + 180, NOW_S)
    stage.say(prices_usd_per_mwh=steps)

    def price_at(at_s: float) -> float | None:
        stage.clock.at_s = NOW_S + at_s
        for feed in stage.feeds.values():
            feed.look()
        return rig.turned(stage.c).state.signals.price_usd_per_mwh

    assert [price_at(at_s) for at_s in (0, 59, 60, 120, 180)] == [40.0, 40.0, -5.0, None, None]
    stage.clock.at_s = NOW_S
    stage.say("other", prices_usd_per_mwh=Steps((NOW_S,), (99.0,), NOW_S + 300, NOW_S))
    assert price_at(0) == 40.0, "the site file names utility first"
    assert price_at(120) == 99.0, "a price that is no number is unknown, and the next one holds"
    assert (price_at(200), price_at(300)) == (99.0, None)


def test_a_note_is_told_once_and_a_flood_is_bounded(stage: Stage) -> None:
    stage.say(notes=("event 7 ends before it starts",))
    stage.say(notes=("event 7 ends before it starts",))
    assert stage.reasons().count("event 7 ends before it starts") == 1
    for turn in range(50):
        stage.say(notes=tuple(f"{turn} nonsense {n}" for n in range(50)))
    assert sum("nonsense" in why for why in stage.reasons()) < 20
    assert len(Front(stage.c).signals()["sources"]["utility"]["notes"]) == 50


def test_a_fault_is_an_alarm_once_it_lasts_and_never_lifts_a_cap(stage: Stage) -> None:
    def alarmed(after_s: float) -> bool:
        stage.c.tell(*stage.c.sources.judge(NOW_S + after_s))
        return "source:utility" in {a["id"] for a in Front(stage.c).site()["alarms"]}

    stage.say(caps=(cap(3e6),), fault="no answer in time; last heard 9 s ago")
    assert (alarmed(0), alarmed(6)) == (False, True)
    assert stage.cap_w == 3e6
    assert "no answer" in Front(stage.c).signals()["sources"]["utility"]["fault"]
    stage.say(caps=(cap(3e6),))
    assert not alarmed(7)


class Broken(rig.Quiet):
    """A source that says one word and fails, the second time for good."""

    def __init__(self, fault: Callable[[], Exception]) -> None:
        super().__init__()
        self.runs = 0
        self.fault = fault

    async def run(self, say: Say) -> None:
        self.runs += 1
        say(Said("utility", NOW_S, (cap(3e6 - self.runs),)))
        await asyncio.sleep(0)
        raise self.fault()


@pytest.mark.parametrize(
    "fault", [lambda: SiteInvalid("x", "nonsense"), lambda: KeyError("id")], ids=["site", "bug"]
)
def test_a_source_that_fails_is_started_again_and_its_cap_holds(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Exception]
) -> None:
    monkeypatch.setattr(signal_feed, "AGAIN_S", 0.01)
    source = Broken(fault)
    feed = SourceFeed(stage.c, source)

    async def scene() -> None:
        task = asyncio.create_task(feed.run())
        async with asyncio.timeout(20):
            while source.runs < 3:
                await asyncio.sleep(0.005)
                assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert stage.cap_w <= 3e6
    assert "it has stopped" in Front(stage.c).signals()["sources"]["utility"]["fault"]
