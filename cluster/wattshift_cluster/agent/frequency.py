"""This host's assistance when the grid's frequency falls: sensor, response, and what is told of it.

It needs no controller: a sample goes through the response and into the gates within this process.
It assists, and is no protective relay.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.frequency import Frequency
from wattshift_cluster.grid.frequency.sensor import FrequencySensor, open_sensor
from wattshift_scheduler.frequency.response import Phase, Response, Sample, respond
from wattshift_scheduler.frequency.terms import claims

log = structlog.get_logger()

TICK_S = 0.25
AGAIN_S = 1.0
MOST_EVENTS = 16
"""That are told: a controller that asks every few seconds misses none, for each takes longer."""

Shed = Callable[[float], None]
"""Takes the share to shed, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What a controller writes down, numbered from 1 since this agent started.

    Attributes:
        what: begins, latches, returns, ends; lost and found tell of the sensor.
        at_boot_s: when, boot clock, s.
        share: shed after it.
        hz, v_pu: the last reading; None where there is none.
        reason: in words.
    """

    number: int
    what: str
    at_boot_s: float
    share: float
    hz: float | None
    v_pu: float | None
    reason: str


class FrequencyAssist:
    """Of one agent. All its calls return at once but `run`."""

    def __init__(
        self,
        section: Frequency,
        sensor: FrequencySensor,
        host: str,
        *,
        clock: Callable[[], float] = boot_s,
    ) -> None:
        """Nothing is shed.

        Args:
            section: what is offered.
            sensor: not running yet.
            host: a name that makes this host's random delays its own.
            clock: the samples' clock, s.
        """
        self._section = section
        self._sensor = sensor
        self._terms = section.terms(host)
        self._claims = claims(self._terms, section.sensor)
        self._clock = clock
        self._shed: Shed | None = None
        self._last: Sample | None = None
        self._happened: deque[Happened] = deque(maxlen=MOST_EVENTS)
        self._number = 0
        self.now = Response()

    @classmethod
    def of(cls, config: AgentConfig) -> "FrequencyAssist | None":
        """Of an agent's file; None where its site is not enrolled."""
        section = config.frequency
        return None if section is None else cls(section, open_sensor(section), config.agent.name)

    async def run(self, shed: Shed) -> None:
        """Listen and respond until cancelled. Args: shed: takes the share whenever it changes."""
        self._shed = shed
        log.info("frequency.enrolled", programme=self._section.programme, claims=self._claims.words)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sense())
            group.create_task(self._pass_time())

    def heard(self, sample: Sample) -> None:
        """Take a sample, and act on it before anything else happens."""
        self._last = sample
        self._step(sample)

    def report(self) -> dict[str, Any]:
        """What the controller is told with each answer; see docs/frequency.md."""
        now, last = self.now, self._last
        return {
            "programme": self._section.programme,
            "phase": str(now.phase),
            "share": now.share,
            "reason": now.reason,
            "since_boot_s": now.since_s,
            "latched": now.latched,
            "sheds": now.sheds,
            "hz": None if last is None else last.hz,
            "v_pu": None if last is None else last.v_pu,
            "at_boot_s": None if last is None else last.t_s,
            "fault": self._sensor.fault,
            "quality": "measured" if self._section.replay is None else "emulated",
            "decides_within_s": self._claims.answers_s,
            "claims": list(self._claims.words),
            "events": [asdict(one) for one in self._happened],
        }

    async def _sense(self) -> None:
        """Run the sensor; a fault of ours in it must not stop the agent. Silence does the rest."""
        while True:
            try:
                await self._sensor.run(self.heard)
            except Exception:
                log.exception("frequency.sensor_failed")
            await asyncio.sleep(AGAIN_S)

    async def _pass_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._step(None)

    def _step(self, sample: Sample | None) -> None:
        before = self.now
        self.now = now = respond(self._terms, before, self._clock(), sample)
        if now.share != before.share and self._shed is not None:
            self._shed(now.share)
        for what in _happened(before, now):
            self._note(what)

    def _note(self, what: str) -> None:
        now, last = self.now, self._last
        self._number += 1
        hz, v_pu = (None, None) if last is None else (last.hz, last.v_pu)
        one = Happened(self._number, what, self._clock(), now.share, hz, v_pu, now.reason)
        self._happened.append(one)
        told = log.warning if what in ("begins", "latches", "lost") else log.info
        told(f"frequency.{what}", share=now.share, reason=now.reason)


def _happened(before: Response, now: Response) -> list[str]:
    """What a person would want to have written down of a step."""
    found = []
    if before.share == 0.0 < now.share:
        found.append("begins")
    if now.latched and not before.latched:
        found.append("latches")
    if now.phase is Phase.RETURNING and before.phase is not Phase.RETURNING:
        found.append("returns")
    if now.share == 0.0 < before.share:
        found.append("ends")
    if now.phase is Phase.BLIND and before.phase is Phase.READY:
        found.append("lost")
    if now.phase is Phase.READY and before.phase is Phase.BLIND:
        found.append("found")
    return found
