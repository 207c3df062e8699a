"""Batch that is due, and who has the time to give way to it.

A job is due if it may still make its deadline and has not time for its work twice over. It takes
the nodes of work of no higher priority that is late, or that has so much time, is due later, and
has still time for it once when the job is over: of two deadlines the nearer goes first. That is an
order in which nobody can push out whoever pushed him out, but for one who has become late since.
And who gave way with his deadline still to make, or without one, is the first of his priority to
have what comes free: what he gave up passes on to whoever has it next, but not to who is due later.

How long a job needs is what the look-ahead plan says where one is in force (`plan.deadlines`). Else
it is what it needs by itself, and no less than what it takes to do all of its work and all that is
due earlier with the watts that services leave of its nodes. Of work of which nobody knows how long
it takes is known that it has become late at its deadline, and gives way in its turn.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from wattshift_scheduler import worth
from wattshift_scheduler.compute import ranking
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.seats import Kin, Seat
from wattshift_scheduler.compute.shedding import loss_of
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.ladder.ladder import HOUR_S

HELD_OFF_S = 86_400.0
"""One without a deadline that waited so long before it began does not give way: else a stream of
deadlines could hold it off for ever."""


def own_s(job: Job) -> float:
    """What a batch job needs by itself, s; NaN where nobody knows."""
    found = worth.full_s(job)
    return worth.needs_s(job) if math.isnan(found) else found


def can_make(job: Job, now_s: float) -> bool:
    """Whether a job has a deadline that it can still make, with the time that a start takes."""
    least_s = worth.least_s(job)
    needs_s = 0.0 if math.isnan(least_s) else least_s
    return now_s + needs_s + (0.0 if job.units else worth.RESTART_S) < job.due_s < math.inf


def gave_way(job: Job) -> bool:
    """Whether a job waits for what it gave to one that was due, and is not late itself."""
    return bool(job.gave_way_to) and job.late_s is None


@dataclass(frozen=True, slots=True)
class _Line:
    """Jobs that share nodes, the first due first.

    Attributes:
        due_s: their deadlines, rising.
        until_wh: energy that they and all before them still need, as far as that is known, Wh.
        unknown: deadlines of those of which nobody knows how long they take, rising, s.
    """

    due_s: Sequence[float]
    until_wh: Sequence[float]
    unknown: Sequence[float]

    @classmethod
    def of(cls, seats: Iterable[Seat]) -> "_Line":
        line = sorted(seats, key=lambda seat: seat.job.due_s)
        unknown = [seat.job.due_s for seat in line if math.isnan(own_s(seat.job))]
        return cls(
            [seat.job.due_s for seat in line],
            list(accumulate(_left_wh(seat) for seat in line)),
            unknown,
        )

    def left_wh(self, due_s: float) -> float:
        """What is to be done until then, Wh."""
        at = bisect_right(self.due_s, due_s)
        return self.until_wh[at - 1] if at else 0.0

    def unknown_s(self, due_s: float) -> float:
        """The last deadline before that of work that may take all the time until it, s."""
        at = bisect_left(self.unknown, due_s)
        return self.unknown[at - 1] if at else -math.inf


class Due:
    """The deadlines of one division; what services leave is looked at when it is first asked."""

    def __init__(self, board: Board, seats: Sequence[Seat]) -> None:
        """Look for batch that has a deadline; without any nothing here costs time."""
        self._board, self._now_s = board, board.ground.now_s
        self._seats = seats
        self._dated = [
            s
            for s in seats
            if s.job.due_s < math.inf and s.wanted and s.refused is None and not s.kin.service
        ]
        self._may = [s for s in seats if not s.kin.service] if self._dated else []
        self._waiting: dict[str, list[Seat]] = {}
        self.waits(())
        self._able: list[Seat] | None = None
        self._fresh: list[Seat] = []
        self._fresh_at = -1
        self._rooms_w: dict[int, float] = {}
        self._lines: dict[int, _Line] = {}
        self._times: dict[str, bool] = {}
        self._served_w: list[float] | None = None

    def presses_s(self, seat: Seat) -> float | None:
        """When a job is due that must have more units now to make it; None for any other."""
        job = seat.job
        if not self._dated or seat.kin.service or seat.units >= seat.wanted:
            return None
        if not can_make(job, self._now_s) or self.has_time(seat):
            return None
        alone_s = own_s(job)
        if math.isnan(alone_s):
            enough = 2 * seat.units >= seat.wanted
        else:
            with_s = alone_s * job.max_units / seat.units if seat.units else math.inf
            enough = self._now_s + with_s * (1.0 + worth.UNSURE_SHARE) <= job.due_s
        return None if enough else job.due_s

    def giving(self, seat: Seat, due_s: float) -> list[Seat]:
        """Those who give way to a job that is due then: who is late, then what loses least."""
        if self._able is None:
            self._able = [other for other in self._may if self._may_give(other)]
        found = [
            other
            for other in self._able
            if other.units and other is not seat and self._gives(other, seat, due_s)
        ]
        found.sort(key=lambda s: (s.job.late_s is None, loss_of(self._board, s)))
        return found

    def _may_give(self, other: Seat) -> bool:
        """Whether one gives way to any job that is due early enough."""
        job, units = other.job, sum(other.kept.values()) or other.wanted
        if units and own_s(job) * job.max_units / units <= worth.RESTART_S:
            return False  # it is done before another could have begun
        if job.late_s is not None:
            return True
        if job.deadline_s is None:
            return ranking.waited_s(job, self._now_s) < HELD_OFF_S
        # A gang would have to find all of its nodes free at one time.
        return not job.terms.gang and self.has_time(other)

    def _gives(self, other: Seat, seat: Seat, due_s: float) -> bool:
        """Whether one that may give way does so to a job that is due then."""
        if other.job.due_s <= due_s or other.kin.priority > seat.kin.priority:
            return False
        if other.job.due_s - self._over_s(seat) < _once_s(other.job):
            return False
        # What was given up for others is theirs first, if they are due earlier.
        return not any(one.job.due_s <= due_s for one in self.waiting(other) if one is not seat)

    def _over_s(self, seat: Seat) -> float:
        """When a job that is due has ended or become late, though it had but one worker, s."""
        alone_s, due_s = own_s(seat.job) * seat.job.max_units, seat.job.due_s
        if math.isnan(alone_s):
            return due_s
        return min(due_s, self._now_s + (1.0 + worth.UNSURE_SHARE) * alone_s + worth.RESTART_S)

    def after(self, seat: Seat) -> list[Seat]:
        """Those who have only just been placed, with nothing begun, and come after a job that is
        due or gave way: all of no higher priority but such as go first."""
        return [
            other
            for other in self._begun()
            if other is not seat
            and other.kin.priority <= seat.kin.priority
            and not self._first(other, seat)
        ]

    def before(self, seat: Seat) -> list[Seat]:
        """Those who have only just been placed and go before a job that gave way: it gives way to
        them, too."""
        return [
            other
            for other in self._begun()
            if other is not seat and self._first(other, seat) and not self._apart(other, seat)
        ]

    def _begun(self) -> Sequence[Seat]:
        """Those who have only just been placed."""
        if self._fresh_at != self._board.moves:
            self._fresh = [s for s in self._may if s.units and not s.kept]
            self._fresh_at = self._board.moves
        return self._fresh

    def _apart(self, other: Seat, seat: Seat) -> bool:
        """Whether two jobs can have no node in common."""
        return set(other.kin.rows).isdisjoint(seat.kin.rows)

    def _first(self, other: Seat, seat: Seat) -> bool:
        """Whether one that has only just been placed goes before a job that is due or gave way.

        First go those to whom somebody gave way, and who gave way and have no time to do so again;
        of others, and among all that gave way, who is due first.
        """
        if not self._urgent(other):
            return False
        apart = self.bound(seat) != self.bound(other)
        if apart and not (gave_way(seat.job) and gave_way(other.job)):
            return self.bound(other)
        return other.job.due_s <= seat.job.due_s

    def bound(self, seat: Seat) -> bool:
        """Whether others gave way to a job, or it gave way and has no time to do so again."""
        owed = gave_way(seat.job) and not self.has_time(seat)
        return owed or seat.job.id in self._waiting

    def waiting(self, seat: Seat) -> Sequence[Seat]:
        """Those who gave way to a job, and still wait for what they gave."""
        return tuple(self._waiting.get(seat.job.id, ()))

    def waits(self, gave: Iterable[tuple[Seat, Job]]) -> None:
        """Begin with those who waited before, and such as have given way since."""
        self._waiting = {}
        for seat in self._may:
            if seat.job.gave_way_to:
                self._waiting.setdefault(seat.job.gave_way_to, []).append(seat)
        for seat, job in gave:
            self.gave(seat, job)

    def gave(self, seat: Seat, job: Job) -> None:
        """Note that one has given way to a job."""
        self._waiting.setdefault(job.id, []).append(seat)

    def _urgent(self, seat: Seat) -> bool:
        """Whether a job is due, or gave way to one that was."""
        return gave_way(seat.job) or (can_make(seat.job, self._now_s) and not self.has_time(seat))

    def has_time(self, seat: Seat) -> bool:
        """Whether a job has time for its work twice over, and for it once where all that is due
        earlier and is not known takes until its own deadline; one whose need is not known has
        none."""
        found = self._times.get(seat.job.id)
        if found is None:
            found = self._times[seat.job.id] = self._has_time(seat)
        return found

    def _has_time(self, seat: Seat) -> bool:
        due_s = seat.job.due_s
        if math.isinf(due_s):
            return True
        need_s = self._need_s(seat)
        if due_s - self._now_s < worth.TIMES * need_s + worth.RESTART_S:
            return False
        return due_s - self._before(seat.kin).unknown_s(due_s) >= _once_s(seat.job)

    def _need_s(self, seat: Seat) -> float:
        """For how long a job must be at work before its deadline, s; infinite: nobody knows."""
        told_s, alone_s = self._board.ground.needs_s, own_s(seat.job)
        if told_s is not None:
            need_s = told_s.get(seat.job.id, math.inf)
            return need_s if math.isnan(alone_s) else max(need_s, alone_s)
        if math.isnan(alone_s):
            return math.inf
        room_w = self._room_w(seat.kin)
        due_wh = self._before(seat.kin).left_wh(seat.job.due_s)
        return max(alone_s, due_wh / room_w * HOUR_S) if room_w > 0.0 else math.inf

    def _before(self, kin: Kin) -> "_Line":
        """What is due on the nodes on which a job may run."""
        found = self._lines.get(kin.number)
        if found is None:
            rows, beside = set(kin.rows), dict[int, bool]()
            for seat in self._dated:
                number = seat.kin.number
                if number not in beside:
                    beside[number] = number == kin.number or not rows.isdisjoint(seat.kin.rows)
            found = _Line.of([seat for seat in self._dated if beside[seat.kin.number]])
            self._lines[kin.number] = found
        return found

    def _room_w(self, kin: Kin) -> float:
        """What services leave of the nodes on which a job may run, W."""
        found = self._rooms_w.get(kin.number)
        if found is None:
            board = self._board
            if self._served_w is None:
                self._served_w = self._serving_w()
            served_w, root_w = self._served_w, float(board.ground.room_w[0])
            nodes_w = sum([board.cap_w[row] - served_w[row] for row in kin.rows])
            found = max(min(nodes_w, root_w - sum(served_w)), 0.0)
            self._rooms_w[kin.number] = found
        return found

    def _serving_w(self) -> list[float]:
        """What services hold on each node, W."""
        served_w = [0.0] * len(self._board.names)
        for seat in self._seats:
            if seat.kin.service:
                for row, units in seat.at.items():
                    served_w[row] += units * seat.unit_w
        return served_w


def _once_s(job: Job) -> float:
    """Time in which a job is done once, with something to spare, s; nobody knows: a restart."""
    alone_s = own_s(job)
    return (0.0 if math.isnan(alone_s) else (1.0 + worth.UNSURE_SHARE) * alone_s) + worth.RESTART_S


def _left_wh(seat: Seat) -> float:
    """Energy that a job still needs, Wh; 0 where nobody knows."""
    alone_s = own_s(seat.job)
    if math.isnan(alone_s):
        return 0.0
    return alone_s / HOUR_S * seat.unit_w * seat.job.max_units
