"""What an agent says over the wire: inventory, readings, counters. None is unknown, never zero."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal["gpu", "cpu", "asic"]
Quality = Literal["measured", "modelled", "emulated"]
Source = Literal["sensor", "estimate", "outlet", "learnt"]


@dataclass(frozen=True, slots=True)
class Point:
    """One way a device can run: watts (W), hashes per second, seconds to get there.

    What it earns beside SHA-256 hashes is its owner's word, USD/h.
    """

    mode: str
    watts_w: float
    hashrate_h_per_s: float
    transition_s: float
    revenue_usd_per_h: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is and what it offers.

    Attributes:
        id: unique in the site; it also names the gate's files.
        kind, model, firmware, algorithm: what it is.
        nameplate_w: the most it draws at any point, W; `tolerance` is the share it may exceed it.
        continuous: any watts between the points can be leased.
        fenced: falls to its safe point by itself when its lease ends, even if this agent is dead.
        safe_w, power_on_w: draw at the safe point, and after a power cycle with no word from us, W.
        host: the machine whose compute it overlaps, or None.
        quality: how its watts are had.
        points: ascending in watts; the first is where a shed ends.
        wear_usd_per_cycle: what one sleep and wake wears off it, USD.
        table_bytes: of its card's memory that it keeps a table in for what it mines; 0: none. Where
            there is one, mode "empty" is offered, too: the first point, with the table freed.
        table_build_s: how long that takes to be built, s.
    """

    id: str
    kind: Kind
    model: str
    firmware: str
    algorithm: str
    nameplate_w: float
    tolerance: float
    continuous: bool
    fenced: bool
    safe_w: float
    power_on_w: float
    host: str | None
    quality: Quality
    points: tuple[Point, ...]
    wear_usd_per_cycle: float = 0.0
    table_bytes: int = 0
    table_build_s: float = 0.0

    def wire(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a device has hashed and found since this agent started; None where we cannot know."""

    hashes: int | None = None
    shares_found: int | None = None
    accepted: int | None = None
    rejected: int | None = None
    lost: int | None = None
    accepted_difficulty: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The last sample of a device.

    Attributes:
        at_boot_s: when it was taken, boot clock, s.
        watts_w, enforced_limit_w, hashrate_h_per_s, temperature_c: None where not known.
        mode: what the device itself says it does.
        foreign_write: it does something that we did not write.
        error: why it cannot be read or set; None while all is well.
        note: what a person should know of it although all is well; None without.
        source: who says its watts: a "sensor", the firmware's "estimate", its "outlet", or what was
            "learnt" of its point; None where nobody does, or where there is but one way.
        cycles: wakes from sleep that we have ever caused; None where that is not counted or known.
        table_held_bytes: of its card's memory that its table takes now; None unknown, or no table.
        table_progress: of that built, 0 to 1; None as above.
        clients: processes that use its gate; None without a table, where nobody asks.
    """

    device: str
    at_boot_s: float
    quality: Quality
    watts_w: float | None = None
    enforced_limit_w: float | None = None
    hashrate_h_per_s: float | None = None
    temperature_c: float | None = None
    mode: str | None = None
    foreign_write: bool = False
    error: str | None = None
    note: str | None = None
    source: Source | None = None
    cycles: int | None = None
    table_held_bytes: int | None = None
    table_progress: float | None = None
    clients: int | None = None
    counters: Counters = Counters()

    def wire(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        """As it goes over the wire, with the lease in force."""
        row = {name: getattr(self, name) for name in _READING}
        for name in ("watts_w", "enforced_limit_w", "hashrate_h_per_s", "temperature_c"):
            row[name] = finite(row[name])
        counters = {name: getattr(self.counters, name) for name in _COUNTERS}
        return {**row, "counters": counters, "lease": lease}


_COUNTERS = tuple(field.name for field in fields(Counters))
_READING = tuple(field.name for field in fields(Reading) if field.name != "counters")
"""Their names once: `asdict` copies deeply, and a reading goes out for every device and second."""


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None
