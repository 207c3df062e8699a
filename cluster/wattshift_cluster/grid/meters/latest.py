"""The last sample of a meter, and how it ages.

Age counts from the meter's own time stamp at receipt, then on our monotonic clock, so a step of the
wall clock neither freshens nor ages a reading.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wattshift_cluster.grid.meters.reading import MeterPart, MeterReading, Quality

MAX_CLOCK_AHEAD_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as the meter told it, before anything is judged; fields as in `MeterReading`."""

    watts_w: float | None
    at_s: float
    quality: Quality
    parts: tuple[MeterPart, ...] = ()
    energy_wh: float | None = None
    hz: float | None = None
    volts_v: float | None = None
    wraps_wh: float | None = None


class Latest:
    """Keeps one sample and the fault since."""

    def __init__(
        self,
        stale_after_s: float,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: wall_s: unix time, s; steady_s: a clock that nobody sets, s."""
        self._stale_after_s = stale_after_s
        self._wall_s, self._steady_s = wall_s, steady_s
        self._sample: Sample | None = None
        self._received_s = self._age_at_receipt_s = 0.0
        self._fault: str | None = "never read"

    def take(self, sample: Sample) -> None:
        """Keep a sample that has just come. Raises: ValueError, when it is from the future."""
        age_s = self._wall_s() - sample.at_s
        if age_s < -MAX_CLOCK_AHEAD_S:
            raise ValueError(f"the meter's clock is {-age_s:.1f} s ahead of ours")
        self._sample = sample
        self._received_s = self._steady_s()
        self._age_at_receipt_s = max(0.0, age_s)
        self._fault = None

    def fail(self, why: str) -> None:
        """No newer sample came; the last one stays until it is stale."""
        self._fault = why

    def reading(self) -> MeterReading:
        """The last sample, with its present age; stale ones have no watts."""
        last = self._sample
        if last is None:
            return MeterReading(None, None, None, None, (), self._fault)
        age_s = self._age_at_receipt_s + max(0.0, self._steady_s() - self._received_s)
        stale = age_s > self._stale_after_s
        fault = self._fault or ("stale" if stale else None)
        if last.watts_w is None:
            fault = fault or "the meter does not know"
        return MeterReading(
            None if stale else last.watts_w,
            last.at_s,
            age_s,
            last.quality,
            last.parts,
            fault,
            energy_wh=None if stale else last.energy_wh,
            hz=None if stale else last.hz,
            volts_v=None if stale else last.volts_v,
            wraps_wh=last.wraps_wh,
        )
