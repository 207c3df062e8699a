"""From a lease to the gate's two intensities: what the model allows, less what the card asks.

    lease ──▶ model: the most intensity whose upper bound the watts cover
          ──▶ profile under way: its step instead
          ──▶ steady draw: the intensities that hold the target, without and beside inference
          ──▶ throttling: a share of it, until the card's clocks are free again

Whatever is set, it never exceeds what the lease allows. Pure but for the model that it teaches.
"""

from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.agent.meters import Draw
from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel
from wattshift_cluster.agent.power.profile import Profile, ProfileSample
from wattshift_cluster.agent.power.steady import Intensities, SteadyDraw
from wattshift_cluster.agent.specs import HashingSpec
from wattshift_cluster.agent.throttle import BackOff

IDLE, HASH = "idle", "hash"
TEACH_EVERY_S, TEACH_IDLE_S = 1.0, 5.0
"""From lesson to lesson: while it hashes, and while there is little to learn."""

AT_REST_S = 3.0
"""A reading teaches only so long after a change: NVML's power may be the mean of a second."""


NOTHING = Intensities(0, 0)


class Steering:
    """One device's.

    Attributes:
        model: what is known of a GPU's draw; None for a CPU, whose watts are modelled anyway.
        profile: a measurement under way, or the last one; None before the first.
        told: what was last to be set.
        joules_hashing: energy that hashing took, by the model, while a steady draw was held, J.
    """

    def __init__(self, spec: HashingSpec, model: PowerModel | None) -> None:
        """Nothing is leased."""
        self.model = model
        self.profile: Profile | None = None
        self._spec = spec
        self._backoff = BackOff()
        self._steady = (
            None if spec.steady is None or model is None else SteadyDraw(spec.steady, model)
        )
        self.told = NOTHING
        self._set_s: float | None = None
        self._taught_s = float("-inf")
        self._busy: list[tuple[float, bool]] = []

    @property
    def limited_by(self) -> str | None:
        """Why less than the lease is used; None when all of it is."""
        reasons = self._backoff.reasons
        return f"the card throttles: {', '.join(reasons)}" if reasons else None

    @property
    def note(self) -> str | None:
        """For a person: why less than the lease is used, or what a steady draw costs."""
        if self.limited_by is not None or self._spec.steady is None or self._steady is None:
            return self.limited_by
        target_w, burnt_wh = self._spec.steady.target_w, self.joules_hashing / 3600
        return f"its draw is held at {target_w:g} W; hashing has taken {burnt_wh:.1f} Wh for that"

    @property
    def holds(self) -> bool:
        """Whether a draw is being held or measured, which takes frequent looks."""
        return self._steady is not None or (self.profile is not None and not self.profile.done)

    @property
    def joules_hashing(self) -> float:
        """See the class."""
        return 0.0 if self._steady is None else self._steady.joules_hashing

    def allowed_pct(self, lease: Lease | None, limit_w: float | None = None) -> int:
        """Whole percents of time that a lease's watts allow; never more than they do.

        Args:
            limit_w: the card's enforced limit now, W; None if it has none or it is unknown.
        """
        if lease is None or lease.mode != HASH:
            return 0
        spec = self._spec
        if self.model is not None:
            share = self.model.intensity_for(lease.watts_w, 0.0, limit_w)
        else:
            share = (lease.watts_w - spec.base_w) / (spec.top_w - spec.base_w)
        return max(0, min(100, int(share * 100 + 1e-6)))

    def begin(self, lease: Lease, now_s: float) -> str | None:
        """Start measuring the device's curve under its lease; why not, or None."""
        if self.model is None:
            return "its watts are modelled: there is nothing to measure"
        if lease.mode != HASH:
            return "it has no lease to hash, and nothing is measured without watts for it"
        if self.profile is not None and not self.profile.done:
            return "it is being measured already"
        self.profile = Profile(lease.watts_w, self.model, now_s)
        return None

    def update(
        self, now_s: float, lease: Lease | None, draw: Draw, *, busy: bool, wall_s: float
    ) -> Intensities:
        """What the gate is to be told now.

        Args:
            now_s: the boot clock, s.
            lease: in force; None at the safe point.
            draw: what was just seen.
            busy: whether a client is busy now.
            wall_s: a clock that goes on over restarts, for the model's memory, s.
        """
        limit_w = None if draw.card is None else draw.card.enforced_limit_w
        allowed_pct = self.allowed_pct(lease, limit_w)
        busy_share = self._busy_share(now_s, busy)
        throttled = () if draw.card is None else draw.card.throttled
        mining = bool(draw.duty) and allowed_pct > 0
        share = self._backoff.update(now_s, throttled, mining=mining)
        if self.profile is not None and not self.profile.done:
            chosen = self._profiled(now_s, lease, draw, busy=busy, wall_s=wall_s)
        else:
            self._teach(now_s, draw, busy_share, limit_w, wall_s)
            if self._steady is None or allowed_pct == 0:
                chosen = Intensities(int(allowed_pct * share), 0)
            else:
                chosen = self._steady.update(
                    now_s,
                    draw.mean_w,
                    busy_share=busy_share,
                    mining_duty=draw.duty or 0.0,
                    limit_w=limit_w,
                    most_pct=int(allowed_pct * share),
                )
        chosen = Intensities(min(chosen.idle_pct, allowed_pct), min(chosen.busy_pct, allowed_pct))
        if chosen != self.told or self._set_s is None:
            self.told, self._set_s = chosen, now_s
        return chosen

    def _profiled(
        self, now_s: float, lease: Lease | None, draw: Draw, *, busy: bool, wall_s: float
    ) -> Intensities:
        assert self.profile is not None
        throttled = () if draw.card is None else draw.card.throttled
        sample = ProfileSample(
            watts_w=draw.watts_w,
            duty=draw.duty or 0.0,
            hashes=draw.totals.hashes,
            lease_w=0.0 if lease is None else lease.watts_w,
            busy=busy,
            throttled=", ".join(throttled) or None,
        )
        return Intensities(self.profile.next(now_s, sample, wall_s) or 0, 0)

    def _teach(
        self, now_s: float, draw: Draw, busy_share: float, limit_w: float | None, wall_s: float
    ) -> None:
        if self.model is None or draw.mean_w is None or draw.duty is None or self._set_s is None:
            return
        every_s = TEACH_EVERY_S if draw.duty > 0 else TEACH_IDLE_S
        if now_s - self._set_s < AT_REST_S or now_s - self._taught_s < every_s:
            return
        self._taught_s = now_s
        self.model.observe(draw.duty, busy_share, draw.mean_w, limit_w, wall_s)

    def _busy_share(self, now_s: float, busy: bool) -> float:
        self._busy.append((now_s, busy))
        self._busy = [(at_s, was) for at_s, was in self._busy if now_s - at_s <= 1.0]
        return sum(was for _, was in self._busy) / len(self._busy)


def top_w(spec: HashingSpec, model: PowerModel | None) -> float:
    """Watts of full intensity, W: a GPU's upper bound, at most mining's share of its limit."""
    if model is None:
        return spec.top_w
    assert spec.card is not None
    return min(model.top().high_w, MINING_SHARE * spec.nameplate_w)
