"""What each device is given of the watts that lack for a promise, in its turn.

Those that come first are raised as far as they may, as long as every feeder above them has room;
where one has none they are passed over and the next are tried. What then lacks is given to some
of them one by one, wholly or in part.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.ladder.allocate import fit_prefix
from wattshift_scheduler.promises.goals import Goal
from wattshift_scheduler.promises.holdable import CENT_W, Devices

STEADY_STEPS = 5
"""A divisible device that is held keeps what it holds if that is no more steps above what is asked
of it: noise of sensors moves no lease."""

MOST_ROUNDS = 8
"""So often those are passed over for which no feeder has room, and the next ones are tried."""

LAST_TRIED = 512
"""Devices that are tried one by one for what then lacks, wholly or in part: a bound on the time."""


@dataclass(slots=True)
class Turn:
    """Devices that are raised one after the other into what is left; `m` of them, in their order.

    Attributes:
        tree: the feeders.
        devices: of the whole fleet.
        rows: their columns; shape (m,).
        now_w, rise_w: what each has, and by how much it may rise, W; shape (m,).
        free_w: of that rise, what compute beside a gate counts already, W; shape (m,).
        step_w: in which steps each rises, W; 0: wholly or not at all; shape (m,).
        feeder: the feeder of each; shape (m,).
        left_w: what every feeder has left, W; shape (feeders,).
    """

    tree: FeederTree
    devices: Devices
    rows: Ints
    now_w: Floats
    rise_w: Floats
    free_w: Floats
    step_w: Floats
    feeder: Ints
    left_w: Floats

    @classmethod
    def of(cls, goal: Goal, places: Ints, watts_w: Floats, left_w: Floats) -> "Turn":
        """Some devices of a goal, by their places there, where `watts_w` is what every device has
        and `left_w` what every feeder has left, W; shape (n,) and (feeders,)."""
        rows, goal_w = goal.rows, goal.goal_w
        if len(places) < len(rows):
            rows, goal_w = rows[places], goal_w[places]
        now_w, credit_w = watts_w[rows], goal.state.present.credit_w
        rise_w = goal_w - now_w
        free_w = np.zeros(len(rows))
        if credit_w.any():
            free_w = np.clip(credit_w[rows] - now_w, 0.0, rise_w)
        return cls(
            tree=goal.state.site.tree,
            devices=goal.devices,
            rows=rows,
            now_w=now_w,
            rise_w=rise_w,
            free_w=free_w,
            step_w=goal.devices.step_w[rows],
            feeder=goal.state.fleet.feeder[rows],
            left_w=left_w.copy(),
        )

    def of_rows(self, order: Ints) -> "Turn":
        """The same devices in another order."""
        names = ("rows", "now_w", "rise_w", "free_w", "step_w", "feeder")
        return replace(self, **{name: getattr(self, name)[order] for name in names})

    def fits(self, some: slice | Ints = slice(None), *, wholly: bool = False) -> Bools:
        """Which of some devices could be raised, `wholly` or by a step, if each came first."""
        ancestors = self.tree.ancestors
        above_w = np.where(ancestors >= 0, self.left_w[ancestors], np.inf).min(axis=0)
        can_w = self.free_w[some] + np.maximum(above_w, 0.0)[self.feeder[some]]
        found: Bools = self.rise_w[some] <= can_w + CENT_W
        if not wholly:
            step_w = self.step_w[some]
            found |= (step_w > 0.0) & (can_w + step_w * CENT_W >= step_w)
        return found

    def given_w(self, lacks_w: float) -> Floats:
        """By how much each is raised until nothing lacks; shape (m,)."""
        count, counted_w = len(self.rows), self.rise_w - self.free_w
        given_w, gains = np.zeros(count), self.devices.gains[self.rows]
        gain_w = self.rise_w * gains
        upto_w = np.append(0.0, np.cumsum(gain_w))
        begin = 0
        for _ in range(MOST_ROUNDS):
            end = int(np.searchsorted(upto_w[1:], upto_w[begin] + lacks_w))
            some, begin = slice(begin, end), end
            if self.fits(some, wholly=True).any():
                keep = fit_prefix(self.tree, self.feeder[some], counted_w[some], self.left_w)
                fits = some.start + np.flatnonzero(keep)
                given_w[fits] = self.rise_w[fits]
                lacks_w -= float(gain_w[fits].sum())
                used_w = summed(self.feeder[fits], counted_w[fits], len(self.left_w))
                self.left_w -= self.tree.totals(used_w)
            if begin == count or (given_w[some] > 0.0).all():
                break
        passed = np.flatnonzero(given_w[:begin] == 0.0)[:LAST_TRIED]
        last = np.append(np.arange(begin, min(begin + LAST_TRIED, count)), passed)
        self._give_last(last[self.fits(last)], gains, given_w, lacks_w)
        return given_w

    def _give_last(self, some: Ints, gains: Floats, given_w: Floats, lacks_w: float) -> None:
        """Raise some devices one by one, wholly or in part, until nothing lacks; `gains` is what is
        ready of each watt, and what each is given is written to `given_w`; shape (m,) each."""
        least_w = np.where(self.step_w > 0.0, np.minimum(self.step_w, self.rise_w), self.rise_w)
        least_w = least_w[some] * (1.0 - CENT_W) - CENT_W
        for i, need_w in zip(some.tolist(), (least_w - self.free_w[some]).tolist(), strict=True):
            if lacks_w <= CENT_W:
                break
            if need_w > max(self.left_w[0], 0.0):
                continue
            at = list(self.tree.path(int(self.feeder[i])))
            can_w = float(self.free_w[i]) + max(float(self.left_w[at].min()), 0.0)
            given_w[i] = self._part_w(i, can_w, lacks_w / gains[i])
            self.left_w[at] -= max(given_w[i] - self.free_w[i], 0.0)
            lacks_w -= given_w[i] * gains[i]

    def _part_w(self, i: int, can_w: float, need_w: float) -> float:
        """By how much one device is raised: wholly if it knows no watts between, else in steps."""
        rise_w, step_w = float(self.rise_w[i]), float(self.step_w[i])
        if step_w <= 0.0:
            return rise_w if rise_w <= can_w + CENT_W else 0.0
        steps = math.ceil(min(need_w, rise_w) / step_w - CENT_W)
        steps = min(steps, math.floor(can_w / step_w + CENT_W))
        part_w = min(steps * step_w, rise_w)
        held_w = float(self.devices.lease_w[self.rows[i]] - self.now_w[i])
        steady = part_w > 0.0 and part_w < held_w <= part_w + STEADY_STEPS * step_w
        return held_w if steady and held_w <= min(can_w, rise_w) else part_w
