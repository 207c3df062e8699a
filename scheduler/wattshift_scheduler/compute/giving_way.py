"""Batch that gives way to mining which is worth more; see `rivals` for whose turn that is.

The room of such mining is taken off the board while a job of less worth is looked at, so that the
job gets what that mining leaves, and is given back afterwards.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.rivals import worth_usd_per_mwh
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.tenants import EPS_W

LEVELS_PER_DECADE = 20
"""Worths that differ by less than a ninth are looked at as one: each costs a look at all rungs."""


def _level_usd_per_mwh(usd_per_mwh: float) -> float:
    """A worth rounded up to its level; infinite for one that mining always gives way to."""
    if math.isinf(usd_per_mwh) or usd_per_mwh <= 0:
        return max(usd_per_mwh, 0.0)
    steps = math.ceil(math.log10(usd_per_mwh) * LEVELS_PER_DECADE - 1e-9)
    return math.pow(10.0, steps / LEVELS_PER_DECADE)


class GivingWay:
    """What mining keeps on a board against each job of batch.

    Attributes:
        keeps: whether mining keeps anything against the job that is looked at.
    """

    def __init__(self, board: Board, seats: Sequence[Seat]) -> None:
        """Look for batch that may have to give way; without any nothing here costs time."""
        self._board, self._rivals = board, board.ground.rivals
        self._worth: dict[str, float] = {}
        self._kept_w: list[float] | None = None
        self._at = math.inf
        self._room_w = np.zeros(0)
        self._by_level: dict[float, list[float]] = {}
        if self._rivals is not None:
            for seat in seats:
                found = worth_usd_per_mwh(seat.job, board.ground.now_s, self._rivals.lasts_s)
                if not math.isinf(found):
                    self._worth[seat.job.id] = _level_usd_per_mwh(found)
        self._batch = [seat for seat in seats if not seat.kin.service] if self._worth else []

    @property
    def keeps(self) -> bool:
        return self._kept_w is not None

    def begin(self) -> None:
        """What mining and batch can have between them is what services have left by now."""
        self.look(None)
        if self._worth:
            self._room_w, self._by_level = self._shared_w(), {}

    def look(self, seat: Seat | None) -> None:
        """Take off the board what mining keeps against a job; None: give all of it back."""
        at = math.inf if seat is None else self._worth.get(seat.job.id, math.inf)
        if at == self._at:
            return
        if self._kept_w is not None:
            self._board.keep([-watts_w for watts_w in self._kept_w])
        self._at, self._kept_w = at, None
        kept_w = self._keeps_w(at)
        if any(kept_w):
            self._board.keep(kept_w)
            self._kept_w = kept_w

    def shed(self) -> None:
        """Take units of batch that runs where mining is worth more and lacks the room."""
        held = [s for s in self._batch if s.units and not s.young and s.job.id in self._worth]
        if not held or self._rivals is None or not self._rivals.bridged:
            return
        self.begin()
        for seat in sorted(held, key=lambda s: (self._worth[s.job.id], s.job.id)):
            kept_w = self._keeps_w(self._worth[seat.job.id])
            while seat.units and (rows := self._lacking(seat, kept_w)):
                taken = list(seat.at.items()) if seat.job.terms.gang else [(rows[0], 1)]
                for row, units in taken:
                    self._board.pull(seat, row, units)

    def _lacking(self, seat: Seat, kept_w: Sequence[float]) -> list[int]:
        """Nodes of a job above which mining that is worth more lacks watts."""
        board = self._board
        return [
            row
            for row in sorted(seat.at, key=lambda row: board.names[row])
            if board.up[row]
            and any(
                kept_w[feeder] > EPS_W and board.room_w[feeder] < kept_w[feeder] - EPS_W
                for feeder in board.path[row]
            )
        ]

    def _keeps_w(self, at: float) -> list[float]:
        if self._rivals is None or math.isinf(at):
            return []
        if at not in self._by_level:
            self._by_level[at] = self._rivals.keeps_w(at, self._room_w).tolist()
        return self._by_level[at]

    def _shared_w(self) -> Floats:
        """What every feeder has for mining and batch, W."""
        board = self._board
        room_w = np.array(board.room_w)
        for seat in _placed(self._batch):
            for row, units in seat.at.items():
                if board.up[row]:
                    room_w[list(board.path[row])] += units * seat.drawn_w
        return room_w


def _placed(seats: Iterable[Seat]) -> list[Seat]:
    return [seat for seat in seats if seat.units]
