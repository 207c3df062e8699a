"""What feeders below the connection, and promises to the grid, ask of a plan.

A `Limit` is a feeder that may be full before the connection is. Kinds and zones name the limits
that they hang under. A `Hold` is mining that must be drawn before an event of the grid, so that it
can be given back then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.plan import checks
from wattshift_scheduler.plan.checks import PlanInvalid

MOST_LIMITS = 40
"""Rows of each interval that feeders may add to a plan, so that it is solved in time."""

MOST_ZONES = 100
MOST_HOLDS = 400


@dataclass(frozen=True, slots=True)
class Limit:
    """A feeder below the connection that may be full.

    Attributes:
        name: the feeder's; unique within a plan.
        room_w: what all that is planned may draw under it, devices at rest counted in, W: its limit
            less its margin and what nobody plans there; below 0 W where that alone is too much.
    """

    name: str
    room_w: float

    def __post_init__(self) -> None:
        checks.finite(self.name, "room_w", (self.room_w,))


@dataclass(frozen=True, slots=True)
class Zone:
    """Compute nodes that hang under the same limits.

    Attributes:
        under: names of those limits; empty: under none.
        most_w: what work can draw there, W.
        services_w: what of the middle of inference is drawn there, W; shape (n,).
        batch: of each batch's `most_w` the share that is drawn there now, 0 to 1, by its name: as
            long as it runs it stays there. What is not told may run in any zone.
    """

    under: tuple[str, ...]
    most_w: float
    services_w: Floats
    batch: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return f"zone of {' and '.join(self.under) or 'no limit'}"

    def __post_init__(self) -> None:
        checks.least(self.name, "watts", (self.most_w,))
        checks.least(self.name, "shares", self.batch.values())
        if max(self.batch.values(), default=0.0) > 1.0 + 1e-9:
            raise PlanInvalid(self.name, "a share lies in 0 to 1")


@dataclass(frozen=True, slots=True)
class Hold:
    """Mining that must be drawn for a while by what can be gone within a time.

    Attributes:
        name: of the promises that it is for.
        starts_s, ends_s: UTC; it ends as the first of them begins.
        watts_w: above the lowest points, W.
        within_s: what takes longer to come down is of no use, s.
    """

    name: str
    starts_s: float
    ends_s: float
    watts_w: float
    within_s: float

    def __post_init__(self) -> None:
        checks.finite(self.name, "span", (self.starts_s, self.ends_s))
        if self.ends_s <= self.starts_s:
            raise PlanInvalid(self.name, f"it ends at {self.ends_s}, before it has begun")
        checks.least(self.name, "watts and times", (self.watts_w, self.within_s))


def check(
    n: int,
    limits: tuple[Limit, ...],
    zones: tuple[Zone, ...],
    holds: tuple[Hold, ...],
    under: Mapping[str, tuple[str, ...]],
) -> None:
    """Refuse limits of one name, what hangs under a limit that is not told, and columns of another
    length than `n`; `under` has the limits of each kind. Raises PlanInvalid."""
    checks.unique("limit", [one.name for one in limits], MOST_LIMITS)
    for what, many, most in (("zone", zones, MOST_ZONES), ("hold", holds, MOST_HOLDS)):
        if len(many) > most:
            raise PlanInvalid(what, f"{len(many)} of them, and {most} are the most")
    for zone in zones:
        checks.column_of(zone.name, zone.services_w, n, 0.0)
    known = {one.name for one in limits}
    for name, above in (*under.items(), *((zone.name, zone.under) for zone in zones)):
        for one in above:
            if one not in known:
                raise PlanInvalid(name, f"it hangs under {one}, which is no limit of this plan")
