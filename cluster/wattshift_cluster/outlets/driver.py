"""One PDU or cabinet of contactors: outlets are read, switched, and read back.

A wire says how a protocol reads and commands; `Pdu` puts around every wire what must hold for all:
one exchange at a time (the controllers of these devices are slow and few of them queue), a deadline
for each, and a switch that counts only when the outlet's own state says so.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.errors import Refused, Unreachable

MOST_W = 100_000.0
"""No outlet carries more; a larger reading is an error of the meter."""

LOOK_AGAIN_S = 0.1


class PduUnreachable(Unreachable):
    """The PDU gave no usable answer in time."""

    def __init__(self, pdu: str, doing: str, reason: str) -> None:
        super().__init__(f"{pdu}: {doing}: {reason}")
        self.pdu = pdu
        self.doing = doing
        self.reason = reason


class PduRefused(Refused):
    """The PDU declined, or accepted and did not do it."""

    def __init__(self, pdu: str, doing: str, reason: str) -> None:
        super().__init__(f"{pdu}: {doing}: {reason}")
        self.pdu = pdu
        self.doing = doing
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OutletReading:
    """What one outlet says of itself.

    Attributes:
        at_boot_s: boot clock of this host when the answer was complete, s.
        on: whether it is switched on; None while it switches or where it cannot tell.
        watts_w: draw, W; None where the outlet is not metered or the value makes no sense.
    """

    at_boot_s: float
    on: bool | None
    watts_w: float | None


class Wire(Protocol):
    """How one protocol speaks. Each method is one bounded exchange or a few.

    Raises PduUnreachable and PduRefused; deadlines are set around it by `Pdu`.
    """

    async def read(self, outlets: Sequence[str]) -> Mapping[str, tuple[bool | None, float | None]]:
        """State and watts of each outlet that was asked for."""
        ...

    async def command(self, outlet: str, *, on: bool) -> None:
        """Tell the outlet to switch; returning means that the command was accepted."""
        ...

    async def feed(self) -> None:
        """Write to the watchdog once. Raises PduRefused where there is none."""
        ...

    async def close(self) -> None:
        """Let go of connections; sends nothing."""
        ...


class Pdu:
    """A wire with deadlines, one exchange at a time, and read-back.

    Args:
        name: in messages.
        wire: how it is spoken to.
        deadline_s: for each exchange, s.
        settle_s: how long after an accepted command the outlet may still show the old state, s.
    """

    def __init__(self, name: str, wire: Wire, *, deadline_s: float, settle_s: float) -> None:
        self.name = name
        self._wire = wire
        self._deadline_s = deadline_s
        self._settle_s = settle_s
        self._line = asyncio.Lock()

    async def read(self, outlets: Sequence[str]) -> dict[str, OutletReading]:
        """Every outlet asked for; one that the PDU did not report has no state and no watts.

        Raises: PduUnreachable, PduRefused.
        """
        async with self._line, self._deadline("read"):
            found = await self._wire.read(outlets)
        now_s = boot_s()
        unknown = (None, None)
        return {
            outlet: OutletReading(now_s, on, sane_w(watts_w))
            for outlet in outlets
            for on, watts_w in (found.get(outlet, unknown),)
        }

    async def switch(self, outlet: str, *, on: bool) -> OutletReading:
        """Switch one outlet and see it done; safe to repeat.

        Raises:
            PduUnreachable: no usable answer in time; the outlet may have switched or not.
            PduRefused: declined, or accepted and not carried out within `settle_s`.
        """
        doing = f"switch outlet {outlet} {'on' if on else 'off'}"
        async with self._line, self._deadline(doing):
            await self._wire.command(outlet, on=on)
        until_s = boot_s() + self._settle_s
        while True:
            seen = (await self.read([outlet]))[outlet]
            if seen.on is on:
                return seen
            if boot_s() >= until_s:
                shown = {True: "still on", False: "still off", None: "in an unknown state"}
                raise PduRefused(self.name, doing, f"accepted, but the outlet is {shown[seen.on]}")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def feed(self) -> None:
        """Keep the contactor closed for one more watchdog period.

        Raises: PduUnreachable, PduRefused.
        """
        async with self._line, self._deadline("feed the watchdog"):
            await self._wire.feed()

    async def close(self) -> None:
        """Let go of connections; switches nothing."""
        async with self._line:
            await self._wire.close()

    @asynccontextmanager
    async def _deadline(self, doing: str) -> AsyncIterator[None]:
        """One exchange: late or broken, it ends in our error."""
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError:
            reason = f"no answer within {self._deadline_s:g} s"
            raise PduUnreachable(self.name, doing, reason) from None
        except OSError as fault:
            reason = fault.strerror or type(fault).__name__
            raise PduUnreachable(self.name, doing, reason) from fault


def sane_w(watts_w: float | None) -> float | None:
    """A reported draw, or None unless it is a finite number that an outlet can carry."""
    if watts_w is None or not math.isfinite(watts_w) or not 0.0 <= watts_w <= MOST_W:
        return None
    return watts_w
