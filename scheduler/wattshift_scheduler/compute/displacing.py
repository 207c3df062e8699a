"""What mining loses where a unit of compute is placed: the value that its watts take from a feeder.

Watts that lie free there, or that a gated device on the same host draws already (of the two only
the larger is drawn), take nothing. Beyond those a unit takes the rungs under its feeder that earn
least by the watt, and of what those do not free at a feeder above the least ones there.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import FeederTree
from wattshift_scheduler.state import State

MOST_RUNGS = 4096
"""Rungs under a feeder that are put in order; of more than that the least earns as much as the
next many do."""


@dataclass(frozen=True, slots=True)
class Running:
    """The last rung of each device that runs; `m` devices.

    Attributes:
        feeder: where it hangs; shape (m,).
        usd_per_mwh: what its watts earn before energy; shape (m,).
        watts_w: its watts, W; shape (m,).
    """

    feeder: Ints
    usd_per_mwh: Floats
    watts_w: Floats

    @classmethod
    def of(cls, fleet: Fleet, ladder: Ladder, point: Ints) -> "Running":
        """Of devices at these points; a point between two rungs counts as none."""
        held = fleet.first[:-1] + np.maximum(point, 0)
        rows = np.flatnonzero((point > 0) & ladder.steps.on[held])
        ends = held[rows]
        start_w = fleet.point_limit_w[ladder.steps.start[ends]]
        return cls(
            fleet.feeder[rows],
            ladder.worth_usd_per_mwh[ends],
            fleet.point_limit_w[ends] - start_w,
        )


@dataclass(frozen=True, slots=True)
class Mined:
    """What the last decision says of mining, for whoever takes watts from it.

    Attributes:
        usd_per_mwh: what one more watt would earn at each feeder that keeps a rung out, 0 at one
            that keeps none out; empty before the first decision; shape (feeders,).
        marginal_usd_per_mwh: gross value of the least valuable rung that runs, 0 if none does.
        held_w: watts that gated devices hold beside the compute of each host, W.
        running: finds the last rungs of what runs, asked only where a unit is to be placed; None:
            they earn as much as one more watt would, or as the marginal one.
    """

    usd_per_mwh: Sequence[float] = ()
    marginal_usd_per_mwh: float = 0.0
    held_w: Mapping[str, float] = field(default_factory=dict)
    running: Callable[[], Running] | None = None

    @classmethod
    def of(cls, state: State) -> "Mined":
        """As of the last decision of a state; a site without compute is spared the work."""
        outlook, fleet = state.outlook, state.fleet
        if not state.site.nodes or not outlook.feeder_usd_per_mwh:
            return cls()
        marginal = outlook.marginal_usd_per_mwh
        beside = (fleet.host >= 0) & (state.ledger.point >= 0)
        above_w = np.where(beside, state.ledger.lease_w - state.ladder.base_w, 0.0)
        held_w = np.bincount(fleet.host[beside], above_w[beside], len(fleet.hosts))
        return cls(
            outlook.feeder_usd_per_mwh,
            0.0 if math.isnan(marginal) else marginal,
            dict(zip(fleet.hosts, held_w.tolist(), strict=True)),
            partial(Running.of, fleet, state.ladder, state.ledger.point),
        )


class _Curve:
    """What is lost by so many watts less under one feeder, the least valuable first."""

    def __init__(self, usd_per_mwh: Sequence[float], watts_w: Sequence[float]) -> None:
        """Args: values, rising, and the watts of each."""
        self._usd_per_w = [usd / 1e6 for usd in usd_per_mwh]
        self._until_w = list(accumulate(watts_w))
        self._until_usd = list(
            accumulate(usd * w for usd, w in zip(self._usd_per_w, watts_w, strict=True))
        )

    def usd(self, less_w: float) -> float:
        """Lost by the first `less_w` watts, USD/h; beyond the last rung as at that."""
        at = bisect_right(self._until_w, less_w)
        before_w, before_usd = (
            (self._until_w[at - 1], self._until_usd[at - 1]) if at else (0.0, 0.0)
        )
        return before_usd + (less_w - before_w) * self._usd_per_w[min(at, len(self._usd_per_w) - 1)]


class Displacing:
    """What each unit that a division places costs mining; changed with the board."""

    def __init__(
        self,
        mined: Mined,
        tree: FeederTree,
        paths: Sequence[tuple[int, ...]],
        names: Sequence[str],
        free_w: Sequence[float],
    ) -> None:
        """Begin where nothing more has been placed.

        Args:
            mined: of the last decision.
            tree: the feeder tree.
            paths: the feeders that carry each node, its own first.
            names: of the nodes.
            free_w: watts by which each feeder's load may rise with mining as it is, W.
        """
        self.known = len(mined.usd_per_mwh) == len(free_w)
        self._mined, self._tree, self._paths = mined, tree, paths
        self._free_w = [max(watts_w, 0.0) for watts_w in free_w]
        self._risen_w = [0.0] * len(free_w)
        self._curves: dict[int, _Curve] = {}
        self._running: Running | None = None
        self.held_w = [mined.held_w.get(name, 0.0) for name in names]

    def usd_per_h(self, row: int, used_w: float, unit_w: float) -> float:
        """What mining loses by one more unit on a node that holds `used_w`, USD/h."""
        more_w = self._counted_w(row, used_w + unit_w) - self._counted_w(row, used_w)
        freed_w = lost_usd = 0.0
        for feeder in self._paths[row]:
            before_w = self._risen_w[feeder] - self._free_w[feeder]
            taken_w = min(before_w + more_w, more_w) - freed_w
            if taken_w > 0.0:
                curve, before_w = self._curve(feeder), max(before_w, 0.0)
                lost_usd += curve.usd(before_w + taken_w) - curve.usd(before_w)
                freed_w += taken_w
        return lost_usd

    def moved(self, row: int, before_w: float, after_w: float) -> None:
        """The watts that work holds on a node have changed."""
        more_w = self._counted_w(row, after_w) - self._counted_w(row, before_w)
        if more_w:
            for feeder in self._paths[row]:
                self._risen_w[feeder] += more_w

    def begin(self) -> None:
        """Count from here: what is placed so far is what was there before."""
        self._risen_w = [0.0] * len(self._risen_w)

    def _counted_w(self, row: int, used_w: float) -> float:
        """What a node and the gated devices beside its work draw at most, W."""
        return max(used_w, self.held_w[row])

    def _curve(self, feeder: int) -> _Curve:
        found = self._curves.get(feeder)
        if found is None:
            found = self._curves[feeder] = self._drawn(feeder)
        return found

    def _drawn(self, feeder: int) -> _Curve:
        """The curve of a feeder, from what runs under it."""
        mined = self._mined
        if self._running is None and mined.running is not None:
            self._running = mined.running()
        running = self._running
        if running is None:
            return _Curve([mined.usd_per_mwh[feeder] or mined.marginal_usd_per_mwh], [1.0])
        row = int(np.argmax((self._tree.ancestors == feeder).any(axis=1)))
        below = np.flatnonzero(self._tree.ancestors[row][running.feeder] == feeder)
        usd, watts_w = running.usd_per_mwh[below], running.watts_w[below]
        if not len(below):
            return _Curve([0.0], [1.0])
        if len(below) > MOST_RUNGS:
            return _Curve([float(usd.min())], [1.0])
        order = np.argsort(usd, kind="stable")
        return _Curve(usd[order].tolist(), watts_w[order].tolist())
