"""The plan of a running controller: made, told, shown, late, failed, and never in the way."""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from wattshift_cluster.api.metrics import exposition
from wattshift_cluster.api.plan_views import PlanBrief, PlanRow, PlanView
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import Clock, SteadyClock
from wattshift_cluster.controller.feeds import PriceFeed, feeds_of
from wattshift_cluster.controller.front import SEVERITIES, Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.plan import ahead as plan_ahead
from wattshift_cluster.controller.plan import child as plan_child
from wattshift_cluster.controller.plan import feed as plan_feed
from wattshift_cluster.controller.plan import wire as plan_wire
from wattshift_cluster.controller.plan.feed import PlanFeed
from wattshift_cluster.controller.plan.machines import machines
from wattshift_cluster.controller.plan.process import Planner
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.market.prices import FilePrices
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, OperatingPoint

T0_S = 1_900_022_400.0
PATIENCE_S = 60.0
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
margin_pct = 0
other_load = "500W"
[[feeders]]
name = "main"
limit = "20kW"
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "main"
[grid]
prices = "prices.csv"
[plan]
horizon = "6h"
period = "60s"
time_limit = "10s"
[values]
hashprice_usd_per_ph_day = 50
[mining]
devices = ["*"]
"""
Scenario = Callable[[Controller, PlanFeed], Awaitable[None]]


class HandClock:
    """Unix time as it is set."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


def controller(folder: Path, clock: Clock, site: str = SITE) -> Controller:
    """A controller with an agent that nobody answers for."""
    (folder / "t").write_bytes(b"t" * 32)
    (folder / "t").chmod(0o600)
    (folder / "site.toml").write_text(site)
    config = load_site(folder / "site.toml", environ={})
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    return turned(Controller(config, journal, clock, Tokens({"rack": b"t" * 32}, None)))


def turned(made: Controller) -> Controller:
    made.turn(made.inbox.take())
    return made


def prices(folder: Path, *usd_per_mwh: float, start_s: float = T0_S) -> None:
    """Hours of them."""
    rows = (
        f"{datetime.fromtimestamp(start_s + 3600.0 * i, UTC).isoformat()},{usd}"
        for i, usd in enumerate(usd_per_mwh)
    )
    (folder / "prices.csv").write_text("\n".join(["time,usd_per_mwh", *rows]) + "\n")


def asic(name: str) -> Device:
    """3 kW at 20 J/TH, ten minutes to come up: 0.3125 USD/h at 50 USD/PH/day."""
    points = (OperatingPoint("sleep", 30.0, 0.0, 5.0), OperatingPoint("on", 3e3, 1.5e14, 600.0))
    return Device(
        name, "asic", "rack", "main", points, 3e3, 0.0, False, False, 30.0, 3e3,
        wear_usd_per_cycle=0.05,
    )  # fmt: skip


def played(folder: Path, scenario: Scenario) -> None:
    """A controller that is turned by hand, with a real planner."""

    async def run() -> None:
        made = controller(folder, HandClock(T0_S + 60.0))
        feed = PlanFeed(made)
        try:
            await scenario(made, feed)
        finally:
            await feed.close()
            made.journal.close()

    asyncio.run(run())


def passed(made: Controller, seconds_s: float) -> None:
    """Time passes on the hand clock."""
    assert isinstance(made.clock, HandClock)
    made.clock.at_s += seconds_s


def priced(usd_per_mwh: float | None) -> ev.SignalChanged:
    """The price in force, as the feed of the file tells it."""
    return ev.SignalChanged("price", price_usd_per_mwh=usd_per_mwh, sets_price=True)


def joined(made: Controller, *more: ev.Event) -> None:
    """Two machines that answer."""
    now_s = made.clock.now_s()
    rigs = ev.DeviceJoined((asic("a"), asic("b")))
    made.inbox.put([rigs, ev.AgentSeen("rack", "boot", now_s, now_s), priced(20.0), *more])
    turned(made)


PARROT = """
import sys
answer = open(sys.argv[1], "rb").read()
while head := sys.stdin.buffer.read(4):
    sys.stdin.buffer.read(int.from_bytes(head, "big"))
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""
"""A process that gives one and the same plan: it starts at once, which the real one does not."""


def parrot(made: Controller, feed: PlanFeed, **changes: object) -> None:
    """Let such a process plan, with what the controller knows now; `changes` of the plan."""
    file = made.config.site.state_dir / "answer"
    ready = plan_ahead.prepared(feed._snapshot(made.clock.now_s()), made.config)
    asked = plan_wire.framed({"ahead": ready.ahead, "time_limit_s": 10.0})
    answer, _ = plan_child.answered(plan_wire.body_of(asked[4:]), None)
    answer["plan"] = replace(answer["plan"], **changes)
    file.write_bytes(plan_wire.framed(answer))
    feed._planner = Planner((sys.executable, "-S", "-c", PARROT, str(file)))


def test_a_plan_is_made_told_and_shown(tmp_path: Path) -> None:
    prices(tmp_path, 20.0, 20.0, 900.0, 900.0, 20.0, 20.0)

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        front = Front(made)
        assert front.plan(None)["state"] == "waiting"
        cap = Cap("dip", "utility", 5e3, T0_S + 4 * 3600.0, T0_S + 5 * 3600.0, name="evening")
        joined(made, ev.SignalChanged("utility", (cap,)))
        await feed.once()
        assert feed.trouble == ""
        turned(made)
        standing = made.state.plan
        assert standing is not None
        assert standing.expires_s == T0_S + 60.0 + 180.0
        view = front.plan(None)
        assert (view["state"], view["status"], view["reason"]) == ("current", "optimal", None)
        assert set(view) == set(get_type_hints(PlanView))
        assert set(view["rows"][0]) == set(get_type_hints(PlanRow))
        assert [set(one) for one in view["made"]] == [set(get_type_hints(PlanBrief))]
        mining = [round(row["mining_w"]) for row in view["rows"]]
        assert mining[:7] == [6000] * 7
        assert mining[8:16] == [60] * 8, "asleep while a MWh costs 900 USD"
        assert max(mining[16:20]) <= 4500, "under the cap of that hour, less what else is drawn"
        assert view["rows"][0]["awake"] == {kind["name"]: 2.0 for kind in view["kinds"]}
        assert [row["begins"] for row in view["rows"] if row["begins"]] == [
            ["cap 5 kW: evening"],
            ["no cap but the connection's"],
        ]
        assert all(row["price_published"] for row in view["rows"])
        assert [kind["count"] for kind in view["kinds"]] == [2]
        assert len(front.plan(1.0)["rows"]) == 4
        (told,) = [one for one in made.recent if one.action == "plan"]
        assert told.inputs["intervals"] == 24
        assert "6 h in 15 min, optimal" in told.reason

    played(tmp_path, scenario)


def test_a_plan_that_is_late_is_said_and_not_used(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 8)

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made)
        parrot(made, feed)
        await feed.once()
        turned(made)
        passed(made, 179.0)
        feed.look()
        assert made.alarms.keys().isdisjoint({"plan-late", "plan-failed"})
        passed(made, 2.0)
        turned(made)
        feed.look()
        assert "plan-late" in made.alarms
        view = Front(made).plan(1.0)
        assert view["state"] == "late"
        assert "the ladder alone decides" in view["reason"]
        assert view["rows"], "what it held is still shown"
        await feed.once()
        turned(made)
        feed.look()
        assert "plan-late" not in made.alarms
        assert Front(made).plan(1.0)["state"] == "current"

    played(tmp_path, scenario)


def test_metrics_tell_of_the_plan_and_its_alarms(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 8)

    def shown(made: Controller) -> dict[str, str]:
        lines = exposition(Front(made).metrics_snapshot()).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: value for name, value in pairs if "_plan" in name or "_alarms" in name}

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made)
        none = shown(made)
        assert none["wattshift_plans_total"] == "0.0"
        assert "wattshift_plan_age_seconds" not in none, "unknown is not zero"
        warnings = 'wattshift_alarms{severity="warning"}'
        assert 'wattshift_alarms{severity="critical"}' in none
        parrot(made, feed, solve_s=0.25)
        await feed.once()
        turned(made)
        before = shown(made)
        assert before["wattshift_plan_solve_seconds"] == "0.25"
        assert before["wattshift_plans_total"] == "1.0"
        passed(made, 181.0)
        feed.look()
        turned(made)
        late = shown(made)
        assert float(late["wattshift_plan_age_seconds"]) == pytest.approx(181.0)
        assert float(late[warnings]) == sum(a.severity == "warning" for a in made.alarms.values())
        assert float(late[warnings]) > float(before[warnings])

    played(tmp_path, scenario)
    made = controller(tmp_path, HandClock(T0_S))
    assert list(shown(made)) == [f'wattshift_alarms{{severity="{s}"}}' for s in SEVERITIES]
    made.journal.close()


def test_no_plan_at_an_unknown_price(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 6)

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made, priced(None))
        await feed.once()
        assert feed.made is None
        view = Front(made).plan(None)
        assert view["state"] == "waiting"
        assert view["reason"] == "the energy price is not known, and nothing is planned on hope"
        assert "plan-failed" not in made.alarms, "that is no fault of the planner"
        passed(made, 181.0)
        feed.look()
        assert "plan-late" in made.alarms
        made.inbox.put([priced(20.0)])
        turned(made)
        parrot(made, feed)
        await feed.once()
        assert feed.trouble == ""
        assert "plan-late" not in made.alarms

    played(tmp_path, scenario)


def test_a_plan_without_figures_is_none(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 6)

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made)
        parrot(made, feed, status="time-limit")
        await feed.once()
        assert feed.trouble == "the solver had none within 10 s"
        await feed._planner.close()
        parrot(made, feed, reserve_w=np.full(24, math.nan))
        await feed.once()
        assert feed.trouble == "refused: reserve_w: nan in interval 0"
        assert (made.state.plan, feed.made) == (None, None)

    played(tmp_path, scenario)


def test_a_batch_job_that_cannot_be_in_time_is_an_alarm(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 6)
    job = Job(
        "night", JobKind.BATCH, "night", {"kind": "batch", "name": "night"}, T0_S,
        unit_w=1000.0, deadline_s=T0_S + 3600.0, state=JobState.RUNNING, units=1,
        done=0, total=100, rate_per_s=0.01,
    )  # fmt: skip

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made)
        made.state = replace(made.state, jobs={**made.state.jobs, "night": job})
        feed.look()
        await feed.once()
        (batch,) = feed.made.prepared.ahead.batches if feed.made else ()
        assert batch.left_wh == pytest.approx(1000.0 * 100 / 0.01 / 3600.0)
        view = Front(made).plan(None)
        assert "night" in view["unmet"][0]
        assert "night" in made.alarms["plan-infeasible"].text
        assert view["batches"] == [
            {
                "job": "night",
                "left_wh": batch.left_wh,
                "deadline_at": "2030-03-18T01:00:00.000Z",
                "usd_per_mwh": None,  # it is late in any case
            }
        ]

    played(tmp_path, scenario)


def test_what_is_refused_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices(tmp_path, *[20.0] * 6)

    async def scenario(made: Controller, feed: PlanFeed) -> None:
        joined(made)
        monkeypatch.setattr(plan_ahead, "other_w", lambda _state: -100.0)
        await feed.once()
        assert feed.trouble.startswith("refused: other.low: -100.0 in interval 0")
        assert "other.low" in made.alarms["plan-failed"].text
        assert made.state.plan is None

        def broken(*_: object) -> None:
            raise ZeroDivisionError("by no machine")

        monkeypatch.setattr(plan_ahead, "prepared", broken)
        await feed.once()
        assert feed.trouble == "it has stopped: by no machine", "and the controller goes on"

    played(tmp_path, scenario)


def test_a_planner_that_hangs_or_dies_holds_no_turn_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole controller with its feeds; its planner is stopped, then killed."""
    monkeypatch.setattr(plan_feed, "FIRST_S", 0.0)
    monkeypatch.setattr(plan_feed, "PAUSE_LEAST_S", 0.02)
    prices(tmp_path, *[20.0] * 8, start_s=time.time() // 3600.0 * 3600.0)

    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    async def run() -> None:
        made = controller(tmp_path, SteadyClock())
        joined(made)
        feed = PlanFeed(made)
        feed._terms = feed._terms.model_copy(update={"period_s": 0.02})
        parrot(made, feed)
        stop = asyncio.Event()
        price = PriceFeed(made, FilePrices(tmp_path / "prices.csv"), 1.0)
        running = asyncio.create_task(made.run(stop, [feed, price]))
        try:
            await until(lambda: feed.made)
            made_before = feed.count
            # Only what hangs is short of time: a start may be slow where others use the cores.
            monkeypatch.setattr(plan_feed, "GRACE_S", -8.5)
            await until(lambda: feed.count > made_before + 1 and not feed.trouble)
            first = feed._planner.pid
            turns = made.tally.steps
            os.kill(first or 0, signal.SIGSTOP)
            await until(lambda: "plan-failed" in made.alarms)
            monkeypatch.setattr(plan_feed, "GRACE_S", 30.0)
            assert "the planner is ended" in made.alarms["plan-failed"].text
            assert made.tally.steps - turns >= 2, "it went on turning meanwhile"
            assert Front(made).plan(1.0)["rows"], "the plan before it still holds"
            await until(lambda: not feed.trouble)
            assert "plan-failed" not in made.alarms
            assert feed._planner.pid != first
            count, starts = feed.count, feed._planner.starts
            os.kill(feed._planner.pid or 0, signal.SIGKILL)
            await until(lambda: feed._planner.starts > starts and feed.count > count)
            assert not running.done()
        finally:
            stop.set()
            await running
            made.journal.close()

    asyncio.run(run())


def test_only_machines_that_may_mine_and_answer_are_planned(tmp_path: Path) -> None:
    prices(tmp_path, *[20.0] * 6)
    made = controller(tmp_path, HandClock(T0_S), SITE.replace('devices = ["*"]', 'devices = ["a"]'))
    joined(made)
    found = machines(made.state, T0_S)
    assert [kind.count for kind in found.kinds] == [1]
    assert found.apart_w == 30.0, "the other rests"
    passed(made, 60.0)
    silent = machines(turned(made).state, T0_S + 60.0)
    assert silent.kinds == ()
    assert silent.apart_w == 6000.0, "who does not answer counts at its ceiling"
    made.journal.close()


def test_a_site_without_anything_ahead_makes_no_plan(tmp_path: Path) -> None:
    site = SITE.replace('prices = "prices.csv"', "default_price_usd_per_mwh = 20")
    made = controller(tmp_path, HandClock(T0_S), site)
    assert not any(isinstance(one, PlanFeed) for one in feeds_of(made))
    assert Front(made).plan(None)["state"] == "off"
    made.journal.close()
