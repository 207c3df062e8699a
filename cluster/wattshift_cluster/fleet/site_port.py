"""A site as its commissioning sees it: looks, two commands, and the time between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from wattshift_cluster.errors import TryLater

Above: TypeAlias = str | tuple[str, str] | None
"""What a feeder hangs on: one other, two where it is fed from both, or None for the root."""

Tree: TypeAlias = Mapping[str, Above]


class Stopped(TryLater):
    """The commissioning was broken off; what was pulsed was woken."""


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """One device as the controller sees it; None is unknown.

    `watts_w` is a reading, its own or its outlet's; what was learnt of it earlier is none.
    """

    id: str
    kind: str
    model: str
    feeder: str
    mode: str | None
    state: str
    watts_w: float | None
    asleep: bool | None
    hashrate_h_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The site at one moment.

    Attributes:
        at_s: when, on the port's clock.
        event: why now is no time for it (a cap is in force); None when it is.
        tree: what each feeder hangs on.
        meters: fresh draw by feeder, W; a feeder without a meter is left out, None is unknown.
        devices: all of them.
    """

    at_s: float
    event: str | None
    tree: Tree
    meters: Mapping[str, float | None]
    devices: tuple[DeviceLook, ...]


class Port(Protocol):
    """The site. `look` and `command` raise a WattshiftError."""

    def look(self) -> Look:
        """The site now."""
        ...

    def command(self, action: str, device: str, reason: str) -> None:
        """Have one device "sleep" or "wake"; returns when that was accepted."""
        ...

    def pause(self, span_s: float) -> None:
        """Let time pass."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is done.

    Attributes:
        pulse_s: how long a machine sleeps.
        period_s: between two looks.
        restore_s: how long it may take to draw again what it drew before.
        expected_w: step of a machine that reports no watts, to judge whether it can be seen.
    """

    pulse_s: float = 60.0
    period_s: float = 1.0
    restore_s: float = 900.0
    expected_w: float = 1500.0

    @property
    def window_s(self) -> float:
        """Levels are taken over half a pulse: the other half is left for settling."""
        return self.pulse_s / 2.0
