"""When a job that waits would run: as caps rise, and as minimum run times end."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.jobs import Rule
from wattshift_scheduler.signals.arbitrate import arbitrate

MOST_EDGES = 256
"""Beginnings and ends of caps that are looked at for when a job would fit: ten days of hours."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The limit that keeps a unit out where there is most room for it.

    Attributes:
        rule, name: which limit; "cap" for the site's own.
        watts_w: what is left there, W.
        row: the node.
        gpus: whether it is GPUs that lack.
    """

    rule: Rule
    name: str
    watts_w: float
    row: int
    gpus: bool = False


class Expected:
    """What is known of one division's future."""

    def __init__(self, board: Board, seats: Iterable[Seat]) -> None:
        """Remember who may not be preempted yet."""
        self._board, self._ground = board, board.ground
        self._young = [seat for seat in seats if seat.young and seat.units]
        self._edges: tuple[list[float], list[float]] | None = None

    def at_s(self, seat: Seat, bound: Binding, short_w: float) -> float | None:
        """The first moment that is known at which a job would fit that lacks so many watts, s."""
        if not self._young and bound.rule is not Rule.CAP:
            return None
        known: list[float] = []
        if bound.rule is Rule.CAP:
            at_s, gain_w = self._gains()
            found = bisect_left(gain_w, short_w)
            known += at_s[found : found + 1]
        if not self._young:
            return known[0] if known else None
        freed_w = 0.0
        for end_s, watts_w in self._ends(seat, bound):
            freed_w += watts_w
            if freed_w >= short_w - EPS_W:
                known.append(end_s)
                break
        return min(known, default=None)

    def _gains(self) -> tuple[list[float], list[float]]:
        """When caps change, and the most watts by which the site's limit has risen by then."""
        if self._edges is None:
            ground = self._ground
            caps, now_s = ground.caps, ground.now_s
            edges = {edge for cap in caps for edge in (cap.starts_s, cap.ends_s)}
            at_s = sorted(edge for edge in edges if edge is not None and edge > now_s)[:MOST_EDGES]
            kept = 1.0 - float(ground.site.tree.shares(ground.site.rules.margin_share)[0])
            most_w, gain_w = -math.inf, []
            for edge in at_s:
                cap_w = arbitrate(caps, float(ground.site.tree.limit_w[0]), edge).cap_w
                most_w = max(most_w, (cap_w - ground.cap.cap_w) * kept)
                gain_w.append(most_w)
            self._edges = (at_s, gain_w)
        return self._edges

    def _ends(self, seat: Seat, bound: Binding) -> list[tuple[float, float]]:
        """When jobs that would give way have had their minimum run time, and their watts there."""
        found = []
        for other in self._young:
            if not (seat.kin.service or other.points < seat.job.terms.priority):
                continue
            below = (
                units
                for row, units in other.at.items()
                if row == bound.row or self._shares_limit(row, bound)
            )
            watts_w = sum(below) * other.job.unit_w
            began_s = other.job.began_s
            if watts_w and began_s is not None:
                found.append((began_s + other.job.terms.min_run_s, watts_w))
        return sorted(found)

    def _shares_limit(self, row: int, bound: Binding) -> bool:
        index = self._ground.site.tree.index
        if bound.rule is Rule.FEEDER:
            return index[bound.name] in self._board.path[row]
        return bound.rule is Rule.CAP
