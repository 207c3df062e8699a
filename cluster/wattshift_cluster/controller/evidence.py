"""The evidence log of a controller: what meters said and what was decided, for settlement.

Nothing here holds control up: lines are handed to a bounded queue, a thread writes them, and a log
that cannot be opened or written is an alarm and no more. What it loses, it says in the log itself.
"""

import asyncio
import contextlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec

import structlog

from wattshift_cluster.controller.evidence_words import Batches, Energies, planned_w, summed_up
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.settle.bodies import SITE, Held, decision_body, event_body
from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.log import Evidence, Pace
from wattshift_cluster.settle.tail import EvidenceFailed
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.state import Alarm, State

LOOK_S = 1.0
BATCH_S = 5.0
"""How long samples wait to share a line: a kill may lose as many seconds of them."""

AGAIN_S = 30.0
"""Between two tries to open a log that cannot be opened."""

MINUTE_S = 60.0
DECISIONS_A_MINUTE = 300
MOVES_A_MINUTE = 120
"""Lines of decisions, and of them those about leases: a day's file must hold a day of samples too.
The journal has every decision."""

SAME_SHARE, SAME_W = 1e-3, 1.0
"""A cap or plan that changes by less, whichever is more, is the same one."""

LOST_ALARM_S = 600.0
"""How long an alarm tells that lines were lost."""

FREE_LEAST_BYTES = 200 << 20
"""Left on the disk for the journal, which lies on it too and without which nothing is accepted."""

MANY, FULL = "more decisions than a minute may have", "the disk is nearly full"

P = ParamSpec("P")

log = structlog.get_logger()


class EvidenceFeed:
    """Writes the evidence of one controller; both its witness and one of its feeds.

    Attributes:
        alarms: that hold now, by id.
    """

    def __init__(
        self,
        controller: Controller,
        folder: Path,
        *,
        pace: Pace | None = None,
        again_s: float = AGAIN_S,
    ) -> None:
        """Become the controller's witness; the log is opened by `run`."""
        self.alarms: Mapping[str, Alarm] = {}
        self._c = controller
        self._folder, self._pace, self._again_s = folder, pace, again_s
        self._log: Evidence | None = None
        self._batches = Batches()
        self._energies: Energies | None = None
        self._batch_s = self._minute_s = -math.inf
        self._held = Held(math.nan, "", math.nan)
        self._events: dict[tuple[str, str], GridEvent] = {}
        self._events_of: Mapping[str, tuple[GridEvent, ...]] | None = None
        self._broken = ""
        self._left = self._moves_left = 0
        self._lost: Counter[str] = Counter()
        self._tight = self._unsaid = False
        self._dropped, self._dropped_s = 0, -math.inf
        controller.witness = self

    async def run(self) -> None:
        """Write until cancelled, then sign the end."""
        try:
            while True:
                await self._open()
                while self._log is not None:
                    self.look()
                    if self._broken:
                        await self._close()
                        self._judge(self._broken, self._c.clock.now_s())
                    else:
                        await asyncio.sleep(LOOK_S)
                await asyncio.sleep(self._again_s)
        finally:
            await self._close()

    def sampled(self, source: str, reading: MeterReading, now_s: float) -> None:
        """A meter has answered, or not; see controller.service.Witness."""
        self._safely(self._sampled, source, reading, now_s)

    def turned(self, state: State, now_s: float) -> None:
        """The core has decided; see controller.service.Witness."""
        self._safely(self._turned, state, now_s)

    def told(self, decisions: Iterable[AnyDecision]) -> None:
        """Something was decided; see controller.service.Witness."""
        self._safely(self._told, decisions, self._c.clock.now_s())

    def look(self) -> None:
        """What is due once a second: feeders' meters, lines of samples and of energy, alarms."""
        self._safely(self._look, self._c.state, self._c.clock.now_s())

    def _safely(self, write: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        """Write where the log is open; a fault of ours ends this log and not the controller."""
        if self._log is None or self._broken:
            return
        try:
            write(*args, **more)
        except Exception as fault:
            log.exception("evidence.failed")
            self._broken = f"it has stopped: {fault or type(fault).__name__}"

    def _sampled(self, source: str, reading: MeterReading, now_s: float) -> None:
        offset_s = math.nan if reading.at_s is None else reading.at_s - now_s
        self._batches.add(source, reading, now_s, offset_s)
        if self._batches.full:
            self._flush(now_s)

    def _turned(self, state: State, now_s: float) -> None:
        if self._tight:
            return
        if self._unsaid:
            self._unsaid, self._events, self._events_of = False, {}, None
            self._held = Held(math.nan, "", math.nan)
        shadow = self._c.config.site.mode == "shadow"
        # A shadow commands nothing: what it would have leased is nobody's plan.
        plan_w = math.nan if shadow else planned_w(state)
        outlook, before = state.outlook, self._held
        cap_w, origin = outlook.cap_w, outlook.cap_origin
        new_cap = origin != before.origin or not _same(cap_w, before.cap_w)
        new_plan = not _same(plan_w, before.site_w)
        if new_cap or new_plan:
            held = Held(
                cap_w if new_cap else before.cap_w,
                origin,
                plan_w if new_plan else before.site_w,
            )
            self._held = held
            if new_cap:
                self._put(Kind.CAP, held.cap_body(), now_s)
            if new_plan:
                self._put(Kind.PLAN, held.plan_body(), now_s)
        if state.signals.events is not self._events_of:
            self._events_of = state.signals.events
            for event in self._changed(now_s):
                self._put(Kind.EVENT, event_body(event), now_s)

    def _told(self, decisions: Iterable[AnyDecision], now_s: float) -> None:
        if now_s - self._minute_s >= MINUTE_S:
            self._tell_lost(now_s)
            self._minute_s = now_s
            self._left, self._moves_left = DECISIONS_A_MINUTE, MOVES_A_MINUTE
        for one in decisions:
            if not self._may(one):
                self._lost[MANY] += 1
                continue
            row = summed_up(one) if isinstance(one, Moves) else one
            self._put(Kind.DECISION, decision_body(row), now_s)

    def _tell_lost(self, now_s: float) -> None:
        if self._lost and not self._tight:
            body = {"lines": self._lost.total(), "why": dict(self._lost)}
            self._put(Kind.DROPPED, body, now_s)
            self._lost.clear()

    def _unplanned(self, now_s: float) -> None:
        """Nobody caps or plans before a controller's first decision, and after its last."""
        self._held = Held(math.nan, "", math.nan)
        self._put(Kind.CAP, self._held.cap_body(), now_s)
        self._put(Kind.PLAN, self._held.plan_body(), now_s)

    def _may(self, one: AnyDecision) -> bool:
        """Whether one more line of this kind fits into the minute."""
        if isinstance(one, Moves):
            self._moves_left -= 1
            if self._moves_left < 0:
                return False
        self._left -= 1
        return self._left >= 0

    def _look(self, state: State, now_s: float) -> None:
        held = self._log
        if held is None or self._energies is None:
            return
        self._tight = shutil.disk_usage(self._folder).free < FREE_LEAST_BYTES
        for name, reading in self._c.feeders.readings().items():
            source = f"feeder {name}" if name == SITE else name
            self._batches.add(source, reading, now_s, math.nan)
        self._energies.granted(state.jobs.values(), now_s)
        if now_s - self._batch_s >= BATCH_S:
            self._flush(now_s)
        if self._energies.due(state, now_s):
            self._spend(now_s)
        health = held.health()
        if health.dropped > self._dropped:
            self._dropped, self._dropped_s = health.dropped, now_s
        self._judge(FULL if self._tight else health.fault, now_s)

    def _flush(self, now_s: float) -> None:
        self._batch_s = now_s
        for batch in self._batches.taken():
            self._put(Kind.METER, batch.body(), now_s)

    def _spend(self, now_s: float) -> None:
        assert self._energies is not None, "the log is open"
        devices, tenants = self._energies.taken(self._c.state, now_s)
        for kind, bodies in ((Kind.DEVICES, devices), (Kind.TENANTS, tenants)):
            for body in bodies:
                self._put(kind, body, now_s)

    def _changed(self, now_s: float) -> Iterator[GridEvent]:
        """Events that are new, changed, or told no more although they are not over."""
        present = {
            (source, event.id): event
            for source, events in self._c.state.signals.events.items()
            for event in events
        }
        for key, event in present.items():
            if event != self._events.get(key):
                yield event
        for key, event in self._events.items():
            if key not in present and event.stands(now_s):
                yield replace(event, cancelled_s=now_s)
        self._events = present

    def _put(self, kind: Kind, body: Mapping[str, Any], at_s: float) -> None:
        if self._tight:
            self._lost[FULL] += 1
        elif self._log is not None and not self._log.put(kind, body, at_s):
            self._unsaid = True

    async def _open(self) -> None:
        """Open the log, off the loop; where that fails, say so."""
        name, clock = self._c.config.site.name, self._c.clock

        def opened() -> Evidence:
            return Evidence.open(self._folder, site=name, pace=self._pace, wall_s=clock.now_s)

        opening = asyncio.create_task(asyncio.to_thread(opened))
        try:
            self._log = await asyncio.shield(opening)
        except EvidenceFailed as fault:
            self._judge(str(fault), clock.now_s())
            return
        except asyncio.CancelledError:
            # The thread goes on: what it opens must be closed.
            with contextlib.suppress(EvidenceFailed):
                self._log = await opening
            raise
        self._begin(clock.now_s())

    def _begin(self, now_s: float) -> None:
        """The first lines: what was agreed, and all that holds."""
        self._broken, self._dropped, self._events, self._events_of = "", 0, {}, None
        self._batches = Batches()
        terms = self._c.config.settlement.model_dump(mode="json")
        self._put(Kind.TERMS, terms, now_s)
        self._unplanned(now_s)
        self._energies = Energies(self._c.books, self._c.roster, now_s)
        self._batch_s = now_s
        self._judge(None, now_s)
        if math.isfinite(self._c.state.decided_s):
            self.turned(self._c.state, now_s)

    async def _close(self) -> None:
        held = self._log
        if held is None:
            return
        self._safely(self._last_words, self._c.clock.now_s())
        self._log, self._energies = None, None
        if not await asyncio.to_thread(held.close):
            log.warning("evidence.unsigned", fault=held.health().fault)

    def _last_words(self, now_s: float) -> None:
        if self._energies is not None:
            self._flush(now_s)
            self._spend(now_s)
        self._unplanned(now_s)
        self._tell_lost(now_s)

    def _judge(self, fault: str | None, now_s: float) -> None:
        """Raise and clear the alarms of the log."""
        causes: dict[str, str] = {}
        if fault is not None:
            causes["evidence"] = f"the evidence log is not written: {fault}; control goes on"
        if now_s - self._dropped_s < LOST_ALARM_S:
            text = (
                f"{self._dropped} lines of evidence were lost: events of that time may not settle"
            )
            causes["evidence-lost"] = text
        before = self.alarms
        since = {name: before[name].since_s if name in before else now_s for name in causes}
        self.alarms = {
            name: Alarm(name, "warning", text, since[name]) for name, text in causes.items()
        }
        told = [
            Decision(now_s, name, "alarm", text, {"severity": "warning"})
            for name, text in causes.items()
            if name not in before
        ]
        went = [one for name, one in before.items() if name not in causes]
        told += [Decision(now_s, one.id, "all clear", one.text, {}) for one in went]
        if told:
            self._c.tell(*told)


def _same(one_w: float, other_w: float) -> bool:
    if math.isnan(one_w) or math.isnan(other_w):
        return math.isnan(one_w) and math.isnan(other_w)
    return abs(one_w - other_w) <= max(SAME_SHARE * abs(other_w), SAME_W)
