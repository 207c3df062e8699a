"""Which leases an agent takes. Pure: the clock and the disk come in through the caller.

The rules, in this order. Whatever breaks one is refused with the reason.

1. The lease speaks of this boot, this device and one of its modes, with watts it can have.
2. It is valid now, and for no longer than five minutes: a dead-man that far off protects nobody.
3. A lower epoch, or a lower sequence of the same epoch, is an older controller or a late message.
   It is refused, unless it lowers the watts: lowering is always taken, but it renews nothing, and
   the newer controller's lease stays the one to beat (invariant I6).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

LONGEST_TTL_S = 300.0
MOST_NUMBER = 2**63 - 1
WATTS_SLACK = 0.001
"""Share by which a lease may lie below its mode's watts: both sides round."""


class LeaseMalformed(Exception):
    """A lease that lacks a field or has one of another type."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to draw up to `watts_w` in `mode` until `valid_until_boot_s` (boot clock, s)."""

    device: str
    epoch: int
    sequence: int
    mode: str
    watts_w: float
    valid_until_boot_s: float

    @classmethod
    def parse(cls, fields: object) -> "Lease":
        """From the wire. Raises: LeaseMalformed."""
        if not isinstance(fields, dict):
            raise LeaseMalformed("a lease is an object")
        return cls(
            device=_text(fields, "device"),
            epoch=_count(fields, "epoch"),
            sequence=_count(fields, "sequence"),
            mode=_text(fields, "mode"),
            watts_w=_number(fields, "watts_w"),
            valid_until_boot_s=_number(fields, "valid_until_boot_s"),
        )

    @property
    def rank(self) -> tuple[int, int]:
        """Newer leases rank higher."""
        return self.epoch, self.sequence

    def wire(self) -> dict[str, Any]:
        """As readings carry it; the device is named there."""
        return {name: getattr(self, name) for name in _WIRED}


_WIRED = tuple(field.name for field in fields(Lease) if field.name != "device")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a device can be leased.

    Attributes:
        modes: watts of each point; the least is the safe end and can always be leased.
        most_w: the most watts that make sense, W.
        continuous: watts below the mode's own are a limit, not a contradiction.
        closed: why nothing but the least mode can be leased now; None when all can.
    """

    modes: Mapping[str, float]
    most_w: float
    continuous: bool = False
    closed: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a lease was taken, why not, and the lease that holds from now on."""

    accepted: bool
    reason: str | None
    lease: Lease | None


def judge(
    asked: Lease, held: Lease | None, terms: Terms | None, highest_epoch: int, now_s: float
) -> Verdict:
    """Decide about one lease.

    Args:
        asked: the lease that came in.
        held: the unexpired lease of the device, or None at its safe point.
        terms: of the device; None if there is no such device.
        highest_epoch: the highest epoch this agent ever took.
        now_s: the boot clock, s.
    """
    reason = _unfit(asked, terms) or _untimely(asked, now_s)
    if reason is not None:
        return Verdict(False, reason, held)
    fence = (highest_epoch, held.sequence if held and held.epoch == highest_epoch else 0)
    if asked.rank >= fence:
        return Verdict(True, None, asked)
    if held is None or asked.watts_w > held.watts_w:
        return Verdict(False, f"older than epoch {fence[0]} sequence {fence[1]}", held)
    lowered = replace(
        held,
        mode=asked.mode,
        watts_w=asked.watts_w,
        valid_until_boot_s=min(held.valid_until_boot_s, asked.valid_until_boot_s),
    )
    return Verdict(True, None, lowered)


class LeaseBook:
    """The leases in force, by device."""

    def __init__(self) -> None:
        """Nothing is leased."""
        self._held: dict[str, Lease] = {}

    def held(self, device: str, now_s: float) -> Lease | None:
        """The device's lease, None when it has none or it has expired."""
        lease = self._held.get(device)
        return lease if lease is not None and now_s < lease.valid_until_boot_s else None

    def take(self, lease: Lease) -> None:
        """Write down a lease that `judge` let through."""
        self._held[lease.device] = lease

    def drop(self, device: str) -> None:
        """The device holds nothing any more."""
        self._held.pop(device, None)

    def expire(self, now_s: float) -> tuple[Lease, ...]:
        """Drop the leases that have ended and return them."""
        ended = tuple(x for x in self._held.values() if now_s >= x.valid_until_boot_s)
        for lease in ended:
            del self._held[lease.device]
        return ended

    def next_expiry_s(self) -> float:
        """Boot clock at which the next lease ends; infinite when none is held."""
        return min((x.valid_until_boot_s for x in self._held.values()), default=math.inf)


def _unfit(asked: Lease, terms: Terms | None) -> str | None:
    if terms is None:
        return "unknown device"
    if asked.mode not in terms.modes:
        return f"unknown mode {asked.mode[:40]!r}"
    if terms.modes[asked.mode] <= min(terms.modes.values()):
        return None  # also where two modes draw as little: one of them frees memory, too
    if terms.closed is not None:
        return terms.closed
    if asked.watts_w > terms.most_w:
        return f"{asked.watts_w:.0f} W is more than the device's {terms.most_w:.0f} W"
    needed_w = terms.modes[asked.mode]
    if not terms.continuous and asked.watts_w < needed_w * (1.0 - WATTS_SLACK):
        return f"{asked.mode} draws {needed_w:.0f} W and the lease allows {asked.watts_w:.0f} W"
    return None


def _untimely(asked: Lease, now_s: float) -> str | None:
    left_s = asked.valid_until_boot_s - now_s
    if left_s <= 0:
        return f"expired {-left_s:.1f} s ago"
    if left_s > LONGEST_TTL_S:
        return f"valid for {left_s:.0f} s; {LONGEST_TTL_S:.0f} s is the longest"
    return None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise LeaseMalformed(f"{name} is not a text of 1 to 200 characters")
    return value


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_NUMBER:
        raise LeaseMalformed(f"{name} is not a number from 0 to 2^63 - 1")
    return value


def _number(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LeaseMalformed(f"{name} is not a number")
    number = float(value) if abs(value) < 1e300 else math.inf
    if not math.isfinite(number) or number < 0:
        raise LeaseMalformed(f"{name} is negative or not finite")
    return number
