"""Who gets the watts that are free: services first, then batch, each in its order.

Every service first gets up to its minimum, then what its load wants. Batch jobs each get a first
worker, or their whole gang, before any of the same priority gets further ones. What a tenant would
borrow beyond its quota comes last, from what nobody else could use.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from wattshift_scheduler.compute import due, ranking
from wattshift_scheduler.compute.board import Board, Mark
from wattshift_scheduler.compute.due import Due
from wattshift_scheduler.compute.giving_way import GivingWay
from wattshift_scheduler.compute.preemption import Claim, Memory, Preemption
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.shedding import relax
from wattshift_scheduler.jobs import Rule

RESERVED_AFTER_S = 3600.0
"""A job that has waited so long keeps the room that is left for it: without that a stream of small
jobs would take every watt before there are enough for a large one."""

MOST_RESERVED = 4
"""Jobs for which room is kept at a time: each one leaves watts to mining that batch could use."""

MOST_FAILED = 16
"""Gangs that did not fit that are remembered: each answers for all that ask for no less."""

Size = tuple[int, float, int]
"""What a gang asks for: its priority, the watts of a unit, W, and how many more units."""


def fill(board: Board, seats: Sequence[Seat], now_s: float) -> None:
    """Place the units that are wanted and not yet placed, as far as they fit."""
    filling = _Filling(board, seats, now_s)
    filling.services(idle=False)
    relax(board, seats)
    filling.batch(idle=False)
    filling.services(idle=True)
    filling.batch(idle=True)
    filling.gave_way()


class _Filling:
    def __init__(self, board: Board, seats: Sequence[Seat], now_s: float) -> None:
        self._board, self._now_s = board, now_s
        self._mining = GivingWay(board, seats)
        self._due = Due(board, seats)
        self._preemption = Preemption(board, seats, self._due)
        able = [seat for seat in seats if seat.wanted and self._may_start(seat)]
        self._services = sorted(
            (seat for seat in able if seat.kin.service),
            key=lambda seat: (-seat.points, board.shares.filled(seat.kin.tenant), seat.order),
        )
        queue = sorted([s for s in able if not s.kin.service], key=attrgetter("order"))
        for rank, seat in enumerate(queue):
            seat.rank = rank
        self._groups = [list(group) for _, group in groupby(queue, key=attrgetter("points"))]
        self._owning = [[seat for seat in group if seat.kin.owns] for group in self._groups]
        self._reserved = 0
        self._gangs: list[tuple[int, int, Size]] = []

    def _may_start(self, seat: Seat) -> bool:
        """Whether it may get a unit beyond those that it has, now or when it has lost one."""
        if seat.refused is not None:
            return False
        if seat.job.not_before_s > self._now_s:
            seat.why = Rule.BACK_OFF
            return False
        if self._board.ground.waits_s.get(seat.job.id, -math.inf) > self._now_s:
            seat.why = Rule.PLAN
            return False
        if not seat.kin.rows:
            seat.why = Rule.CLUSTER_DOWN
            return False
        return True

    def services(self, *, idle: bool) -> None:
        """Give services their minimum, then what their load wants."""
        for seat in self._services:
            while not seat.min_met and self._lacks(seat, idle=idle):
                if not self._add(seat, young_too=True, idle=idle):
                    break
        for seat in self._services:
            # What runs at less power is short already: it does not grow.
            while seat.min_met and seat.limit_w is None and self._lacks(seat, idle=idle):
                if not self._add(seat, young_too=False, idle=idle):
                    break

    def batch(self, *, idle: bool) -> None:
        """Give batch jobs of each effective priority a first worker each, then further ones."""
        self._mining.begin()
        for group in self._owning if idle else self._groups:
            # Looked at only now: one may have lost a unit to those before it.
            seats = [seat for seat in group if seat.units < seat.wanted]
            if idle:
                seats = [seat for seat in seats if self._lacks(seat, idle=True)]
            for seat in self._fairly([s for s in seats if not s.units or s.job.terms.gang]):
                self._mining.look(seat)
                self._begin(seat, idle=idle)
            more = [s for s in seats if s.units and s.units < s.wanted and not s.job.terms.gang]
            for seat in self._fairly(more):
                self._mining.look(seat)
                while seat.units < seat.wanted and self._add(seat, young_too=False, idle=idle):
                    pass
        self._mining.look(None)

    def gave_way(self) -> None:
        """Note on their seats who gave way to a job that is due."""
        for seat, job in self._preemption.gave:
            seat.gave_way = job

    def _lacks(self, seat: Seat, *, idle: bool) -> bool:
        """Whether it wants more; of idle watts only what its quota keeps out."""
        more = seat.wanted - seat.units
        if more <= 0 or not idle:
            return more > 0
        units = more if seat.job.terms.gang else 1
        return seat.kin.owns and self._board.shares.exceeds(seat.job, units) is not None

    def _fairly(self, seats: Sequence[Seat]) -> Iterator[Seat]:
        """Seats in order, those of tenants below their fair share first, as it stands by then."""
        if len(seats) < 2:
            yield from seats
            return
        shares = self._board.shares
        queues: dict[str, list[Seat]] = {}
        for seat in reversed(seats):
            queues.setdefault(seat.kin.tenant, []).append(seat)
        first: list[list[Seat]] = []
        changes = -1
        while queues:
            if changes != shares.changes:
                changes = shares.changes
                beyond = {name: shares.beyond(name) for name in queues}
                least = min(beyond.values())
                first = [queue for name, queue in queues.items() if beyond[name] == least]
            queue = first[0]
            for other in first[1:]:
                if other[-1].rank < queue[-1].rank:
                    queue = other
            seat = queue.pop()
            if not queue:
                del queues[seat.kin.tenant]
                changes = -1
            yield seat

    def _begin(self, seat: Seat, *, idle: bool) -> None:
        """Place a first worker, or all that a gang lacks or none of it."""
        if not seat.job.terms.gang:
            more = 1
            if self._add(seat, young_too=False, idle=idle):
                return
        else:
            more = seat.wanted - seat.units
            if not self._known_to_fail(seat, more):
                mark, memory = self._board.mark(), self._preemption.memory()
                for _ in range(more):
                    if not self._add(seat, young_too=False, idle=idle):
                        break
                else:
                    return
                self._undone(seat, mark, memory)
        if idle or self._reserved >= MOST_RESERVED or seat.why not in (None, Rule.GANG):
            return
        if ranking.waited_s(seat.job, self._now_s) >= RESERVED_AFTER_S:
            self._reserved += 1
            for _ in range(min(more, len(self._board.names))):
                self._board.reserve(seat)

    def _undone(self, seat: Seat, mark: Mark, memory: Memory) -> None:
        """Take back what was placed of a gang that does not fit as a whole: it keeps nothing."""
        began = seat.units
        self._board.undo(mark)
        if seat.units < began:
            self._preemption.recall(memory)
        if seat.why is None and began:
            seat.why = Rule.GANG
            self._gangs.append((self._board.freed, seat.kin.number, _size(seat, seat.units)))
            del self._gangs[:-MOST_FAILED]
        for row, units in list(seat.at.items()):
            self._board.pull(seat, row, units)

    def _known_to_fail(self, seat: Seat, more: int) -> bool:
        """Whether a gang that asks for no more has failed since room last came back."""
        if due.gave_way(seat.job) or self._due.presses_s(seat) is not None:
            return False
        size = _size(seat, seat.wanted - more)
        for freed, key, (priority, unit_w, units) in self._gangs:
            if (freed, key) == (self._board.freed, seat.kin.number) and (
                size[0] <= priority and size[1] >= unit_w and size[2] >= units
            ):
                seat.why = Rule.GANG
                return True
        return False

    def _add(self, seat: Seat, *, young_too: bool, idle: bool) -> bool:
        """Place one more unit where it fits, or where others give way to it."""
        board, kin = self._board, seat.kin
        due_s = None if idle else self._due.presses_s(seat)
        back = due.gave_way(seat.job)
        quota = board.shares.exceeds(seat.job) if kin.owns else None
        seat.why, unit_w = quota, seat.unit_w
        if quota is not None:
            # What it may not have of its own it may still borrow.
            known = not idle and unit_w >= kin.over_w and kin.over_at == board.moves
        else:
            known = unit_w >= kin.full_w and kin.full_at == self._now(seat)
        if known and not (young_too or back or due_s is not None):
            return False
        row: int | None = None
        if quota is None:
            row = board.best(seat)
            if row is None and self._mining.keeps:
                seat.why = Rule.WORTH
            elif row is None and not idle:
                row = self._preemption.room(Claim(seat, young_too, None, due_s, back))
                if row is None and not young_too:
                    kin.full_w, kin.full_at = unit_w, self._now(seat)
        elif not idle:
            ceiling = board.shares.ceiling(kin.tenant)
            row = self._preemption.room(Claim(seat, young_too, ceiling, due_s, back))
            if row is None and not young_too:
                kin.over_w, kin.over_at = unit_w, board.moves
        elif board.shares.borrows(kin.tenant):
            row, seat.why = board.best(seat), None
        if row is None:
            return False
        seat.why = None
        board.put(seat, row)
        return True

    def _now(self, seat: Seat) -> int:
        """The number of the board that a refusal of room to a job's kin holds for."""
        # Whether lent watts come back depends on what every tenant holds, so on every move.
        return self._board.moves if seat.kin.owns else self._board.since


def _size(seat: Seat, placed: int) -> Size:
    return (seat.job.terms.priority, seat.unit_w, seat.wanted - placed)
