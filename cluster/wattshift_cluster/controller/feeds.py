"""The feeds of a site: its meter, its schedule file and its prices, each a source of events.

A feed only says what it reads; what follows is the core's business. A cap or price that changes is
urgent, a meter sample is not. A feed that fails says so once and keeps asking.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from wattshift_cluster.controller.evidence import EvidenceFeed
from wattshift_cluster.controller.feeders import drawn_w, known
from wattshift_cluster.controller.hashprice import HashpriceTask, hashprice_feed
from wattshift_cluster.controller.market_feeds import market_feeds
from wattshift_cluster.controller.meter_alarms import MeterAlarms
from wattshift_cluster.controller.named_files import above_floor
from wattshift_cluster.controller.openadr_feeds import openadr_feeds
from wattshift_cluster.controller.service import Controller, Feed
from wattshift_cluster.controller.utility_feeds import utility_feeds
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.market.prices import FilePrices
from wattshift_cluster.grid.meters.build import build
from wattshift_cluster.grid.meters.reading import Meter, MeterReading
from wattshift_cluster.grid.schedule import Schedule
from wattshift_cluster.settle.bodies import SITE
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap

METER_PERIOD_S = 0.5
FILE_PERIOD_MOST_S = 1.0
"""A file on this machine is looked at least this often, whatever the poll period of other feeds."""

log = structlog.get_logger()


def feeds_of(controller: Controller) -> Sequence[Feed]:
    """The feeds that the site file names. Raises ConfigInvalid where a file has faults."""
    config = controller.config
    feeds: list[Feed] = [EvidenceFeed(controller, config.site.state_dir / "evidence")]
    if config.meter is not None:
        shadow = config.site.mode == "shadow"

        def devices_w() -> float | None:
            return None if shadow else known(float(drawn_w(controller.state)[0]))

        meter = build(config.meter, config.root.limit_w, devices_w=devices_w)
        feeds.append(MeterFeed(controller, meter, devices_w))
    period_s = min(config.grid.poll_s, FILE_PERIOD_MOST_S)
    if config.grid.schedule is not None:
        schedule = Schedule(config.grid.schedule)
        above_floor(config, schedule)
        feeds.append(ScheduleFeed(controller, schedule, period_s))
    if config.grid.prices is not None:
        feeds.append(PriceFeed(controller, FilePrices(config.grid.prices), period_s))
    feeds += openadr_feeds(controller)
    feeds += market_feeds(controller)
    feeds += utility_feeds(controller)
    if controller.feeders:
        feeds.append(FeederFeed(controller))
    hashprice = hashprice_feed(config, controller.clock.now_s())
    if hashprice is not None:
        feeds.append(HashpriceTask(controller, hashprice))
    if config.wants_plan:
        # Most of what it takes is imported where it is used: not every site plans.
        from wattshift_cluster.controller.plan.feed import PlanFeed

        feeds.append(PlanFeed(controller))
    return feeds


class MeterFeed:
    """The site meter. Its sample's age is kept: a late answer is not a fresh one."""

    def __init__(
        self, controller: Controller, meter: Meter, devices_w: Callable[[], float | None]
    ) -> None:
        """Read `meter` for `controller`. `devices_w`: what the devices draw, W; None unknown."""
        self._c = controller
        self._meter = meter
        self._devices_w = devices_w
        self._alarms = MeterAlarms(controller.config)
        self._last_at_s: float | None = None

    async def run(self) -> None:
        """Feed until cancelled."""
        try:
            while True:
                await self._once()
                await asyncio.sleep(METER_PERIOD_S)
        finally:
            await self._meter.close()

    async def _once(self) -> None:
        reading = await self._meter.poll()
        if self._c.witness is not None:
            self._c.witness.sampled(SITE, reading, self._c.clock.now_s())
        self._judge(reading)
        if reading.watts_w is None or reading.age_s is None:
            self._sampled(None, self._c.clock.now_s())
            return
        if reading.at_s == self._last_at_s:
            return
        self._last_at_s = reading.at_s
        at_s = self._c.clock.now_s() - reading.age_s
        self._c.meter_quality = reading.quality or "unknown"
        cap_w = self._c.state.outlook.cap_w
        self._c.tally.metered_sample(reading.watts_w, cap_w, at_s)
        self._c.inbox.put([ev.MeterRead(reading.watts_w, at_s)])
        self._sampled(reading.watts_w, at_s)

    def _judge(self, reading: MeterReading) -> None:
        told = self._alarms.judge(reading, self._devices_w(), self._c.clock.now_s())
        self._c.meter_alarms = self._alarms.alarms
        if told:
            self._c.tell(*told)

    def _sampled(self, watts_w: float | None, at_s: float) -> None:
        for take in self._c.samplers:
            take(watts_w, at_s)


class FeederFeed:
    """The feeders' own meters, each asked by a task of its own; what they show is told."""

    def __init__(self, controller: Controller) -> None:
        """Read the meters of `controller`."""
        self._c = controller

    async def run(self) -> None:
        """Feed until cancelled."""
        meters = self._c.feeders
        try:
            async with asyncio.TaskGroup() as group:
                for name in meters.names:
                    group.create_task(meters.keep_polling(name))
                while True:
                    await asyncio.sleep(meters.period_s)
                    told = meters.judge(self._c.state, self._c.clock.now_s())
                    if told:
                        self._c.tell(*told)
        finally:
            await meters.close()


class ScheduleFeed:
    """The schedule file: tells its whole set of caps whenever it changes."""

    def __init__(self, controller: Controller, schedule: Schedule, period_s: float) -> None:
        """Follow `schedule` for `controller`, and tell at once what holds: before the first
        decision is made.
        """
        self._c = controller
        self._schedule = schedule
        self._period_s = period_s
        self._told: Any = None
        self.look()

    async def run(self) -> None:
        """Feed until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._period_s)

    def look(self) -> None:
        """Look at the file, and tell what has changed."""
        entries = self._schedule.entries()
        if entries is not self._told:
            self._told = entries
            caps = tuple(
                Cap(entry.id, "schedule", entry.limit_w, entry.starts_s, entry.ends_s)
                for entry in entries
            )
            self._c.inbox.put([ev.SignalChanged("schedule", caps)], urgent=True)
        _followed(self._c, "schedule", self._schedule.fault)


class PriceFeed:
    """The price series: tells the price whenever it changes; None when it ends."""

    def __init__(self, controller: Controller, prices: FilePrices, period_s: float) -> None:
        """Follow `prices` for `controller`, and tell at once what holds: before the first decision
        is made.
        """
        self._c = controller
        self._prices = prices
        self._period_s = period_s
        self._told: float | None = None
        self._first = True
        self.look()

    async def run(self) -> None:
        """Feed until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._period_s)

    def look(self) -> None:
        """Look at the series, and tell a price that has changed."""
        price = self._prices.at(self._c.clock.now_s())
        if self._first or price.usd_per_mwh != self._told:
            self._first, self._told = False, price.usd_per_mwh
            log.info("price", usd_per_mwh=price.usd_per_mwh, fault=price.fault)
            holds = self._c.sources.priced("price", price.usd_per_mwh)
            event = ev.SignalChanged("price", (), price_usd_per_mwh=holds, sets_price=True)
            self._c.inbox.put([event], urgent=True)
        _followed(self._c, "price", self._prices.fault)


def _followed(controller: Controller, name: str, fault: ConfigInvalid | None) -> None:
    """Tell of a file whose newest version is not in force: whoever wrote it thinks that it is."""
    words = None if fault is None else "; ".join(str(one) for one in fault.faults)
    told = controller.sources.followed(name, words, controller.clock.now_s())
    if told:
        controller.tell(*told)
