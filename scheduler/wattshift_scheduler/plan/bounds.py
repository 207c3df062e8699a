"""Limits below the connection, and mining that is held for promises, as rows of a program.

Under each limit batch and machines share what inference leaves. Batch is where its nodes are: what
runs stays in its zone, and the rest goes where it costs least, as the control loop places it. What
cannot be kept gives way at a price (`demands`), and what one more kW costs there is a dual.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.plan.demands import HELD, OVER, Demands, limit_rooms_kw, overlap
from wattshift_scheduler.plan.machines import W_PER_KW, Machines
from wattshift_scheduler.plan.mining import Mining
from wattshift_scheduler.plan.sheet import Sheet
from wattshift_scheduler.plan.words import Ahead


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where limits and holds stand in a program.

    Attributes:
        full: row of each limit in each interval; shape (limits, n).
        beyond: column of what lies above it and cannot be shed, kW; shape (limits, n).
        held: row of each hold, -1 outside of it; shape (holds, n).
        unheld: column of what cannot be held, kW; -1 likewise; shape (holds, n).
        under: 1 where a machine hangs under a limit; shape (k, limits).
        in_time: 1 where it is down soon enough for a hold; shape (k, holds).
        given_up: what a kW of `beyond` and of `unheld` is weighed with; no money.
    """

    full: Ints
    beyond: Ints
    held: Ints
    unheld: Ints
    under: Floats
    in_time: Floats
    given_up: tuple[float, float]

    def priced(self, duals: Floats) -> Floats:
        """What a kW of each machine costs on top of the site's price; shape (k, n)."""
        held = np.where(self.held >= 0, np.maximum(duals[self.held], 0.0), 0.0)
        return np.asarray(self.under @ self.limit_prices(duals) - self.in_time @ held)

    def limit_prices(self, duals: Floats) -> Floats:
        """What a kW under each limit costs on top of the site's price; shape (limits, n)."""
        return np.asarray(np.maximum(-duals[self.full], 0.0))

    def weighed(self, values: Floats) -> float:
        """What of a program's cost stands for what was given up, and is no money."""
        unheld = np.where(self.unheld >= 0, values[self.unheld], 0.0)
        beyond, missing = self.given_up
        return beyond * float(values[self.beyond].sum()) + missing * float(unheld.sum())


def bounded(
    sheet: Sheet, ahead: Ahead, machines: Machines, demands: Demands, mining: Mining, batch: Ints
) -> Bounds:
    """Add them to a program; `batch` has the columns of each batch's draw, -1 for none; (b, n)."""
    under = machines.under.astype(np.float64)
    within_s = np.array([one.within_s for one in ahead.holds])
    in_time = (machines.down_s[:, None] <= within_s).astype(np.float64)
    prices = OVER * demands.dearest, HELD * demands.dearest
    full, beyond = _limits(sheet, ahead, under, mining, prices[0])
    if len(full):
        _zones(sheet, ahead, batch, full)
    held, unheld = _holds(sheet, ahead, in_time, mining, prices[1])
    return Bounds(full, beyond, held, unheld, under, in_time, prices)


def _limits(
    sheet: Sheet, ahead: Ahead, under: Floats, mining: Mining, price: float
) -> tuple[Ints, Ints]:
    """Machines under each limit stay below what it leaves them, but for what cannot be shed."""
    n, rooms_kw = len(ahead), limit_rooms_kw(ahead)
    full, beyond = np.full((len(rooms_kw), n), -1), np.full((len(rooms_kw), n), -1)
    for i, room_kw in enumerate(rooms_kw):
        full[i] = sheet.rule(n, -np.inf, room_kw - under[:, i] @ mining.fixed_kw)
        beyond[i] = sheet.add(n, price)
        sheet.put(full[i], beyond[i], -1.0)
        mine = under[mining.machine, i] > 0.0
        sheet.put(full[i][mining.at[mine]], mining.column[mine], mining.kw[mine])
    return full, beyond


def _zones(sheet: Sheet, ahead: Ahead, batch: Ints, full: Ints) -> None:
    """Batch draws in zones: at least what runs there, at most what their nodes take."""
    runs = [(one, draw) for one, draw in zip(ahead.batches, batch, strict=True) if draw[0] >= 0]
    if not runs or not any(zone.under for zone in ahead.zones):
        return
    n, names = len(ahead), [one.name for one in ahead.limits]
    shared = sheet.rule(n, 0.0, 0.0)
    for _, draw in runs:
        sheet.put(shared, draw, -1.0)
    for zone in ahead.zones:
        drawn = sheet.add(n, 0.0, 0.0, zone.most_w / W_PER_KW)
        sheet.put(shared, drawn, 1.0)
        for name in zone.under:
            sheet.put(full[names.index(name)], drawn, 1.0)
        stays = [(draw, zone.batch[one.name]) for one, draw in runs if one.name in zone.batch]
        if stays:
            least = sheet.rule(n, 0.0, np.inf)
            sheet.put(least, drawn, 1.0)
            for draw, share in stays:
                sheet.put(least, draw, -share)


def _holds(
    sheet: Sheet, ahead: Ahead, in_time: Floats, mining: Mining, price: float
) -> tuple[Ints, Ints]:
    """Machines that are down soon enough draw what is to be held, but for what cannot be."""
    shape = (len(ahead.holds), len(ahead))
    held, unheld = np.full(shape, -1), np.full(shape, -1)
    for i, one in enumerate(ahead.holds):
        share = overlap(ahead, one)
        at = np.flatnonzero(share)
        if not len(at) or one.watts_w <= 0.0:
            continue
        fixed_kw = in_time[:, i] @ mining.fixed_kw
        need_kw = share * one.watts_w / W_PER_KW
        held[i, at] = sheet.rule(len(at), (need_kw - fixed_kw)[at], np.inf)
        unheld[i, at] = sheet.add(len(at), price)
        sheet.put(held[i, at], unheld[i, at], 1.0)
        row = held[i][mining.at]
        mine = (row >= 0) & (in_time[mining.machine, i] > 0.0)
        sheet.put(row[mine], mining.column[mine], mining.kw[mine])
    return held, unheld
