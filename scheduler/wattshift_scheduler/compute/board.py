"""The board of one division: which units sit on which node, and what room is left everywhere.

It is the one mutable thing of a division and lives no longer than that. Every change is written
down, so that a try which does not work out is taken back exactly.
"""

import math
from dataclasses import dataclass, field

from wattshift_scheduler.compute.ground import Asks, Ground, gpus_of, labels_of, path_of, suits
from wattshift_scheduler.compute.tenants import EPS_W, Shares
from wattshift_scheduler.jobs import Job, JobKind, Rule, Verdict

Mark = tuple[int, int, dict[Asks, float]]


@dataclass(slots=True, eq=False)
class Seat:
    """One job in a division.

    Attributes:
        job: the job, sized.
        wanted: units that it could use.
        points: its effective priority.
        order: its place among those with as many points; see `ranking.order`.
        young: it must not be preempted yet.
        kept: units that it held when the division began, by node.
        at: units that it has now, by node.
        units: their sum.
        limit_w: power limit of one unit, W; None if it runs without.
        why: the rule that kept a unit out; None while none was.
        refused: the verdict of a job that can never run.
        service: whether it is a service, and not batch.
        drawn_w: the most that one unit may draw, W.
        asks: what a unit asks of a node beside watts: labels and GPUs.
    """

    job: Job
    wanted: int
    points: int
    order: tuple[float, float, float, str]
    young: bool = False
    kept: dict[int, int] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)
    units: int = 0
    limit_w: float | None = None
    why: Rule | None = None
    refused: Verdict | None = None
    service: bool = field(init=False)
    drawn_w: float = field(init=False)
    asks: Asks = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.job.kind is JobKind.SERVICE
        self.drawn_w = self.job.unit_w
        self.asks = (self.job.terms.selector, self.job.terms.gpus)

    @property
    def min_met(self) -> bool:
        """Whether a service has the replicas that it needs."""
        return self.units >= min(self.job.min_units, self.wanted)


class Cards:
    """The GPUs of one node; shares are packed onto as few of them as possible."""

    def __init__(self, total: float) -> None:
        """All free. Half a GPU in `total` is one that half belongs to somebody else."""
        self.total = total
        self.held: list[float] = []
        self._pack()

    def _pack(self) -> None:
        self.free = math.floor(self.total + EPS_W)
        rest = self.total - self.free
        self._parts = [rest] if rest > EPS_W else []
        for gpus in sorted(self.held, reverse=True):
            self._take(gpus)

    def _take(self, gpus: float) -> None:
        if gpus >= 1.0:
            self.free -= math.ceil(gpus - EPS_W)
            return
        open_parts = [part for part in self._parts if part >= gpus - EPS_W]
        if open_parts:
            tightest = min(open_parts)
            self._parts.remove(tightest)
            self._parts.append(tightest - gpus)
        else:
            self.free -= 1
            self._parts.append(1.0 - gpus)

    def fits(self, gpus: float) -> bool:
        """Whether a unit with so many GPUs finds them."""
        if gpus <= 0:
            return True
        if gpus >= 1.0:
            return self.free >= gpus - EPS_W
        return self.free >= 1 or any(part >= gpus - EPS_W for part in self._parts)

    def take(self, gpus: float, units: int = 1) -> None:
        """Take the GPUs of so many units."""
        for _ in range(units if gpus > 0 else 0):
            self.held.append(gpus)
            self._take(gpus)

    def give(self, gpus: float, units: int = 1) -> None:
        """Give the GPUs of so many units back."""
        if gpus > 0:
            for _ in range(units):
                self.held.remove(gpus)
            self._pack()


@dataclass(frozen=True, slots=True)
class Short:
    """Where more is held than may be: rows of nodes and of feeders."""

    nodes: frozenset[int]
    feeders: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.nodes or self.feeders)


class Board:
    """Watts and GPUs of every node and feeder as units are placed.

    `freed` rises whenever room may have come back, so that a failed try need not be made again
    before.
    """

    def __init__(self, ground: Ground, shares: Shares) -> None:
        """Begin with nothing placed; nodes that do not answer keep what may be granted to them."""
        self.ground, self.shares = ground, shares
        nodes = ground.site.nodes
        powers = [ground.powers[node.name] for node in nodes]
        self.names = [node.name for node in nodes]
        self.row = {name: i for i, name in enumerate(self.names)}
        self.up = [power.up for power in powers]
        self.path = [path_of(ground.site.tree, node) for node in nodes]
        self.cap_w = [
            node.max_w - (0.0 if math.isnan(power.unasked_w) else power.unasked_w)
            for node, power in zip(nodes, powers, strict=True)
        ]
        self.used_w = [0.0] * len(nodes)
        self.room_w = [float(watts_w) for watts_w in ground.room_w]
        for path, power in zip(self.path, powers, strict=True):
            for feeder in () if power.up else path:
                self.room_w[feeder] -= power.bound_w
        self.cards = [Cards(gpus_of(n, p)) for n, p in zip(nodes, powers, strict=True)]
        self._labels = [labels_of(n, p) for n, p in zip(nodes, powers, strict=True)]
        self._open = [power.up and not power.draining for power in powers]
        self._candidates: dict[Asks, tuple[int, ...]] = {}
        self._leaves: dict[Asks, list[list[int]]] = {}
        self._fails: dict[Asks, float] = {}
        self._log: list[tuple[Seat, int, int]] = []
        self.freed = 0

    def candidates(self, key: Asks) -> tuple[int, ...]:
        """Nodes that may take a new unit if they have the watts, by row."""
        found = self._candidates.get(key)
        if found is None:
            found = tuple(
                row
                for row, labels in enumerate(self._labels)
                if self._open[row]
                and self.cards[row].total >= key[1] - EPS_W
                and suits(key[0], labels)
            )
            self._candidates[key] = found
            leaves: dict[int, list[int]] = {}
            for row in sorted(found, key=lambda row: self.names[row]):
                leaves.setdefault(self.path[row][0], []).append(row)
            self._leaves[key] = list(leaves.values())[::-1]
        return found

    def tightest_w(self, row: int) -> float:
        """Watts left at the fullest feeder between a node and the root, W."""
        room_w = self.room_w
        return min([room_w[feeder] for feeder in self.path[row]])

    def fits(self, seat: Seat, row: int) -> bool:
        """Whether one more unit fits a node and every feeder above it."""
        return (
            self.used_w[row] + seat.job.unit_w <= self.cap_w[row] + EPS_W
            and self.tightest_w(row) >= seat.drawn_w - EPS_W
            and self.cards[row].fits(seat.job.terms.gpus)
        )

    def best(self, seat: Seat) -> int | None:
        """The node for one more unit: where it leaves the most room at the fullest feeder above.

        A node on which the job holds more than is counted comes first, since nothing moves then.
        Ties go to the node with the most watts left, then by name. None if no node has room.
        """
        key = seat.asks
        if seat.job.unit_w >= self._fails.get(key, math.inf):
            return None
        rows = self.candidates(key)
        holds = seat.job.by_node
        if holds:
            more = [r for r in rows if holds.get(self.names[r], 0) > seat.at.get(r, 0)]
            for row in more:
                if self.fits(seat, row):
                    return row
        found: int | None = None
        found_w = left_w = -math.inf
        # Nodes of one feeder share what is above it, so feeders are looked at, the emptiest first.
        leaves = self._leaves[key]
        order = sorted([(self.tightest_w(some[0]), i) for i, some in enumerate(leaves)])
        for tight_w, leaf in reversed(order):
            if tight_w < max(seat.drawn_w, found_w) - EPS_W:
                break
            for row in leaves[leaf]:
                here_w = self.cap_w[row] - self.used_w[row]
                if here_w > left_w + EPS_W and self.fits(seat, row):
                    found, found_w, left_w = row, tight_w, here_w
        if found is None and seat.limit_w is None:
            self._fails[key] = min(seat.job.unit_w, self._fails.get(key, math.inf))
        return found

    def put(self, seat: Seat, row: int, units: int = 1) -> None:
        """Place units on a node, whether they fit or not."""
        self._move(seat, row, units)
        self._log.append((seat, row, units))

    def pull(self, seat: Seat, row: int, units: int = 1) -> None:
        """Take units off a node."""
        self._move(seat, row, -units)
        self._log.append((seat, row, -units))
        self._fails = {}
        self.freed += 1

    def _move(self, seat: Seat, row: int, units: int) -> None:
        seat.units += units
        left = seat.at.get(row, 0) + units
        if left:
            seat.at[row] = left
        else:
            del seat.at[row]
        self.shares.add(seat.job, units)
        # What a node that does not answer holds is counted by its bound.
        if self.up[row]:
            self.used_w[row] += units * seat.job.unit_w
            for feeder in self.path[row]:
                self.room_w[feeder] -= units * seat.drawn_w
            if units > 0:
                self.cards[row].take(seat.job.terms.gpus, units)
            else:
                self.cards[row].give(seat.job.terms.gpus, -units)

    def limit(self, seat: Seat, limit_w: float | None) -> None:
        """Set the power limit of a job's units; not taken back by `undo`."""
        before_w = seat.drawn_w
        seat.limit_w = limit_w
        seat.drawn_w = seat.job.unit_w if limit_w is None else limit_w
        for row, units in seat.at.items():
            for feeder in self.path[row] if self.up[row] else ():
                self.room_w[feeder] += units * (before_w - seat.drawn_w)
        self._fails = {}

    def mark(self) -> Mark:
        """A point to come back to with `undo`."""
        return len(self._log), self.freed, dict(self._fails)

    def undo(self, mark: Mark) -> None:
        """Take back every placement since `mark`."""
        while len(self._log) > mark[0]:
            seat, row, units = self._log.pop()
            self._move(seat, row, -units)
        _, self.freed, self._fails = mark

    def short(self) -> Short:
        """Nodes and feeders on which more is placed than they may carry."""
        nodes = (
            row
            for row, used_w in enumerate(self.used_w)
            if used_w > self.cap_w[row] + EPS_W and self.up[row]
        )
        feeders = (i for i, room_w in enumerate(self.room_w) if room_w < -EPS_W)
        return Short(frozenset(nodes), frozenset(feeders))

    def relieves(self, row: int, short: Short) -> bool:
        """Whether a unit less on a node helps where there is too much."""
        if not self.up[row]:
            return False
        return row in short.nodes or not short.feeders.isdisjoint(self.path[row])

    def reserve(self, seat: Seat) -> None:
        """Keep the room that is left on the best node for a job that has waited long.

        Nothing behind it can take those watts then; mining can, for it gives them back.
        """
        rows = [r for r in self.candidates(seat.asks) if self.cap_w[r] >= seat.job.unit_w - EPS_W]
        if not rows:
            return
        left_w = {r: min(self.cap_w[r] - self.used_w[r], self.tightest_w(r)) for r in rows}
        row = max(rows, key=lambda r: (round(left_w[r], 3), self.names[r]))
        kept_w = max(min(left_w[row], seat.job.unit_w), 0.0)
        self.used_w[row] += kept_w
        for feeder in self.path[row]:
            self.room_w[feeder] -= kept_w
        gpus = min(math.ceil(seat.job.terms.gpus - EPS_W), max(self.cards[row].free, 0))
        self.cards[row].take(1.0, gpus)
