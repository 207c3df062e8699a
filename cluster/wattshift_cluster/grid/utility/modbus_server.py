"""The utility's Modbus server as a source: the master's set point is a cap while it says so, and an
event for whoever settles.

The cap is said before the write is acknowledged. A heartbeat that stays away adds the fallback cap,
it never takes the set point away. A set point that cannot be kept on disk holds all the same, since
to refuse it would refuse a lower cap; that is told.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from wattshift_cluster.config.fields import split_address
from wattshift_cluster.config.utility import UtilityModbus
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.said import Said, Say
from wattshift_cluster.grid.utility.frames import Code, RequestRefused
from wattshift_cluster.grid.utility.held import Held, HeldFile, Pulse, taken_apart, written
from wattshift_cluster.grid.utility.port import ModbusPort
from wattshift_cluster.grid.utility.registers import TABLE, UNKNOWN_U16, Value, encode
from wattshift_cluster.grid.utility.status import SiteFigures, SiteStatus, status_values

NOTES_PERIOD_S = 10.0
"""How often counts of refusals are told, and a busy port is tried again."""

log = structlog.get_logger()


class UtilityModbusSource:
    """`[utility.modbus]` as a running source (see `said.Source`).

    Attributes:
        port: where it listens; None before it does.
    """

    def __init__(
        self,
        config: UtilityModbus,
        state_dir: Path,
        status: SiteStatus = SiteFigures,
        *,
        connection_w: float,
        name: str = "utility",
        clock_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read what was kept; nothing listens yet.

        Args:
            state_dir: the set point is kept there, as `utility-modbus.json`.
            status: what the utility may read of the site.
            connection_w: the site's connection; no set point may exceed it, W.
            clock_s: unix time, s.
            steady_s: a clock that nobody sets, s; the heartbeat is timed by it.
        """
        self.port: int | None = None
        self._config = config
        self._name = name
        self._status = status
        self._connection_w = connection_w
        self._clock_s, self._steady_s = clock_s, steady_s
        self._file = HeldFile(state_dir / "utility-modbus.json")
        self._held, self._unread = self._file.read()
        self._unkept: str | None = None
        self._trouble: str | None = None
        self._heard_s = 0.0
        self._pulse = Pulse(config.heartbeat_s)
        self._server = ModbusPort(self, config.peers)
        self._say: Say | None = None
        self._said: Said | None = None
        self._writing = asyncio.Lock()
        self._news = asyncio.Event()

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._name

    async def run(self, say: Say) -> None:
        """Speak until cancelled; faults of the outside world are said, not raised."""
        self._say = say
        self._tell()
        try:
            await self._begin()
            await self._listen()
            while True:
                due_s = self._pulse.due_s(self._steady_s())
                wait_s = NOTES_PERIOD_S if due_s is None else min(due_s, NOTES_PERIOD_S)
                self._news.clear()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                except TimeoutError:
                    self._tell()
        finally:
            await self._server.close()

    async def _begin(self) -> None:
        """Time a set point that was kept without a time, or that no longer curtails the site."""
        held = self._held.timed(self._connection_w, self._clock_s())
        if held is not self._held:
            self._held = held
            await self._keep(held)

    async def _listen(self) -> None:
        host, port = split_address(self._config.listen)
        while self.port is None:
            try:
                self.port = await self._server.start(host, port)
                self._trouble = None
            except WattshiftError as fault:
                self._trouble = str(fault)
                self._tell()
                await asyncio.sleep(NOTES_PERIOD_S)
        self._tell()

    # The registers

    def read(self, address: int, count: int) -> list[int]:
        """Words of the table. Raises: RequestRefused, a word that the table does not hold."""
        self._heard_s = self._clock_s()
        values = self._values()
        words: dict[int, int] = {}
        for register in TABLE:
            if register.address < address + count and register.ends > address:
                laid = encode(register, values[register.name])
                words |= dict(enumerate(laid, register.address))
        missing = [at for at in range(address, address + count) if at not in words]
        if missing:
            raise RequestRefused(Code.ADDRESS, f"no register {missing[0]}")
        return [words[at] for at in range(address, address + count)]

    async def write(self, address: int, words: tuple[int, ...]) -> None:
        """Take values, all or none; what they ask is said before this returns.

        Raises: RequestRefused.
        """
        values = taken_apart(address, words)
        async with self._writing:
            held = written(self._held, values, self._connection_w)
            held = held.timed(self._connection_w, self._clock_s())
            if "heartbeat" in values:
                beat = values["heartbeat"]
                # All ones is a count like any other: the next one after it is 0.
                self._pulse.beat(UNKNOWN_U16 if beat is None else int(beat), self._steady_s())
                self._news.set()
            self._heard_s = self._clock_s()
            changed, self._held = held != self._held, held
            if changed:
                log.info("utility.setpoint", **_shown(held))
            self._tell()
            if changed:
                await self._keep(held)

    async def _keep(self, held: Held) -> None:
        try:
            await asyncio.to_thread(self._file.write, held)
            self._unkept = self._unread = None
        except OSError as fault:
            self._unkept = f"the set point is not kept on disk: {fault.strerror or fault}"
            log.error("utility.not_kept", reason=self._unkept)
        self._tell()

    # What is said and shown

    def _tell(self) -> None:
        """Say what holds now, if it is news."""
        if self._say is None:
            return
        fallback_w = self._config.fallback_w if self._lost() else None
        said = Said(
            self._name,
            self._heard_s,
            caps=self._held.caps(fallback_w),
            events=self._held.called.events(self._name, self._clock_s()),
            notes=self._notes(),
            fault=self._fault(),
        )
        if self._said is None or _news(self._said, said):
            self._said = said
            self._say(said)

    def _lost(self) -> bool:
        return self._pulse.lost(self._steady_s())

    def _fault(self) -> str | None:
        parts = [text for text in (self._trouble, self._unread, self._unkept) if text]
        if self._lost():
            parts.append(f"no heartbeat for {self._pulse.within_s:g} s: the fallback holds")
        return "; ".join(parts) or None

    def _notes(self) -> tuple[str, ...]:
        counts = self._server.counts
        told = []
        if counts.strangers:
            told.append(f"{counts.strangers} connections from outside peers were cut off")
        if counts.crowded:
            told.append(f"{counts.crowded} connections too many were cut off")
        if counts.refused:
            told.append(f"{counts.refused} requests were refused; the last: {counts.last_refusal}")
        return tuple(told)

    def _values(self) -> dict[str, Value]:
        held, now_s = self._held, self._steady_s()
        lost = self._pulse.lost(now_s)
        caps = held.caps(self._config.fallback_w if lost else None)
        status = status_values(
            self._status(),
            connection_w=self._connection_w,
            own_cap_w=min((cap.limit_w for cap in caps), default=None),
            heartbeat_age_s=self._pulse.age_s(now_s),
            heartbeat_lost=lost,
            not_kept=self._unkept is not None,
        )
        ramp_w_per_s = 0.0 if held.ramp_w_per_s == float("inf") else held.ramp_w_per_s
        return status | {
            "setpoint_w": held.setpoint_w,
            "setpoint_float_w": held.setpoint_w,
            "ramp_w_per_s": ramp_w_per_s,
            "enable": int(held.enabled),
            "heartbeat": self._pulse.value,
            "priority": held.priority,
        }


def _news(before: Said, now: Said) -> bool:
    """Whether it is worth saying; a master asks every second, so contact alone seldom is."""
    if now.heard_s - before.heard_s >= NOTES_PERIOD_S:
        return True
    told = (before.caps, before.events, before.notes, before.fault)
    return told != (now.caps, now.events, now.notes, now.fault)


def _shown(held: Held) -> dict[str, object]:
    return {"setpoint_w": held.setpoint_w, "enabled": held.enabled, "priority": held.priority}
