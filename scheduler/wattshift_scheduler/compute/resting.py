"""Batch that runs and is to rest for its price leaves at its checkpoint; see `in_force.waiting`."""

import math
from collections.abc import Iterable

from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.seats import Seat


def rest(board: Board, seats: Iterable[Seat]) -> None:
    """Take all units of jobs that wait for hours of their own, but of those that must not be
    preempted yet."""
    waits_s, now_s = board.ground.waits_s, board.ground.now_s
    if not waits_s:
        return
    for seat in seats:
        waits = waits_s.get(seat.job.id, -math.inf) > now_s
        if seat.units and waits and not seat.young and not seat.kin.service:
            for row, units in list(seat.at.items()):
                board.pull(seat, row, units)
