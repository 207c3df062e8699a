"""Every combination of a few devices' points at once, at hundreds of feeders: which fits and pays.

Where nothing divides and one limit holds, the devices are split into two halves: the second's sums
are sorted by watts, and each of the first finds the best of those that still fit. Elsewhere all
sums are made; what each leaves goes to the divisible devices, best rung first, under every limit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.ladder.repair.offers import CENT_W, NEVER

CELLS = 1 << 18
"""Combinations worked out together, about: their sums stay in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Core:
    """What a few whole devices at each of `f` feeders could change to; shape (f, m, a).

    The first of each device's alternatives is to stay as it is.

    Attributes:
        device: the devices' columns, -1 where a feeder has fewer; shape (f, m).
        point: which point each alternative is, by device as of `Points`.
        more_w, more_usd_per_h: watts that count, and value, above the present ones; NEVER and
            -NEVER where there is no such alternative.
    """

    device: Ints
    point: Ints
    more_w: Floats
    more_usd_per_h: Floats

    def of_feeders(self, rows: slice | Ints) -> "Core":
        """The same of some of the feeders."""
        return Core(
            self.device[rows], self.point[rows], self.more_w[rows], self.more_usd_per_h[rows]
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """Parts of divisible devices' rungs, best first, that may change hands; shape (f, q).

    Attributes:
        device: whose rung, -1 for none.
        span_w, taken_w: watts of the part, and those of it that are taken at present.
        usd_per_wh: net value by watt, USD/h per W.
    """

    device: Ints
    span_w: Floats
    taken_w: Floats
    usd_per_wh: Floats

    def of_feeders(self, rows: slice | Ints) -> "Pool":
        """The same of some of the feeders."""
        return Pool(self.device[rows], self.span_w[rows], self.taken_w[rows], self.usd_per_wh[rows])


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit that some of the devices below a feeder share and others do not.

    Attributes:
        key: of each device of the fleet, what `group` is asked by; shape (n,).
        group: by key, which limit holds, -1 for none.
        common: at each of the `f` feeders the limit that all below it share, which the slack there
            has counted already; -1 for none; shape (f,).
        left_w: watts left at each limit.
    """

    key: Ints
    group: Ints
    common: Ints
    left_w: Floats

    def of(self, device: Ints) -> Ints:
        """Which limit holds for each device, -1 for none; shape (f, m) in and out."""
        group = self.group[self.key[np.maximum(device, 0)]]
        group[(device < 0) | (group == self.common[:, None])] = -1
        return group

    def of_feeders(self, rows: slice | Ints) -> "Bound":
        """The same for some of the feeders."""
        return Bound(self.key, self.group, self.common[rows], self.left_w)


@dataclass(frozen=True, slots=True)
class Limits:
    """A bound as it meets a core and a pool: which group each device is in, -1 for none.

    Attributes:
        cores, pools: groups of the core's and the pool's devices; shapes (f, m) and (f, q).
        left_w: watts left to each group.
    """

    cores: Ints
    pools: Ints
    left_w: Floats

    @classmethod
    def of(cls, bound: Bound, core: Core, pool: Pool) -> "Limits":
        """Leave out what all at a feeder together could not reach."""
        rise_w = (core.more_w * (core.more_w < NEVER / 2)).max(axis=2).sum(axis=1)
        rise_w += (pool.span_w - pool.taken_w).sum(axis=1)
        groups = bound.of(core.device), bound.of(pool.device)
        for group in groups:
            group[bound.left_w[group] >= rise_w[:, None]] = -1
        return cls(*groups, bound.left_w)

    def of_feeders(self, rows: slice | Ints) -> "Limits":
        """The same of some of the feeders."""
        return Limits(self.cores[rows], self.pools[rows], self.left_w)

    def room_w(self, group: Ints, pool: Pool) -> Floats:
        """What one group at each feeder can give if its part of the pool takes nothing; (f,)."""
        back_w = (pool.taken_w * (self.pools == group[:, None])).sum(axis=1)
        room_w: Floats = np.where(group >= 0, np.maximum(self.left_w[group] + back_w, 0.0), NEVER)
        return room_w


def plain(core: Core, slack_w: Floats) -> Ints:
    """The best combination at each feeder under its slack alone: which alternative of each device.

    Args:
        core: the alternatives.
        slack_w: watts that each feeder can give beyond the present ones; shape (f,).

    Returns:
        Shape (f, m).
    """
    parts = _parts(core)
    return np.concatenate([_plain(core.of_feeders(rows), slack_w[rows]) for rows in parts])


def _parts(core: Core) -> list[slice]:
    """Feeders in groups that are worked out together."""
    f, m, a = core.more_w.shape
    step = max(CELLS // a**m, 1)
    return [slice(i, i + step) for i in range(0, f, step)]


def bounded(core: Core, pool: Pool, slack_w: Floats, limits: list[Limits]) -> tuple[Ints, Floats]:
    """The best combination at each feeder under all limits, with what each rung of the pool takes.

    Returns:
        Which alternative of each device; shape (f, m); and watts; shape (f, q).
    """
    picks, amounts = [], []
    for rows in _parts(core):
        some = core.of_feeders(rows), pool.of_feeders(rows), slack_w[rows]
        pick, amount_w = _bounded(*some, [limit.of_feeders(rows) for limit in limits])
        picks.append(pick)
        amounts.append(amount_w)
    return np.concatenate(picks), np.concatenate(amounts)


def _across(columns: Floats) -> Floats:
    """Alternatives (f, m, a) as (m, a, f): long rows are what numpy is quick with."""
    return np.ascontiguousarray(columns.transpose(1, 2, 0))


def _sums(columns: Floats) -> Floats:
    """All sums of one from each column: (m, a, f) to (a ** m, f), the first column fastest."""
    total = np.zeros((1, columns.shape[2]))
    for column in columns:
        total = (column[:, None] + total[None]).reshape(-1, columns.shape[2])
    return total


def _digits(pick: Ints, m: int, a: int) -> Ints:
    """Which of each column a sum of `_sums` is made of; shape (f, m)."""
    digits: Ints = pick[:, None] // a ** np.arange(m) % a
    return digits


def _plain(core: Core, slack_w: Floats) -> Ints:
    f, m, a = core.more_w.shape
    cut, row = m // 2, np.arange(f)
    more_w, more_usd = _across(core.more_w), _across(core.more_usd_per_h)
    right_w, right_usd = _sums(more_w[cut:]), _sums(more_usd[cut:])
    order = np.argsort(right_w, axis=0, kind="stable")
    right_w, right_usd = right_w[order, row], right_usd[order, row]
    most = np.empty((len(order) + 1, f))
    most[0] = -np.inf
    np.maximum.accumulate(right_usd, axis=0, out=most[1:])
    # How many of the second half each of the first leaves room for; there are fewer than 256.
    fits = right_w[:, None] <= (slack_w - _sums(more_w[:cut]))[None]
    count = np.add.reduce(fits.view(np.uint8), axis=0, dtype=np.uint8)
    left = np.argmax(_sums(more_usd[:cut]) + most[count, row], axis=0)
    # The first of the second half that is as good as the best of those that fit.
    best = most[count[left, row], row]
    right = order[np.argmax(right_usd == best, axis=0), row]
    return np.concatenate((_digits(left, cut, a), _digits(right, m - cut, a)), axis=1)


Spent = Callable[[Bools], Floats]
"""Of some of a core's devices, shape (f, m): what each combination takes more for them; (c, f)."""


def _bounded(core: Core, pool: Pool, slack_w: Floats, limits: list[Limits]) -> tuple[Ints, Floats]:
    f, m, a = core.more_w.shape
    row, more_w = np.arange(f), _across(core.more_w)

    def spent(member: Bools) -> Floats:
        return _sums(more_w * member.T[:, None])

    total_w = _sums(more_w)
    value = _sums(_across(core.more_usd_per_h))
    value += _poured(pool, slack_w, limits, total_w, spent)[1]
    value[~_fits(core, pool, slack_w, limits, total_w, spent)] = -np.inf
    chosen = np.argmax(value, axis=0)
    pick = _digits(chosen, m, a)
    picked_w = core.more_w[row[:, None], np.arange(m)[None], pick]

    def spent_once(member: Bools) -> Floats:
        once: Floats = (picked_w * member).sum(axis=1)[None]
        return once

    amounts, _ = _poured(pool, slack_w, limits, total_w[chosen, row][None], spent_once)
    return pick, np.concatenate(amounts).T if amounts else np.zeros((f, 0))


def _fits(
    core: Core, pool: Pool, slack_w: Floats, limits: list[Limits], total_w: Floats, spent: Spent
) -> Bools:
    """Whether each combination keeps to every limit, if the pool takes nothing."""
    fits: Bools = total_w <= slack_w + pool.taken_w.sum(axis=1) + CENT_W
    for limit in limits:
        known = np.full((len(slack_w), 1), -1)
        for i in range(core.device.shape[1]):
            group = limit.cores[:, i]
            if (group[:, None] != known).all(axis=1).any():
                known = np.concatenate((known, group[:, None]), axis=1)
                fits &= spent(limit.cores == group[:, None]) <= limit.room_w(group, pool) + CENT_W
    return fits


def _poured(
    pool: Pool, slack_w: Floats, limits: list[Limits], total_w: Floats, spent: Spent
) -> tuple[list[Floats], Floats]:
    """What each rung of the pool takes after each combination, and what the pool is worth then."""
    left_w = slack_w + pool.taken_w.sum(axis=1) - total_w
    amounts: list[Floats] = []
    usd = np.zeros_like(left_w)
    for s in range(pool.span_w.shape[1]):
        amount = np.minimum(pool.span_w[:, s], left_w)
        for limit in limits:
            group = limit.pools[:, s]
            if not (group >= 0).any():
                continue
            same = limit.pools == group[:, None]
            room_w = limit.room_w(group, pool) - spent(limit.cores == group[:, None])
            for t in range(s):
                room_w -= amounts[t] * same[:, t]
            np.minimum(amount, room_w, out=amount, where=group >= 0)
        np.maximum(amount, 0.0, out=amount)
        left_w -= amount
        usd += amount * pool.usd_per_wh[:, s]
        amounts.append(amount)
    return amounts, usd
