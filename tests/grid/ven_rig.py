"""A VTN in memory and a source that listens to it, for the tests of what the source does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.asked import Terms
from wattshift_cluster.grid.openadr.asking import Wishes
from wattshift_cluster.grid.openadr.failures import VtnRefused
from wattshift_cluster.grid.openadr.kept import KeptFile
from wattshift_cluster.grid.openadr.readings import OperatingState, Reading, Readings
from wattshift_cluster.grid.openadr.ven import OpenAdrVen
from wattshift_cluster.grid.openadr.words import (
    Event,
    Notification,
    ObjectType,
    Operation,
    Program,
    Registered,
    Report,
    Resource,
    ResourceWish,
    SubscriptionWish,
    Ven,
    read_event,
)
from wattshift_cluster.grid.said import Said
from wattshift_scheduler.signals.arbitrate import arbitrate

NOW = 1_800_000_000.0
WAIT_S = 20.0
TERMS = Terms("openadr", "ven-1", subscription_w=600e3)
SLOW = Wishes(poll_s=3600.0)
FAST = Wishes(poll_s=0.01)


def body(name: str, limit_kw: float, modified: int = 1, **more: Any) -> dict[str, Any]:
    kind = more.pop("kind", "IMPORT_CAPACITY_LIMIT")
    return {
        "id": name,
        "objectType": "EVENT",
        "programID": "p",
        "modificationDateTime": f"2027-01-01T00:00:{modified:02d}Z",
        "intervalPeriod": {"start": "2027-01-15T08:00:00Z", "duration": "PT1H"},
        "payloadDescriptors": [{"payloadType": kind, "units": "KW"}],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": [limit_kw]}]}],
        **more,
    }


def event(name: str, limit_kw: float, modified: int = 1, **more: Any) -> Event:
    return read_event(body(name, limit_kw, modified, **more))


@dataclass
class FakeVtn:
    """A VTN in memory with the face of `words.Vtn`; it can be away, refuse, or talk nonsense."""

    events_now: list[Event] = field(default_factory=list)
    programs_now: list[Program] = field(default_factory=lambda: [Program(id="p", name="capacity")])
    fails: WattshiftError | None = None
    refuses: set[str] = field(default_factory=set)
    targets: tuple[str, ...] = ()
    skew_s: float | None = None
    polls: int = 0
    registered: int = 0
    asked: list[str | None] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    wishes: list[SubscriptionWish] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def programs(self) -> list[Program]:
        self._answer("programs")
        return list(self.programs_now)

    async def events(self, program_id: str | None = None) -> list[Event]:
        self.polls += 1
        self._answer("events")
        self.asked.append(program_id)
        shown = [
            one
            for one in self.events_now
            if program_id in (None, one.program_id)
            and (not one.targets or (self.registered and set(one.targets) & set(self.targets)))
        ]
        if self.gate is not None:
            await self.gate.wait()
        return shown

    async def register(self, ven_name: str, resources: Sequence[ResourceWish]) -> Registered:
        self._answer("register")
        self.registered += 1
        mine = tuple(Resource(id=one.name, name=one.name) for one in resources)
        return Registered(ven=Ven(id="v", name=ven_name, targets=self.targets), resources=mine)

    async def report(self, report: Report) -> str:
        self._answer("report")
        self.reports.append(report)
        return str(len(self.reports))

    async def subscribe(self, wish: SubscriptionWish) -> str:
        self._answer("subscribe")
        self.wishes.append(wish)
        return str(len(self.wishes))

    async def unsubscribe(self, subscription: str, /) -> None:
        self._answer("unsubscribe")

    async def close(self) -> None:
        return

    def _answer(self, what: str) -> None:
        if self.fails is not None:
            raise self.fails
        if what in self.refuses:
            raise VtnRefused(what, 403, "no")


class Site:
    """A running source, and what it has said."""

    def __init__(self, vtn: FakeVtn, source: OpenAdrVen, clock: list[float]) -> None:
        self.vtn, self.source, self.clock = vtn, source, clock
        self.said: list[Said] = []
        self._news = asyncio.Event()

    def hear(self, word: Said) -> None:
        self.said.append(word)
        self._news.set()

    @property
    def last(self) -> Said:
        return self.said[-1]

    def cap_w(self) -> float:
        return arbitrate(self.last.caps, 10e6, self.clock[0]).cap_w

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._news.clear()
                with_news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({with_news}, timeout=0.02)
                with_news.cancel()

    async def polled(self) -> None:
        """Until a poll that begins after this call was answered or failed."""
        before, said = self.vtn.polls, len(self.said)
        self.source.poll_now()
        await self.until(lambda: self.vtn.polls > before and len(self.said) > said)


@asynccontextmanager
async def running(
    vtn: FakeVtn,
    folder: Path,
    *,
    wishes: Wishes = SLOW,
    terms: Terms = TERMS,
    readings: Readings | None = None,
    clock: list[float] | None = None,
    boot: str = "boot-1",
) -> AsyncIterator[Site]:
    clock = [NOW + 1] if clock is None else clock
    source = OpenAdrVen(
        vtn,
        terms,
        wishes,
        KeptFile(folder / "openadr.json"),
        readings=readings,
        clock_s=lambda: clock[0],
        boot=lambda: boot,
    )
    site = Site(vtn, source, clock)
    task = asyncio.create_task(source.run(site.hear))
    try:
        await site.until(lambda: len(site.said) >= 2 or task.done())
        yield site
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


def notice(told: Event, operation: Operation = Operation.UPDATE) -> Notification:
    return Notification(
        object_type=ObjectType.EVENT, operation=operation, object={**told.on_wire(), "id": told.id}
    )


class SteadyReadings:
    """A site that draws 500 kW."""

    def mean_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        return Reading(500e3)

    peak_w = baseline_w = forecast_w = shed_available_w = mean_w

    def setpoint_w(self, resource: str | None) -> Reading:
        return Reading(500e3)

    def state(self, resource: str | None) -> OperatingState:
        return OperatingState.RUNNING_CURTAILED
