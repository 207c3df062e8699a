"""Measuring a device's power curve: intensities to set, when to read, and when to give up.

Pure: the caller sets each intensity in the gate, keeps the clock and hands in what it read. At each
step the draw must come to rest first; a reading taken while it still climbs would be of no step.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.agent.power.curve import Estimate
from wattshift_cluster.agent.power.model import SIGMA, PowerModel

STEPS_PCT = (0, 10, 25, 50, 75, 100)
SETTLE_LEAST_S, SETTLE_MOST_S = 1.5, 10.0
SLOPE_S = 2.0
"""The draw is at rest when a line through the last two seconds explains less than the step."""

SLOPE_SHARE = 0.005
AVERAGE_S = 3.0
SENSOR_S = 1.0
"""NVML averages over a second on many cards: readings closer than that are not independent."""

STALE_S = 2.0
LEASE_SLACK, READING_SLACK = 0.005, 0.02
"""A renewed lease is rounded, and one reading is noisy; neither is a reason to give up."""

LEAST_STEP_PCT = 3
MOST_SAMPLES = 4096
"""Of one step: 13 s at 100 Hz, with room."""


@dataclass(frozen=True, slots=True)
class ProfileSample:
    """What the agent saw since the sample before.

    Attributes:
        watts_w: draw, W; None when it is unknown.
        duty: share of time in launches since the sample before, 0 to 1.
        hashes: counted in all so far.
        lease_w: watts of the lease in force, W; 0 without one.
        busy: whether inference had the device at any time since then.
        throttled: why clocks are held down; None when they are not.
    """

    watts_w: float | None
    duty: float
    hashes: int
    lease_w: float
    busy: bool = False
    throttled: str | None = None


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """One measured step; `error_w` is half of a 95 % interval of the mean."""

    intensity_pct: int
    watts_w: float
    error_w: float
    hashrate_h_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """All steps, the curve that fits them, at the same intensities, and what it leaves over, W."""

    points: tuple[ProfilePoint, ...]
    fitted: tuple[Estimate, ...]
    residual_w: float


class Profile:
    """One run.

    Attributes:
        done: nothing more is to be set; the device goes back to its lease.
        aborted: why it ended early; None when it did not.
    """

    def __init__(
        self,
        lease_w: float,
        model: PowerModel,
        now_s: float,
        *,
        limit_w: float | None = None,
        steps_pct: Sequence[int] = STEPS_PCT,
    ) -> None:
        """Plan it.

        Args:
            lease_w: watts that no step may exceed, W.
            model: taught with each step; it also says how far up the lease reaches.
            now_s: any clock that never goes back, s.
            limit_w: enforced power limit, W; None: the model's own.
            steps_pct: intensities, rising, %.
        """
        self.aborted: str | None = None
        self.done = False
        self._lease_w, self._limit_w, self._model = lease_w, limit_w, model
        self._waiting = deque(sorted(steps_pct))
        self._points: list[ProfilePoint] = []
        self._window: deque[tuple[float, ProfileSample]] = deque(maxlen=MOST_SAMPLES)
        self._pct = 0
        self._began_s = self._fresh_s = now_s
        self._averaging_s: float | None = None
        self._go_on(now_s)

    @property
    def points(self) -> tuple[ProfilePoint, ...]:
        """The steps measured so far."""
        return tuple(self._points)

    @property
    def result(self) -> ProfileResult | None:
        """None until at least two steps are measured; then of those measured so far."""
        if len(self._points) < 2:
            return None
        levels = [point.intensity_pct / 100 for point in self._points]
        curve = self._model.curve(0.0, self._limit_w)
        fitted = tuple(curve.at(level) for level in levels)
        pairs = zip(self._points, fitted, strict=True)
        squares = [(point.watts_w - estimate.mean_w) ** 2 for point, estimate in pairs]
        return ProfileResult(tuple(self._points), fitted, math.sqrt(sum(squares) / len(squares)))

    def next(self, now_s: float, sample: ProfileSample, at_s: float = 0.0) -> int | None:
        """The intensity to set now, %; None when it is done or given up.

        Args:
            now_s: the clock given at the start, s.
            sample: what was just read.
            at_s: time on the model's clock, s.
        """
        if not self.done and (reason := self._trouble(now_s, sample)) is not None:
            self.aborted, self.done = reason, True
        if not self.done:
            self._take(now_s, sample, at_s)
        return None if self.done else self._pct

    def _trouble(self, now_s: float, sample: ProfileSample) -> str | None:
        if sample.watts_w is not None and math.isfinite(sample.watts_w):
            self._fresh_s = now_s
        if sample.busy:
            return "inference needs the device"
        if sample.lease_w < self._lease_w * (1 - LEASE_SLACK):
            return f"the lease fell from {self._lease_w:g} W to {sample.lease_w:g} W"
        if sample.watts_w is not None and sample.watts_w > self._lease_w * (1 + READING_SLACK):
            return f"{sample.watts_w:g} W were drawn under a lease of {self._lease_w:g} W"
        if sample.throttled is not None:
            return f"the device throttles: {sample.throttled}"
        if now_s - self._fresh_s > STALE_S:
            return f"no reading of its power for {STALE_S:g} s"
        return None

    def _take(self, now_s: float, sample: ProfileSample, at_s: float) -> None:
        if sample.watts_w is None or not math.isfinite(sample.watts_w):
            return
        self._window.append((now_s, sample))
        if self._averaging_s is None:
            if self._at_rest(now_s):
                self._averaging_s = now_s
                self._window.clear()
                self._window.append((now_s, sample))
        elif now_s - self._averaging_s >= AVERAGE_S:
            self._measured(now_s, at_s)
            self._go_on(now_s)

    def _at_rest(self, now_s: float) -> bool:
        waited_s = now_s - self._began_s
        if waited_s >= SETTLE_MOST_S or waited_s < SETTLE_LEAST_S:
            return waited_s >= SETTLE_MOST_S
        recent = [(at_s, s.watts_w) for at_s, s in self._window if now_s - at_s <= SLOPE_S]
        times_s, watts_w = np.array(recent, dtype=float).T
        if len(times_s) < 4 or np.ptp(times_s) < SETTLE_LEAST_S * 0.9:
            return False
        slope_w_per_s = float(np.polyfit(times_s - times_s[0], watts_w, 1)[0])
        scatter_w = float(np.std(watts_w)) / math.sqrt(len(watts_w))
        rest_w = max(SLOPE_SHARE * (self._model.top_w - self._model.idle_w), 2 * scatter_w)
        return abs(slope_w_per_s) * float(np.ptp(times_s)) <= rest_w

    def _measured(self, now_s: float, at_s: float) -> None:
        """Book the step. The first sample only opens the window: its watts are of before."""
        (first_s, first), (last_s, last) = self._window[0], self._window[-1]
        samples = [sample for _, sample in self._window][1:]
        watts_w = [sample.watts_w for sample in samples if sample.watts_w is not None]
        seconds = last_s - first_s
        independent = max(1.0, min(len(watts_w), seconds / SENSOR_S))
        mean_w = float(np.mean(watts_w))
        duty = float(np.mean([sample.duty for sample in samples]))
        for _ in range(math.ceil(independent)):
            self._model.observe(duty, 0.0, mean_w, self._limit_w, at_s)
        error_w = SIGMA * float(np.std(watts_w)) / math.sqrt(independent)
        rate = (last.hashes - first.hashes) / seconds
        seconds_in_all = now_s - self._began_s
        self._points.append(ProfilePoint(self._pct, mean_w, error_w, rate, seconds_in_all))

    def _go_on(self, now_s: float) -> None:
        """Set the next step, or as much of it as the lease allows by what is known by now."""
        self._began_s, self._averaging_s = now_s, None
        self._window.clear()
        if not self._waiting:
            self.done = True
            return
        wanted_pct = self._waiting[0]
        share = self._model.intensity_for(self._lease_w, 0.0, self._limit_w)
        allowed_pct = int(share * 100 + 1e-9)
        reached_pct = self._points[-1].intensity_pct if self._points else 0
        if wanted_pct <= allowed_pct or not self._points:
            self._pct = self._waiting.popleft() if wanted_pct <= allowed_pct else 0
        elif allowed_pct >= reached_pct + LEAST_STEP_PCT:
            # What is measured here may narrow the bars enough for the step that was wanted.
            self._pct = allowed_pct
        else:
            self.done = True
