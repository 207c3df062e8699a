"""Scheduled drills: caps for practice, told as drills, scored, and never beside a real event.

A drill is a weekly clock time in a zone. A clock time that the change to summer time skips falls an
hour later, one that is there twice counts the first time. A real event that begins or is told ends
a drill at once; a drill that would touch one does not begin. A drill is never paid and binds nobody
before it starts: its event carries no commitment.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from wattshift_cluster.config.settlement import zone_of
from wattshift_cluster.config.utility import WEEK, Drill
from wattshift_cluster.grid.drills.results import Result, ResultsFile, Samples, scored
from wattshift_cluster.grid.said import Said, Say
from wattshift_scheduler.signals.words import DRILL, Cap, CapKind, GridEvent

ORIGIN = PROGRAM = DRILL
LOOK_S = 1.0
"""How often it is looked for a real event while a drill runs."""
SLEEP_MOST_S = 60.0
AHEAD_DAYS = 8
LEAST_DRAW_S = 5.0
"""A draw older than this is none to take a shed off."""
ABANDONED_MOST = 100
"""Drills called off or skipped that are remembered, so that none begins again."""

log = structlog.get_logger()

RealEvent = Callable[[float, float], str]
"""Start and end, unix time -> the real event in force or told for that span; empty: none."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One drill at one time, unix time, s."""

    drill: Drill
    starts_s: float

    @property
    def ends_s(self) -> float:
        """When it ends."""
        return self.starts_s + self.drill.duration_s

    @property
    def told_s(self) -> float:
        """When it is told."""
        return self.starts_s - self.drill.notice_s

    @property
    def id(self) -> str:
        """Unique: name and start."""
        return f"{self.drill.name}-{self.starts_s:.0f}"


def planned(drill: Drill, now_s: float) -> Planned:
    """The drill that runs at `now_s`, else the next one."""
    zone = zone_of(drill.zone)
    hour, minute = map(int, drill.at.split(":"))
    today = datetime.fromtimestamp(now_s, zone).date()
    for days in range(-1, AHEAD_DAYS + 1):
        day = today + timedelta(days=days)
        if WEEK[day.weekday()] not in drill.days:
            continue
        at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
        one = Planned(drill, at.astimezone(UTC).timestamp())
        if one.ends_s > now_s:
            return one
    raise AssertionError("every week has each of its days")


@dataclass(frozen=True, slots=True)
class _Running:
    """A drill that runs: its cap, W."""

    plan: Planned
    limit_w: float


class DrillSource:
    """`[[drills]]` as a running source (see `said.Source`).

    Attributes:
        results: of past drills, newest last.
    """

    def __init__(
        self,
        drills: Sequence[Drill],
        state_dir: Path,
        real_event: RealEvent,
        *,
        name: str = "drills",
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Read past results.

        Args:
            state_dir: results are kept there, as `drills.json`.
            real_event: see `RealEvent`; quick, never raises.
            clock_s: unix time, s.
        """
        self._drills = tuple(drills)
        self._file = ResultsFile(state_dir / "drills.json")
        self.results, self._trouble = self._file.read()
        self._real_event = real_event
        self._name = name
        self._clock_s = clock_s
        self._running: _Running | None = None
        self._samples = Samples()
        self._off: deque[str] = deque((result.id for result in self.results), maxlen=ABANDONED_MOST)
        self._notes: dict[str, str] = {}
        self._cancelled: tuple[GridEvent, ...] = ()
        self._begun_s = clock_s()

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._name

    def sample(self, watts_w: float | None, at_s: float) -> None:
        """A sample of the site meter, for the score; None is unknown."""
        self._samples.add(at_s, watts_w)

    async def run(self, say: Say) -> None:
        """Speak until cancelled."""
        before: Said | None = None
        while True:
            done = self.turn()
            if done:
                await self._keep(done)
            said = self._said()
            if before is None or _news(before, said):
                before = said
                say(said)
            await asyncio.sleep(self._pause_s())

    def turn(self) -> list[Result]:
        """Look at the clock and at real events: begin, end, call off. Results of what ended."""
        now_s = self._clock_s()
        done: list[Result] = []
        if self._running is not None and (why := self._over(self._running.plan, now_s)) is not None:
            done.append(self._end(self._running, why, now_s))
        done += [
            result
            for plan in self._near(now_s)
            if plan.id not in self._off and (result := self._look(plan, now_s)) is not None
        ]
        self.results = (*self.results, *done)[-self._file.most :]
        return done

    def _look(self, plan: Planned, now_s: float) -> Result | None:
        """Begin a drill whose time has come; the result where it is told or due and cannot be."""
        running = self._running
        if running is not None and running.plan == plan:
            return None
        real = self._real_event(plan.starts_s, plan.ends_s)
        if real and now_s >= plan.told_s:
            return self._skip(plan, f"not run beside {real}", now_s)
        if plan.starts_s > now_s:
            return None
        if running is not None:
            return self._skip(plan, f"not run beside {running.plan.id}", now_s)
        return self._begin(plan, now_s)

    def _over(self, plan: Planned, now_s: float) -> str | None:
        """Why a running drill is over; "" by itself, None while it is not."""
        if now_s >= plan.ends_s:
            return ""
        real = self._real_event(now_s, plan.ends_s)
        return f"called off for {real}" if real else None

    def _begin(self, plan: Planned, now_s: float) -> Result | None:
        """Begin it; the result where it cannot."""
        drill = plan.drill
        limit_w = drill.limit_w
        if limit_w is None:
            assert drill.shed_w is not None, "checked: a limit or a shed"
            if plan.starts_s < self._begun_s:
                return self._skip(plan, "this program started after it did", now_s)
            draw_w = self._samples.mean_w(now_s - LEAST_DRAW_S, now_s)
            if math.isnan(draw_w):
                return self._skip(plan, "the draw to shed from is unknown", now_s)
            limit_w = max(draw_w - drill.shed_w, 0.0)
        self._samples.keep_from(now_s - LEAST_DRAW_S)
        self._running = _Running(plan, limit_w)
        log.info("drill.begins", drill=plan.id, limit_w=limit_w)
        return None

    def _end(self, running: _Running, why: str, now_s: float) -> Result:
        plan, self._running = running.plan, None
        ends_s = min(now_s, plan.ends_s)
        result = scored(plan.id, plan.starts_s, ends_s, running.limit_w, self._samples, why)
        self._put_off(plan, why, now_s)
        log.info("drill.ends", drill=plan.id, why=why or "over", to_cap_s=result.to_cap_s)
        return result

    def _skip(self, plan: Planned, why: str, now_s: float) -> Result:
        self._put_off(plan, why, now_s)
        log.info("drill.skipped", drill=plan.id, why=why)
        return Result(plan.id, plan.starts_s, plan.starts_s, why=why)

    def _put_off(self, plan: Planned, why: str, now_s: float) -> None:
        self._off.append(plan.id)
        self._notes.pop(plan.drill.name, None)
        if why:
            self._notes[plan.drill.name] = f"{plan.id}: {why}"
            called_off = replace(_event(plan, self._name), cancelled_s=now_s)
            self._cancelled = (*self._cancelled, called_off)[-ABANDONED_MOST:]

    def _near(self, now_s: float) -> list[Planned]:
        plans = [planned(drill, now_s) for drill in self._drills]
        return sorted(plans, key=lambda plan: (plan.starts_s, plan.id))

    def _said(self) -> Said:
        now_s, caps = self._clock_s(), []
        if self._running is not None:
            plan, limit_w = self._running.plan, self._running.limit_w
            caps.append(Cap(plan.id, ORIGIN, limit_w, plan.starts_s, plan.ends_s, CapKind.OPERATOR))
        told = [
            _event(plan, self._name)
            for plan in self._near(now_s)
            if plan.told_s <= now_s and plan.id not in self._off
        ]
        called_off = [one for one in self._cancelled if (one.ends_s or 0.0) > now_s]
        return Said(
            self._name,
            now_s,
            caps=tuple(caps),
            events=(*told, *called_off),
            notes=tuple(self._notes.values()),
            fault=self._trouble,
        )

    def _pause_s(self) -> float:
        now_s = self._clock_s()
        if self._running is not None:
            return max(min(LOOK_S, self._running.plan.ends_s - now_s), 0.01)
        edges = [edge for plan in self._near(now_s) for edge in (plan.told_s, plan.starts_s)]
        waits = [edge - now_s for edge in edges if edge > now_s]
        return max(min([*waits, SLEEP_MOST_S]), 0.01)

    async def _keep(self, done: list[Result]) -> None:
        try:
            await asyncio.to_thread(self._file.write, self.results)
            self._trouble = None
        except OSError as fault:
            self._trouble = f"results are not kept on disk: {fault.strerror or fault}"
            log.error("drill.not_kept", results=[one.id for one in done])


def _event(plan: Planned, source: str) -> GridEvent:
    return GridEvent(plan.id, source, PROGRAM, plan.told_s, plan.starts_s, plan.ends_s)


def _news(before: Said, now: Said) -> bool:
    """Whether something other than the time has changed."""
    return replace(before, heard_s=now.heard_s) != now
