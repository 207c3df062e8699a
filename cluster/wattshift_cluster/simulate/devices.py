"""A modelled device: it ramps to its set point, draws with a bias and noise, and can misbehave.

What it does is not what its lease says but what was last written to it, as with a real one.
"""

import itertools
import random
from dataclasses import dataclass, field

from wattshift_scheduler.site import Device

BIAS_SHARE = 0.03
"""Most by which a device draws more or less than nominal; lies within every device's tolerance."""

NOISE_SHARE = 0.003
"""Standard deviation of one power sample, of the true watts."""

LIMITED_SHARE = 0.985
"""Share of its limit that a power-limited device really draws."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as its agent keeps it; times are on the agent's boot clock."""

    epoch: int
    sequence: int
    mode: str
    watts_w: float
    valid_until_boot_s: float


@dataclass(slots=True)
class ModelledDevice:
    """One device of the modelled world.

    Attributes:
        device: what its agent says of it.
        rng: where its bias and noise come from.
        watts_w: what it truly draws, W.
        goal_w: what it is moving to, W.
        lease: what its agent holds for it, None if nothing.
        last: highest (epoch, sequence) that its agent has taken for it.
        ignores: it takes set points and does nothing (fault).
        unreadable: it does not answer its agent (fault).
        blind: it answers without watts (fault).
        foreign: somebody else has written its set point (fault).
        hashes: counted since the start.
        cycles: wakes from its lowest point since the start, whoever caused them.
    """

    device: Device
    rng: random.Random
    watts_w: float = 0.0
    goal_w: float = 0.0
    lease: HeldLease | None = None
    last: tuple[int, int] = (0, 0)
    ignores: bool = False
    unreadable: bool = False
    blind: bool = False
    foreign: bool = False
    hashes: float = 0.0
    cycles: int = 0
    bias: float = field(init=False)

    def __post_init__(self) -> None:
        self.bias = self.rng.uniform(-BIAS_SHARE, BIAS_SHARE)
        self.goal_w = self.watts_w = self._lowest_w()

    def write(self, mode: str, watts_w: float) -> None:
        """Write a set point: it begins to move there, unless it ignores us."""
        self.foreign = False
        if self.ignores:
            return
        if self.device.continuous:
            top_w = self.device.points[-1].watts_w
            self._aim(max(min(watts_w, top_w) * LIMITED_SHARE, self._lowest_w()))
            return
        nominal = next(p.watts_w for p in self.device.points if p.mode == mode)
        self._aim(nominal * (1.0 + self.bias))

    def write_safe(self) -> None:
        """Go to the safe point. A gate always obeys: it is closed from outside."""
        self.lease = None
        if self.device.fenced:
            self.goal_w = self.watts_w = self.device.safe_w
        elif not self.ignores:
            self.goal_w = self._lowest_w()

    def meddle(self) -> None:
        """Somebody else sets it to its highest point."""
        self.foreign = True
        top = self.device.points[-1]
        share = LIMITED_SHARE if self.device.continuous else 1.0 + self.bias
        self._aim(top.watts_w * share)

    def _aim(self, goal_w: float) -> None:
        self.cycles += self.goal_w <= self._lowest_w() < goal_w
        self.goal_w = goal_w

    def move(self, elapsed_s: float) -> float:
        """Let time pass, s. Returns the mean watts drawn meanwhile, W."""
        before_w = self.watts_w
        rate_w_per_s = self._span_w() / max(self.device.points[-1].transition_s, 1e-3)
        reach_w = rate_w_per_s * elapsed_s
        self.watts_w += min(max(self.goal_w - before_w, -reach_w), reach_w)
        mean_w = 0.5 * (before_w + self.watts_w)
        self.hashes += self.hashrate_h_per_s(mean_w) * elapsed_s
        return mean_w

    @property
    def moving(self) -> bool:
        """Whether it is still on the way to its set point."""
        return abs(self.goal_w - self.watts_w) > 1e-6

    def hashrate_h_per_s(self, watts_w: float) -> float:
        """Hashes per second at these watts: straight lines between its operating points."""
        points = self.device.points
        for low, high in itertools.pairwise(points):
            if watts_w <= high.watts_w:
                share = (watts_w - low.watts_w) / (high.watts_w - low.watts_w)
                rise = high.hashrate_h_per_s - low.hashrate_h_per_s
                return max(low.hashrate_h_per_s + share * rise, 0.0)
        return points[-1].hashrate_h_per_s

    def sampled_w(self) -> float:
        """One power sample, W: true watts with the sensor's noise."""
        return self.watts_w * (1.0 + self.rng.gauss(0.0, NOISE_SHARE))

    def _lowest_w(self) -> float:
        if self.device.continuous:
            return self.device.points[0].watts_w * LIMITED_SHARE
        return self.device.points[0].watts_w * (1.0 + self.bias)

    def _span_w(self) -> float:
        return self.device.points[-1].watts_w * (1.0 + BIAS_SHARE)
