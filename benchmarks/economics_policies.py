"""What sites do without a plan: the baselines of the bench `economics`, on the same world.

    always-on     everything at its top whatever it costs; batch at once; events where they bind
    static split  the generations that pay at the past's mean price run at their top, the others
                  rest; so many units are the batch's, day and night
    threshold     each generation rests while the price lies above its break-even, by a band, and
                  for at least a while; events that pay enough are followed, to their limit and not
                  beyond; batch waits above a price unless its deadline calls

Each obeys caps and ramps by leaving off what earns least, and gives services their units first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from benchmarks.economics_case import BatchJob, Case
from benchmarks.economics_peaks import Watch
from benchmarks.economics_site import UNIT_W, Yard
from benchmarks.economics_world import EPS_H, World

from wattshift_scheduler.arrays import Bools, Ints

Policy = Callable[[World], None]
"""Commands the world when an interval begins, and lets the interval pass."""


def played(case: Case, yard: Yard, policy: Policy) -> World:
    """The world after a case under a policy."""
    world = World(case, yard)
    while world.i < case.end:
        i = world.i
        policy(world)
        if world.i == i:
            world.hold(world.ends_s)
    return world


def always_on(world: World) -> None:
    """Everything at its top."""
    _set(world, world.yard.top, _at_once(world))


@dataclass
class StaticSplit:
    """So much for each, once and for all.

    Attributes:
        runs: generations that run; shape (kinds,).
        units: of the batch.
    """

    runs: Bools
    units: int

    def __call__(self, world: World) -> None:
        """As a policy."""
        points = np.where(self.runs[world.yard.kind], world.yard.top, 0)
        _set(world, points, _at_once(world, self.units))


@dataclass
class Threshold:
    """Break-even by generation.

    Attributes:
        band: share of the break-even by which the price must pass it, either way.
        hold: intervals that a generation stays as it is after a turn by the price.
        watches: it rests in intervals that hold this share of a day's chance of a new peak of the
            grid, on days where that is at least the second figure; None: it knows of no peaks.
        least_pay: of an event that is followed without being firm, USD/MWh.
    """

    band: float = 0.0
    hold: int = 1
    watches: tuple[float, float] | None = (0.9, 0.5)
    least_pay: float = 0.0
    _rests: Bools | None = None
    _since: Ints | None = None
    _watch: Watch | None = None

    def __call__(self, world: World) -> None:
        """As a policy."""
        yard, i = world.yard, world.i
        price = float(world.case.trace.price_usd_per_mwh[i])
        if self._rests is None or self._since is None:
            self._rests = np.zeros(len(yard.kinds), dtype=np.bool_)
            self._since = np.full(len(yard.kinds), -(10**6))
        even = np.array([one.break_even_usd_per_mwh for one in yard.kinds])
        rests = np.where(
            self._rests, price > even * (1.0 - self.band), price > even * (1.0 + self.band)
        )
        turns = (rests != self._rests) & (i - self._since >= self.hold)
        self._rests = np.where(turns, rests, self._rests)
        self._since = np.where(turns, i, self._since)
        points = np.where(self._rests[yard.kind], 0, yard.top)
        if self._peak(world):
            points = np.zeros_like(points)
        follows = [
            one.limit_w for one in world.case.running(i) if one.usd_per_mwh >= self.least_pay
        ]
        _set(world, points, _patient(world, price), min(follows, default=np.inf))

    def _peak(self, world: World) -> bool:
        """Whether the interval that begins is watched."""
        if self.watches is None or not world.case.season:
            return False
        if self._watch is None:
            self._watch = Watch(world.case)
        caps = self._watch.caps(world.i, *self.watches)
        return any(cap.in_force(world.now_s + 1.0) for cap in caps)


def _set(world: World, points: Ints, units: dict[str, int], most_w: float = np.inf) -> None:
    """Command what fits: services first, then batch, then the banks that earn most by watt."""
    world.set_units(units, world.case.need(world.i))
    world.set_points(fitted(world, points, units, most_w))


def fitted(world: World, points: Ints, units: dict[str, int], most_w: float = np.inf) -> Ints:
    """The banks' points, those of least worth at rest until caps, `most_w` and ramp hold."""
    yard, i = world.yard, world.i
    wakes = (world.points == 0) & (points > 0)
    now_w = yard.draw_w(points)
    fixed_w = UNIT_W * (world.case.need(i) + sum(units.values()))
    room_w = min(world.case.cap_w(i), most_w, world.ramp_room_w()) - fixed_w
    usd_per_w = yard.usd_per_h[np.arange(len(yard)), points] / np.maximum(now_w, 1.0)
    # What would have to come up goes last: it earns nothing at first.
    order = np.lexsort((np.arange(len(yard)), -usd_per_w, wakes))
    rest_w = yard.points_w[:, 0]
    total = rest_w.sum() + np.cumsum((now_w - rest_w)[order])
    points = points.copy()
    points[order[total > room_w + 1e-6]] = 0
    return points


def _at_once(world: World, most: int | None = None) -> dict[str, int]:
    """Batch as soon as there are units, the earliest deadline first."""
    free = world.free_units() if most is None else min(world.free_units(), most)
    return _shared(world, free, lambda job: job.most)


def _patient(world: World, price: float) -> dict[str, int]:
    """Batch where it earns more than its energy, or where its deadline calls."""
    pays = price < BATCH_PAYS_BELOW

    def wants(job: BatchJob) -> int:
        left_h = (job.deadline - world.i) * world.case.trace.hours
        late = world.left_h[job.name] > 0.5 * left_h * job.most
        return job.most if pays or late else 0

    return _shared(world, world.free_units(), wants)


BATCH_PAYS_BELOW = 300.0
"""USD/MWh: what a batch hour earns over what it burns."""


def _shared(world: World, free: int, wants: Callable[[BatchJob], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    jobs: Sequence[BatchJob] = sorted(
        world.case.open_jobs(world.i), key=lambda one: (one.deadline, one.name)
    )
    for job in jobs:
        if world.left_h[job.name] <= EPS_H:
            continue
        units = min(free, wants(job))
        if units > 0:
            found[job.name] = units
            free -= units
    return found


@dataclass
class Replayed:
    """A policy that does what it is told: points by interval; for tests."""

    points: Sequence[Ints]
    units: Sequence[dict[str, int]] = field(default_factory=list)

    def __call__(self, world: World) -> None:
        """As a policy."""
        k = world.i - world.case.first
        world.set_units(self.units[k] if self.units else {}, world.case.need(world.i))
        world.set_points(self.points[k])
