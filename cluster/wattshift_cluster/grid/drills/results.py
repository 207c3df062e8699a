"""How a drill went: the site meter's samples while it ran, its score, and the list that is kept."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wattshift_cluster.grid.whole_file import replace_file
from wattshift_scheduler.scores.caps import cap_kept

RESULTS_MOST = 200
MAX_BYTES = 1 << 20
SAMPLES_MOST = 100_000
"""Half a day of two samples a second; older ones go first."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one drill went; None is unknown.

    Attributes:
        id, starts_s, ends_s: which, and its span as it really was, unix time, s.
        limit_w: its cap, W; None: it never began.
        to_cap_s: from its start to the first sample at or below the cap, s.
        deepest_w: the lowest sample, W.
        overshoot_max_w: most above the cap once it had been reached, W.
        above_s: time above the cap, s.
        unknown_s: time without a sample, s.
        why: why it did not run as planned; empty: it did.
    """

    id: str
    starts_s: float
    ends_s: float
    limit_w: float | None = None
    to_cap_s: float | None = None
    deepest_w: float | None = None
    overshoot_max_w: float | None = None
    above_s: float | None = None
    unknown_s: float | None = None
    why: str = ""


class Samples:
    """Samples of the site meter, in order of time; the last one before a span stays with it."""

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self._watts_w: list[float] = []

    def add(self, at_s: float, watts_w: float | None) -> None:
        """One sample; None is unknown. One that is no later than the last is dropped."""
        if not math.isfinite(at_s) or (self._at_s and at_s <= self._at_s[-1]):
            return
        self._at_s.append(at_s)
        self._watts_w.append(math.nan if watts_w is None else watts_w)
        if len(self._at_s) > SAMPLES_MOST:
            # A tenth at once, so that this does not cost at every sample.
            self._cut(SAMPLES_MOST // 10)

    def keep_from(self, from_s: float) -> None:
        """Forget what was before."""
        self._cut(bisect_left(self._at_s, from_s))

    def between(self, from_s: float, to_s: float) -> tuple[list[float], list[float]]:
        """Times and watts of samples from `from_s` until before `to_s`."""
        first, last = bisect_left(self._at_s, from_s), bisect_left(self._at_s, to_s)
        return self._at_s[first:last], self._watts_w[first:last]

    def mean_w(self, from_s: float, to_s: float) -> float:
        """Mean of a span, W; NaN: no sample, or one that is unknown."""
        watts_w = self.between(from_s, to_s)[1]
        return sum(watts_w) / len(watts_w) if watts_w else math.nan

    def _cut(self, count: int) -> None:
        del self._at_s[:count], self._watts_w[:count]


def scored(
    name: str, starts_s: float, ends_s: float, limit_w: float, samples: Samples, why: str
) -> Result:
    """The result of a drill that ran from `starts_s` to `ends_s` under a cap of `limit_w`."""
    at_s, watts_w = samples.between(starts_s, ends_s)
    known = [one for one in watts_w if not math.isnan(one)]
    if not known:
        return Result(name, starts_s, ends_s, limit_w, unknown_s=ends_s - starts_s, why=why)
    kept = cap_kept(np.array(at_s), np.array(watts_w), limit_w, ends_s)
    reached = next((i for i, one in enumerate(watts_w) if one <= limit_w), len(watts_w))
    later = [one - limit_w for one in watts_w[reached:] if one > limit_w]
    # The score counts from the first sample; the time before it is unknown.
    late_s = at_s[0] - starts_s
    return Result(
        name,
        starts_s,
        ends_s,
        limit_w,
        to_cap_s=None if math.isnan(kept.to_cap_s) else late_s + kept.to_cap_s,
        deepest_w=min(known),
        overshoot_max_w=max(later, default=0.0) if reached < len(watts_w) else None,
        above_s=kept.above_s,
        unknown_s=late_s + kept.unknown_s,
        why=why,
    )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(1, ge=1, le=1)
    results: Annotated[list[Result], Field(max_length=RESULTS_MOST)]


class ResultsFile:
    """The list on disk, written whole or not at all.

    Attributes:
        most: results that are kept; the oldest go first.
    """

    most = RESULTS_MOST

    def __init__(self, path: Path) -> None:
        """Args: path: the file."""
        self.path = path

    def read(self) -> tuple[tuple[Result, ...], str | None]:
        """The results, and why they could not be read; a file that never was is no fault."""
        try:
            with self.path.open("rb") as file:
                return tuple(_File.model_validate_json(file.read(MAX_BYTES)).results), None
        except FileNotFoundError:
            return (), None
        except (OSError, ValidationError) as wrong:
            reason = wrong.strerror if isinstance(wrong, OSError) else "damaged"
            return (), f"{self.path.name} cannot be read: {reason}"

    def write(self, results: Sequence[Result]) -> None:
        """Replace the file. Raises: OSError."""
        kept = _File(version=1, results=[Result(**asdict(one)) for one in results[-self.most :]])
        replace_file(self.path, kept.model_dump_json())
