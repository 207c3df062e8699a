"""What a run adds up to: energy and money by kind of work, and every second above the cap.

A *breach* is a time above the cap that nothing excuses: later than the bound after the last
disturbance (a cut, a fault that begins or ends, a controller that comes back), while the controller
did not say that the cap lies below what the site can shed to.
"""

from dataclasses import dataclass, field

from wattshift_cluster.simulate.world import Slice
from wattshift_scheduler.values import Values

MWH_J = 3.6e9
TOLERANCE_W = 1e-6


@dataclass(frozen=True, slots=True)
class Shed:
    """One cut of the cap and how long the site took to get under it.

    Attributes:
        at_s: simulated time of the cut.
        from_w, to_w: the cap before and after, W.
        seconds_to_cap: until the site first drew no more than the cap; None if it never did.
    """

    at_s: float
    from_w: float
    to_w: float
    seconds_to_cap: float | None


@dataclass(frozen=True, slots=True)
class Breach:
    """One time above the cap that nothing excuses."""

    at_s: float
    lasts_s: float
    worst_w: float


@dataclass(slots=True)
class Tally:
    """Counts slices. `bound_s` is how long a disturbance may excuse watts above the cap."""

    values: Values
    bound_s: float
    energy_j: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("mining", "service", "batch", "other"), 0.0)
    )
    cost_usd: float = 0.0
    work_usd: float = 0.0
    reserve_usd: float = 0.0
    mining_usd: float = 0.0
    overcap_s: float = 0.0
    overcap_worst_w: float = 0.0
    shortfall_s: float = 0.0
    sheds: list[Shed] = field(default_factory=list)
    breaches: list[Breach] = field(default_factory=list)
    disturbed_s: float = 0.0
    _booked: float = 0.0
    _breaching: bool = False
    _waiting: bool = False

    def disturbed(self, at_s: float) -> None:
        """Something happened that the controller must first get the better of."""
        self.disturbed_s = at_s

    def cut(self, at_s: float, from_w: float, to_w: float) -> None:
        """The cap fell."""
        self.disturbed(at_s)
        self.sheds.append(Shed(at_s, from_w, to_w, None))
        self._waiting = True

    def add(self, one: Slice, cap_w: float, price_usd_per_mwh: float, short: bool) -> None:
        """Count one slice.

        Args:
            one: what was drawn.
            cap_w: the cap in force, W.
            price_usd_per_mwh: what energy cost.
            short: the controller has said that the cap lies below what it can shed to.
        """
        for work in self.energy_j:
            self.energy_j[work] += float(getattr(one, f"{work}_w")) * one.lasts_s
        mwh = one.total_w * one.lasts_s / MWH_J
        self.cost_usd += mwh * price_usd_per_mwh
        self.work_usd += one.work_usd_per_h * one.lasts_s / 3600.0
        self.reserve_usd += one.reserve_w * one.lasts_s / MWH_J * self.values.reserve_usd_per_mwh
        self._watch(one, one.total_w - cap_w, short)

    def _watch(self, one: Slice, over_w: float, short: bool) -> None:
        if over_w <= TOLERANCE_W:
            self._breaching = False
            if self._waiting:
                self._waiting = False
                last = self.sheds[-1]
                took_s = one.at_s - last.at_s
                self.sheds[-1] = Shed(last.at_s, last.from_w, last.to_w, took_s)
            return
        self.overcap_s += one.lasts_s
        self.overcap_worst_w = max(self.overcap_worst_w, over_w)
        if short:
            self.shortfall_s += one.lasts_s
        if short or one.at_s + one.lasts_s <= self.disturbed_s + self.bound_s:
            return
        if self._breaching:
            open_one = self.breaches[-1]
            worst_w = max(open_one.worst_w, over_w)
            lasts_s = open_one.lasts_s + one.lasts_s
            self.breaches[-1] = Breach(open_one.at_s, lasts_s, worst_w)
        else:
            self._breaching = True
            self.breaches.append(Breach(one.at_s, one.lasts_s, over_w))

    def hashed(self, hashes: float) -> None:
        """Book what the devices hashed since the last time at the hashprice in force until now.

        Called before `values` change, and at the end.
        """
        fresh, self._booked = hashes - self._booked, hashes
        self.mining_usd += fresh * self.values.usd_per_hash_hour / 3600.0
