"""How much of what a meter says is believed, pure: each flaw by its name, in one place.

A reading is believed, corrected by a rule, or unknown; never is it made smaller than what was
metered. So nothing here can raise what a site may draw.
"""

import math
from dataclasses import dataclass, field, replace

from wattshift_cluster.grid.meters.counter import CARRIES_SHARE, Count, count
from wattshift_cluster.grid.meters.reading import Finding, Flaw

IMPOSSIBLE_SHARE = 10.0
"""Share of the limit that no connection ever carries, not even into a fault behind its fuse."""

BEYOND_SAMPLES = 3
"""Samples in a row beyond what a connection carries for minutes that are then believed: the site
sheds for nothing, if they are wrong."""

NOISE_SHARE = 0.005
"""Share of the limit that a meter of class 0.5 may be off near zero."""

MOVED_SHARE = 0.05
"""Share of the limit by which devices must have moved before a meter that stands still is odd."""

SETTLE_S = 15.0
"""Devices tell their watts up to so much later than the meter shows them."""

MIRROR_LOW, MIRROR_HIGH = 0.75, 1.5
"""A reading with the wrong sign lies within these shares of the devices' sum; above it there is
what the site draws beside, also MIRROR_ROOM_SHARE of the limit."""

MIRROR_ROOM_SHARE = 0.1

WINDOW_S = 30.0
STEP_SHARE = 0.1
VOTES = 3
"""A site that may export has its sign judged by steps of its devices, at least so large, over
windows this long: so many in a row the wrong way are no chance."""

LEAST_HZ, MOST_HZ = 40.0, 70.0
MOST_VOLTS_V = 1e6


@dataclass(frozen=True, slots=True)
class Rules:
    """What is possible at one meter.

    Attributes:
        limit_w: the limit of the connection behind it, W.
        exports: power may flow out: there is generation behind it.
        frozen_after_s: how long it may stand still after devices have moved, s.
    """

    limit_w: float
    exports: bool = False
    frozen_after_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Raw:
    """One sample as the meter told it.

    Attributes:
        watts_w: NaN is no number, None is unknown to the meter.
        at_s: by the meter's clock, unix time, s.
        taken_s: by a clock of ours that nobody sets, s.
        energy_wh, wraps_wh: its counter, and where that starts again.
        hz, volts_v: frequency and the lowest phase.
        devices_w: what devices draw in sum by their own word, W; None is unknown.
    """

    watts_w: float | None
    at_s: float
    taken_s: float
    energy_wh: float | None = None
    wraps_wh: float | None = None
    hz: float | None = None
    volts_v: float | None = None
    devices_w: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is believed of a sample; None is unknown."""

    watts_w: float | None
    energy_wh: float | None
    hz: float | None
    volts_v: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Still:
    """How long a meter has told the same value.

    Attributes:
        watts_w: that value, W.
        since_s: since when, steady s.
        devices_w: the devices' sum once they had settled; None: not yet.
        moved_s: since when the sum has been far from that; None: it is not.
    """

    watts_w: float
    since_s: float
    devices_w: float | None = None
    moved_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """Steps of the devices that the meter showed the wrong way, in a row, from an anchor on."""

    watts_w: float
    devices_w: float
    at_s: float
    votes: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the samples before."""

    at_s: float | None = None
    beyond: int = 0
    still: Still | None = None
    sign: Sign | None = None
    counted: Count = field(default_factory=Count)


def judge(rules: Rules, memory: Memory, raw: Raw) -> tuple[Memory, Verdict]:
    """Judge one new sample. Returns what to remember, and what is believed."""
    if memory.at_s is not None and raw.at_s < memory.at_s:
        back_s = memory.at_s - raw.at_s
        text = f"the meter's clock went back by {back_s:,.1f} s"
        memory = replace(memory, at_s=raw.at_s, still=None, sign=None)
        return memory, Verdict(None, None, None, None, (Finding(Flaw.BACKWARDS, text),))
    memory = replace(memory, at_s=raw.at_s)
    memory, watts_w, found = _watts(rules, memory, raw)
    counted, energy_wh, of_energy = count(
        memory.counted, raw.energy_wh, raw.wraps_wh, raw.taken_s, rules.limit_w
    )
    memory = replace(memory, counted=counted)
    hz, of_hz = _within(raw.hz, LEAST_HZ, MOST_HZ, "a frequency of {:,.2f} Hz")
    volts_v, of_volts = _within(raw.volts_v, 0.0, MOST_VOLTS_V, "a voltage of {:,.1f} V")
    findings = tuple(one for one in (found, of_energy, of_hz, of_volts) if one is not None)
    return memory, Verdict(watts_w, energy_wh, hz, volts_v, findings)


def _watts(rules: Rules, memory: Memory, raw: Raw) -> tuple[Memory, float | None, Finding | None]:
    """What is believed of the watts, and why not all of it."""
    if raw.watts_w is None:
        return memory, None, None
    if not math.isfinite(raw.watts_w):
        return memory, None, Finding(Flaw.NAN, "the meter gives no number")
    memory = replace(
        memory,
        still=_still(rules, memory.still, raw.watts_w, raw),
        sign=_sign(rules, memory.sign, raw.watts_w, raw) if rules.exports else None,
    )
    beyond = _beyond(rules, raw.watts_w)
    memory = replace(memory, beyond=memory.beyond + 1 if beyond else 0)
    if beyond is not None:
        impossible = abs(raw.watts_w) > IMPOSSIBLE_SHARE * rules.limit_w or raw.watts_w < 0
        persists = memory.beyond >= BEYOND_SAMPLES
        return memory, raw.watts_w if persists and not impossible else None, beyond
    frozen = _frozen(rules, memory.still, raw)
    if frozen is not None:
        return memory, None, frozen
    if rules.exports:
        swapped = memory.sign is not None and memory.sign.votes >= VOTES
        text = "the meter falls when the devices rise: its sign is the wrong way round"
        return (
            (memory, None, Finding(Flaw.SWAPPED, text)) if swapped else (memory, raw.watts_w, None)
        )
    watts_w, found = _positive(rules, raw.watts_w, raw.devices_w)
    return memory, watts_w, found


def _beyond(rules: Rules, watts_w: float) -> Finding | None:
    if abs(watts_w) <= CARRIES_SHARE * rules.limit_w:
        return None
    text = f"{watts_w:,.0f} W at a connection of {rules.limit_w:,.0f} W"
    return Finding(Flaw.BEYOND, text)


def _positive(
    rules: Rules, watts_w: float, devices_w: float | None
) -> tuple[float | None, Finding | None]:
    """What is believed at a site that can only import."""
    if watts_w >= 0.0:
        return watts_w, None
    if watts_w >= -NOISE_SHARE * rules.limit_w:
        return 0.0, None
    if devices_w is not None and devices_w >= MOVED_SHARE * rules.limit_w:
        most_w = MIRROR_HIGH * devices_w + MIRROR_ROOM_SHARE * rules.limit_w
        if MIRROR_LOW * devices_w <= -watts_w <= most_w:
            text = f"{watts_w:,.0f} W while devices draw {devices_w:,.0f} W: taken as positive"
            return -watts_w, Finding(Flaw.SWAPPED, text)
    return None, Finding(Flaw.NEGATIVE, f"{watts_w:,.0f} W at a site that cannot export")


def _still(rules: Rules, before: Still | None, watts_w: float, raw: Raw) -> Still:
    if before is None or watts_w != before.watts_w:
        return Still(watts_w, raw.taken_s)
    if raw.devices_w is None or raw.taken_s - before.since_s < SETTLE_S:
        return before
    if before.devices_w is None:
        return replace(before, devices_w=raw.devices_w)
    if abs(raw.devices_w - before.devices_w) < MOVED_SHARE * rules.limit_w:
        return replace(before, moved_s=None)
    return before if before.moved_s is not None else replace(before, moved_s=raw.taken_s)


def _frozen(rules: Rules, still: Still | None, raw: Raw) -> Finding | None:
    if still is None or still.moved_s is None:
        return None
    if raw.taken_s - still.moved_s < rules.frozen_after_s:
        return None
    stood_s = raw.taken_s - still.since_s
    text = f"{still.watts_w:,.0f} W for {stood_s:,.0f} s while the devices have moved"
    return Finding(Flaw.FROZEN, text)


def _sign(rules: Rules, before: Sign | None, watts_w: float, raw: Raw) -> Sign | None:
    """Compare a step of the devices with the meter's, once in a window."""
    if raw.devices_w is None:
        return before
    if before is None:
        return Sign(watts_w, raw.devices_w, raw.taken_s)
    if raw.taken_s - before.at_s < WINDOW_S:
        return before
    devices_step_w = raw.devices_w - before.devices_w
    votes = before.votes
    if abs(devices_step_w) >= STEP_SHARE * rules.limit_w:
        share = (watts_w - before.watts_w) / devices_step_w
        if share > 0.5:
            votes = 0
        elif -1.5 <= share <= -0.5:
            votes += 1
    return Sign(watts_w, raw.devices_w, raw.taken_s, votes)


def _within(
    value: float | None, low: float, high: float, words: str
) -> tuple[float | None, Finding | None]:
    """A figure within bounds; unknown, and told, outside of them."""
    if value is None or low <= value <= high:
        return value, None
    return None, Finding(Flaw.IMPLAUSIBLE, words.format(value))
