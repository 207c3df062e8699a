"""What those who may give way to claims of one sort hold, on which nodes and under which feeders.

A pool is counted once and then kept up as they give way; it tells at once where nothing can be won.
"""

from collections.abc import Callable

from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.seats import Seat

DRAINED = 4
"""With so many that have nothing left the list of those who may give way is made anew."""

Taken = list[tuple[Seat, int, int]]
"""Units that gave way: whose, the row of their node, and how many."""

Victim = tuple[Seat, Callable[[], bool] | None]
"""One who may give way, and whether it still may after others have; None: it always may."""


class Pool:
    """Those who may give way to claims of one sort, in order, and what they hold where."""

    def __init__(self, board: Board, victims: list[Victim], tenant: str, gone: Taken) -> None:
        """Look at what is held now; `gone` is what gives way from now on, and grows.

        Of what the tenant itself holds, `own_w` and `own_gpus` may go at most.
        """
        self.victims, self.tenant = victims, tenant
        self.own_w = self.own_gpus = 0.0
        self.node_w = node_w = [0.0] * len(board.names)
        self.feeder_w = [0.0] * len(board.room_w)
        self._path, self._gone, self._counted = board.path, gone, len(gone)
        self._known = dict.fromkeys([one[0] for one in victims])
        self._drained = 0
        drawn_w = [0.0] * len(board.names)
        for victim in self._known:
            unit_w, limited = victim.unit_w, victim.limit_w is not None
            for row, units in victim.at.items():
                node_w[row] += units * unit_w
                if limited:
                    drawn_w[row] -= units * (unit_w - victim.drawn_w)
            if victim.kin.tenant == tenant:
                self._own(
                    victim, victim.units - (victim.job.min_units if victim.kin.service else 0)
                )
        for row, path in enumerate(board.path):
            watts_w = node_w[row] + drawn_w[row]
            for feeder in path if watts_w else ():
                self.feeder_w[feeder] += watts_w

    def on(self, row: int) -> list[Victim]:
        """Those who hold something on a node."""
        return [one for one in self.victims if row in one[0].at]

    def _own(self, victim: Seat, units: int) -> None:
        self.own_w += units * victim.unit_w
        self.own_gpus += units * victim.kin.asks[1]

    def count(self, *, drop: bool) -> None:
        """Take off what has given way since the last time; with `drop` also batch that has nothing
        left, which is for claims of services: batch gets nothing before they are through."""
        for victim, row, units in self._gone[self._counted :]:
            if victim in self._known:
                self._drained += not (victim.units or victim.kin.service)
                self.node_w[row] -= units * victim.unit_w
                if victim.kin.tenant == self.tenant:
                    self._own(victim, -units)
                for feeder in self._path[row]:
                    self.feeder_w[feeder] -= units * victim.drawn_w
        self._counted = len(self._gone)
        if drop and self._drained >= DRAINED:
            self.victims = [one for one in self.victims if one[0].units or one[0].kin.service]
            self._drained = 0
