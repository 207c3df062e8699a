"""Who gives way to a unit that does not fit: never for less value than is lost.

A service takes the watts of batch, and of lower-priority services what they have beyond their
minimum. A batch job takes those of batch with a lower effective priority. What is borrowed goes
back to the tenant whose quota it is, the least urgent and newest first. Where a tenant's own quota
is the limit, its own jobs give way, and only they do while it borrows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wattshift_scheduler.compute import ranking
from wattshift_scheduler.compute.board import Board, Seat
from wattshift_scheduler.compute.shedding import loss_of, take_one
from wattshift_scheduler.compute.tenants import EPS_W

TRIES = 4
"""Nodes on which making room is tried: those that lack least. A bound on the time of one claim."""

Taken = list[tuple[Seat, int, int]]
Key = tuple[object, ...]
Memory = dict[Key, float]


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit that wants in.

    Attributes:
        seat: whose unit.
        young_too: whether jobs inside their minimum run time must give way as well.
        ceiling: what its tenant may hold, if it would exceed its quota, so that the tenant's own
            jobs give way first; else None.
    """

    seat: Seat
    young_too: bool = False
    ceiling: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Lack:
    """What is in the way of a claim on a node: the node itself, feeders above it, a quota."""

    row: int
    full: bool
    feeders: frozenset[int]
    quota: bool


class _Pool:
    """Those who may give way to claims of one sort, in order, and what they hold where."""

    def __init__(self, board: Board, victims: Iterable[tuple[Seat, Callable[[], bool]]]) -> None:
        self.victims = list(victims)
        self.on: list[list[tuple[Seat, Callable[[], bool]]]] = [[] for _ in board.names]
        self.node_w = [0.0] * len(board.names)
        self.feeder_w = [0.0] * len(board.room_w)
        self._path = board.path
        self._known: set[int] = set()
        for victim, may in self.victims:
            for row in victim.at:
                self.on[row].append((victim, may))
            if id(victim) not in self._known:
                self._known.add(id(victim))
                for row, units in victim.at.items():
                    self._count(victim, row, units)

    def _count(self, victim: Seat, row: int, units: int) -> None:
        self.node_w[row] += units * victim.job.unit_w
        for feeder in self._path[row]:
            self.feeder_w[feeder] += units * victim.drawn_w

    def gone(self, victim: Seat, row: int, units: int) -> None:
        """Units have given way."""
        if id(victim) in self._known:
            self._count(victim, row, -units)


class Preemption:
    """Makes room on a board, from what was kept when the division began."""

    def __init__(self, board: Board, seats: Iterable[Seat]) -> None:
        """Put everything that might have to give way in order, what loses least first."""
        held = [seat for seat in seats if seat.units]
        self._board = board
        self._batch = sorted((s for s in held if not s.service), key=lambda s: loss_of(board, s))
        self._lent = sorted(self._batch, key=lambda s: ranking.returns(s.job))
        self._services = sorted(
            (s for s in held if s.service and s.units > s.job.min_units),
            key=lambda s: (s.points, -s.job.terms.flexibility, s.job.usd_per_mwh, s.job.id),
        )
        self._least = min((s.points for s in self._batch), default=0)
        self._tenants = {s.job.terms.tenant for s in self._batch}
        self._pools: dict[Key, _Pool] = {}
        self._failed: Memory = {}

    def room(self, claim: Claim) -> int | None:
        """Make room for one unit and name the node; None, and nothing changed, if there is none."""
        if not self._may_help(claim):
            return None
        job = claim.seat.job
        sort = self._sort(claim)
        asks: Key = (sort, claim.seat.asks)
        # What gives way once is not there for the next, so a claim that has failed fails again.
        if job.unit_w >= self._failed.get(asks, math.inf):
            return None
        pool = self._pools.get(sort)
        if pool is None:
            pool = self._pools[sort] = _Pool(self._board, self._victims(claim))
        rows, most_w = self._rows(claim, pool)
        for row in rows:
            mark = self._board.mark()
            taken = self._clear(claim, row, pool)
            if taken is not None:
                for one in self._pools.values():
                    for victim, at, units in taken:
                        one.gone(victim, at, units)
                return row
            self._board.undo(mark)
        failed_w = job.unit_w if rows else min(most_w + EPS_W, job.unit_w)
        self._failed[asks] = min(failed_w, self._failed.get(asks, math.inf))
        return None

    def memory(self) -> Memory:
        """The claims that have failed, to be put back after a try that was undone."""
        return dict(self._failed)

    def recall(self, memory: Memory) -> None:
        """Forget what was learnt since `memory` was made: the placements since were undone."""
        self._failed = memory
        self._pools = {}

    def _may_help(self, claim: Claim) -> bool:
        """Whether anybody might give way to a claim; quick, for most find nobody."""
        job, shares = claim.seat.job, self._board.shares
        tenant = job.terms.tenant
        if claim.ceiling is not None:
            return tenant in self._tenants or claim.seat.service
        if claim.seat.service:
            return bool(self._batch or self._services)
        if self._batch and self._least < job.terms.priority:
            return True
        return shares.owns(tenant) and any(shares.over(t) for t in self._tenants if t != tenant)

    def _sort(self, claim: Claim) -> Key:
        """Claims of one sort have the same jobs to give way to them."""
        job = claim.seat.job
        own = claim.ceiling is not None
        tenant = job.terms.tenant if own or self._board.shares.owns(job.terms.tenant) else ""
        over = own and self._board.shares.over(tenant)
        return (claim.seat.service, job.terms.priority, claim.young_too, own, over, tenant)

    def _victims(self, claim: Claim) -> list[tuple[Seat, Callable[[], bool]]]:
        """Those who may give way, in order, each with whether it still may after others have."""
        seat, shares = claim.seat, self._board.shares
        tenant, priority = seat.job.terms.tenant, seat.job.terms.priority
        own = claim.ceiling is not None
        lent = [
            (victim, _lends(shares.over, victim.job.terms.tenant))
            for victim in self._lent
            if shares.owns(tenant) and not own and victim.job.terms.tenant != tenant
        ]
        batch = [
            (victim, _always) for victim in self._batch if seat.service or victim.points < priority
        ]
        spare = [
            (victim, _spare(victim))
            for victim in self._services
            if seat.service and victim.points < priority
        ]
        found = [(v, may) for v, may in (*lent, *batch, *spare) if claim.young_too or not v.young]
        found.sort(key=lambda one: one[0].young)
        if own:
            found.sort(key=lambda one: one[0].job.terms.tenant != tenant)
            if shares.over(tenant):
                found = [one for one in found if one[0].job.terms.tenant == tenant]
        return found

    def _rows(self, claim: Claim, pool: _Pool) -> tuple[list[int], float]:
        """Nodes where enough could be freed, those first that lack least; and the most that could
        be freed for one unit anywhere, W."""
        board, seat = self._board, claim.seat
        unit_w = seat.job.unit_w
        could_w = [left_w + w for left_w, w in zip(board.room_w, pool.feeder_w, strict=True)]
        able, most_w = [], 0.0
        for row in board.candidates(seat.asks):
            here_w = board.cap_w[row] - board.used_w[row] + pool.node_w[row]
            here_w = min([here_w, *[could_w[feeder] for feeder in board.path[row]]])
            most_w = max(most_w, here_w)
            if here_w >= unit_w - EPS_W:
                left_w = min(board.cap_w[row] - board.used_w[row], board.tightest_w(row))
                full = not board.cards[row].fits(seat.job.terms.gpus)
                able.append((full, round(unit_w - left_w, 3), board.names[row], row))
        return [row for *_, row in sorted(able)[:TRIES]], most_w

    def _clear(self, claim: Claim, row: int, pool: _Pool) -> Taken | None:
        """Take units in order until the claim fits a node, then put back what need not have gone;
        None if it never fits."""
        seat, taken = claim.seat, Taken()
        lacks = self._lacks(claim, row)
        # A node that is full itself is freed first; that frees the feeders above it too.
        for victims, node_only in ((pool.on[row], True), (pool.victims, False)):
            for victim, may in victims:
                while lacks and victim is not seat and victim.units and may():
                    rows = self._helpful(claim, victim, lacks, node_only=node_only)
                    if not rows:
                        break
                    more = take_one(self._board, victim, rows)
                    taken += [(victim, at, units) for at, units in more]
                    lacks = self._lacks(claim, row)
                if not lacks:
                    return self._put_back(claim, row, taken)
        return None

    def _put_back(self, claim: Claim, row: int, taken: Taken) -> Taken:
        """Put back what need not have gone, what loses most first; what stays away."""
        board, seat = self._board, claim.seat
        if len(taken) < 2:
            return taken
        board.put(seat, row)
        kept: Taken = []
        for victim, at, units in reversed(taken):
            board.put(victim, at, units)
            if victim.job.terms.gang or self._too_much(claim, at):
                board.pull(victim, at, units)
                kept.append((victim, at, units))
        board.pull(seat, row)
        return kept

    def _lacks(self, claim: Claim, row: int) -> _Lack | None:
        """What is in the way of a claim on a node; None if it fits."""
        board, seat = self._board, claim.seat
        full = board.used_w[row] + seat.job.unit_w > board.cap_w[row] + EPS_W
        full = full or not board.cards[row].fits(seat.job.terms.gpus)
        least_w = seat.drawn_w - EPS_W
        feeders = [feeder for feeder in board.path[row] if board.room_w[feeder] < least_w]
        quota = claim.ceiling is not None and not board.shares.within(seat.job, claim.ceiling, 1)
        if not (full or feeders or quota):
            return None
        return _Lack(row, full, frozenset(feeders), quota)

    def _too_much(self, claim: Claim, row: int) -> bool:
        """Whether a node, a feeder above it, or a quota now carries more than it may."""
        board = self._board
        if claim.ceiling and not board.shares.within(claim.seat.job, claim.ceiling, 0):
            return True
        if board.cards[row].free < 0:
            return True
        return board.used_w[row] > board.cap_w[row] + EPS_W or board.tightest_w(row) < -EPS_W

    def _helpful(
        self, claim: Claim, victim: Seat, lacks: _Lack, *, node_only: bool
    ) -> Sequence[int]:
        """Nodes from which a unit of a victim helps a claim."""
        if node_only:
            return (lacks.row,) if lacks.full and lacks.row in victim.at else ()
        board = self._board
        if lacks.full and lacks.row in victim.at:
            return (lacks.row,)
        rows: list[int] = []
        if lacks.feeders:
            rows = [at for at in victim.at if not lacks.feeders.isdisjoint(board.path[at])]
        if lacks.quota and not rows and victim.job.terms.tenant == claim.seat.job.terms.tenant:
            # Wherever it runs, it helps while the quota is in the way.
            rows = list(victim.at)
        return sorted(rows, key=lambda at: board.names[at]) if len(rows) > 1 else rows


def _always() -> bool:
    return True


def _lends(over: Callable[[str], bool], tenant: str) -> Callable[[], bool]:
    """A tenant's watts go back only down to its quota."""
    return lambda: over(tenant)


def _spare(victim: Seat) -> Callable[[], bool]:
    """Another service's replicas go only down to its minimum."""
    return lambda: victim.units > victim.job.min_units
