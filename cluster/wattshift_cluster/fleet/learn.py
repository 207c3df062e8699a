"""What a machine really draws and how long it takes, as a record that grows. Pure.

A firmware's watts are an estimate that is 5 to 20 % off (Foreman's documentation), and a stock
Antminer reports none. What meters showed of a machine is kept as tallies: a mean with its standard
error, the largest figure ever seen, and a bounded memory, so that a machine that ages is followed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wattshift_cluster.fleet.levels import Step

SLEEP = "sleep"
CLAIM_RANGE = (0.5, 2.0)
"""A meter that says less than half or more than twice a firmware's watts is another machine's."""

OUTLIER_SDS = 5.0
TRUST_FROM = 3
"""Observations before a correction is used."""

MEMORY = 100
"""Observations that a mean remembers: half a day of steady running, at one in ten minutes."""

MOST_MODES = 64
MOST_MODE_TEXT = 200
VERSION = 1


@dataclass(frozen=True, slots=True)
class Tally:
    """A figure seen several times.

    Attributes:
        n: observations; it stops at `MEMORY`, and the oldest then fade.
        mean: of them.
        m2: sum of squared distances from the mean.
        own2: sum of the observations' own squared errors.
        most: the largest one ever; NaN where there is none.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    own2: float = 0.0
    most: float = math.nan

    def add(self, value: float, error: float = 0.0) -> "Tally":
        """One more observation with its own standard error."""
        return self.plus(Tally(1, value, 0.0, error * error, value))

    def plus(self, other: "Tally") -> "Tally":
        """Both tallies as one (the parallel form of Welford's update)."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        fresh = other._faded(MEMORY)
        kept = self._faded(max(MEMORY - fresh.n, 1))
        n, away = kept.n + fresh.n, fresh.mean - kept.mean
        return Tally(
            n=n,
            mean=kept.mean + away * fresh.n / n,
            m2=kept.m2 + fresh.m2 + away * away * kept.n * fresh.n / n,
            own2=kept.own2 + fresh.own2,
            most=max(self.most, other.most),
        )

    def times(self, share: float) -> "Tally":
        """The tally of the same observations, each multiplied by `share` > 0."""
        square = share * share
        return Tally(
            self.n, self.mean * share, self.m2 * square, self.own2 * square, self.most * share
        )

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

    def _faded(self, most: int) -> "Tally":
        """The same figures, resting on at most so many observations."""
        if self.n <= most:
            return self
        share = most / self.n
        return Tally(most, self.mean, self.m2 * share, self.own2 * share, self.most)


@dataclass(frozen=True, slots=True)
class Learnt:
    """All that is learnt of one machine.

    Attributes:
        points: W by set point, as a meter showed them.
        claims: W by set point in the firmware's own words, whatever a meter said.
        rates: hashes per second at the same moments, by set point.
        times: s from the accepted command to the settled draw, by set point.
        down, up: the same, of falling asleep and of waking.
        factor: the meter's watts over the firmware's.
    """

    points: Mapping[str, Tally] = field(default_factory=dict)
    claims: Mapping[str, Tally] = field(default_factory=dict)
    rates: Mapping[str, Tally] = field(default_factory=dict)
    times: Mapping[str, Tally] = field(default_factory=dict)
    down: Tally = Tally()
    up: Tally = Tally()
    factor: Tally = Tally()

    def __bool__(self) -> bool:
        """Whether anything is known at all."""
        tables = (self.points, self.claims, self.times)
        tallies = (tally for table in tables for tally in table.values())
        return any(tally.n for tally in (self.down, self.up, self.factor, *tallies))

    def with_point(
        self, mode: str, watts_w: float, error_w: float, h_per_s: float | None = None
    ) -> "Learnt":
        """One settled draw at a set point by a meter, and what was hashed meanwhile."""
        if mode not in self.points and len(self.points) >= MOST_MODES:
            return self
        rates = self.rates if h_per_s is None else _with(self.rates, mode, h_per_s, 0.0)
        return replace(self, points=_with(self.points, mode, watts_w, error_w), rates=rates)

    def with_word(
        self, mode: str, watts_w: float, error_w: float, h_per_s: float | None = None
    ) -> "Learnt":
        """One settled draw at a set point in the firmware's own words."""
        if mode not in self.claims and len(self.claims) >= MOST_MODES:
            return self
        rates = self.rates if h_per_s is None else _with(self.rates, mode, h_per_s, 0.0)
        return replace(self, claims=_with(self.claims, mode, watts_w, error_w), rates=rates)

    def without_point(self, mode: str) -> "Learnt":
        """A set point was disproved: what was learnt of its draw is forgotten."""
        points, claims, rates = (
            {name: tally for name, tally in table.items() if name != mode}
            for table in (self.points, self.claims, self.rates)
        )
        return replace(self, points=points, claims=claims, rates=rates)

    def with_sleep_step(
        self, mode: str, step: Step, standby_w: float, h_per_s: float | None = None
    ) -> "Learnt":
        """The draw at `mode` from the step that a feeder's meter saw when the machine slept.

        Args:
            mode: set point that it left.
            step: see `levels.step_at`.
            standby_w: draw asleep, W, unless that was learnt.
            h_per_s: what it hashed before; None where it did not tell.
        """
        asleep = self.points.get(SLEEP, Tally())
        known = asleep.n > 0
        floor_w = asleep.mean if known else standby_w
        floor_error_w = asleep.error if known else standby_w / 2.0
        error_w = math.hypot(step.error_w, floor_error_w)
        return self.with_point(mode, max(0.0, step.watts_w + floor_w), error_w, h_per_s)

    def with_times(self, *, down_s: float | None = None, up_s: float | None = None) -> "Learnt":
        """How long one transition took; None where it was not seen."""
        down = self.down if down_s is None else self.down.add(down_s)
        up = self.up if up_s is None else self.up.add(up_s)
        return replace(self, down=down, up=up)

    def with_time(self, mode: str, took_s: float) -> "Learnt":
        """How long the machine took until it had settled at a set point."""
        if mode not in self.times and len(self.times) >= MOST_MODES:
            return self
        return replace(self, times=_with(self.times, mode, took_s, 0.0))

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

    def plus(self, other: "Learnt") -> "Learnt":
        """Both records as one; set points beyond `MOST_MODES` are left out."""
        return Learnt(
            _merged(self.points, other.points),
            _merged(self.claims, other.claims),
            _merged(self.rates, other.rates),
            _merged(self.times, other.times),
            self.down.plus(other.down),
            self.up.plus(other.up),
            self.factor.plus(other.factor),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; see `from_dict`."""
        return {
            "version": VERSION,
            "points": _table(self.points),
            "claims": _table(self.claims),
            "rates": _table(self.rates),
            "times": _table(self.times),
            "down": _packed(self.down),
            "up": _packed(self.up),
            "factor": _packed(self.factor),
        }

    @classmethod
    def from_dict(cls, raw: object) -> "Learnt":
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            raise ValueError("not a record of what was learnt")
        return cls(
            _tallies(raw.get("points")),
            _tallies(raw.get("claims", {})),
            _tallies(raw.get("rates", {})),
            _tallies(raw.get("times", {})),
            _unpacked(raw.get("down")),
            _unpacked(raw.get("up")),
            _unpacked(raw.get("factor")),
        )


def _with(
    tallies: Mapping[str, Tally], mode: str, value: float, error: float
) -> Mapping[str, Tally]:
    return {**tallies, mode: tallies.get(mode, Tally()).add(value, error)}


def _merged(ours: Mapping[str, Tally], theirs: Mapping[str, Tally]) -> Mapping[str, Tally]:
    modes = list(dict.fromkeys([*ours, *theirs]))[:MOST_MODES]
    return {mode: ours.get(mode, Tally()).plus(theirs.get(mode, Tally())) for mode in modes}


def _table(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    return {mode: _packed(tally) for mode, tally in tallies.items()}


def _packed(tally: Tally) -> dict[str, Any]:
    most = None if math.isnan(tally.most) else tally.most
    return {"n": tally.n, "mean": tally.mean, "m2": tally.m2, "own2": tally.own2, "most": most}


def _tallies(raw: object) -> Mapping[str, Tally]:
    if not isinstance(raw, dict) or len(raw) > MOST_MODES:
        raise ValueError("no usable set points")
    if not all(isinstance(mode, str) and 0 < len(mode) <= MOST_MODE_TEXT for mode in raw):
        raise ValueError("a set point has no usable name")
    return {mode: _unpacked(tally) for mode, tally in raw.items()}


def _unpacked(raw: object) -> Tally:
    """Raises ValueError: not a tally, or one that no observations could have made."""
    if not isinstance(raw, dict):
        raise ValueError("a tally is missing")
    n, most = raw.get("n"), raw.get("most")
    mean, m2, own2 = (_figure(raw.get(key)) for key in ("mean", "m2", "own2"))
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= MEMORY:
        raise ValueError("a tally holds no usable count")
    if m2 < 0.0 or own2 < 0.0 or mean < 0.0:
        raise ValueError("a tally holds no usable figures")
    if n == 0:
        return Tally()
    if most is None or _figure(most) < mean * (1.0 - 1e-9):
        raise ValueError("a tally's largest figure lies below its mean")
    return Tally(n, mean, m2, own2, _figure(most))


def _figure(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not abs(raw) < math.inf:
        raise ValueError("a tally holds no usable figures")
    return float(raw)
