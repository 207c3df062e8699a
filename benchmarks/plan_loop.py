"""Whether the control loop notices that a plan is being made: its period with and without.

One controller of the real sort turns a fleet of 60 kinds of machines; then the same one does so
while its planner's process solves a day of 288 intervals again and again, from the making of the
question to the telling of the plan. Both arms take turns, so that a busy machine is fair to both.
A part of the bench `plan`.
"""

import asyncio
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import structlog

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import PriceFeed
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.plan.feed import PlanFeed
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.market.prices import FilePrices
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device, OperatingPoint

SEED = 20_261_128
KINDS, OF_EACH = 60, 20
TICK_S = 0.1
ARM_S = 8.0
ROUNDS = 2
WARM_UP_S = 2.0
"""Before the arm alone: joins and the first order are not what is asked."""

PLANS_MOST_S = 90.0
"""For two plans, however busy the machine is."""

SITE = """
[site]
name = "bench"
state_dir = "state"
tick = "100ms"
mode = "shadow"
[[feeders]]
name = "main"
limit = "{limit_w}W"
[grid]
prices = "prices.csv"
[plan]
horizon = "24h"
step = "5m"
time_limit = "20s"
[values]
hashprice_usd_per_ph_day = 50
[mining]
devices = ["*"]
"""


def figures() -> dict[str, Any]:
    """Run both arms; periods in ms."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_figures(Path(folder)))


async def _figures(folder: Path) -> dict[str, Any]:
    devices = _devices()
    _prices(folder / "prices.csv")
    limit_w = 0.7 * sum(device.nameplate_w for device in devices)
    (folder / "site.toml").write_text(SITE.format(limit_w=round(limit_w)))
    config = load_site(folder / "site.toml", environ={})
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({}, None))
    feed = PlanFeed(controller)
    ended: list[float] = []
    controller.after_turn.append(lambda: ended.append(time.monotonic()))
    stop = asyncio.Event()
    price = PriceFeed(controller, FilePrices(folder / "prices.csv"), 1.0)
    turning = asyncio.create_task(controller.run(stop, [_Rack(controller, devices), price]))
    alone: list[float] = []
    beside: list[float] = []
    try:
        for _ in range(ROUNDS):
            alone += await _arm(ended)
            beside += await _beside(feed, ended)
    finally:
        stop.set()
        await turning
        await feed.close()
        journal.close()
    solved = [made.plan.solve_s for made in feed.last]
    return {
        "tick_ms": 1e3 * TICK_S,
        "devices": len(devices),
        "kinds": 0 if feed.made is None else len(feed.made.plan.kinds),
        "intervals": 0 if feed.made is None else len(feed.made.plan),
        "plans": feed.count,
        "solve_s_p50": median(solved) if solved else math.nan,
        **_told("alone", alone),
        **_told("with", beside),
        "ratio_p99": round(float(np.percentile(beside, 99) / np.percentile(alone, 99)), 3),
        "trouble": feed.trouble,
    }


async def _arm(ended: list[float]) -> list[float]:
    """Periods between turns, s."""
    await asyncio.sleep(WARM_UP_S)
    first = len(ended)
    await asyncio.sleep(ARM_S)
    periods_s: list[float] = np.diff(ended[first:]).tolist()
    return periods_s


async def _beside(feed: PlanFeed, ended: list[float]) -> list[float]:
    """The same while it is planned, from the start of the process to the second plan at least."""
    first, plans = len(ended), feed.count
    planning = asyncio.create_task(_again_and_again(feed))
    until_s = time.monotonic() + PLANS_MOST_S
    await asyncio.sleep(ARM_S)
    while feed.count < plans + 2 and time.monotonic() < until_s:  # noqa: ASYNC110
        await asyncio.sleep(TICK_S)
    planning.cancel()
    await asyncio.gather(planning, return_exceptions=True)
    periods_s: list[float] = np.diff(ended[first:]).tolist()
    return periods_s


async def _again_and_again(feed: PlanFeed) -> None:
    while True:
        await feed.once()
        await asyncio.sleep(0)


def _told(arm: str, periods_s: list[float]) -> Mapping[str, float]:
    ms = 1e3 * np.array(periods_s)
    return {
        f"{arm}_ms_p50": round(float(np.percentile(ms, 50)), 3),
        f"{arm}_ms_p99": round(float(np.percentile(ms, 99)), 3),
        f"{arm}_ms_max": round(float(ms.max()), 3),
    }


class _Rack:
    """An agent that answers: its devices are read each tick, and obey at once.

    There is none at the other end of a wire, so that the site is a shadow: leases count as taken.
    """

    def __init__(self, controller: Controller, devices: tuple[Device, ...]) -> None:
        self._c, self._devices = controller, devices
        self._ids = tuple(device.id for device in devices)

    async def run(self) -> None:
        """Answer until cancelled."""
        self._c.inbox.put([ev.DeviceJoined(self._devices)])
        while True:
            now_s = self._c.clock.now_s()
            self._c.inbox.put([ev.AgentSeen("rack", "boot", now_s, now_s), self._readings(now_s)])
            await asyncio.sleep(TICK_S)

    def _readings(self, now_s: float) -> ev.Readings:
        n, ledger = len(self._ids), self._c.state.ledger
        held_w = ledger.lease_w.copy() if len(ledger.lease_w) == n else np.full(n, 30.0)
        unknown, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        return ev.Readings(
            devices=self._ids,
            at_s=np.full(n, now_s),
            watts_w=np.where(np.isnan(held_w), 30.0, 0.95 * held_w),
            limit_w=unknown,
            hashrate_h_per_s=unknown,
            held_w=held_w,
            held_for_s=unknown,
            held_mode=("",) * n,
            foreign=no,
            failed=no,
        )


def _devices() -> tuple[Device, ...]:
    """Machines of 60 kinds: 15 to 40 J/TH, 2 to 5 kW, three points."""
    rng = np.random.default_rng(SEED)
    kinds = [(float(rng.uniform(2e3, 5e3)), float(rng.uniform(15.0, 40.0))) for _ in range(KINDS)]
    return tuple(
        _device(f"asic-{kind}-{i}", *of) for kind, of in enumerate(kinds) for i in range(OF_EACH)
    )


def _device(id_: str, top_w: float, j_per_th: float) -> Device:
    points = [OperatingPoint("sleep", 30.0, 0.0, 5.0)]
    for mode, share, effort in (("low", 0.6, 0.85), ("mid", 0.8, 0.92), ("top", 1.0, 1.0)):
        hashrate = share * top_w / (effort * j_per_th) * 1e12
        points.append(OperatingPoint(mode, share * top_w, hashrate, 300.0))
    return Device(
        id=id_,
        kind="asic",
        agent="rack",
        feeder="main",
        points=tuple(points),
        nameplate_w=top_w,
        safe_w=30.0,
        power_on_w=top_w,
        wear_usd_per_cycle=0.02,
    )


def _prices(path: Path) -> None:
    """Two days by five minutes: a day's wave, noise and an evening's spike."""
    rng = np.random.default_rng(SEED)
    start_s = math.floor(time.time() / 3600.0) * 3600.0
    at_s = start_s + 300.0 * np.arange(2 * 288)
    hour = at_s / 3600.0 % 24.0
    price = 60.0 + 35.0 * np.sin((hour - 9.0) / 12.0 * np.pi) + rng.normal(0.0, 8.0, len(at_s))
    price[(hour >= 18.0) & (hour < 19.0)] += 250.0
    rows = (f"{at:.0f},{usd:.2f}" for at, usd in zip(at_s, price, strict=True))
    path.write_text("\n".join(["time,usd_per_mwh", *rows]) + "\n")
