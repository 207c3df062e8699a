"""The machines' part of a program: only of those decisions that are still open.

For most machines and intervals no price in reach would change what they do. Those are counted in as
they are; `Open` says which remain. Left out are variables by the hundred thousand, and `solve`
proves that none of them was needed.

Machines alike are counted, not named: how many are up, come up, and work at each point. The rows of
least times are the tight ones: who woke within the last `least_up` intervals is up now.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.plan.machines import Machines
from wattshift_scheduler.plan.openings import Open
from wattshift_scheduler.plan.sheet import Sheet

USED = 1e-6
"""Of a device; less is the solver's rounding."""


@dataclass(frozen=True, slots=True)
class Mining:
    """Where the machines stand in a program.

    Attributes:
        column, machine, at, kw, worth: of each variable that draws: its column, whose it is and in
            which interval, and what one of it draws above rest and earns; shape (v,).
        begins, ends: points from and to which it leads; -1 for one that comes up; shape (v,).
        up: column of how many are up; -1 where that is no variable; shape (k, n).
        wakes: column of how many come up; -1 likewise; shape (k, n).
        fixed_kw, fixed_worth, fixed_up: what is no variable; shape (k, n).
        fixed_wear: what wakes cost that are none; shape (k,).
    """

    column: Ints
    machine: Ints
    at: Ints
    kw: Floats
    worth: Floats
    begins: Ints
    ends: Ints
    up: Ints
    wakes: Ints
    fixed_kw: Floats
    fixed_worth: Floats
    fixed_up: Floats
    fixed_wear: Floats


_Column = TypeVar("_Column", Bools, Floats)

_Drawn = tuple[Ints, Ints, Ints, Ints, Ints, Floats, Floats]
"""Of variables: column, machine, interval, points from and to which they lead, draw and income."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What is settled and what varies; shape (k, n) each.

    Attributes:
        up, wakes: devices that are up, and that come up, where that is settled; else 0.
        may_wake: how many come up is open.
        rows: how many work at each point is open with it.
        works: devices that work, where that is settled; else 0.
        lost: devices that come up, as far as it is settled.
    """

    up: Floats
    wakes: Floats
    may_wake: Bools
    rows: Bools
    works: Floats
    lost: Floats

    @classmethod
    def of(cls, machines: Machines, open_: Open) -> "_Settled":
        count = machines.count[:, None]
        varies = open_.may != open_.must
        may_wake = varies | _later(varies, 1)
        before = np.column_stack([machines.up, open_.must[:, :-1]])
        wakes = np.where(open_.must & ~before & ~may_wake, count, 0.0)
        rows = varies.copy()
        lost = machines.coming(varies.shape[1]) * count
        for age in range(machines.lost.shape[1]):
            share = machines.lost[:, age, None]
            rows |= _later(may_wake, age) & (share > 0)
            lost = lost + share * _later(wakes, age)
        up = np.where(open_.must & ~varies, count, 0.0)
        return cls(up, wakes, may_wake, rows, np.where(rows, 0.0, up - lost), lost)


def _later(values: _Column, by: int) -> _Column:
    """Columns moved to later intervals; nothing moves in."""
    moved = np.zeros_like(values)
    moved[:, by:] = values[:, : values.shape[1] - by]
    return moved


def written(sheet: Sheet, machines: Machines, open_: Open) -> Mining:
    """Add what is open of all machines to a program."""
    settled = _Settled.of(machines, open_)
    up, wakes = np.full(open_.may.shape, -1), np.full(open_.may.shape, -1)
    drawn: list[_Drawn] = [_climbing(sheet, machines, open_, settled.works)]
    for m in np.flatnonzero(settled.may_wake.any(axis=1)).tolist():
        one = _One(sheet, machines, settled, open_, m)
        drawn.extend(one.work())
        one.least_times()
        up[m], wakes[m] = one.up, one.wakes
    low_kw = np.take_along_axis(machines.rise_kw, open_.low, axis=1)
    low_worth = np.take_along_axis(machines.worth, open_.low, axis=1)
    joined = [np.concatenate([part[i] for part in drawn]) for i in range(7)]
    column, machine, at, begins, ends = (part.astype(np.int64) for part in joined[:5])
    return Mining(
        column=column,
        machine=machine,
        at=at,
        kw=joined[5],
        worth=joined[6],
        begins=begins,
        ends=ends,
        up=up,
        wakes=wakes,
        fixed_kw=settled.works * low_kw + settled.lost * machines.top_kw[:, None],
        fixed_worth=settled.works * low_worth,
        fixed_up=settled.up,
        fixed_wear=machines.wear * settled.wakes.sum(axis=1),
    )


def _climbing(sheet: Sheet, machines: Machines, open_: Open, works: Floats) -> _Drawn:
    """The steps from the lowest open point to the highest, of machines that work in any case."""
    step = np.arange(machines.rise_kw.shape[1] - 1)
    inside = (step >= open_.low[:, :, None]) & (step < open_.high[:, :, None])
    m, t, j = np.nonzero(inside & (works > 0)[:, :, None])
    worth = machines.worth[m, j + 1] - machines.worth[m, j]
    column = sheet.add(len(m), -worth, 0.0, works[m, t])
    rise_kw = machines.rise_kw[m, j + 1] - machines.rise_kw[m, j]
    return column, m, t, j, j + 1, rise_kw, worth


class _One:
    """One machine whose sleep is open: how many are up, come up, and work at each point."""

    def __init__(
        self, sheet: Sheet, machines: Machines, settled: _Settled, open_: Open, m: int
    ) -> None:
        self._sheet, self._machines, self._m = sheet, machines, m
        self._open, self._rows = open_, settled.rows[m]
        self._count = float(machines.count[m])
        self._up_for_sure, self._wakes_for_sure = settled.up[m], settled.wakes[m]
        self._lost_for_sure = settled.lost[m]
        n = len(self._rows)
        self.up, self.wakes = np.full(n, -1), np.full(n, -1)
        varies = np.flatnonzero(open_.may[m] != open_.must[m])
        self.up[varies] = sheet.add(len(varies), 0.0, 0.0, self._count)
        woken = np.flatnonzero(settled.may_wake[m])
        self.wakes[woken] = sheet.add(len(woken), machines.wear[m], 0.0, self._count)
        began = self._count if machines.up[m] else 0.0
        before, known = np.append(-1, self.up[:-1]), np.append(began, self._up_for_sure[:-1])
        turned = sheet.rule(len(woken), -np.inf, known[woken] - self._up_for_sure[woken])
        self._put(turned, self.up[woken], 1.0)
        self._put(turned, before[woken], -1.0)
        sheet.put(turned, self.wakes[woken], -1.0)

    def _put(self, rows: Ints, columns: Ints, value: float) -> None:
        """Entries of those columns that are variables."""
        some = columns >= 0
        self._sheet.put(rows[some], columns[some], value)

    def work(self) -> list[_Drawn]:
        """Who is up comes up, or works at one of the open points."""
        machines, m = self._machines, self._m
        at = np.flatnonzero(self._rows)
        low, high = self._open.low[m, at], self._open.high[m, at]
        points = np.arange(int(machines.points[m]))
        may = self._open.may[m, at]
        t, j = np.nonzero((points >= low[:, None]) & (points <= high[:, None]) & may[:, None])
        works = self._sheet.add(len(t), -machines.worth[m, j], 0.0, self._count)
        known = (self._up_for_sure - self._lost_for_sure)[at]
        used = self._sheet.rule(len(at), known, known)
        self._sheet.put(used[t], works, 1.0)
        self._put(used, self.up[at], -1.0)
        whose = np.full(len(t), m)
        drawn = [(works, whose, at[t], j, j, machines.rise_kw[m, j], machines.worth[m, j])]
        row = np.full(len(self._rows), -1)
        row[at] = used
        for age in np.flatnonzero(machines.lost[m]).tolist():
            woken = np.flatnonzero(self.wakes[: len(self._rows) - age] >= 0)
            lost = float(machines.lost[m, age])
            self._sheet.put(row[woken + age], self.wakes[woken], lost)
            kw, none = np.full(len(woken), lost * machines.top_kw[m]), np.zeros(len(woken))
            point, mine = np.full(len(woken), -1), np.full(len(woken), m)
            drawn.append((self.wakes[woken], mine, woken + age, point, point, kw, none))
        return drawn

    def least_times(self) -> None:
        """Who woke within the least time up is up; who wakes has rested for the least time."""
        machines, m = self._machines, self._m
        least_up, least_down = int(machines.least_up[m]), int(machines.least_down[m])
        if least_up > 1:
            at, known = self._window(least_up)
            rows = self._sheet.rule(len(at), -np.inf, self._up_for_sure[at] - known)
            self._put(rows, self.up[at], -1.0)
            self._woken(rows, at, least_up)
        if least_down > 1:
            began = 0.0 if machines.up[m] else self._count
            at, known = self._window(least_down)
            before = np.maximum(at - least_down, 0)
            inside = at >= least_down
            left = np.where(inside, self._count - self._up_for_sure[before], began)
            rows = self._sheet.rule(len(at), -np.inf, left - known)
            self._put(rows, np.where(inside, self.up[before], -1), 1.0)
            self._woken(rows, at, least_down)

    def _window(self, span: int) -> tuple[Ints, Floats]:
        """Intervals in whose last `span` a wake is open, or settled; and those that are settled."""
        total = np.concatenate(([0.0], np.cumsum(self._wakes_for_sure)))
        varies = np.concatenate(([0], np.cumsum(self.wakes >= 0)))
        end = np.arange(1, len(self.wakes) + 1)
        begin = np.maximum(end - span, 0)
        known = total[end] - total[begin]
        at = np.flatnonzero((varies[end] > varies[begin]) | (known > 0))
        return at, known[at]

    def _woken(self, rows: Ints, at: Ints, span: int) -> None:
        """The wakes of the last `span` intervals."""
        for age in range(span):
            woken = at - age
            columns = np.where(woken >= 0, self.wakes[np.maximum(woken, 0)], -1)
            self._put(rows, columns, 1.0)


def earned(machines: Machines, mining: Mining, values: Floats, prices: Floats) -> Floats:
    """What each machine of the program earns beyond rest at `prices`; shape (k,)."""
    each = values[mining.column] * (mining.worth - mining.kw * prices[mining.machine, mining.at])
    gross = np.bincount(mining.machine, each, len(machines))
    wakes = np.where(mining.wakes >= 0, values[mining.wakes], 0.0).sum(axis=1)
    fixed = mining.fixed_worth - mining.fixed_kw * prices
    return np.asarray(
        gross + fixed.sum(axis=1) - mining.fixed_wear - machines.wear * wakes, dtype=np.float64
    )


def used(machines: Machines, mining: Mining, values: Floats, high_of: Floats, open_: Open) -> Open:
    """What of `open_` a solved program makes use of; `high_of` are its variables' upper bounds."""
    count = machines.count[:, None]
    up = np.where(mining.up >= 0, values[mining.up], mining.fixed_up)
    amount, most = values[mining.column], high_of[mining.column]
    points = mining.begins >= 0
    low, high = np.full(up.shape, machines.rise_kw.shape[1]), np.full(up.shape, -1)
    some = points & (amount > USED)
    # A step that is not full is begun from; a point that is not used is not.
    reached = (some | (mining.begins < mining.ends)) & points
    begun = np.where(amount < most - USED, mining.begins, mining.ends)
    np.minimum.at(low, (mining.machine[reached], mining.at[reached]), begun[reached])
    np.maximum.at(high, (mining.machine[some], mining.at[some]), mining.ends[some])
    fixed = (mining.up < 0) & (high < 0) & (low >= machines.rise_kw.shape[1])
    low, high = np.where(fixed, open_.low, low), np.where(fixed, open_.low, high)
    return Open(low, high, up > USED, up > count - USED)
