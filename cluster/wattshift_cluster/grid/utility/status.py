"""What the utility may read of the site, and the words and bits in which it is told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Protocol

from wattshift_cluster.grid.utility.registers import SHEDS, TABLE_VERSION, Value
from wattshift_scheduler.promises.flexibility import DEADLINES_S

CAP_TOLERANCE = 0.005
"""Share of the cap within which the draw counts as kept: a meter's noise is no breach."""


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """The site as it is told; None is unknown.

    Attributes:
        draw_w, draw_age_s: the site meter and its age, W and s.
        cap_w: the effective cap, W.
        least_w: what the site can shed to, W.
        sheds_w: watts that can be gone within each of `flexibility.DEADLINES_S`, W.
        alarms: severity ("warning" or "critical") by alarm id.
        shadow: whether it decides and commands nothing.
        software: version of the software.
    """

    draw_w: float | None = None
    draw_age_s: float | None = None
    cap_w: float | None = None
    least_w: float | None = None
    sheds_w: tuple[float | None, ...] = (None,) * len(DEADLINES_S)
    alarms: Mapping[str, str] = field(default_factory=dict)
    shadow: bool = False
    software: str = ""


class SiteStatus(Protocol):
    """Gives the figures at this moment; quick, never raises."""

    def __call__(self) -> SiteFigures:
        """The figures now."""
        ...


class StateWord(IntEnum):
    """Register `state`."""

    UNKNOWN = 0
    """The draw or the cap is not known."""
    FREE = 1
    """The connection alone bounds the site."""
    CURTAILED = 2
    """A cap is in force and kept."""
    ABOVE_CAP = 3
    """The site draws more than the cap: it is on its way down, or in trouble."""
    SHORT = 4
    """The cap lies below what the site can shed to."""
    SHADOW = 5
    """The site decides, and commands nothing."""


class AlarmBit(IntFlag):
    """Register `alarms`."""

    HEARTBEAT_LOST = 1
    METER_STALE = 2
    CAP_BELOW_FLOOR = 4
    AGENT_LOST = 8
    OTHER_WARNING = 16
    OTHER_CRITICAL = 32
    NOT_KEPT = 64
    """The last set point could not be written to the site's disk: a restart forgets it."""
    PROMISE_SHORT = 128
    """What was promised to the grid could not be kept now. Added to the first table; it stands
    beside OTHER_WARNING or OTHER_CRITICAL, for masters that do not know it."""


_BITS: tuple[tuple[str, AlarmBit], ...] = (
    ("meter-stale", AlarmBit.METER_STALE),
    ("cap-below-floor", AlarmBit.CAP_BELOW_FLOOR),
    ("agent-lost", AlarmBit.AGENT_LOST),
)
_BESIDE: tuple[tuple[str, AlarmBit], ...] = (("promise-short", AlarmBit.PROMISE_SHORT),)
"""Bits that came later: what is told by one is told as another alarm, too."""


def state_word(site: SiteFigures, connection_w: float) -> StateWord:
    """The state of the site under its effective cap."""
    if site.shadow:
        return StateWord.SHADOW
    if site.draw_w is None or site.cap_w is None:
        return StateWord.UNKNOWN
    if site.least_w is not None and site.cap_w < site.least_w:
        return StateWord.SHORT
    if site.draw_w > site.cap_w * (1.0 + CAP_TOLERANCE):
        return StateWord.ABOVE_CAP
    return StateWord.CURTAILED if site.cap_w < connection_w else StateWord.FREE


def alarm_bits(site: SiteFigures, *, heartbeat_lost: bool, not_kept: bool) -> AlarmBit:
    """Which alarms stand."""
    bits = AlarmBit(0)
    if heartbeat_lost:
        bits |= AlarmBit.HEARTBEAT_LOST
    if not_kept:
        bits |= AlarmBit.NOT_KEPT
    for name, severity in site.alarms.items():
        other = AlarmBit.OTHER_CRITICAL if severity == "critical" else AlarmBit.OTHER_WARNING
        kind = name.partition(":")[0]
        bits |= next((bit for known, bit in _BITS if kind == known), other)
        bits |= next((bit for known, bit in _BESIDE if kind == known), AlarmBit(0))
    return bits


def status_values(
    site: SiteFigures,
    *,
    connection_w: float,
    own_cap_w: float | None,
    heartbeat_age_s: float | None,
    heartbeat_lost: bool,
    not_kept: bool,
) -> dict[str, Value]:
    """The values of the registers that are only read, by name."""
    known = site.draw_w is not None and site.cap_w is not None
    severities = list(site.alarms.values())
    return {
        "draw_w": site.draw_w,
        "effective_cap_w": site.cap_w,
        "headroom_w": (site.cap_w or 0.0) - (site.draw_w or 0.0) if known else math.nan,
        "own_cap_w": own_cap_w,
        **dict(zip(SHEDS, site.sheds_w, strict=True)),
        "draw_age_s": site.draw_age_s,
        "heartbeat_age_s": heartbeat_age_s,
        "state": int(state_word(site, connection_w)),
        "alarms": int(
            alarm_bits(site, heartbeat_lost=heartbeat_lost, not_kept=not_kept),
        ),
        "alarms_warning": severities.count("warning"),
        "alarms_critical": severities.count("critical"),
        "table_version": TABLE_VERSION,
        "connection_w": connection_w,
        "software": site.software,
    }
