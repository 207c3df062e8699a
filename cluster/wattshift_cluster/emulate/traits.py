"""What differs from copy to copy of one model, drawn once from the machine's seed."""

import math
import random
from dataclasses import dataclass

from wattshift_cluster.emulate.specs import Spec
from wattshift_cluster.emulate.timing import Timing

_WAVES_S = ((20.0, 60.0), (90.0, 240.0))
"""Periods of the slow noise on a real machine's draw: fans and regulation (MODELLED)."""

Wave = tuple[float, float]
"""Angular frequency, 1/s, and phase."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One copy. Times are this copy's own draw from the spans of `Timing`.

    Attributes:
        wander: half the width of its slow noise, as a share of the draw; 0 for none.
        waves: whose mean the noise is.
    """

    react_s: float
    down_w_per_s: float
    up_w_per_s: float
    standby_w: float
    bias: float
    restart_s: float
    warm_s: float
    cold_s: float
    tune_step_s: float
    boot_s: float
    wander: float
    waves: tuple[Wave, ...]

    @classmethod
    def of(cls, spec: Spec, timing: Timing, rng: random.Random, *, wander: bool) -> "Traits":
        """Draw one copy of `spec` that moves as `timing` says."""
        top_w = max([spec.nameplate_w, *(watts_w for watts_w, _ in spec.curve)])
        return cls(
            react_s=rng.uniform(*timing.react_s),
            down_w_per_s=top_w / rng.uniform(*timing.fall_s),
            up_w_per_s=top_w / rng.uniform(*timing.rise_s),
            standby_w=rng.uniform(*spec.standby_w),
            bias=rng.uniform(*spec.bias),
            restart_s=rng.uniform(*timing.restart_s),
            warm_s=rng.uniform(*timing.warm_s),
            cold_s=rng.uniform(*timing.cold_s),
            tune_step_s=rng.uniform(*timing.tune_step_s),
            boot_s=rng.uniform(*timing.boot_s),
            wander=spec.wander if wander else 0.0,
            waves=tuple(
                (2.0 * math.pi / rng.uniform(*span_s), rng.uniform(0.0, 2.0 * math.pi))
                for span_s in _WAVES_S
            ),
        )

    def wandered(self, now_s: float) -> float:
        """By what the draw is multiplied at a moment."""
        if not self.wander:
            return 1.0
        noise = sum(math.sin(speed * now_s + phase) for speed, phase in self.waves)
        return 1.0 + self.wander * noise / len(self.waves)
