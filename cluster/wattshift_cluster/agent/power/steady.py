"""Holding a device's draw at a target while inference comes and goes. Pure: the clock comes in.

The gate switches between two intensities within a millisecond: one while inference is idle, one
beside it. Both are set so that the draw is the target's either way, first as the model says, then
corrected by what is measured. A reading is about a second old, so the correction is slow: an
integral whose gain stays well below 1 / (e · delay), where it would begin to overshoot, even if a
percent of intensity draws half as much again as the model says.

Each state has a correction of its own. An error is charged to both by their share of the time that
it was measured over, as in least mean squares (B. Widrow, M. E. Hoff, 1960), so the two come apart.
"""

import math
from dataclasses import dataclass

from wattshift_cluster.agent.power.curve import STEPS, Curve, interpolated, inverted
from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel

GAIN_PER_S = 0.25
HOLD_UNKNOWN_S = 2.0
"""So long the model alone steers, by its upper bound. After that unknown means stop."""

READING_DELAY_S = 0.6
"""A mean over a second is half a second old, plus the sensor's lag."""

SWITCH_PCT = 0.6
"""More than half a percent: between two whole percents the intensity stays where it is."""

DEAD_PCT = 1.0
"""Errors below what a percent draws are left alone: no whole percent may be nearer the target."""

LONGEST_STEP_S = 1.0
REFRESH_S = 5.0
TAUGHT_S = 5.0


@dataclass(frozen=True, slots=True)
class SteadySettings:
    """What to hold.

    Attributes:
        target_w: the device's draw to hold, W.
        ramp_w_per_s: most that the draw is made to change, both ways, in the model's watts, W/s.
        least_pct, most_pct: range of the intensities, %; a lease may cut it further.
    """

    target_w: float
    ramp_w_per_s: float
    least_pct: int = 0
    most_pct: int = 100

    def __post_init__(self) -> None:
        assert self.target_w >= 0
        assert self.ramp_w_per_s > 0
        assert 0 <= self.least_pct <= self.most_pct <= 100


@dataclass(frozen=True, slots=True)
class Intensities:
    """For the gate: without and with busy inference, %."""

    idle_pct: int
    busy_pct: int


class _Side:
    """One of the two states: its curve, its correction, its intensity."""

    def __init__(self, curve: Curve, *, cautious: bool) -> None:
        self.curve, self.correction_w, self.taught_s, self.pct = curve, 0.0, 0.0, 0
        self.levels_w = curve.high_w if cautious else curve.mean_w

    @property
    def span_w(self) -> float:
        return self.levels_w[-1] - self.levels_w[0]

    def refresh(self, curve: Curve, setpoint_w: float, *, cautious: bool) -> None:
        """Take a newer curve without a jump of the intensity.

        The correction becomes what keeps the intensity where it is: one that had run below the
        lowest or above the highest would otherwise take its time to come back.
        """
        share = inverted(self.levels_w, setpoint_w + self.correction_w)
        self.curve = curve
        self.levels_w = curve.high_w if cautious else curve.mean_w
        self.correction_w = interpolated(self.levels_w, share) - setpoint_w

    def correct(self, error_w: float, setpoint_w: float, share: float, room_w: float) -> None:
        """Integrate, but not against an end of the range and not faster than the ramp.

        Args:
            error_w: what is missing times gain and time, W.
            setpoint_w: what this side aims at, W.
            share: of the measured time that belongs to this side.
            room_w: most that the correction may change now, W.
        """
        aim_w = setpoint_w + self.correction_w
        stuck_low = aim_w <= self.levels_w[0] and error_w < 0
        stuck_high = aim_w >= self.levels_w[-1] and error_w > 0
        step_w = 0.0 if stuck_low or stuck_high else share * error_w
        if self.taught_s < TAUGHT_S and share == 0:
            step_w = -self.correction_w  # left over from an older curve, and confirmed by nothing
        step_w = min(room_w, max(-room_w, step_w))
        self.correction_w = min(self.span_w, max(-self.span_w, self.correction_w + step_w))

    def aim(self, setpoint_w: float, *, blind: bool) -> None:
        """Set the intensity for a setpoint; without a reading its upper bound keeps to it."""
        real_pct = STEPS * inverted(self.levels_w, setpoint_w + self.correction_w)
        if blind:
            real_pct = min(self.pct, real_pct, STEPS * self.curve.intensity_below(setpoint_w))
            self.pct = math.floor(real_pct)
        elif abs(real_pct - self.pct) > SWITCH_PCT or real_pct in (0, STEPS):
            self.pct = round(real_pct)


class SteadyDraw:
    """The controller of one device.

    Attributes:
        settings: may be replaced at any time; the draw then ramps to the new target.
        joules_hashing: energy that mining added so far, by the model, J.
    """

    def __init__(self, settings: SteadySettings, model: PowerModel) -> None:
        """Nothing is set before the first `update`. The model goes on learning elsewhere."""
        self.settings = settings
        self.joules_hashing = 0.0
        self._model = model
        self._now_s = self._fresh_s = self._refreshed_s = -math.inf
        self._told: tuple[int, bool, float | None] | None = None
        self._setpoint_w: float | None = None
        self._expected_w = self._expected_duty = 0.0
        self._make_sides(None)

    def update(
        self,
        now_s: float,
        watts_w: float | None,
        busy_share: float,
        mining_duty: float,
        limit_w: float | None,
        *,
        most_pct: int = 100,
    ) -> Intensities:
        """What to set now.

        Args:
            now_s: a clock that never goes back, s.
            watts_w: draw, mean of the last second or so, W; None when it is unknown.
            busy_share, mining_duty: shares of that same time in which inference was busy and in
                which launches ran, 0 to 1, as measured.
            limit_w: enforced power limit, W; None: the model's own.
            most_pct: most that the lease allows and throttling leaves, %.
        """
        step_s = min(LONGEST_STEP_S, max(0.0, now_s - self._now_s))
        if now_s - self._now_s > HOLD_UNKNOWN_S:
            self._setpoint_w, step_s = None, 0.0  # nothing was held in between: it starts anew
        self._now_s = now_s
        self._refresh(limit_w)
        self._book(step_s, busy_share, mining_duty)
        most_pct = min(self.settings.most_pct, most_pct)
        reading_w = watts_w if watts_w is not None and math.isfinite(watts_w) else None
        if reading_w is not None:
            self._fresh_s = now_s
        elif self._setpoint_w is None or now_s - self._fresh_s > HOLD_UNKNOWN_S:
            self._setpoint_w = None
            self._idle.pct = self._busy.pct = 0
            return Intensities(0, 0)
        room_w = self._move_setpoint(reading_w, step_s, limit_w)
        assert self._setpoint_w is not None
        if reading_w is not None:
            self._correct(reading_w, busy_share, mining_duty, step_s, room_w, limit_w)
        idle_pct, busy_pct = (self._set(side, most_pct, reading_w) for side in self._sides)
        share = busy_share * busy_pct + (1 - busy_share) * idle_pct
        self._expected_duty += self._recent(step_s) * (share / 100 - self._expected_duty)
        return Intensities(idle_pct, busy_pct)

    def _set(self, side: _Side, most_pct: int, reading_w: float | None) -> int:
        assert self._setpoint_w is not None
        blind = reading_w is None
        side.aim(self._setpoint_w, blind=blind)
        least_pct = 0 if blind else self.settings.least_pct
        return min(most_pct, max(least_pct, side.pct))

    def _move_setpoint(
        self, reading_w: float | None, step_s: float, limit_w: float | None
    ) -> float:
        """Ramp towards the target; what the ramp leaves for a correction, W."""
        enforced_w = self._model.limit_w if limit_w is None else limit_w
        ceiling_w = math.inf if enforced_w is None else MINING_SHARE * enforced_w
        target_w = min(self.settings.target_w, ceiling_w)
        if self._setpoint_w is None:
            assert reading_w is not None
            self._setpoint_w = self._expected_w = min(reading_w, target_w)
        ramp_w = self.settings.ramp_w_per_s * step_s
        change_w = min(ramp_w, max(-ramp_w, target_w - self._setpoint_w))
        self._setpoint_w = min(self._setpoint_w + change_w, ceiling_w)
        # What a reading of now should show: it is as late as the reading is.
        self._expected_w += self._recent(step_s) * (self._setpoint_w - self._expected_w)
        return ramp_w - abs(change_w)

    def _correct(
        self,
        reading_w: float,
        busy_share: float,
        mining_duty: float,
        step_s: float,
        room_w: float,
        limit_w: float | None,
    ) -> None:
        assert self._setpoint_w is not None
        error_w = self._expected_w - reading_w
        if error_w > 0 and mining_duty < self._expected_duty / 2 - 0.05:
            return  # mining has no work; asking for more of it would only wind up
        gain = GAIN_PER_S * step_s
        enforced_w = self._model.limit_w if limit_w is None else limit_w
        if enforced_w is not None and reading_w > MINING_SHARE * enforced_w:
            gain, room_w = 2 * gain, math.inf
        for side, share in zip(self._sides, (1 - busy_share, busy_share), strict=True):
            dead_w = DEAD_PCT * side.span_w / STEPS
            beyond_w = math.copysign(max(0.0, abs(error_w) - dead_w), error_w)
            side.correct(gain * beyond_w, self._setpoint_w, share, room_w)
            side.taught_s = min(TAUGHT_S, side.taught_s + share * step_s)

    def _book(self, step_s: float, busy_share: float, mining_duty: float) -> None:
        """Energy of hashing: with it less without it. The model is linear in inference's share."""
        for side, share in zip(self._sides, (1 - busy_share, busy_share), strict=True):
            mean_w = side.curve.mean_w
            self.joules_hashing += share * step_s * (interpolated(mean_w, mining_duty) - mean_w[0])

    def _refresh(self, limit_w: float | None) -> None:
        told = (self._model.version, self._model.known, limit_w)
        if told == self._told and self._now_s - self._refreshed_s < REFRESH_S:
            return
        if self._told is None or self._setpoint_w is None:
            self._make_sides(limit_w)
        else:
            for side, inference in zip(self._sides, (0.0, 1.0), strict=True):
                curve = self._model.curve(inference, limit_w)
                side.refresh(curve, self._setpoint_w, cautious=not self._model.known)
        self._told, self._refreshed_s = told, self._now_s

    def _make_sides(self, limit_w: float | None) -> None:
        cautious = not self._model.known
        self._idle = _Side(self._model.curve(0.0, limit_w), cautious=cautious)
        self._busy = _Side(self._model.curve(1.0, limit_w), cautious=cautious)
        self._sides = self._idle, self._busy

    def _recent(self, step_s: float) -> float:
        return 1 - math.exp(-step_s / READING_DELAY_S)
