"""Looks at one ASIC while it is measured: what a window of them shows, and its figures. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wattshift_cluster.agent.asics.contact import Contact
from wattshift_cluster.agent.asics.supply import Draw, Supply
from wattshift_cluster.fleet.curtail import Command
from wattshift_cluster.fleet.levels import (
    GRAIN_SHARE,
    GRAIN_W,
    Level,
    Step,
    Trace,
    level,
    settling_s,
)

OWN, OUTLET, HASHES = "own", "outlet", "hashes"
NAMES = (OUTLET, OWN, HASHES)
"""What a look tells, the most trusted first."""

Levels = dict[str, Level]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the machine, and where its command stands.

    Attributes:
        now_s: boot clock, s.
        at_s: when its sample was taken; None: this look brought none.
        own_w, outlet_w: draw by its own word and by its outlets, W; None where unknown.
        estimated: its own watts are the firmware's estimate.
        hashrate_h_per_s, temperature_c: None where unknown.
        held: why it may not hold what it is asked (a lock, silence); None when it may.
    """

    now_s: float
    command: Command
    at_s: float | None = None
    own_w: float | None = None
    outlet_w: float | None = None
    estimated: bool = False
    hashrate_h_per_s: float | None = None
    temperature_c: float | None = None
    held: str | None = None

    def value(self, name: str) -> float:
        """A figure as `learn.level` weighs it; hashes count in GH/s, whose grain is that of W."""
        rate = self.hashrate_h_per_s
        hashes = None if rate is None else rate / 1e9
        found = {OWN: self.own_w, OUTLET: self.outlet_w, HASHES: hashes}[name]
        return float("nan") if found is None else found


class Seen(Protocol):
    """What of a machine is looked at."""

    contact: Contact
    command: Command
    supply: Supply | None

    @property
    def barred(self) -> str | None:
        """Why nothing may be written to it."""
        ...

    @property
    def why_asleep(self) -> str | None:
        """Why it may do nothing but sleep."""
        ...

    @property
    def dark(self) -> Draw | None:
        """The proof that it has no power."""
        ...


def look_at(device: Seen, now_s: float) -> Look:
    """The machine as it was seen last."""
    contact, command, supply = device.contact, device.command, device.supply
    held = device.barred or device.why_asleep
    if device.dark is not None:
        held = held or "it has no power"
    if not contact.sure or command.silent_s is not None:
        held = held or f"it does not answer: {contact.error}"
    seen = contact.seen
    if seen is None or contact.error is not None:
        return Look(now_s, command, held=held)
    draw = None if supply is None else supply.draw(contact)
    return Look(
        now_s,
        command,
        at_s=seen.at_boot_s,
        own_w=seen.watts_w,
        outlet_w=None if draw is None else draw.watts_w,
        estimated=seen.estimated,
        hashrate_h_per_s=seen.hashrate_h_per_s,
        temperature_c=seen.temperature_c,
        held=held,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured at one point; None is unknown. Errors are standard errors, W.

    Attributes:
        own_w, own_error_w: by its own word.
        outlet_w, outlet_error_w: by its outlets.
        estimated: its own word is an estimate.
        hashrate_h_per_s, temperature_c: of the same window.
    """

    own_w: float | None
    own_error_w: float | None
    outlet_w: float | None
    outlet_error_w: float | None
    estimated: bool
    hashrate_h_per_s: float | None
    temperature_c: float | None

    @property
    def watts_w(self) -> float | None:
        """The best figure: the outlet's where there is one, W."""
        return self.own_w if self.outlet_w is None else self.outlet_w

    @property
    def error_w(self) -> float | None:
        """Standard error of `watts_w`; None where the draw did not hold still."""
        return self.own_error_w if self.outlet_w is None else self.outlet_error_w

    @property
    def source(self) -> str | None:
        """Who says `watts_w`: "outlet", "sensor", or the firmware's "estimate"."""
        if self.outlet_w is not None:
            return "outlet"
        if self.own_w is None:
            return None
        return "estimate" if self.estimated else "sensor"

    @property
    def j_per_th(self) -> float | None:
        """Energy of 10¹² hashes, J; None where it is unknown or nothing is hashed."""
        if self.watts_w is None or not self.hashrate_h_per_s:
            return None
        return self.watts_w / (self.hashrate_h_per_s / 1e12)


def trace(looks: Sequence[Look], name: str) -> Trace:
    """One of the `NAMES` over time."""
    at_s = np.array([look.at_s for look in looks], dtype=np.float64)
    return Trace(at_s, np.array([look.value(name) for look in looks], dtype=np.float64))


def levels_of(window: Sequence[Look]) -> Levels:
    """What holds still in a window."""
    found = {name: level(trace(window, name).watts_w) for name in NAMES}
    return {name: one for name, one in found.items() if one is not None}


def steady(window: Sequence[Look], levels: Levels) -> bool:
    """Whether all that is told holds still, and at least one thing is told."""
    told = {name for name in NAMES if np.isfinite(trace(window, name).watts_w).any()}
    return bool(told) and told <= levels.keys()


def figures_of(window: Sequence[Look], levels: Levels) -> Figures:
    """The figures of a window; what did not hold still is its last sample, without an error."""
    own, outlet, hashes = (levels.get(name) for name in (OWN, OUTLET, HASHES))
    warm = [look.temperature_c for look in window if look.temperature_c is not None]
    return Figures(
        own_w=_last(window, OWN) if own is None else own.watts_w,
        own_error_w=_error_w(own),
        outlet_w=_last(window, OUTLET) if outlet is None else outlet.watts_w,
        outlet_error_w=_error_w(outlet),
        estimated=any(look.estimated for look in window),
        hashrate_h_per_s=None if hashes is None else hashes.watts_w * 1e9,
        temperature_c=float(np.median(warm)) if warm else None,
    )


def settle_s(
    looks: Sequence[Look], before: Levels, after: Levels, accepted_s: float
) -> float | None:
    """Seconds from the accepted command to the settled draw, by the best that tells of both."""
    for name in NAMES:
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None:
            step = Step(old.watts_w - new.watts_w, 0.0, old, new)
            return settling_s(trace(looks, name), accepted_s, step)
    return None


def _error_w(one: Level | None) -> float | None:
    """Its error, at least the last digit: a figure that stands still is not exact."""
    return None if one is None else max(one.error_w, GRAIN_W, GRAIN_SHARE * one.watts_w)


def _last(window: Sequence[Look], name: str) -> float | None:
    values = trace(window, name).watts_w
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None
