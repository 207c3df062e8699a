"""The outlets of one emulated PDU: relays that take a moment, meters, a watchdog, faults.

What hangs on an outlet is a function that gives the watts it would draw; an open outlet draws none.
"""

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


class OutletFault(enum.StrEnum):
    """What is wrong with a strip."""

    NONE = "none"
    LIE = "lie"
    """Accepts a command and switches nothing."""
    MUTE = "mute"
    """Takes requests and never answers."""
    REFUSE = "refuse"
    """Declines every command."""
    BLIND = "blind"
    """Switches, but its meters report nothing."""


@dataclass(slots=True)
class _Relay:
    on: bool
    draw_w: Callable[[], float]
    goal: bool
    since_s: float = 0.0
    switchings: list[tuple[float, bool]] = field(default_factory=list)


class Strip:
    """A strip of outlets. Not thread-safe.

    Args:
        outlets: their ids.
        clock: monotonic seconds.
        takes_s: from a command to the moved relay, s.
        opens_after_s: its watchdog opens every outlet so long after the last feed; None: it has
            none. The watchdog runs from the start.
        on: whether outlets start closed.
    """

    KEPT = 256
    """Switchings that an outlet remembers."""

    def __init__(
        self,
        outlets: Iterable[str],
        *,
        clock: Callable[[], float],
        takes_s: float = 0.05,
        opens_after_s: float | None = None,
        on: bool = True,
    ) -> None:
        self._clock = clock
        self._takes_s = takes_s
        self._relays = {one: _Relay(on, lambda: 0.0, on) for one in outlets}
        self.opens_after_s = opens_after_s
        self._fed_s = clock()
        self.feeds = 0
        self.fault = OutletFault.NONE

    @property
    def outlets(self) -> tuple[str, ...]:
        """Their ids, in order."""
        return tuple(self._relays)

    def plug(self, outlet: str, draw_w: Callable[[], float]) -> None:
        """Hang a load on an outlet: the watts that it draws while the outlet is closed."""
        self._relays[outlet].draw_w = draw_w

    def command(self, outlet: str, *, on: bool) -> bool:
        """Take a command. False where it is declined; raises KeyError for no such outlet."""
        relay = self._settled(outlet)
        if self.fault is OutletFault.REFUSE:
            return False
        if self.fault is not OutletFault.LIE and relay.goal is not on:
            relay.goal, relay.since_s = on, self._clock()
            if len(relay.switchings) < self.KEPT:
                relay.switchings.append((relay.since_s, on))
        return True

    def feed(self) -> None:
        """Start the watchdog's time afresh. Outlets that it opened stay open until commanded."""
        self._bite()
        self._fed_s = self._clock()
        self.feeds += 1

    def on(self, outlet: str) -> bool:
        """Whether the outlet is closed now. Raises KeyError."""
        return self._settled(outlet).on

    def watts_w(self, outlet: str) -> float:
        """What the outlet really carries, W; NaN where its load is unknown. Raises KeyError."""
        relay = self._settled(outlet)
        return relay.draw_w() if relay.on else 0.0

    def reported_w(self, outlet: str) -> float | None:
        """What its meter says; None while it is blind or the load unknown. Raises KeyError."""
        watts_w = self.watts_w(outlet)
        return None if self.fault is OutletFault.BLIND or math.isnan(watts_w) else watts_w

    def switchings(self, outlet: str) -> tuple[tuple[float, bool], ...]:
        """When the outlet was commanded to another state, and to which. Raises KeyError."""
        return tuple(self._relays[outlet].switchings)

    def _settled(self, outlet: str) -> _Relay:
        self._bite()
        relay = self._relays[outlet]
        if relay.goal is not relay.on and self._clock() >= relay.since_s + self._takes_s:
            relay.on = relay.goal
        return relay

    def _bite(self) -> None:
        if self.opens_after_s is None or self._clock() < self._fed_s + self.opens_after_s:
            return
        for relay in self._relays.values():
            relay.on = relay.goal = False
