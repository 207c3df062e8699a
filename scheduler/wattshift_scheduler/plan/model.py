"""A plan as a linear program: watts of the site, services, batch, peaks, promises and ramps.

The watts of an interval must add up, and what one more of them costs is the dual of that row. What
cannot be met gives way at a price above all that money asks for, in the order of `demands`.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.plan.bounds import Bounds, bounded
from wattshift_scheduler.plan.demands import LATE, OVER, RAMP, RESERVE, SERVICE, Demands, overlap
from wattshift_scheduler.plan.machines import MUSD, W_PER_KW, Machines
from wattshift_scheduler.plan.mining import Mining, written
from wattshift_scheduler.plan.openings import Open
from wattshift_scheduler.plan.sheet import Program, Sheet
from wattshift_scheduler.plan.words import Ahead, Batch

HURRY = 1e-3
"""What has no deadline prefers an interval to the next one by this share of the dearest energy."""


@dataclass(frozen=True, slots=True)
class Model:
    """A program and what its columns and rows mean.

    Attributes:
        program: least cost, in thousandths of a dollar.
        fixed: what the program leaves out of the cost.
        balance, ready: rows of each interval: its watts, and what services can reach; shape (n,).
        site: what the meter shows, kW; `sun`: what is used of own generation; shape (n,).
        unserved, unready, over, steep: what gives way, kW; shape (n,) but for `steep`, of both
            ramps, shape (2, n), -1 where there is none.
        batch: draw of each; -1 where it cannot run; shape (b, n).
        late: what each leaves undone against its deadline, kWh; -1 without; shape (b,).
        excess: above each promise; -1 outside; shape (c, n).
        mining: the machines.
        bounds: limits below the connection, and what is held for promises.
    """

    program: Program
    fixed: float
    balance: Ints
    ready: Ints
    site: Ints
    sun: Ints
    unserved: Ints
    unready: Ints
    over: Ints
    steep: Ints
    batch: Ints
    hurry: Floats
    late: Ints
    excess: Ints
    mining: Mining
    bounds: Bounds


def built(
    ahead: Ahead, machines: Machines, demands: Demands, open_: Open, *, near: int = 0
) -> Model:
    """The program of what is open; batches run whole or not at all in the first `near` intervals
    where they need their `fewest_w`."""
    n, sheet = len(ahead), Sheet()
    cost = demands.energy + demands.coincident
    site = sheet.add(n, cost, 0.0, demands.cap_kw)
    unserved = sheet.add(n, SERVICE * demands.dearest, 0.0, demands.services_kw)
    unready = sheet.add(n, RESERVE * demands.dearest, 0.0, demands.reserve_kw)
    over = sheet.add(n, OVER * demands.dearest)
    mining = written(sheet, machines, open_)
    asked_kw = demands.base_kw + demands.services_kw + mining.fixed_kw.sum(axis=0)
    balance = sheet.rule(n, asked_kw, asked_kw)
    for columns in (site, unserved, over):
        sheet.put(balance, columns, 1.0)
    sheet.put(balance[mining.at], mining.column, -mining.kw)
    sun = _sun(sheet, demands, balance, site)
    ready = _ready(sheet, machines, demands, mining, site, unready)
    batch, late, hurry, fixed = _batches(sheet, ahead, demands, balance, near)
    _peaks(sheet, ahead, site)
    excess, paid = _promises(sheet, ahead, site)
    steep = _ramps(sheet, ahead, demands, site)
    bounds = bounded(sheet, ahead, machines, demands, mining, batch)
    return Model(
        program=sheet.closed(),
        fixed=fixed - paid + float(mining.fixed_wear.sum() - mining.fixed_worth.sum()),
        balance=balance,
        ready=ready,
        site=site,
        sun=sun,
        unserved=unserved,
        unready=unready,
        over=over,
        steep=steep,
        batch=batch,
        hurry=hurry,
        late=late,
        excess=excess,
        mining=mining,
        bounds=bounds,
    )


def _sun(sheet: Sheet, demands: Demands, balance: Ints, site: Ints) -> Ints:
    """Own generation; a cap counts on what of it is sure."""
    if not demands.solar_kw.any():
        return np.full(len(demands), -1)
    sun = sheet.add(len(demands), 0.0, 0.0, demands.solar_kw)
    sheet.put(balance, sun, 1.0)
    capped = np.flatnonzero(np.isfinite(demands.cap_kw))
    sure = sheet.rule(len(capped), -np.inf, (demands.cap_kw + demands.sure_solar_kw)[capped])
    sheet.put(sure, site[capped], 1.0)
    sheet.put(sure, sun[capped], 1.0)
    return sun


def _ready(
    sheet: Sheet, machines: Machines, demands: Demands, mining: Mining, site: Ints, unready: Ints
) -> Ints:
    """What services may want beyond the expected is free, or held by machines behind gates."""
    fixed_kw = (machines.fenced[:, None] * mining.fixed_kw).sum(axis=0)
    rows = sheet.rule(len(demands), -np.inf, demands.cap_kw - demands.reserve_kw + fixed_kw)
    sheet.put(rows, site, 1.0)
    sheet.put(rows, unready, -1.0)
    mine = machines.fenced[mining.machine]
    sheet.put(rows[mining.at[mine]], mining.column[mine], -mining.kw[mine])
    return rows


def _batches(
    sheet: Sheet, ahead: Ahead, demands: Demands, balance: Ints, near: int
) -> tuple[Ints, Ints, Floats, float]:
    """Draw and lateness of each batch, what its hurry costs by interval, and what all earn."""
    n, b = len(ahead), len(ahead.batches)
    draw, late = np.full((b, n), -1), np.full(b, -1)
    hurry, fixed = np.zeros((b, n)), 0.0
    burnt = demands.energy + demands.coincident
    for i, one in enumerate(ahead.batches):
        if one.left_wh <= 0 or one.most_w <= 0:
            continue
        fixed -= one.value_usd * MUSD
        most_kw = one.most_w / W_PER_KW * _usable(ahead, one)
        if np.isinf(one.deadline_s):
            # The control loop lets it run at once: a price is no reason to wait, unless an hour
            # costs more than it earns.
            spread = float(burnt.max() - burnt.min()) + 1.0
            hurry[i] = burnt.max() - burnt + HURRY * spread * np.arange(n)
            per_kw = one.value_usd / one.left_wh * W_PER_KW * MUSD * ahead.hours
            most_kw = np.where((burnt > per_kw) & (one.value_usd > 0.0), 0.0, most_kw)
        draw[i] = sheet.add(n, hurry[i], 0.0, most_kw)
        sheet.put(balance, draw[i], -1.0)
        late[i] = _owed(sheet, ahead, demands, one, draw[i])
        _whole(sheet, one, draw[i][:near], most_kw[:near])
    _together(sheet, ahead, demands, draw)
    return draw, late, hurry, fixed


def _together(sheet: Sheet, ahead: Ahead, demands: Demands, draw: Ints) -> None:
    """All batch fits on the nodes that services leave free."""
    some = draw[draw[:, 0] >= 0]
    if np.isinf(ahead.compute_w) or not len(some):
        return
    room_kw = np.maximum(ahead.compute_w / W_PER_KW - demands.services_kw, 0.0)
    rows = sheet.rule(len(ahead), -np.inf, room_kw)
    sheet.put(rows, some, 1.0)


def _usable(ahead: Ahead, one: Batch) -> Floats:
    """Share of each interval that lies before the deadline."""
    left_s = one.deadline_s - ahead.step_s * np.arange(len(ahead))
    return np.asarray(np.clip(left_s / ahead.step_s, 0.0, 1.0))


def _owed(sheet: Sheet, ahead: Ahead, demands: Demands, one: Batch, draw: Ints) -> int:
    """The energy of a batch: done, left for after the horizon, or late; the column of the last."""
    left_kwh, hours = one.left_wh / W_PER_KW, ahead.hours
    per_kwh = one.value_usd / one.left_wh * W_PER_KW * MUSD
    dear = demands.dearest / hours
    rows = sheet.rule(1, left_kwh, left_kwh)
    sheet.put(rows, draw, hours)
    beyond_h = one.deadline_s / 3600.0 - hours * len(ahead)
    if np.isinf(one.deadline_s):
        sheet.put(rows, sheet.add(1, per_kwh + dear), 1.0)
        return -1
    late = sheet.add(1, per_kwh + LATE * dear)
    sheet.put(rows, late, 1.0)
    if beyond_h > 0:
        # After the horizon energy costs what it costs within, on the mean.
        mean = float((demands.energy + demands.coincident).mean()) / hours
        sheet.put(rows, sheet.add(1, mean, 0.0, beyond_h * one.most_w / W_PER_KW), 1.0)
    return int(late[0])


def _whole(sheet: Sheet, one: Batch, draw: Ints, most_kw: Floats) -> None:
    if one.fewest_w <= 0 or not len(draw):
        return
    runs = sheet.add(len(draw), 0.0, 0.0, 1.0, whole=True)
    least = sheet.rule(len(draw), 0.0, np.inf)
    sheet.put(least, draw, 1.0)
    sheet.put(least, runs, -np.minimum(one.fewest_w / W_PER_KW, most_kw))
    most = sheet.rule(len(draw), -np.inf, 0.0)
    sheet.put(most, draw, 1.0)
    sheet.put(most, runs, -most_kw)


def _peaks(sheet: Sheet, ahead: Ahead, site: Ints) -> None:
    """Demand charges: on the highest interval, above the month's highest until now."""
    for one in ahead.peaks:
        if one.chance is None and one.usd_per_w > 0:
            above = sheet.add(1, one.usd_per_w * W_PER_KW * MUSD)
            rows = sheet.rule(len(ahead), -np.inf, one.so_far_w / W_PER_KW)
            sheet.put(rows, site, 1.0)
            sheet.put(rows, above, -1.0)


def _promises(sheet: Sheet, ahead: Ahead, site: Ints) -> tuple[Ints, float]:
    """What the site draws above each promise, and what all are paid if it does not."""
    found, paid = np.full((len(ahead.commitments), len(ahead)), -1), 0.0
    for i, one in enumerate(ahead.commitments):
        share = overlap(ahead, one) * ahead.hours
        paid += one.usd_per_mwh * one.reduction_w / W_PER_KW * float(share.sum())
        at = np.flatnonzero(share)
        if one.firm or not len(at):
            continue
        found[i, at] = sheet.add(len(at), (one.usd_per_mwh + one.penalty_usd_per_mwh) * share[at])
        rows = sheet.rule(len(at), -np.inf, one.limit_w / W_PER_KW)
        sheet.put(rows, site[at], 1.0)
        sheet.put(rows, found[i, at], -1.0)
    return found, paid


def _ramps(sheet: Sheet, ahead: Ahead, demands: Demands, site: Ints) -> Ints:
    """The steepest rise and fall of the site's mean from one interval to the next."""
    n, found = len(ahead), np.full((2, len(ahead)), -1)
    for i, (ramp, sign) in enumerate(
        ((ahead.ramp_up_w_per_s, 1.0), (ahead.ramp_down_w_per_s, -1.0))
    ):
        if np.isinf(ramp) or n < 2:
            continue
        found[i, 1:] = sheet.add(n - 1, RAMP * demands.dearest)
        rows = sheet.rule(n - 1, -np.inf, ramp * ahead.step_s / W_PER_KW)
        sheet.put(rows, site[1:], sign)
        sheet.put(rows, site[:-1], -sign)
        sheet.put(rows, found[i, 1:], -1.0)
    return found
