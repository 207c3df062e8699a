"""Who gets the watts that are free: services first, then batch, each in its order.

Every service first gets up to its minimum, then what its load wants. Batch jobs each get a first
worker, or their whole gang, before any of the same priority gets further ones. What a tenant would
borrow beyond its quota comes last, from what nobody else could use.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from wattshift_scheduler.compute import ranking
from wattshift_scheduler.compute.board import Board, Mark, Seat
from wattshift_scheduler.compute.ground import Asks
from wattshift_scheduler.compute.preemption import Claim, Memory, Preemption
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


class _Filling:
    def __init__(self, board: Board, seats: Sequence[Seat], now_s: float) -> None:
        self._board, self._now_s = board, now_s
        self._preemption = Preemption(board, seats)
        able = [seat for seat in seats if seat.wanted and self._may_start(seat)]
        self._services = sorted(
            (seat for seat in able if seat.service),
            key=lambda seat: (-seat.points, board.shares.filled(seat.job.terms.tenant), seat.order),
        )
        self._batch = sorted(
            (seat for seat in able if not seat.service), key=lambda seat: -seat.points
        )
        self._reserved = 0
        self._gangs: list[tuple[int, Asks, Size]] = []

    def _may_start(self, seat: Seat) -> bool:
        """Whether it may get a unit beyond those that it has, now or when it has lost one."""
        if seat.refused is not None:
            return False
        if self._now_s < seat.job.not_before_s:
            seat.why = Rule.BACK_OFF
            return False
        if not self._board.candidates(seat.asks):
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
        for _, group in groupby(self._batch, key=lambda seat: seat.points):
            # Looked at only now: one may have lost a unit to those before it.
            lacking = (seat for seat in group if self._lacks(seat, idle=idle))
            seats = sorted(lacking, key=lambda seat: seat.order)
            for seat in self._fairly([s for s in seats if s.job.terms.gang or not s.units]):
                self._begin(seat, idle=idle)
            more = [s for s in seats if s.units and s.units < s.wanted and not s.job.terms.gang]
            for seat in self._fairly(more):
                while seat.units < seat.wanted and self._add(seat, young_too=False, idle=idle):
                    pass

    def _lacks(self, seat: Seat, *, idle: bool) -> bool:
        """Whether it wants more; of idle watts only what its quota keeps out."""
        more = seat.wanted - seat.units
        if more <= 0 or not idle:
            return more > 0
        units = more if seat.job.terms.gang else 1
        return self._board.shares.exceeds(seat.job, units) is not None

    def _fairly(self, seats: Sequence[Seat]) -> Iterator[Seat]:
        """Seats in order, those of tenants below their fair share first, as it stands by then."""
        shares = self._board.shares
        queues: dict[str, list[tuple[int, Seat]]] = {}
        for rank in range(len(seats) - 1, -1, -1):
            queues.setdefault(seats[rank].job.terms.tenant, []).append((rank, seats[rank]))
        filled: dict[str, float] = {}
        changes = -1
        while len(queues) > 1:
            if changes != shares.changes:
                changes = shares.changes
                filled = {name: shares.beyond(name) for name in queues}
            first = min([(filled[name], queue[-1][0], name) for name, queue in queues.items()])
            queue = queues[first[2]]
            yield queue.pop()[1]
            if not queue:
                del queues[first[2]]
        for queue in queues.values():
            yield from (seat for _, seat in reversed(queue))

    def _begin(self, seat: Seat, *, idle: bool) -> None:
        """Place a first worker, or all that a gang lacks or none of it."""
        more = seat.wanted - seat.units if seat.job.terms.gang else 1
        if not seat.job.terms.gang:
            if self._add(seat, young_too=False, idle=idle):
                return
        elif not self._known_to_fail(seat, more):
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
            self._gangs.append((self._board.freed, seat.asks, _size(seat, seat.units)))
            del self._gangs[:-MOST_FAILED]
        for row, units in list(seat.at.items()):
            self._board.pull(seat, row, units)

    def _known_to_fail(self, seat: Seat, more: int) -> bool:
        """Whether a gang that asks for no more has failed since room last came back."""
        size = _size(seat, seat.wanted - more)
        for freed, key, (priority, unit_w, units) in self._gangs:
            if (freed, key) == (self._board.freed, seat.asks) and (
                size[0] <= priority and size[1] >= unit_w and size[2] >= units
            ):
                seat.why = Rule.GANG
                return True
        return False

    def _add(self, seat: Seat, *, young_too: bool, idle: bool) -> bool:
        """Place one more unit where it fits, or where others give way to it."""
        shares, job = self._board.shares, seat.job
        quota = shares.exceeds(job)
        seat.why = quota
        row: int | None = None
        if quota is None:
            row = self._board.best(seat)
            if row is None and not idle:
                row = self._preemption.room(Claim(seat, young_too))
        elif not idle:
            ceiling = shares.ceiling(job.terms.tenant)
            row = self._preemption.room(Claim(seat, young_too, ceiling))
        elif shares.borrows(job.terms.tenant):
            row, seat.why = self._board.best(seat), None
        if row is None:
            return False
        seat.why = None
        self._board.put(seat, row)
        return True


def _size(seat: Seat, placed: int) -> Size:
    return (seat.job.terms.priority, seat.job.unit_w, seat.wanted - placed)
