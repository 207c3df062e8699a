"""The board of one division: which units sit on which node, and what room is left everywhere.

It is the one mutable thing of a division and lives no longer than that. Every change is written
down, so that a try which does not work out is taken back exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_scheduler.compute.cards import Cards
from wattshift_scheduler.compute.displacing import Displacing
from wattshift_scheduler.compute.ground import Asks, Ground, gpus_of, labels_of, path_of, suits
from wattshift_scheduler.compute.seats import Kin, Seat
from wattshift_scheduler.compute.tenants import EPS_W, Shares
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Node
from wattshift_scheduler.state import NodePower

UNASKED_BORNE_SHARE = 0.05
"""Share of a node's most watts that others may draw there unasked before its own work has to make
room: that most is an owner's word and no breaker (feeders count all of it), and a little helper
beside it should not cost a whole unit."""

USD_DIGITS = 6
"""Two nodes at which mining loses the same USD/h to so many digits are alike."""

Mark = tuple[int, int, list[float]]


@dataclass(frozen=True, slots=True)
class Short:
    """Where more is held than may be: rows of nodes and of feeders."""

    nodes: frozenset[int]
    feeders: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.nodes or self.feeders)


def _cap_w(node: Node, power: NodePower) -> float:
    """What a node may hold for work that asked, W: less what others draw there unasked."""
    if not power.unasked_w > UNASKED_BORNE_SHARE * node.max_w:
        return node.max_w
    return node.max_w - power.unasked_w


class Board:
    """Watts and GPUs of every node and feeder as units are placed.

    `freed` rises whenever room may have come back, so that a failed try need not be made again
    before; `undo` takes it back. `since` is another number then too, and with every limit; what was
    learnt at one number of it holds while that lasts. `moves` counts every change.
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
        self.cap_w = [_cap_w(node, power) for node, power in zip(nodes, powers, strict=True)]
        self.used_w = [0.0] * len(nodes)
        self.room_w = [float(watts_w) for watts_w in ground.room_w]
        for path, power in zip(self.path, powers, strict=True):
            for feeder in () if power.up else path:
                self.room_w[feeder] -= power.bound_w
        self.cards = [Cards(gpus_of(n, p)) for n, p in zip(nodes, powers, strict=True)]
        self._labels = [labels_of(n, p) for n, p in zip(nodes, powers, strict=True)]
        self._open = [power.up and not power.draining for power in powers]
        self._kin: dict[tuple[object, ...], Kin] = {}
        self._numbers: dict[Asks, int] = {}
        self._rows: list[tuple[int, ...]] = []
        self.leaves: list[list[list[int]]] = []
        self._fails: list[float] = []
        self._below: dict[frozenset[int], frozenset[int]] = {}
        self._log: list[tuple[Seat, int, int]] = []
        free_w = [float(watts_w) for watts_w in ground.free_w]
        self.displacing = Displacing(ground.mined, ground.site.tree, self.path, self.names, free_w)
        self.freed = self.since = self.moves = 0

    def kin(self, job: Job) -> Kin:
        """Those that ask as a job does."""
        terms, service = job.terms, job.kind is JobKind.SERVICE
        key = (service, terms.tenant, terms.priority, terms.selector, terms.gpus)
        found = self._kin.get(key)
        if found is None:
            asks = (terms.selector, terms.gpus)
            number = self._numbers.get(asks)
            if number is None:
                number = self._numbers[asks] = len(self._numbers)
                self._look(asks)
            owns = self.shares.owns(terms.tenant)
            rows = self._rows[number]
            found = Kin(service, terms.tenant, terms.priority, asks, number, rows, owns)
            self._kin[key] = found
        return found

    def _look(self, asks: Asks) -> None:
        """Find the nodes that have what units ask for, by row and by their feeders."""
        rows = tuple(
            row
            for row, labels in enumerate(self._labels)
            if self._open[row]
            and self.cards[row].total >= asks[1] - EPS_W
            and suits(asks[0], labels)
        )
        # Nodes of one feeder are alike, but for gated devices that draw beside their work.
        leaves: dict[tuple[int, int], list[int]] = {}
        held_w = self.displacing.held_w
        for row in sorted(rows, key=lambda row: self.names[row]):
            leaves.setdefault((self.path[row][0], row if held_w[row] else -1), []).append(row)
        self._rows.append(rows)
        self.leaves.append(list(leaves.values())[::-1])
        self._fails.append(math.inf)

    def below(self, feeders: frozenset[int]) -> frozenset[int]:
        """The nodes that hang on any of some feeders, by row."""
        found = self._below.get(feeders)
        if found is None:
            found = self._below[feeders] = frozenset(
                row for row, path in enumerate(self.path) if not feeders.isdisjoint(path)
            )
        return found

    def tightest_w(self, row: int) -> float:
        """Watts left at the fullest feeder between a node and the root, W."""
        room_w = self.room_w
        return min([room_w[feeder] for feeder in self.path[row]])

    def fits(self, seat: Seat, row: int) -> bool:
        """Whether one more unit fits a node and every feeder above it."""
        return (
            self.used_w[row] + seat.unit_w <= self.cap_w[row] + EPS_W
            and self.tightest_w(row) >= seat.drawn_w - EPS_W
            and self.cards[row].fits(seat.kin.asks[1])
        )

    def best(self, seat: Seat) -> int | None:
        """The node for one more unit: where mining loses least by it.

        A node on which the job holds more than is counted comes first, since nothing moves then.
        Ties go to where it leaves the most room at the fullest feeder above, then to the node with
        the most watts left, then by name. None if no node has room.
        """
        kin = seat.kin
        if seat.unit_w >= self._fails[kin.number]:
            return None
        holds = seat.job.by_node
        if holds:
            more = [r for r in kin.rows if holds.get(self.names[r], 0) > seat.at.get(r, 0)]
            for row in more:
                if self.fits(seat, row):
                    return row
        found: int | None = None
        found_w = left_w = -math.inf
        found_usd = math.inf
        # Nodes of one feeder share what is above it, so feeders are looked at, the best first.
        leaves, least_w, need_w = self.leaves[kin.number], seat.drawn_w - EPS_W, seat.unit_w - EPS_W
        room_w, cap_w, used_w = self.room_w, self.cap_w, self.used_w
        displacing = self.displacing if self.displacing.known else None
        order = []
        for i, some in enumerate(leaves):
            tight_w = math.inf
            for feeder in self.path[some[0]]:
                if room_w[feeder] < tight_w:
                    tight_w = room_w[feeder]
            if tight_w >= least_w:
                at, usd = some[0], 0.0
                if displacing is not None:
                    usd = round(displacing.usd_per_h(at, used_w[at], seat.unit_w), USD_DIGITS)
                order.append((-usd, tight_w, i))
        order.sort(reverse=True)
        for less_usd, tight_w, leaf in order:
            if -less_usd > found_usd or tight_w < found_w - EPS_W:
                break
            for row in leaves[leaf]:
                here_w = cap_w[row] - used_w[row]
                if here_w >= need_w and here_w > left_w + EPS_W and self.fits(seat, row):
                    found, found_usd, found_w, left_w = row, -less_usd, tight_w, here_w
        if found is None and seat.limit_w is None:
            self._fails[kin.number] = min(seat.unit_w, self._fails[kin.number])
        return found

    def put(self, seat: Seat, row: int, units: int = 1) -> None:
        """Place units on a node, whether they fit or not."""
        self._move(seat, row, units)
        self._log.append((seat, row, units))

    def pull(self, seat: Seat, row: int, units: int = 1) -> None:
        """Take units off a node."""
        self._move(seat, row, -units)
        self._log.append((seat, row, -units))
        self._fails = [math.inf] * len(self._fails)
        self.freed += 1
        self.since += 1

    def _move(self, seat: Seat, row: int, units: int) -> None:
        self.moves += 1
        seat.units += units
        at, watts_w, gpus = seat.at, units * seat.unit_w, seat.kin.asks[1]
        left = at.get(row, 0) + units
        if left:
            at[row] = left
        else:
            del at[row]
        self.shares.add(seat.kin.tenant, watts_w, units * gpus)
        # What a node that does not answer holds is counted by its bound.
        if self.up[row]:
            before_w = self.used_w[row]
            self.used_w[row] = before_w + watts_w
            if self.displacing.known:
                self.displacing.moved(row, before_w, self.used_w[row])
            drawn_w, room_w = units * seat.drawn_w, self.room_w
            for feeder in self.path[row]:
                room_w[feeder] -= drawn_w
            if gpus > 0:
                if units > 0:
                    self.cards[row].take(gpus, units)
                else:
                    self.cards[row].give(gpus, -units)

    def limit(self, seat: Seat, limit_w: float | None) -> None:
        """Set the power limit of a job's units; not taken back by `undo`."""
        before_w = seat.drawn_w
        seat.limit_w = limit_w
        seat.drawn_w = seat.unit_w if limit_w is None else limit_w
        for row, units in seat.at.items():
            for feeder in self.path[row] if self.up[row] else ():
                self.room_w[feeder] += units * (before_w - seat.drawn_w)
        self._fails = [math.inf] * len(self._fails)
        self.since += 1
        self.moves += 1

    def keep(self, watts_w: Sequence[float]) -> None:
        """Take room of every feeder away from what is placed from here on, or give it back, W; not
        taken back by `undo`."""
        self.room_w = [room_w - kept_w for room_w, kept_w in zip(self.room_w, watts_w, strict=True)]
        self._fails = [math.inf] * len(self._fails)
        self.freed += 1
        self.since += 1
        self.moves += 1

    def mark(self) -> Mark:
        """A point to come back to with `undo`."""
        return len(self._log), self.freed, list(self._fails)

    @property
    def placings(self) -> int:
        """How many placements stand that were made or taken back since the board was begun: as long
        as it is the same number, and none was undone, nothing was placed."""
        return len(self._log)

    def undo(self, mark: Mark) -> None:
        """Take back every placement since `mark`."""
        if len(self._log) > mark[0]:
            self.since += 1
        while len(self._log) > mark[0]:
            seat, row, units = self._log.pop()
            self._move(seat, row, -units)
        _, self.freed, self._fails = mark

    def short(self, within: Short | None = None) -> Short:
        """Nodes and feeders on which more is placed than they may carry; with `within` only of
        those, for whoever has only taken away since it was found."""
        rows = range(len(self.names)) if within is None else within.nodes
        feeders = range(len(self.room_w)) if within is None else within.feeders
        used_w, cap_w, room_w = self.used_w, self.cap_w, self.room_w
        return Short(
            frozenset([r for r in rows if used_w[r] > cap_w[r] + EPS_W and self.up[r]]),
            frozenset([f for f in feeders if room_w[f] < -EPS_W]),
        )

    def relieves(self, row: int, short: Short) -> bool:
        """Whether a unit less on a node helps where there is too much."""
        if not self.up[row]:
            return False
        return row in short.nodes or not short.feeders.isdisjoint(self.path[row])

    def reserve(self, seat: Seat) -> None:
        """Keep the room that is left on the best node for a job that has waited long.

        Nothing behind it can take those watts then; mining can, for it gives them back.
        """
        rows = [r for r in seat.kin.rows if self.cap_w[r] >= seat.unit_w - EPS_W]
        if not rows:
            return
        left_w = {r: min(self.cap_w[r] - self.used_w[r], self.tightest_w(r)) for r in rows}
        row = max(rows, key=lambda r: (round(left_w[r], 3), self.names[r]))
        kept_w = max(min(left_w[row], seat.unit_w), 0.0)
        self.used_w[row] += kept_w
        for feeder in self.path[row]:
            self.room_w[feeder] -= kept_w
        gpus = min(math.ceil(seat.kin.asks[1] - EPS_W), max(self.cards[row].free, 0))
        self.cards[row].take(1.0, gpus)
