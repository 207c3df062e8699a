"""The controller keeps the state, turns it once a second, and carries out what comes of it.

One turn: take the events that have come, call `step`, write down what changed, hand commands to
the sessions, tell the subscribers. Urgent events (a cap, a job, a reply that frees watts) turn it
at once. Nothing here decides anything.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from operator import attrgetter
from typing import Any, Protocol

import structlog

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.service_route import route_of
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller import foreseen, places_taken, signal_views, views
from wattshift_cluster.controller.agent_session import AgentSession
from wattshift_cluster.controller.audience import Audience, spelled
from wattshift_cluster.controller.beside import Hashprice, Lookahead, PeakAhead, Witness
from wattshift_cluster.controller.books import Books
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.feeders import FeederMeters
from wattshift_cluster.controller.frequency_book import REMEMBERED, FrequencyBook
from wattshift_cluster.controller.history import GAP_S, History
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.journal import REMADE, Journal
from wattshift_cluster.controller.outlet import Outlet
from wattshift_cluster.controller.refusals import Refusals
from wattshift_cluster.controller.replica_watts import ReplicaWatts
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.sessions import Tokens as Tokens
from wattshift_cluster.controller.sessions import active_jobs, agent_sessions, to_bridge
from wattshift_cluster.controller.shadow import AsIf
from wattshift_cluster.controller.signal_book import SignalBook
from wattshift_cluster.controller.sources import Sources
from wattshift_cluster.controller.tally import Tally
from wattshift_cluster.controller.unit_limits import UnitLimits
from wattshift_cluster.controller.unseen import Unseen
from wattshift_scheduler import events as ev
from wattshift_scheduler.compute import forgetting
from wattshift_scheduler.decisions import AnyDecision, Decision
from wattshift_scheduler.in_force.effective import next_edge_s
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.signals.words import Work
from wattshift_scheduler.state import Alarm, State, initial
from wattshift_scheduler.step import step

TURN_MIN_S = 0.02
"""Shortest time between two turns: a storm of urgent events costs at most 50 steps a second."""

BOOKED_AT_ONCE = 200
RECENT_MAX = 2000
BOOKS_PERIOD_S = 0.05

_written = attrgetter(*(name for name in Job.__slots__ if name not in REMADE))

log = structlog.get_logger()


class Feed(Protocol):
    """Something that puts events into the inbox until it is cancelled."""

    async def run(self) -> None:
        """Feed until cancelled."""
        ...


class Controller:
    """One site's controller. `run` it; the API reaches it through `front.Front`.

    Attributes:
        samplers: told each sample of the site meter: W, None unknown, and its time, s. Quick.
        after_turn: called when a turn is over. Quick.
        peaks_ahead: sources that know when a whole grid may peak.
        recent: the newest decisions, in memory; the journal has them a moment later.
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
        self.lookahead: Lookahead | None = None
        self.peaks_ahead: list[PeakAhead] = []
        self.tally = Tally()
        self.meter_quality = "unknown"
        self.feeders = FeederMeters(config)
        self.refusals, self.unseen = Refusals(self.tell), Unseen(self.tell, self._counted)
        self.frequency = FrequencyBook(lambda name: journal.decisions(name, None, REMEMBERED))
        self.meter_alarms: Mapping[str, Alarm] = {}
        self.samplers: list[Callable[[float | None, float], None]] = []
        self.after_turn: list[Callable[[], None]] = []
        self.recent: deque[Decision] = deque(maxlen=RECENT_MAX)
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
        self._shadow = AsIf(self.roster) if config.site.mode == "shadow" else None
        self.audience = Audience(self.state.epoch)
        self._agents = self._sessions(tokens)
        nodes = tuple(node.name for node in self.state.site.nodes)
        way = to_bridge(config, tokens, self.inbox, nodes, self._active_jobs, self.state.epoch)
        self.bridge = None if way is None else way.session
        self.compute_link = None if way is None else way.asking
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
        self._recall_devices()
        self._stand(now_s)
        if dropped := self.signal_book.dropped(now_s):
            self.tell(*dropped)

    def _sessions(self, tokens: Tokens) -> dict[str, AgentSession]:
        keep = self.journal.keep_devices
        return agent_sessions(
            self.config,
            tokens,
            self.inbox,
            self.roster,
            self.clock,
            keep,
            self._answered,
            self.refusals,
            self.unseen,
        )

    def _counted(self, ids: Iterable[str]) -> Set[str]:
        """Those of these ids that are devices of the site."""
        return {name for name in ids if name in self.state.fleet.index}

    def _recall_devices(self) -> None:
        """Count what the journal knows, until the agents tell.

        A device hangs where the site file has its agent now, wherever that was before.
        """
        feeders = {agent.name: agent.feeder for agent in self.config.agents}
        known = tuple(replace(d, feeder=feeders[d.agent]) for d in self.journal.devices(feeders))
        self.inbox.put([ev.DeviceJoined(known)] if known else [])

    def _stand(self, now_s: float) -> None:
        """Submit the jobs that the site file names, where none has their place."""
        for job in blueprint.standing_jobs(self.config, now_s):
            other = places_taken.holder(self.state.jobs.values(), job)
            if other is None:
                self.inbox.put([ev.JobSubmitted(job)])
            else:  # submitted before the site file named it; it stands at the next start
                told = places_taken.taken(route_of(job.spec), other)
                log.warning("standing.refused", job=job.id, reason=told)

    def _answered(self, agent: str, answer: Mapping[str, Any], received_s: float) -> None:
        """An agent's own doings when the frequency falls are told like any decision."""
        if told := self.frequency.heard(agent, answer, received_s):
            self.tell(*told)

    def _active_jobs(self) -> Mapping[str, str]:
        """Jobs that the compute bridge must know, because it was told to run them."""
        if self._shadow is not None:
            return {}
        return active_jobs(self.state)

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
        events = [*events, *self._carbon(now_s)]
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
        if spoken and self.audience:
            self.audience.publish("signal", self.signals_view(now_s))
        for tell in self.after_turn:
            tell()

    def _carbon(self, now_s: float) -> list[ev.Event]:
        """What a kWh emits, where the operator has a price on that and it has changed."""
        if not self.state.values.carbon_usd_per_t:
            return []
        grams = self.sources.carbon_g_per_kwh(now_s)
        grams = None if grams is None else max(grams, 0.0)
        return [] if grams == self.state.signals.carbon_g_per_kwh else [ev.CarbonSeen(grams)]

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
            **self.refusals.alarms,
            **self.unseen.alarms,
            **self.sources.alarms,
            **({} if self.witness is None else self.witness.alarms),
            **({} if self.lookahead is None else self.lookahead.alarms),
        }

    def site_view(self, now_s: float) -> dict[str, Any]:
        """The site as people are shown it (api.site_views.SiteView)."""
        mode, steps = self.config.site.mode, self.tally.steps
        view = views.site(self.state, self.roster, self.meter_quality, steps, now_s, mode)
        view |= foreseen.next_cap(self.state, now_s)
        view["carbon_g_per_kwh"] = self.sources.carbon_g_per_kwh(now_s)
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

    def unseen_views(self) -> list[dict[str, Any]]:
        """Machines that count nothing because nobody knows them (api.device_views.UnseenView)."""
        return views.unseen(self.unseen.machines)

    def tell(self, *decisions: Decision) -> None:
        """Write down and tell what was decided outside of a turn, by an operator."""
        self.journal.note((), decisions)
        self._tell((), decisions, self.clock.now_s())

    def _tell(self, jobs: Iterable[Any], decisions: Sequence[AnyDecision], now_s: float) -> None:
        if self.witness is not None:
            self.witness.told(decisions)
        rows = list(spelled(decisions))
        self.recent.extend(rows)
        for one in rows:
            log.info("decision", subject=one.subject, action=one.action, reason=one.reason)
        if not self.audience:
            return
        self.audience.publish("site", self.site_view(now_s))
        for one in rows:
            self.audience.publish("decision", views.decision(one))
        for job in jobs:
            self.audience.publish("job", views.job(job))


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
