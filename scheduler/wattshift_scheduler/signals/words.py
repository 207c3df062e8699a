"""The words of the grid: what a source may ask of the site, as data.

A source replaces everything that it said before. A cap is a hard upper limit and the lowest one
holds; a target is held below the caps; an override is an operator's recorded word that one named
cap does not hold for a while.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wattshift_scheduler.errors import SiteInvalid

DRILL = "drill"
"""Program of the site's own drills: practice, for which nobody is paid."""


class CapKind(StrEnum):
    """Why a cap is hard. A breaker's can never be overridden."""

    BREAKER = "breaker"
    INTERVAL = "interval"
    CONTRACT = "contract"
    OPERATOR = "operator"


class Work(StrEnum):
    """Which work a target binds."""

    ALL = "all"
    MINING = "mining"


def spans(starts_s: float | None, ends_s: float | None, now_s: float) -> bool:
    """Whether a span holds at `now_s`; None is open, the end is exclusive."""
    begun = starts_s is None or starts_s <= now_s
    return begun and (ends_s is None or now_s < ends_s)


def _span(name: str, starts_s: float | None, ends_s: float | None) -> None:
    """Refuse a span that is not a number or ends before it starts: SiteInvalid."""
    if any(edge is not None and math.isnan(edge) for edge in (starts_s, ends_s)):
        raise SiteInvalid(name, f"its span is not a number: {starts_s} to {ends_s}")
    if starts_s is not None and ends_s is not None and ends_s < starts_s:
        raise SiteInvalid(name, f"it ends at {ends_s}, before it starts at {starts_s}")


@dataclass(frozen=True, slots=True)
class Cap:
    """A hard upper limit of site power for a span of time.

    Attributes:
        id: unique within its source; caps of one id that follow each other are one cap in pieces.
        origin: "operator", "schedule", "openadr", ... (shown to people and in metrics).
        limit_w: most that the site meter may show, W.
        starts_s, ends_s: span on our clock, s; None is open.
        kind: why it is hard.
        window_s: averaging window, s: the mean over each window that begins at a multiple of it
            on the UTC clock must stay below; 0: every sample.
        priority: 0 is highest; it orders what is told, since the lowest limit holds in any case.
        confidence: how sure it is that the cap will hold, 0 to 1; below 1 for a forecast.
        ramp_w_per_s: steepest fall towards it that its contract allows, W/s; infinite: none.
        name: for people, where the id is none; empty: the id is.
    """

    id: str
    origin: str
    limit_w: float
    starts_s: float | None = None
    ends_s: float | None = None
    kind: CapKind = CapKind.CONTRACT
    window_s: float = 0.0
    priority: int = 0
    confidence: float = 1.0
    ramp_w_per_s: float = math.inf
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit_w) and self.limit_w >= 0):
            raise SiteInvalid(self.id, f"a cap must be finite and not negative, not {self.limit_w}")
        if not (math.isfinite(self.window_s) and self.window_s >= 0):
            raise SiteInvalid(self.id, f"its window must be finite, not {self.window_s}")
        if not 0 <= self.confidence <= 1:
            raise SiteInvalid(self.id, f"confidence must lie in 0 to 1, not {self.confidence}")
        if not self.ramp_w_per_s > 0:
            raise SiteInvalid(self.id, f"its ramp must be > 0 W/s, not {self.ramp_w_per_s}")
        _span(self.id, self.starts_s, self.ends_s)

    def in_force(self, now_s: float) -> bool:
        """Whether this cap binds at `now_s`; the end is exclusive."""
        return spans(self.starts_s, self.ends_s, now_s)


@dataclass(frozen=True, slots=True)
class Target:
    """A set point of site power to hold, below the caps.

    Attributes:
        id, origin, starts_s, ends_s, priority: as of a cap. Of targets in force the one of the
            highest priority (least number) holds; among equals the lowest watts.
        watts_w: what the site meter should show, W.
        work: which work it binds: all of it, or only mining.
        name: as of a cap.
    """

    id: str
    origin: str
    watts_w: float
    starts_s: float | None = None
    ends_s: float | None = None
    priority: int = 0
    work: Work = Work.ALL
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.watts_w) and self.watts_w >= 0):
            raise SiteInvalid(self.id, f"a target must be finite and >= 0, not {self.watts_w}")
        _span(self.id, self.starts_s, self.ends_s)

    def in_force(self, now_s: float) -> bool:
        """Whether this target holds at `now_s`; the end is exclusive."""
        return spans(self.starts_s, self.ends_s, now_s)


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's recorded word that one named cap does not hold until a time.

    Attributes:
        source, cap: which cap; never one of kind BREAKER, and never the connection.
        limit_w: what holds in its place, W.
        ends_s: until when, s; an override always ends.
        by, reason: who said so and why.
    """

    source: str
    cap: str
    limit_w: float
    ends_s: float
    by: str
    reason: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit_w) and self.limit_w >= 0):
            raise SiteInvalid(self.cap, f"an override must be finite and >= 0, not {self.limit_w}")
        if not math.isfinite(self.ends_s):
            raise SiteInvalid(self.cap, f"an override must end, not at {self.ends_s}")


@dataclass(frozen=True, slots=True)
class GridEvent:
    """An event that a grid program has notified, for settlement and for people.

    Attributes:
        id, source: the event, and the source that told of it.
        program: the program's name.
        notified_s, starts_s, ends_s: our clock, s; `ends_s` None is open.
        commitment_w: reduction that the site has committed to, W; NaN where there is none.
        cancelled_s: when it was called off, s; None while it stands.
        name: for people: its program's name and its own; empty: the id is for people.
    """

    id: str
    source: str
    program: str
    notified_s: float
    starts_s: float
    ends_s: float | None
    commitment_w: float = math.nan
    cancelled_s: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.notified_s) and math.isfinite(self.starts_s)):
            raise SiteInvalid(self.id, "its notice and its start must be times")
        if math.isinf(self.commitment_w) or self.commitment_w < 0:
            raise SiteInvalid(self.id, f"its commitment must be >= 0 W, not {self.commitment_w}")
        _span(self.id, self.starts_s, self.ends_s)

    def stands(self, now_s: float) -> bool:
        """Whether it is neither called off nor over."""
        over = self.ends_s is not None and now_s >= self.ends_s
        return not over and (self.cancelled_s is None or now_s < self.cancelled_s)


@dataclass(frozen=True, slots=True)
class Signals:
    """The present signals: all that each source says, and the price with its age.

    Attributes:
        caps, targets, events: by source.
        price_usd_per_mwh, price_at_s: the price, None while it is unknown, and when it was told.
        overrides: what operators have recorded.
        carbon_g_per_kwh: what a kWh emits now; None while it is unknown, or has no price.
    """

    caps: Mapping[str, tuple[Cap, ...]]
    price_usd_per_mwh: float | None = None
    price_at_s: float = -math.inf
    targets: Mapping[str, tuple[Target, ...]] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    events: Mapping[str, tuple[GridEvent, ...]] = field(default_factory=dict)
    carbon_g_per_kwh: float | None = None
