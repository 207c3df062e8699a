"""The master's set point as a grid event: from when it curtails the site until it does no more.

An event begins when an enabled set point lies below the connection, and ends when it is lifted, by
its switch or its watts. A set point that moves in between is the same event. Its start names it, so
that it stays the same one over a restart. It is told with its end for a day, or until the next one
begins, so that whoever settles learns of the end.
"""

from dataclasses import dataclass, replace

from wattshift_scheduler.signals.words import GridEvent

PROGRAM = "utility"
NAME = "utility set point"
TOLD_S = 86_400.0
"""How long one that is over is still told."""


@dataclass(frozen=True, slots=True)
class Called:
    """The last time that the master curtailed the site: unix times, s; None: never, or not over."""

    starts_s: float | None = None
    ends_s: float | None = None

    @classmethod
    def at(cls, starts_s: float | None, ends_s: float | None) -> "Called":
        """As it was kept; an end without a start, or before it, is none."""
        if starts_s is None or (ends_s is not None and ends_s < starts_s):
            return cls()
        return cls(starts_s, ends_s)

    @property
    def runs(self) -> bool:
        """Whether it curtails the site now."""
        return self.starts_s is not None and self.ends_s is None

    def turned(self, *, curtails: bool, now_s: float) -> "Called":
        """The same, or what it became when the set point began or ceased to curtail the site."""
        if curtails == self.runs:
            return self
        if curtails:
            return Called(now_s)
        assert self.starts_s is not None, "it runs"
        # A clock that was set back ends nothing before it began.
        return replace(self, ends_s=max(now_s, self.starts_s))

    def events(self, source: str, now_s: float) -> tuple[GridEvent, ...]:
        """The event, if one runs or is lately over. It has no notice, and nothing is committed."""
        if self.starts_s is None or (self.ends_s is not None and now_s - self.ends_s > TOLD_S):
            return ()
        name, start_s = f"setpoint-{self.starts_s:.3f}", self.starts_s
        return (GridEvent(name, source, PROGRAM, start_s, start_s, self.ends_s, name=NAME),)
