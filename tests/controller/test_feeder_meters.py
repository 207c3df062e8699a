"""The feeders' own meters: read over HTTP, shown with age, held against limits and devices."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.api.metrics import exposition
from wattshift_cluster.cli.status import site_text
from wattshift_cluster.cli.top import feeder_table
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeders
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.jsonhttp import address, serve_json
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device, OperatingPoint

SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
other_load = "1kW"
mode = "{mode}"
[[feeders]]
name = "main"
limit = "40kW"
[[feeders]]
name = "row-a"
parent = "main"
limit = "10kW"
meter = "http://{a}/v1/power"
meter_stale_after = "700ms"
[[feeders]]
name = "row-b"
parent = "main"
limit = "10kW"
meter = {{url = "http://{b}/v1/power", deadline = "300ms"}}
meter_stale_after = "700ms"
[[feeders]]
name = "row-c"
parent = "main"
limit = "10kW"
{compute}
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "row-a"
[api]
listen = "127.0.0.1:18098"
"""
COMPUTE = """
[compute]
token_file = "t"
feeder = "row-a"
max = "1kW"
"""
PATIENCE_S = 20.0


class Meter:
    """One feeder's meter; None: it says that it does not know."""

    def __init__(self, watts_w: float | None) -> None:
        self.watts_w = watts_w
        self.behind_s = 0.0

    def body(self) -> dict[str, Any]:
        at_s = time.time() - self.behind_s
        return {"watts_w": self.watts_w, "at_s": at_s, "quality": "emulated"}


class Row:
    """A site of which two rows have meters, and its controller."""

    def __init__(self, controller: Controller) -> None:
        self.a, self.b = Meter(6100.0), Meter(0.0)
        self.c, self.front = controller, Front(controller)

    def feeder(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(f for f in self.front.site()["feeders"] if f["id"] == name)
        return found

    def alarms(self) -> dict[str, str]:
        return {
            one["id"]: one["text"] for one in self.front.site()["alarms"] if "feeder" in one["id"]
        }

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    def reads(self, *watts_w: float) -> None:
        """Two rigs on row-a say what they draw."""
        ids = ("rig-1", "rig-2")
        now_s, none = self.c.clock.now_s(), np.full(2, np.nan)
        no = np.zeros(2, dtype=np.bool_)
        told = ev.Readings(
            devices=ids,
            at_s=np.full(2, now_s),
            watts_w=np.array(watts_w),
            limit_w=none,
            hashrate_h_per_s=none,
            held_w=none,
            held_for_s=none,
            held_mode=("", ""),
            foreign=no,
            failed=no,
        )
        self.c.inbox.put([told])


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Runs a scenario beside the feeds of such a site; samples are asked for often."""

    async def main(scenario: Callable[[Row], Awaitable[None]], mode: str, compute: str) -> None:
        meters: list[Meter] = []

        def said(at: int) -> dict[str, Any]:
            return meters[at].body()

        servers = [
            await serve_json("127.63.250.1", 0, {"/v1/power": partial(said, at)}) for at in (0, 1)
        ]
        where = {"a": address(servers[0]), "b": address(servers[1])}
        (tmp_path / "t").write_bytes(b"t" * 32)
        (tmp_path / "t").chmod(0o600)
        (tmp_path / "site.toml").write_text(SITE.format(mode=mode, compute=compute, **where))
        config = load_site(tmp_path / "site.toml", environ={})
        journal = Journal.open(tmp_path / "journal.sqlite")
        controller = Controller(
            config, journal, SteadyClock(), Tokens({"rack": b"t" * 32}, b"t" * 32)
        )
        controller.feeders = feeders.FeederMeters(config, period_s=0.02)
        row = Row(controller)
        meters += [row.a, row.b]
        rigs = tuple(_rig(name) for name in ("rig-1", "rig-2"))
        controller.inbox.put([ev.DeviceJoined(rigs)])
        stop = asyncio.Event()
        running = asyncio.create_task(controller.run(stop, feeds_of(controller)))
        try:
            await row.until(lambda: row.feeder("row-a")["power_w"] is not None)
            await scenario(row)
        finally:
            stop.set()
            await running
            for server in servers:
                server.close()
            journal.close()

    def run(scenario: Any, mode: str = "control", compute: str = "") -> None:
        asyncio.run(main(scenario, mode, compute))

    return run


def _rig(name: str) -> Device:
    points = (OperatingPoint("sleep", 30.0, 0.0, 0.0), OperatingPoint("high", 3000.0, 1e14, 0.0))
    return Device(
        id=name,
        kind="asic",
        feeder="row-a",
        agent="rack",
        nameplate_w=3300.0,
        tolerance=0.05,
        continuous=False,
        fenced=False,
        power_on_w=3300.0,
        host=None,
        points=points,
    )


def test_what_meters_say_is_shown_with_its_age(play: Any) -> None:
    async def scenario(row: Row) -> None:
        await row.until(lambda: row.feeder("row-b")["power_w"] == 0.0)
        shown = row.feeder("row-a")
        assert (shown["power_w"], shown["power_quality"]) == (6100.0, "emulated")
        assert 0.0 <= shown["power_age_s"] < 0.7
        assert "power_w" not in row.feeder("row-c"), "no meter is not an unknown draw"
        assert "power_w" not in row.feeder("main")
        text = exposition(row.front.metrics_snapshot()).decode()
        assert 'wattshift_feeder_power_watts{feeder="row-a"} 6100.0' in text
        assert 'feeder="row-c"' not in text
        lines = site_text(row.front.site()).splitlines()
        found = [line.split() for line in lines if line.startswith("row-")]
        assert [(line[0], line[1:3]) for line in found] == [
            ("row-a", ["6.10", "kW"]),
            ("row-b", ["0", "W"]),
        ]
        row.a.behind_s = 60.0
        await row.until(lambda: row.feeder("row-a")["power_w"] is None)
        assert row.feeder("row-a")["power_quality"] == "unknown"
        assert (
            'wattshift_feeder_power_watts{feeder="row-a"}'
            not in exposition(row.front.metrics_snapshot()).decode()
        )
        await row.until(lambda: "feeder-meter:row-a" in row.alarms())
        assert row.feeder("row-b")["power_w"] == 0.0, "one meter's silence is not another's"
        row.a.behind_s = 0.0
        await row.until(lambda: not row.alarms())
        table = feeder_table([one for one in row.front.site()["feeders"] if "power_w" in one])
        assert next(iter(table.columns[0].cells)) == "row-a", "the fullest first"

    play(scenario)


def test_more_than_the_limit_by_its_meter_is_alarmed_and_on_record(play: Any) -> None:
    async def scenario(row: Row) -> None:
        row.a.watts_w = 10_400.0
        await row.until(lambda: "feeder-over:row-a" in row.alarms())
        assert row.alarms()["feeder-over:row-a"] == (
            "feeder row-a carries 10,400 W by its meter; its limit is 10,000 W"
        )
        (alarm,) = [one for one in row.front.site()["alarms"] if "over" in one["id"]]
        assert alarm["severity"] == "critical"
        row.a.watts_w = 9_900.0
        await row.until(lambda: not row.alarms())
        found: list[str] = []

        def told() -> bool:
            rows = row.front.decisions("feeder-over:row-a", None, 9)
            found[:] = [one["action"] for one in rows]
            return len(found) == 2

        await row.until(told)
        assert found == ["all clear", "alarm"]

    play(scenario)


def test_a_spike_of_one_sample_is_no_alarm(play: Any) -> None:
    async def scenario(row: Row) -> None:
        meters = row.c.feeders
        state = row.c.state
        readings = meters.readings()
        at_s = 1.0

        def judged(watts_w: float) -> set[str]:
            nonlocal at_s
            at_s += 1.0
            now = {**readings, "row-a": replace(readings["row-a"], watts_w=watts_w, at_s=at_s)}
            meters.readings = lambda: now  # type: ignore[method-assign]
            meters.judge(state, at_s)
            return set(meters.alarms)

        assert judged(9_000.0) == judged(11_000.0) == set()
        assert judged(9_000.0) == judged(11_000.0) == set()
        assert judged(11_000.0) == {"feeder-over:row-a"}
        at_s -= 1.0
        assert judged(9_000.0) == {"feeder-over:row-a"}, "the same sample twice says nothing new"

    play(scenario)


@pytest.mark.parametrize("apart", ["no", "shadow", "compute"])
def test_a_meter_that_says_other_than_its_devices_for_long(
    play: Any, monkeypatch: pytest.MonkeyPatch, apart: str
) -> None:
    monkeypatch.setattr(feeders, "DIFFERS_SAMPLES", 5)

    async def scenario(row: Row) -> None:
        async def for_a_while(*watts_w: float) -> None:
            for _ in range(14):
                row.reads(*watts_w)
                await asyncio.sleep(0.02)

        await for_a_while(3000.0, 3000.0)
        assert not row.alarms(), "1.6 % apart is what firmware is apart"
        await for_a_while(3000.0, np.nan)
        assert not row.alarms(), "what is unknown is compared with nothing"
        row.a.watts_w = 3100.0
        await for_a_while(3000.0, 3000.0)
        if apart != "no":
            assert not row.alarms()
            return
        assert row.alarms()["feeder-differs:row-a"].startswith(
            "the meter of feeder row-a says 3,100 W, what should hang on it 6,000 W"
        )
        row.a.watts_w = 6050.0
        await for_a_while(3000.0, 3000.0)
        assert not row.alarms()

    play(
        scenario,
        "shadow" if apart == "shadow" else "control",
        COMPUTE if apart == "compute" else "",
    )


def test_a_hung_meter_holds_up_nobody(play: Any) -> None:
    async def scenario(row: Row) -> None:
        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(PATIENCE_S)
            writer.close()

        hung = await asyncio.start_server(hang, "127.63.250.2", 0)
        guarded: Any = row.c.feeders._meters["row-b"]
        guarded._meter._source.url = f"http://{address(hung)}/"
        row.a.watts_w = 5000.0
        await row.until(lambda: row.feeder("row-a")["power_w"] == 5000.0)
        await row.until(lambda: "no answer" in row.alarms().get("feeder-meter:row-b", ""))
        hung.close()

    play(scenario)
