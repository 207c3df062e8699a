"""The controller's clock: Unix time that never runs backwards, whatever happens to the wall clock.

It is read from the wall once, at start, and counted on the monotonic clock from then on. So a
stepped wall clock cannot end a cap early or turn a fresh reading stale.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_s(self) -> float:
        """Unix time, s; never smaller than before."""
        ...


@dataclass(frozen=True, slots=True)
class SteadyClock:
    """Unix time at start plus monotonic seconds since."""

    wall_s: float = field(default_factory=time.time)
    start_s: float = field(default_factory=time.monotonic)

    def now_s(self) -> float:
        """Unix time, s."""
        return self.wall_s + time.monotonic() - self.start_s


def rfc3339(at_s: float) -> str:
    """A Unix time as RFC 3339 UTC text with milliseconds."""
    text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
