"""What a machine really draws and how long it takes, learnt from meters. Pure.

A firmware's watts are an estimate that is 5 to 20 % off, and a stock Antminer reports none. Two
meters know better: the outlet of a PDU, and the feeder's meter at a moment when exactly one machine
switched. Both give steps; windows in which anything else moved give nothing. Levels are medians, so
that single wild samples do not count, and every figure carries a standard error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLEEP = "sleep"
LEAST_SAMPLES = 5
LEAST_KNOWN = 0.8
"""Share of a window's samples that must be numbers."""

MEDIAN_LOSS = math.sqrt(math.pi / 2)
"""A median's standard error is larger than a mean's by this for Gaussian noise."""

MAD_TO_SD = 1.4826
STEADY_SIGMAS = 6.0
"""Of a part of a window against the whole; the noise itself is known to a third only."""

GRAIN_W, GRAIN_SHARE = 1.0, 0.001
"""The last digit of a meter or firmware, which flips: a whole watt, or a thousandth of the draw."""

CLAIM_RANGE = (0.5, 2.0)
"""A meter that says less than half or more than twice a firmware's watts is another machine's."""

OUTLIER_SDS = 5.0
TRUST_FROM = 3
"""Observations before a correction is used."""

MOST_MODES = 64
VERSION = 1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Samples of one meter, ascending in time; NaN where it said nothing.

    Attributes:
        at_s: times, s.
        watts_w: draw, W.
    """

    at_s: Floats
    watts_w: Floats

    def between(self, from_s: float, to_s: float) -> Floats:
        """Samples from `from_s` up to, not including, `to_s`."""
        low, high = np.searchsorted(self.at_s, (from_s, to_s))
        return self.watts_w[low:high]


@dataclass(frozen=True, slots=True)
class Level:
    """A steady draw: its median, the standard error of that, and the noise of one sample, W."""

    watts_w: float
    error_w: float
    noise_w: float


@dataclass(frozen=True, slots=True)
class Step:
    """A change between two levels; `watts_w` is positive where the draw fell, W."""

    watts_w: float
    error_w: float
    before: Level
    after: Level


@dataclass(frozen=True, slots=True)
class Switch:
    """One machine went from one set point to another at `at_s`."""

    at_s: float
    device: str
    from_mode: str
    to_mode: str


@dataclass(frozen=True, slots=True)
class Tally:
    """A figure seen several times.

    Attributes:
        n: observations.
        mean: of them.
        m2: sum of squared distances from the mean.
        own2: sum of the observations' own squared errors.
        most: the largest one; NaN where there is none.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    own2: float = 0.0
    most: float = math.nan

    def add(self, value: float, error: float = 0.0) -> "Tally":
        """One more observation with its own standard error (Welford's update)."""
        n = self.n + 1
        away = value - self.mean
        mean = self.mean + away / n
        most = value if self.n == 0 else max(self.most, value)
        return Tally(n, mean, self.m2 + away * (value - mean), self.own2 + error * error, most)

    @property
    def sd(self) -> float:
        """Scatter of the observations; NaN below two."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean: the larger of scatter and the observations' own; NaN at 0."""
        if self.n == 0:
            return math.nan
        own = math.sqrt(self.own2) / self.n
        return own if self.n == 1 else max(own, self.sd / math.sqrt(self.n))


@dataclass(frozen=True, slots=True)
class Learnt:
    """All that is learnt of one machine.

    Attributes:
        points: W by set point.
        down, up: s from the accepted command to the settled draw.
        factor: the meter's watts over the firmware's.
    """

    points: Mapping[str, Tally] = field(default_factory=dict)
    down: Tally = Tally()
    up: Tally = Tally()
    factor: Tally = Tally()

    def with_point(self, mode: str, watts_w: float, error_w: float) -> "Learnt":
        """One settled draw at a set point, by an outlet's meter."""
        if mode not in self.points and len(self.points) >= MOST_MODES:
            return self
        tally = self.points.get(mode, Tally()).add(watts_w, error_w)
        return replace(self, points={**self.points, mode: tally})

    def with_sleep_step(self, mode: str, step: Step, standby_w: float) -> "Learnt":
        """The draw at `mode` from the step that a feeder's meter saw when the machine slept.

        Args:
            mode: set point that it left.
            step: see `step_at`.
            standby_w: draw asleep, W, unless that was learnt.
        """
        asleep = self.points.get(SLEEP)
        known = asleep is not None and asleep.n > 0
        floor_w = asleep.mean if known and asleep is not None else standby_w
        floor_error_w = asleep.error if known and asleep is not None else standby_w / 2.0
        error_w = math.hypot(step.error_w, floor_error_w)
        return self.with_point(mode, max(0.0, step.watts_w + floor_w), error_w)

    def with_times(self, *, down_s: float | None = None, up_s: float | None = None) -> "Learnt":
        """How long one transition took; None where it was not seen."""
        down = self.down if down_s is None else self.down.add(down_s)
        up = self.up if up_s is None else self.up.add(up_s)
        return replace(self, down=down, up=up)

    def with_claim(self, firmware_w: float, meter_w: float, error_w: float = 0.0) -> "Learnt":
        """What the firmware claimed while the meter said something; nonsense is left out."""
        if not (firmware_w > 0.0 and math.isfinite(firmware_w) and math.isfinite(meter_w)):
            return self
        ratio, tally = meter_w / firmware_w, self.factor
        if not CLAIM_RANGE[0] <= ratio <= CLAIM_RANGE[1]:
            return self
        # Below 1 % the scatter says more of the sampling than of the machine.
        far = OUTLIER_SDS * max(tally.sd, 0.01) if tally.n >= TRUST_FROM else math.inf
        if abs(ratio - tally.mean) > far:
            return self
        return replace(self, factor=tally.add(ratio, error_w / firmware_w))

    def corrected_w(self, firmware_w: float) -> float:
        """The firmware's watts as the meter would say them; unchanged while that is not known."""
        return firmware_w * self.factor.mean if self.factor.n >= TRUST_FROM else firmware_w

    def watts_w(self, mode: str) -> tuple[float, float] | None:
        """Draw at a set point and its standard error, W; None where it was never seen."""
        tally = self.points.get(mode)
        return None if tally is None or tally.n == 0 else (tally.mean, tally.error)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; see `from_dict`."""
        return {
            "version": VERSION,
            "points": {mode: _packed(tally) for mode, tally in self.points.items()},
            "down": _packed(self.down),
            "up": _packed(self.up),
            "factor": _packed(self.factor),
        }

    @classmethod
    def from_dict(cls, raw: object) -> "Learnt":
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            raise ValueError("not a record of what was learnt")
        points = raw.get("points")
        if not isinstance(points, dict) or len(points) > MOST_MODES:
            raise ValueError("no usable set points")
        return cls(
            {str(mode): _unpacked(tally) for mode, tally in points.items()},
            _unpacked(raw.get("down")),
            _unpacked(raw.get("up")),
            _unpacked(raw.get("factor")),
        )


def level(samples: Floats) -> Level | None:
    """The steady draw in a window; None where too little is known or it does not hold still.

    It must neither drift from its first half to its second, nor be elsewhere for a few samples in a
    row. What moves within the last two or three samples of a window cannot be told from noise.
    """
    known = samples[np.isfinite(samples)]
    if len(known) < LEAST_SAMPLES or len(known) < LEAST_KNOWN * len(samples):
        return None
    middle_w = float(np.median(known))
    noise_w = MAD_TO_SD * float(np.median(np.abs(known - middle_w)))
    # Neighbours differ by the noise alone, however far a window drifts.
    jitter_w = MAD_TO_SD * float(np.median(np.abs(np.diff(known)))) / math.sqrt(2.0)
    grain_w = max(GRAIN_W, GRAIN_SHARE * middle_w)
    for parts in (2, len(known) // LEAST_SAMPLES):
        pieces = np.array_split(known, parts)
        away_w = max(abs(float(np.median(piece)) - middle_w) for piece in pieces)
        sigma_w = MEDIAN_LOSS * jitter_w / math.sqrt(min(len(piece) for piece in pieces))
        if away_w > STEADY_SIGMAS * sigma_w + grain_w:
            return None
    return Level(middle_w, MEDIAN_LOSS * noise_w / math.sqrt(len(known)), noise_w)


def step_at(trace: Trace, switched_s: float, settle_s: float, window_s: float) -> Step | None:
    """The step of a meter around one switching; None where it cannot be told.

    Args:
        trace: the meter.
        switched_s: when the command was accepted.
        settle_s: after this the new level counts, s.
        window_s: length of the windows before and after, s.
    """
    before = level(trace.between(switched_s - window_s, switched_s))
    after = level(trace.between(switched_s + settle_s, switched_s + settle_s + window_s))
    if before is None or after is None:
        return None
    error_w = math.hypot(before.error_w, after.error_w)
    return Step(before.watts_w - after.watts_w, error_w, before, after)


def lone_steps(
    trace: Trace, switches: Sequence[Switch], settle_s: float, window_s: float
) -> list[tuple[Switch, Step]]:
    """Steps of a feeder's meter that belong to one machine alone.

    A switching counts only if no other one, of any machine, falls between the beginning of its
    first window and the end of its second, nor settles within them.
    """
    found = []
    for one in switches:
        from_s, to_s = one.at_s - window_s - settle_s, one.at_s + settle_s + window_s
        others = (other for other in switches if other is not one)
        if any(from_s <= other.at_s <= to_s for other in others):
            continue
        step = step_at(trace, one.at_s, settle_s, window_s)
        if step is not None:
            found.append((one, step))
    return found


def settling_s(trace: Trace, switched_s: float, step: Step) -> float | None:
    """Seconds from the switching until the draw stays at its new level; None where it never does.

    The band is 5 % of the step, or three times the noise where that is more.
    """
    low = int(np.searchsorted(trace.at_s, switched_s))
    at_s, watts_w = trace.at_s[low:], trace.watts_w[low:]
    known = np.isfinite(watts_w)
    at_s, watts_w = at_s[known], watts_w[known]
    noise_w = max(step.before.noise_w, step.after.noise_w)
    band_w = max(0.05 * abs(step.watts_w), 3.0 * noise_w)
    outside = np.flatnonzero(np.abs(watts_w - step.after.watts_w) > band_w)
    settled = 0 if len(outside) == 0 else int(outside[-1]) + 1
    return float(at_s[settled]) - switched_s if settled < len(at_s) else None


def _packed(tally: Tally) -> dict[str, Any]:
    most = None if math.isnan(tally.most) else tally.most
    return {"n": tally.n, "mean": tally.mean, "m2": tally.m2, "own2": tally.own2, "most": most}


def _unpacked(raw: object) -> Tally:
    if not isinstance(raw, dict):
        raise ValueError("a tally is missing")
    n, most = raw.get("n"), raw.get("most")
    mean, m2, own2 = (_figure(raw.get(key)) for key in ("mean", "m2", "own2"))
    if not isinstance(n, int) or n < 0 or m2 < 0.0 or own2 < 0.0:
        raise ValueError("a tally holds no usable figures")
    return Tally(n, mean, m2, own2, math.nan if most is None else _figure(most))


def _figure(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError("a tally holds no usable figures")
    return float(raw)
