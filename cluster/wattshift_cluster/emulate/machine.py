"""The physics of one emulated miner: set points in, true watts and hashes per second out.

A command takes effect after a short delay; then the draw moves at a constant rate, down within
5 s from full power to standby (all delays included), up within 10 s, as LuxOS's vendor claims for
its curtailment. Delay, rates, standby draw and the small departure from the table are drawn from
the seed once per machine.

Time comes in through `clock`, so a simulation steps the same model without waiting. The true values
carry no noise; what the firmware *reports* is off by up to 1 %.
"""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from wattshift_cluster.emulate.specs import Profile, Spec

REPORT_NOISE = 0.01
_AMBIENT_C = 26.0
_RISE_AT_NAMEPLATE_C = 46.0


@dataclass(frozen=True, slots=True)
class _Traits:
    """What differs from copy to copy of one model."""

    delay_s: float
    down_w_per_s: float
    up_w_per_s: float
    standby_w: float
    bias: float


def _traits(spec: Spec, rng: random.Random) -> _Traits:
    top_w = max([spec.nameplate_w, *(watts_w for watts_w, _ in spec.curve)])
    return _Traits(
        delay_s=rng.uniform(0.2, 0.5),
        down_w_per_s=top_w / rng.uniform(1.5, 4.3),
        up_w_per_s=top_w / rng.uniform(5.0, 9.4),
        standby_w=rng.uniform(24.0, 29.5),
        bias=rng.uniform(*spec.bias),
    )


COMMANDS_KEPT = 64
"""Commands whose times a machine remembers, for those who want to know when one arrived."""


class Machine:
    """One miner. Not thread-safe; setters and getters look at the clock once each.

    `commands_s` holds the times of the last commands that it took.

    Args:
        machine_id: name in the truth and in logs.
        spec: the model.
        seed: same seed and same commands at the same times give the same machine.
        clock: monotonic seconds.
        full: whether it hashes at its default at the start, or sleeps.
    """

    def __init__(
        self,
        machine_id: str,
        spec: Spec,
        *,
        seed: int,
        clock: Callable[[], float],
        full: bool = False,
    ) -> None:
        rng = random.Random(seed)
        self.id = machine_id
        self.spec = spec
        self.started_s = clock()
        self._clock = clock
        self._traits = _traits(spec, rng)
        self._noise = random.Random(rng.getrandbits(64))
        self._asleep = not full
        self._profile = next((p for p in spec.profiles if p.step == 0), None)
        self._limit_w = spec.limit_w[1] if spec.limit_w else None
        self._from_w = self._target_w = self._goal_w()
        self._changed_s = self.started_s
        self.commands_s: deque[float] = deque(maxlen=COMMANDS_KEPT)

    # Set points

    def sleep(self) -> None:
        """Stop hashing and fall to standby."""
        self._asleep = True
        self._retarget()

    def wake(self) -> None:
        """Resume at the set point last chosen."""
        self._asleep = False
        self._retarget()

    def set_profile(self, name: str) -> bool:
        """Choose a profile; a sleeping machine keeps sleeping. False where there is none such."""
        chosen = next((p for p in self.spec.profiles if p.name == name), None)
        if chosen is None:
            return False
        self._profile = chosen
        self._retarget()
        return True

    def set_limit(self, watts_w: float) -> bool:
        """Choose a power limit; a sleeping machine keeps sleeping. False outside the range."""
        bounds_w = self.spec.limit_w
        if bounds_w is None or not bounds_w[0] <= watts_w <= bounds_w[1]:
            return False
        self._limit_w = float(watts_w)
        self._retarget()
        return True

    @property
    def asleep(self) -> bool:
        """Whether the set point is sleep, however far the draw has come."""
        return self._asleep

    @property
    def profile(self) -> Profile | None:
        """The chosen profile, in force or waiting for the wake; None on a power-limit machine."""
        return self._profile

    @property
    def limit_w(self) -> float | None:
        """The chosen power limit, W; None on a profile machine."""
        return self._limit_w

    @property
    def mode(self) -> str:
        """The set point in force: "sleep", the profile's name, or "limit:" and watts."""
        if self._asleep:
            return "sleep"
        return self._profile.name if self._profile else f"limit:{self._limit_w:.0f}"

    # Truth

    def watts_w(self) -> float:
        """True draw at the wall now, W."""
        elapsed_s = max(0.0, self._clock() - self._changed_s - self._traits.delay_s)
        if self._target_w < self._from_w:
            return max(self._target_w, self._from_w - self._traits.down_w_per_s * elapsed_s)
        return min(self._target_w, self._from_w + self._traits.up_w_per_s * elapsed_s)

    def hashrate_h_per_s(self) -> float:
        """True hashes per second now. A machine told to sleep stops hashing at once."""
        if self._asleep:
            return 0.0
        table_w = self.watts_w() / (1.0 + self._traits.bias)
        curve = self.spec.curve
        if table_w < curve[0][0]:
            # Below its lowest profile a machine is still bringing its boards up.
            return 0.0
        at = bisect_left(curve, (table_w, 0.0))
        if at == len(curve):
            return curve[-1][1]
        (w0, h0), (w1, h1) = curve[max(0, at - 1)], curve[at]
        return h1 if w1 == w0 else h0 + (h1 - h0) * (table_w - w0) / (w1 - w0)

    # What the firmware would say

    def reported_watts_w(self) -> float:
        """True draw with the firmware's error of up to 1 %."""
        return self.watts_w() * self._noisy()

    def reported_hashrate_h_per_s(self) -> float:
        """True hashrate with the firmware's error of up to 1 %."""
        return self.hashrate_h_per_s() * self._noisy()

    def temperature_c(self) -> float:
        """Hottest board, °C: ambient plus a rise in proportion to the draw."""
        return _AMBIENT_C + _RISE_AT_NAMEPLATE_C * self.watts_w() / self.spec.nameplate_w

    def uptime_s(self) -> float:
        """Seconds since the machine was made."""
        return self._clock() - self.started_s

    def _noisy(self) -> float:
        return 1.0 + self._noise.uniform(-REPORT_NOISE, REPORT_NOISE)

    def _goal_w(self) -> float:
        if self._asleep:
            return self._traits.standby_w
        table_w = self._profile.watts_w if self._profile else self._limit_w
        assert table_w is not None, "a model has profiles or a power limit"
        return table_w * (1.0 + self._traits.bias)

    def _retarget(self) -> None:
        self.commands_s.append(self._clock())
        goal_w = self._goal_w()
        if goal_w == self._target_w:
            # A repeated command must not start the reaction delay over again.
            return
        self._from_w = self.watts_w()
        self._target_w = goal_w
        self._changed_s = self._clock()
