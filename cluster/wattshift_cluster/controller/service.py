"""The controller keeps the state, turns it once a second, and carries out what comes of it.

One turn: take the events that have come, call `step`, write down what changed, hand commands to
the sessions, tell the subscribers. Urgent events (a cap, a job, a reply that frees watts) turn it
at once. Nothing here decides anything.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

import structlog

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.service_route import route_of
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller import places_taken, signal_views, views
from wattshift_cluster.controller.agent_session import AgentSession
from wattshift_cluster.controller.books import Books
from wattshift_cluster.controller.bridge_session import BridgeSession
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.feeders import FeederMeters
from wattshift_cluster.controller.frequency_book import REMEMBERED, FrequencyBook
from wattshift_cluster.controller.history import GAP_S, History
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.journal import REMADE, Journal
from wattshift_cluster.controller.outlet import Outlet
from wattshift_cluster.controller.replica_watts import ReplicaWatts
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.shadow import AsIf
from wattshift_cluster.controller.signal_book import SignalBook
from wattshift_cluster.controller.sources import Sources
from wattshift_cluster.controller.tally import Tally
from wattshift_cluster.controller.unit_limits import UnitLimits
from wattshift_cluster.economics.feed import Known
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.wire.link import Link
from wattshift_scheduler import events as ev
from wattshift_scheduler.compute import forgetting
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.jobs import Job, JobState
from wattshift_scheduler.signals.effective import next_edge_s
from wattshift_scheduler.signals.words import Work
from wattshift_scheduler.state import Alarm, State, initial
from wattshift_scheduler.step import step

TURN_MIN_S = 0.02
"""Shortest time between two turns: a storm of urgent events costs at most 50 steps a second."""

ASK_S = 5.0
"""For an operator's ask: an agent may need two deadlines of a card's driver, of 1 s each."""

BOOKED_AT_ONCE = 200
BOOKS_PERIOD_S = 0.05
SUBSCRIBER_EVENTS_MAX = 1024
SPELLED_MAX = 256
"""Decisions of one turn that are streamed one by one; the journal has all of them."""

_written = attrgetter(*(name for name in Job.__slots__ if name not in REMADE))

log = structlog.get_logger()


class Feed(Protocol):
    """Something that puts events into the inbox until it is cancelled."""

    async def run(self) -> None:
        """Feed until cancelled."""
        ...


class Witness(Protocol):
    """Who writes down what is read and decided, and never makes the controller wait."""

    @property
    def alarms(self) -> Mapping[str, Alarm]:
        """Alarms about the writing, by id."""
        ...

    def sampled(self, source: str, reading: MeterReading, now_s: float) -> None:
        """A meter was asked: the site's, or that of the feeder of that name."""
        ...

    def turned(self, state: State, now_s: float) -> None:
        """The core has decided; the commands are on their way."""
        ...

    def told(self, decisions: Iterable[AnyDecision]) -> None:
        """Something was decided, in a turn or by a person."""
        ...


class Hashprice(Protocol):
    """The feed of the hashprice, for the view of it and for an operator's word on what it holds."""

    def known(self) -> Known:
        """The hashprice now."""
        ...

    async def confirm(self, by: str) -> list[str]:
        """Take what is held; returns the figures that are now in force."""
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """The shared secrets of the wire: one per agent, by name, and the compute bridge's."""

    agents: Mapping[str, bytes]
    compute: bytes | None


class Controller:
    """One site's controller. `run` it; the API reaches it through `front.Front`.

    Attributes:
        samplers: told each sample of the site meter: W, None unknown, and its time, s. Quick.
        after_turn: called when a turn is over. Quick.
    """

    def __init__(self, config: SiteConfig, journal: Journal, clock: Clock, tokens: Tokens) -> None:
        """Prepare: take an epoch, read jobs and signals from the journal. Nothing is sent yet.

        Args:
            config: the valid site file.
            journal: the open journal.
            clock: where time comes from.
            tokens: secrets of the wire.
        """
        self.config = config
        self.journal = journal
        self.clock = clock
        self.inbox = Inbox()
        self.books = Books()
        self.roster = Roster(self.books.add)
        self.hashprice: Hashprice | None = None
        self.witness: Witness | None = None
        self.tally = Tally()
        self.meter_quality = "unknown"
        self.feeders = FeederMeters(config)
        self.frequency = FrequencyBook(lambda name: journal.decisions(name, None, REMEMBERED))
        self.meter_alarms: Mapping[str, Alarm] = {}
        self.samplers: list[Callable[[float | None, float], None]] = []
        self.after_turn: list[Callable[[], None]] = []
        self.recent: deque[Decision] = deque(maxlen=2000)
        self.sources = Sources(config.signal_sources)
        self.signal_book = SignalBook(journal, config.signal_sources)
        gap_s = max(GAP_S, 2.0 * config.site.tick_s)
        self.drawn = {work: History(gap_s) for work in Work}
        self.baselines = journal.baselines()
        self.state: State = initial(
            blueprint.site_of(config),
            blueprint.values_of(config),
            journal.next_epoch(),
            journal.jobs(),
            self.signal_book.signals,
            journal.forgotten(),
        )
        self.bridge: BridgeSession | None = None
        self.compute_link: Link | None = None
        self._agents: dict[str, AgentSession] = {}
        self._shadow = AsIf(self.roster) if config.site.mode == "shadow" else None
        self._subscribers: set[asyncio.Queue[tuple[int, str, Mapping[str, Any]]]] = set()
        self._event_id = self.state.epoch * 10**9
        self._connect(tokens)
        self._limits = UnitLimits(
            lambda agent, op, **fields: self._agents[agent].ask(op, **fields),
            lambda: self.state.fleet.devices,
            lambda: {} if self.bridge is None else self.bridge.report,
            self.roster,
            self.inbox,
            clock,
            config.site.tick_s,
        )
        shadow = self._shadow is not None
        self.replica_watts = ReplicaWatts(
            self.roster, lambda: {} if self.bridge is None else self.bridge.report
        )
        self.outlet = Outlet(
            self._agents, self.bridge, self.inbox, shadow=shadow, limits=self._limits
        )
        now_s = clock.now_s()
        known = tuple(journal.devices(agent.name for agent in config.agents))
        self.inbox.put([ev.DeviceJoined(known)] if known else [])
        self._stand(now_s)
        if dropped := self.signal_book.dropped(now_s):
            self.tell(*dropped)

    def _stand(self, now_s: float) -> None:
        """Submit the jobs that the site file names, where none has their place."""
        for job in blueprint.standing_jobs(self.config, now_s):
            other = places_taken.holder(self.state.jobs.values(), job)
            if other is None:
                self.inbox.put([ev.JobSubmitted(job)])
            else:  # submitted before the site file named it; it stands at the next start
                told = places_taken.taken(route_of(job.spec), other)
                log.warning("standing.refused", job=job.id, reason=told)

    def _connect(self, tokens: Tokens) -> None:
        period_s = self.config.site.tick_s
        for ref in self.config.agents:
            host, port = ref.address.rsplit(":", 1)
            token = tokens.agents[ref.name]
            self._agents[ref.name] = AgentSession(
                ref,
                Link(host, int(port), token, deadline_s=2.0),
                self.inbox,
                self.roster,
                self.clock,
                period_s,
                self.journal.keep_devices,
                Link(host, int(port), token, deadline_s=ASK_S),
                self._answered,
            )
        compute = self.config.compute
        if compute is not None:
            assert tokens.compute is not None, "a site with compute has a token for it"
            host, port = compute.bridge.rsplit(":", 1)
            link = Link(host, int(port), tokens.compute, deadline_s=3.0)
            # The session's own link is busy for as long as the bridge has no news.
            self.compute_link = Link(host, int(port), tokens.compute, deadline_s=ASK_S)
            reports = Link(host, int(port), tokens.compute, deadline_s=3.0)
            self.bridge = BridgeSession(
                compute.name,
                (node.name for node in self.state.site.nodes),
                (link, reports),
                self.inbox,
                self._active_jobs,
                period_s,
                self.state.epoch,
            )

    def _answered(self, agent: str, answer: Mapping[str, Any], received_s: float) -> None:
        """An agent's own doings when the frequency falls are told like any decision."""
        if told := self.frequency.heard(agent, answer, received_s):
            self.tell(*told)

    def _active_jobs(self) -> Mapping[str, str]:
        """Jobs that the compute bridge must know, because it was told to run them."""
        if self._shadow is not None:
            return {}
        active = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING, JobState.STARTING)
        return {
            job.id: job.kind.value
            for job in self.state.jobs.values()
            if job.state in active and job.kind.value != "mining" and job.units
        }

    async def run(self, stop: asyncio.Event, feeds: Sequence[Feed]) -> None:
        """Turn until `stop` is set, then close every session."""
        tasks = [asyncio.create_task(s.run()) for s in self._agents.values()]
        if self.bridge is not None:
            tasks.append(asyncio.create_task(self.bridge.run()))
            tasks.append(asyncio.create_task(self._limits.run()))
        tasks += [asyncio.create_task(feed.run()) for feed in feeds]
        tasks.append(asyncio.create_task(self._keep_books()))
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self.turn(self.inbox.take())
                await asyncio.sleep(TURN_MIN_S)
                waiting = asyncio.create_task(self.inbox.wait(self._pause_s()))
                await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                _raise_first(tasks)
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)

    async def _keep_books(self) -> None:
        """Book what leases came to, a few at a time: commands and readings go first."""
        while True:
            while self.books.pending:
                self.journal.note((), self.books.settle(BOOKED_AT_ONCE))
                await asyncio.sleep(0)
            await asyncio.sleep(BOOKS_PERIOD_S)

    def _pause_s(self) -> float:
        """Until the next tick, or until the signals change by themselves, whichever is sooner.

        Counted from the last decision, not from now: a timer may fire a hair early, and a cap that
        began since then has not been decided on.
        """
        now_s = self.clock.now_s()
        change_s = next_edge_s(self.state, self.state.decided_s)
        tick_s = self.config.site.tick_s
        return tick_s if change_s is None else max(min(tick_s, change_s - now_s), 0.0)

    def turn(self, events: list[ev.Event]) -> None:
        """Fold events in, decide, and carry out."""
        now_s = self.clock.now_s()
        before = self.state
        started = time.perf_counter()
        if self._shadow is not None:
            events = self._shadow.told(events, before)
        else:
            events = self.replica_watts.heard(events, before, now_s)
        self.state, commands, decisions = step(before, [*events, ev.Tick()], now_s)
        took_s = time.perf_counter() - started
        outlook = self.state.outlook
        self.tally.stepped(took_s, outlook.committed_w, outlook.budget_w, now_s)
        if (off := forgetting.names(self.state)) != forgetting.names(before):
            self.journal.keep_forgotten(off)  # before a watt goes to the node, or to others
        changed = [j for j in self.state.jobs.values() if before.jobs.get(j.id) is not j]
        self.journal.note([j for j in changed if _tells(before.jobs.get(j.id), j)], decisions)
        for command in commands:
            self.outlet.send(command)
        spoken = self.signal_book.turned(events)
        self._remember(events, now_s)
        self.books.priced(self.state)
        if self._shadow is None:
            self.books.moved(decisions, now_s)
        self._tell(changed, decisions, now_s)
        if self.witness is not None:
            self.witness.turned(self.state, now_s)
        if spoken and self._subscribers:
            self.publish("signal", self.signals_view(now_s))
        for tell in self.after_turn:
            tell()

    def _remember(self, events: Iterable[ev.Event], now_s: float) -> None:
        """Keep what was drawn, for reports and baselines; a shadow's mining draws as if."""
        for event in events:
            if isinstance(event, ev.MeterRead):
                self.drawn[Work.ALL].sampled(event.watts_w, event.at_s)
        if self._shadow is None:
            self.drawn[Work.MINING].sampled(views.measured_w(self.state, now_s), now_s)

    def signals_view(self, now_s: float) -> dict[str, Any]:
        """What sources say, and what of it holds (api.signal_views.SignalsView)."""
        return signal_views.signals(self.state, self.sources, self.config.signal_sources, now_s)

    @property
    def alarms(self) -> Mapping[str, Alarm]:
        """Every alarm that holds, by id."""
        return {
            **self.state.alarms,
            **self.meter_alarms,
            **self.feeders.alarms,
            **self.sources.alarms,
            **({} if self.witness is None else self.witness.alarms),
        }

    def site_view(self, now_s: float) -> dict[str, Any]:
        """The site as people are shown it (api.site_views.SiteView)."""
        mode, steps = self.config.site.mode, self.tally.steps
        view = views.site(self.state, self.roster, self.meter_quality, steps, now_s, mode)
        view["feeders"] = self.feeders.shown(view["feeders"])
        view["alarms"] = views.alarms(self.alarms)
        if enrolled := self.frequency.views(now_s):
            view["frequency"] = enrolled
        if self._shadow is None:
            return view
        return self._shadow.site(view, self.device_views(now_s))

    def device_views(self, now_s: float) -> list[dict[str, Any]]:
        """Every device as people are shown it (api.device_views.DeviceView)."""
        found = views.devices(self.state, self.roster, now_s)
        return found if self._shadow is None else self._shadow.devices(found, self.state)

    def tell(self, *decisions: Decision) -> None:
        """Write down and tell what was decided outside of a turn, by an operator."""
        self.journal.note((), decisions)
        self._tell((), decisions, self.clock.now_s())

    def _tell(self, jobs: Iterable[Any], decisions: Sequence[AnyDecision], now_s: float) -> None:
        if self.witness is not None:
            self.witness.told(decisions)
        spelled = list(_spelled(decisions))
        self.recent.extend(spelled)
        for one in spelled:
            log.info("decision", subject=one.subject, action=one.action, reason=one.reason)
        if not self._subscribers:
            return
        self.publish("site", self.site_view(now_s))
        for one in spelled:
            self.publish("decision", views.decision(one))
        for job in jobs:
            self.publish("job", views.job(job))

    def publish(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell every subscriber; one that does not keep up loses its oldest events."""
        self._event_id += 1
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((self._event_id, event, data))

    async def subscribe(self) -> AsyncIterator[tuple[int, str, Mapping[str, Any]]]:
        """Yield events from now on."""
        queue: asyncio.Queue[tuple[int, str, Mapping[str, Any]]] = asyncio.Queue(
            SUBSCRIBER_EVENTS_MAX
        )
        self._subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)


def _spelled(decisions: Iterable[AnyDecision]) -> Iterable[Decision]:
    told = 0
    for one in decisions:
        for row in one.rows() if isinstance(one, Moves) else (one,):
            if told == SPELLED_MAX:
                return
            told += 1
            yield row


def _tells(before: Job | None, job: Job) -> bool:
    """Whether the journal would keep something else of a job than it does: a verdict that is made
    anew each second is not written each second."""
    return before is None or _written(before) != _written(job)


def _raise_first(tasks: Iterable[asyncio.Task[None]]) -> None:
    """A session or feed never ends by itself: if one did, that is a bug and must be loud."""
    for task in tasks:
        if task.done():
            with contextlib.suppress(asyncio.CancelledError):
                task.result()
            raise RuntimeError("a session of the controller ended by itself")
