"""Who gives way to a unit that does not fit: never for less value than is lost.

A service takes the watts of batch, and of lower-priority services what they have beyond their
minimum. A batch job takes those of batch with a lower effective priority. What is borrowed goes
back to the tenant whose quota it is, the least urgent and newest first. Where a tenant's own quota
is the limit, its own jobs give way, and only they do while it borrows. To a job that is due give
way, too, those who are late or have the time (`due`).
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wattshift_scheduler.compute import ranking
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.due import Due, gave_way
from wattshift_scheduler.compute.pools import Pool, Taken, Victim
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.shedding import loss_of, take_one
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.jobs import Job

TRIES = 4
"""Nodes on which making room is tried: those that lack least. A bound on the time of one claim."""

Key = tuple[object, ...]
Failed = tuple[tuple[float, float], ...]
"""Watts of units that found no room, W, and when they were due, s."""

Memory = tuple[dict[Key, float], dict[Key, Failed], int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit that wants in.

    Attributes:
        seat: whose unit.
        young_too: whether jobs inside their minimum run time must give way as well.
        ceiling: what its tenant may hold, if it would exceed its quota, so that the tenant's own
            jobs give way first; else None.
        due_s: the deadline, our clock, for which those give way who are late or have the time;
            None where it does not press.
        back: whether it gave way before, so that what has only just been placed comes after it.
    """

    seat: Seat
    young_too: bool = False
    ceiling: tuple[float, float] | None = None
    due_s: float | None = None
    back: bool = False

    @property
    def urgent(self) -> bool:
        """Whether others give way to it than to most of its sort."""
        return self.back or self.due_s is not None


_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Lack:
    """What is in the way of a claim on a node: the node itself, feeders above it, a quota; and the
    nodes below those feeders."""

    row: int
    full: bool
    below: frozenset[int]
    quota: bool


class Preemption:
    """Makes room on a board, from what was kept when the division began.

    Attributes:
        gave: who has given way because a job was due that had no claim by rank, and to which.
    """

    def __init__(self, board: Board, seats: Iterable[Seat], due: Due) -> None:
        """Put everything that might have to give way in order, what loses least first."""
        held = [seat for seat in seats if seat.units]
        self._board, self._due = board, due
        self.gave: list[tuple[Seat, Job]] = []
        self._batch = sorted(
            (s for s in held if not s.kin.service), key=lambda s: loss_of(board, s)
        )
        self._lent = sorted(self._batch, key=lambda s: ranking.returns(s.job))
        self._services = sorted(
            (s for s in held if s.kin.service and s.units > s.job.min_units),
            key=lambda s: (s.points, -s.job.terms.flexibility, s.job.usd_per_mwh, s.job.id),
        )
        self._any_young = any(seat.young for seat in held)
        self._always: list[Victim] = [(seat, None) for seat in self._batch]
        self._points = [seat.points for seat in self._batch]  # rising: what loses least comes first
        self._tenants = {s.kin.tenant for s in self._batch}
        self._pools: dict[Key, Pool] = {}
        self._gone: Taken = []
        self._failed: dict[Key, float] = {}
        self._pressed: dict[Key, Failed] = {}

    def room(self, claim: Claim) -> int | None:
        """Make room for one unit and name the node; None, and nothing changed, if there is none."""
        if not self._may_help(claim):
            return None
        unit_w = claim.seat.unit_w
        sort = self._sort(claim)
        asks: Key = (sort, claim.seat.kin.number, claim.seat.job.id if claim.urgent else "")
        # What gives way once is not there for the next, so a claim that has failed fails again.
        if unit_w >= self._failed.get(asks, math.inf) or self._hopeless(claim, sort):
            return None
        pool = self._pool(claim, sort)
        if claim.ceiling is not None and not self._board.shares.within(
            claim.seat.job, claim.ceiling, 1, pool.own_w, pool.own_gpus
        ):
            self._failed[asks] = unit_w  # were all of its tenant's to go, its quota would lack more
            return None
        rows = self._rows(claim, pool)
        for row in rows:
            mark = self._board.mark()
            taken = self._clear(claim, row, pool)
            if taken is not None:
                self._gone += taken
                self._note(claim, taken)
                return row
            self._board.undo(mark)
        if claim.back:
            for other in self._due.before(claim.seat):
                self.gave.append((claim.seat, other.job))
                self._due.gave(claim.seat, other.job)
        if claim.urgent:
            like, now = self._like(claim, sort), (unit_w, claim.seat.job.due_s)
            self._pressed[like] = (*self._pressed.get(like, ()), now)
        failed_w = unit_w if rows else min(self._most_w(claim, pool) + EPS_W, unit_w)
        self._failed[asks] = min(failed_w, self._failed.get(asks, math.inf))
        return None

    def memory(self) -> Memory:
        """The claims that have failed, to be put back after a try that was undone."""
        return dict(self._failed), dict(self._pressed), len(self.gave)

    def recall(self, memory: Memory) -> None:
        """Forget what was learnt since `memory` was made: the placements since were undone."""
        self._failed, self._pressed = memory[0], memory[1]
        if len(self.gave) > memory[2]:
            del self.gave[memory[2] :]
            self._due.waits(self.gave)
        self._pools = {}

    def _like(self, claim: Claim, sort: Key) -> Key:
        """Urgent claims of which those that are due later have no more to hope for, as long as
        nothing else is placed."""
        bound = self._due.bound(claim.seat)
        now = (self._board.placings, len(self._gone))
        return (sort, claim.seat.kin.number, claim.due_s is None, claim.back, bound, *now)

    def _hopeless(self, claim: Claim, sort: Key) -> bool:
        """Whether one that was due no later and asked for no more has just failed."""
        if not claim.urgent:
            return False
        failed, due_s = self._pressed.get(self._like(claim, sort), ()), claim.seat.job.due_s
        return any(claim.seat.unit_w >= watts_w and due_s >= by_s for watts_w, by_s in failed)

    def _pool(self, claim: Claim, sort: Key) -> Pool:
        """Those who may give way to a claim, and what they hold; kept for the claims of one sort
        where none of them has only just been placed."""
        pool = None if claim.urgent else self._pools.get(sort)
        if pool is None:
            tenant = claim.seat.kin.tenant
            pool = Pool(self._board, self._victims(claim), tenant, self._gone)
            if not claim.urgent:
                self._pools[sort] = pool
        pool.count(drop=claim.seat.kin.service)
        return pool

    def _note(self, claim: Claim, taken: Taken) -> None:
        """Remember who gave way because a job is due, and not by rank. What others gave to one that
        gives way himself was given to whoever has it now."""
        if not claim.urgent:
            return
        priority, job = claim.seat.kin.priority, claim.seat.job
        for victim in dict.fromkeys(victim for victim, *_ in taken):
            again = self._due.waiting(victim)
            by_due = claim.due_s is not None and victim.kept and victim.points >= priority
            if by_due or (gave_way(victim.job) and not victim.kept):
                again = [victim, *again]
            for seat in [one for one in again if one is not claim.seat]:
                self.gave.append((seat, job))
                self._due.gave(seat, job)

    def _may_help(self, claim: Claim) -> bool:
        """Whether anybody might give way to a claim; quick, for most find nobody."""
        kin, shares = claim.seat.kin, self._board.shares
        if claim.urgent:
            return True
        if claim.ceiling is not None:
            return kin.tenant in self._tenants or kin.service
        if kin.service:
            return bool(self._batch or self._services)
        if self._points and self._points[0] < kin.priority:
            return True
        return kin.owns and any(shares.over(t) for t in self._tenants if t != kin.tenant)

    def _sort(self, claim: Claim) -> Key:
        """Claims of one sort have the same jobs to give way to them."""
        kin = claim.seat.kin
        own = claim.ceiling is not None
        tenant = kin.tenant if own or kin.owns else ""
        over = own and self._board.shares.over(tenant)
        return (kin.service, kin.priority, claim.young_too and self._any_young, own, over, tenant)

    def _victims(self, claim: Claim) -> list[Victim]:
        """Those who may give way, in order, each with whether it still may after others have."""
        kin, shares = claim.seat.kin, self._board.shares
        tenant, priority, young_too = kin.tenant, kin.priority, claim.young_too
        own = claim.ceiling is not None
        spared = not young_too and self._any_young
        found: list[Victim] = []
        if kin.owns and not own:
            found += [
                (victim, _lends(shares.over, victim.kin.tenant))
                for victim in self._lent
                if victim.kin.tenant != tenant and not (spared and victim.young)
            ]
        count = len(self._batch) if kin.service else bisect_left(self._points, priority)
        always = self._always[:count]
        found += [one for one in always if not one[0].young] if spared else always
        if kin.service:
            found += [
                (victim, _spare(victim))
                for victim in self._services
                if victim.points < priority and not (spared and victim.young)
            ]
        if claim.urgent:
            found += [(victim, None) for victim in self._due.after(claim.seat)]
        if claim.due_s is not None:
            due = self._due.giving(claim.seat, claim.due_s)
            found += [(victim, None) for victim in due if not (spared and victim.young)]
        if young_too and self._any_young:
            found.sort(key=lambda one: one[0].young)
        if own:
            mine = [one for one in found if one[0].kin.tenant == tenant]
            if shares.over(tenant):
                return mine
            return mine + [one for one in found if one[0].kin.tenant != tenant]
        return found

    def _rows(self, claim: Claim, pool: Pool) -> list[int]:
        """Nodes where enough could be freed, those first that lack least; for what is due those
        among equals on which somebody runs who gives way sooner."""
        board, seat, unit_w = self._board, claim.seat, claim.seat.unit_w
        cap_w, used_w, room_w, node_w = board.cap_w, board.used_w, board.room_w, pool.node_w
        names = board.names
        gpus, least_w = seat.kin.asks[1], unit_w - EPS_W
        turn: dict[int, int] = {}
        for at, (victim, _) in enumerate(pool.victims if claim.due_s is not None else ()):
            for row in victim.at:
                turn.setdefault(row, at)
        able = []
        for leaf in board.leaves[seat.kin.number]:
            path = board.path[leaf[0]]  # the same for all of them
            could_w = min([room_w[feeder] + pool.feeder_w[feeder] for feeder in path])
            if could_w < least_w:
                continue
            tight_w = min([room_w[feeder] for feeder in path])
            for row in leaf:
                left_w = cap_w[row] - used_w[row]
                if left_w + node_w[row] >= least_w:
                    lacks_w = round(unit_w - min(left_w, tight_w), 3)
                    full = gpus > 0 and not board.cards[row].fits(gpus)
                    able.append((full, lacks_w, turn.get(row, 0), names[row], row))
        able.sort()
        return [row for *_, row in able[:TRIES]]

    def _most_w(self, claim: Claim, pool: Pool) -> float:
        """The most that could be freed for one unit on any node, W."""
        board = self._board
        most_w = 0.0
        for leaf in board.leaves[claim.seat.kin.number]:
            path = board.path[leaf[0]]
            could_w = min([board.room_w[feeder] + pool.feeder_w[feeder] for feeder in path])
            here_w = max([board.cap_w[row] - board.used_w[row] + pool.node_w[row] for row in leaf])
            most_w = max(most_w, min(here_w, could_w))
        return most_w

    def _clear(self, claim: Claim, row: int, pool: Pool) -> Taken | None:
        """Take units in order until the claim fits a node, then put back what need not have gone;
        None if it never fits."""
        seat, taken = claim.seat, Taken()
        lacks, tenant = self._lacks(claim, row), claim.seat.kin.tenant
        # A node that is full itself is freed first; that frees the feeders above it too.
        on_node = pool.on(row) if lacks and lacks.full else []
        for victims, node_only in ((on_node, True), (pool.victims, False)):
            for victim, may in victims:
                if not victim.at or (
                    lacks
                    and not (lacks.full and row in victim.at)
                    and (node_only or lacks.below.isdisjoint(victim.at))
                    and (node_only or not lacks.quota or victim.kin.tenant != tenant)
                ):
                    continue  # most of them cannot help
                while lacks and victim is not seat and victim.units and (may is None or may()):
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
        full = board.used_w[row] + seat.unit_w > board.cap_w[row] + EPS_W
        full = full or not board.cards[row].fits(seat.kin.asks[1])
        least_w = seat.drawn_w - EPS_W
        room_w = board.room_w
        feeders = [feeder for feeder in board.path[row] if room_w[feeder] < least_w]
        quota = claim.ceiling is not None and not board.shares.within(seat.job, claim.ceiling, 1)
        if not (full or feeders or quota):
            return None
        below = board.below(frozenset(feeders)) if feeders else _NONE
        return _Lack(row, full, below, quota)

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
        if lacks.full and lacks.row in victim.at:
            return (lacks.row,)
        if node_only:
            return ()
        board = self._board
        rows = [at for at in victim.at if at in lacks.below]
        if lacks.quota and not rows and victim.kin.tenant == claim.seat.kin.tenant:
            # Wherever it runs, it helps while the quota is in the way.
            rows = list(victim.at)
        return sorted(rows, key=lambda at: board.names[at]) if len(rows) > 1 else rows


def _lends(over: Callable[[str], bool], tenant: str) -> Callable[[], bool]:
    """A tenant's watts go back only down to its quota."""
    return lambda: over(tenant)


def _spare(victim: Seat) -> Callable[[], bool]:
    """Another service's replicas go only down to its minimum."""
    return lambda: victim.units > victim.job.min_units
