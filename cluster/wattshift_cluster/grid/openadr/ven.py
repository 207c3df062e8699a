"""The OpenADR source: asks its VTN, takes its notices, remembers, and reports.

Whatever fails, what was told goes on to hold until it ends. Events are gone only when a whole,
valid answer no longer holds them. A notice can tighten at once; anything it would loosen waits for
the answer of the poll that it causes, so that a replayed or forged one never raises a cap.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from wattshift_cluster.bootclock import boot_id
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.asked import Terms
from wattshift_cluster.grid.openadr.asking import Answer, Asking, Wishes
from wattshift_cluster.grid.openadr.failures import VtnRefused
from wattshift_cluster.grid.openadr.kept import KeptFile, Known, answered, counted, noticed
from wattshift_cluster.grid.openadr.mapping import fault_of
from wattshift_cluster.grid.openadr.readings import Readings
from wattshift_cluster.grid.openadr.reports import build, unanswered, wanted
from wattshift_cluster.grid.openadr.saying import Reads
from wattshift_cluster.grid.openadr.saying import say as said_of
from wattshift_cluster.grid.openadr.words import (
    Event,
    Notification,
    ObjectType,
    Operation,
    Vtn,
)
from wattshift_cluster.grid.said import Alert, AlertSaid, Said, Say

LONGEST_PAUSE_S = 60.0
"""Between two polls of a VTN that does not answer, or the poll period where that is longer."""
NOTICE_GAP_S = 0.2
"""Least time between two polls, however many notices come."""
MAX_PENDING = 1_000
"""Notices that came while a poll was under way; more are left to the next poll."""
MAX_REPORTS_AT_ONCE = 100
REPORT_PAUSE_S = 60.0
SKEW_TOLD_S = 2.0

log = structlog.get_logger()


class OpenAdrVen:
    """One VTN as a source of grid signals (see `said.Source`).

    Attributes:
        answered: set once the VTN has given a whole answer since the start.
    """

    def __init__(
        self,
        client: Vtn,
        terms: Terms,
        wishes: Wishes,
        kept: KeptFile,
        *,
        readings: Readings | None = None,
        clock_s: Callable[[], float] = time.time,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        """Prepare; nothing is read or sent yet.

        Args:
            client: its calls have deadlines of their own.
            kept: where what it knows survives a restart.
            readings: what its reports tell; None: it reports nothing.
            clock_s: unix time, s.
            boot: name of this boot of the machine.
        """
        self._client, self._wishes, self._file = client, wishes, kept
        self._asking = Asking(client, wishes, terms.ven_name)
        self._own_terms = self._terms = terms
        self._readings, self._clock_s, self._boot = readings, clock_s, boot
        self._known = Known()
        self._reads = Reads()
        self._saved: Known | None = None
        self._say: Say = lambda said: None
        self._fault: str | None = "not asked yet"
        self._failures = 0
        self._notes: dict[str, str] = {}
        self._pending: list[Event] = []
        self._skewed_since_s: float | None = None
        self.answered = asyncio.Event()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._own_terms.source

    @property
    def known(self) -> Known:
        """What it knows of the VTN now."""
        return self._known

    @property
    def ven_id(self) -> str | None:
        """This site's id at the VTN; None until it was told."""
        return self._asking.ven_id

    async def run(self, say: Say) -> None:
        """Speak until cancelled; faults of the outside world are said, not raised."""
        self._say = say
        self._known, damage = await asyncio.to_thread(self._file.read)
        self._saved = self._known
        if damage is not None:
            self._notes["damage"] = damage
        self._agree()
        self._speak()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._polls())
            if self._readings is not None:
                tasks.create_task(self._reports(self._readings))

    def notice(self, told: Notification) -> None:
        """Take a notice, in the event loop: it tightens at once and causes a poll."""
        event = told.event()
        if event is not None and told.operation in (Operation.CREATE, Operation.UPDATE):
            if len(self._pending) < MAX_PENDING:
                self._pending.append(event)
            self._take(event)
        if told.object_type in (ObjectType.VEN, ObjectType.RESOURCE):
            self._asking.register_again()
        self.poll_now()

    def poll_now(self) -> None:
        """Ask the VTN at once, or as soon as NOTICE_GAP_S allows."""
        self._wake.set()

    def remark(self, topic: str, text: str | None) -> None:
        """Say something to people beside the VTN's words, until it is replaced or taken back."""
        if text is None:
            self._notes.pop(topic, None)
        else:
            self._notes[topic] = text
        self._speak()

    def power_lost(self) -> None:
        """The grid's power failed: no limit counts until the VTN has answered."""
        self._known = replace(self._known, boot="")
        self._speak()
        self.poll_now()

    def said(self) -> Said:
        """All that it says now."""
        now_s, skew_s = self._clock_s(), self._client.skew_s
        notes = [*self._notes.values(), *self._asking.refusals.values()]
        if self._readings is not None:
            notes += unanswered(self._known, self._terms)
        if skew_s is not None and abs(skew_s) > SKEW_TOLD_S:
            notes.append(f"the VTN's clock is off by {skew_s:.1f} s")
        made = said_of(
            self._known,
            self._terms,
            now_s,
            outage=self._known.boot != self._boot(),
            fault=self._fault_told(now_s),
            notes=notes,
            reads_of=self._reads.of,
        )
        alarm = self._skew_alarm(skew_s, now_s)
        return made if alarm is None else replace(made, alerts=(*made.alerts, alarm))

    def _fault_told(self, now_s: float) -> str | None:
        heard_s = self._known.asked_s
        if self._fault is None or not heard_s:
            return self._fault
        return f"{self._fault}; last heard {max(0.0, now_s - heard_s):.0f} s ago"

    def _skew_alarm(self, skew_s: float | None, now_s: float) -> AlertSaid | None:
        if skew_s is None or abs(skew_s) <= self._wishes.skew_alarm_s:
            self._skewed_since_s = None
            return None
        if self._skewed_since_s is None:
            self._skewed_since_s = now_s
        text = f"clocks differ by {skew_s:.0f} s; caps begin and end by this site's clock"
        name = f"{self.name}/clock"
        return AlertSaid(name, "CLOCK_SKEW", Alert.NOTICE, text, self._skewed_since_s, None)

    def _take(self, event: Event) -> None:
        program = self._known.programs.get(event.program_id)
        followed = event.program_id in self._wishes.programs or not self._wishes.programs
        if followed or (program is not None and self._wishes.follows(program)):
            self._known = noticed(self._known, event, self._clock_s())
            self._changed.set()
            self._speak()

    def _agree(self) -> None:
        groups = self._own_terms.groups | self._known.groups
        if groups != self._terms.groups:
            self._terms = replace(self._own_terms, groups=groups)

    def _speak(self) -> None:
        self._say(self.said())

    async def _polls(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            begun_s = loop.time()
            await self._round()
            self._speak()
            await self._save()
            await self._pause(begun_s, self._pause_s())

    def _pause_s(self) -> float:
        """Until the next poll, s: the period, twice as long after each failure, with a bound."""
        poll_s = self._wishes.poll_s
        return min(poll_s * 2.0 ** min(self._failures, 16), max(LONGEST_PAUSE_S, poll_s))

    async def _pause(self, begun_s: float, pause_s: float) -> None:
        """Until the next poll is due, or a notice asks for one."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(begun_s + max(pause_s, NOTICE_GAP_S)):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, begun_s + NOTICE_GAP_S - loop.time()))

    async def _round(self) -> None:
        self._pending.clear()
        try:
            self._heard(await self._asking.ask(self._known))
        except WattshiftError as fault:
            self._failures += 1
            self._fault = str(fault)
            return
        self._failures, self._fault = 0, None

    def _heard(self, answer: Answer) -> None:
        now_s = self._clock_s()
        by_id = {program.id: program for program in answer.programs}
        self._known = replace(self._known, groups=answer.groups)
        self._agree()

        def fault(event: Event, first_s: float) -> str | None:
            program = by_id.get(event.program_id) or self._known.program(event.program_id)
            return fault_of(event, first_s, program, self._terms, now_s)

        self._known = answered(
            self._known, answer.events, answer.programs, fault, self._boot(), now_s
        )
        self._notes.pop("damage", None)
        self.answered.set()
        # The answer may be older than a notice that came meanwhile: that one is heard again.
        for event in self._pending:
            self._take(event)
        self._changed.set()

    async def _save(self) -> None:
        known = self._known
        # When the VTN was last heard is no reason to write a file every few seconds.
        if self._saved is not None and known == replace(self._saved, asked_s=known.asked_s):
            return
        try:
            await asyncio.to_thread(self._file.write, known)
        except OSError as fault:
            self._notes["file"] = f"what is known cannot be kept: {fault.strerror}"
            log.error("openadr.not_kept", path=str(self._file.path), reason=str(fault))
            return
        self._notes.pop("file", None)
        self._saved = known

    async def _reports(self, readings: Readings) -> None:
        while True:
            self._changed.clear()
            pause_s = await self._report(readings)
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
            # What changed may change again at once; reports have times of their own.
            await asyncio.sleep(min(pause_s, NOTICE_GAP_S))

    async def _report(self, readings: Readings) -> float:
        """Send what is due; how long until more may be, s."""
        now_s = self._clock_s()
        ready = [one for one in wanted(self._known, self._terms, now_s) if one.due.at_s <= now_s]
        for one in ready[:MAX_REPORTS_AT_ONCE]:
            try:
                await self._client.report(build(one, self._terms, readings))
                self._notes.pop("report", None)
            except VtnRefused as no:
                # Told again and again it would be refused again and again.
                self._notes["report"] = f"the VTN refuses a report: {no}"
            except WattshiftError as fault:
                self._notes["report"] = f"a report waits: {fault}"
                return REPORT_PAUSE_S
            self._known = counted(self._known, one.key, one.due.turn)
        later = [one.due.at_s for one in wanted(self._known, self._terms, now_s)]
        return min(REPORT_PAUSE_S, max(NOTICE_GAP_S, min(later, default=now_s + 60) - now_s))
