"""What prices to begin with: those of the last plan, moved on, else a walk up the ladder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.plan.demands import Demands, limit_rooms_kw
from wattshift_scheduler.plan.machines import W_PER_KW, Machines
from wattshift_scheduler.plan.words import Ahead

SCARCE_USD_PER_MWH = 0.5
"""A shadow price this much above that of energy has a reason of its own."""


@dataclass(frozen=True, slots=True)
class Warm:
    """What a plan leaves for the next one: its prices of a kW, by when, USD/MWh.

    Attributes:
        start_s, step_s: of the intervals.
        energy_usd_per_mwh: price of energy as it was foreseen; shape (n,).
        shadow_usd_per_mwh: shadow price; shape (n,).
        fenced_usd_per_mwh: what a watt behind gates is worth beyond, as a reserve; shape (n,).
        limit_usd_per_mwh: what one costs on top under each limit, by its name; shape (n,) each.
    """

    start_s: float
    step_s: float
    energy_usd_per_mwh: Floats
    shadow_usd_per_mwh: Floats
    fenced_usd_per_mwh: Floats
    limit_usd_per_mwh: Mapping[str, Floats] = field(default_factory=dict)


def guesses(
    ahead: Ahead, machines: Machines, demands: Demands, warm: Warm | None
) -> tuple[Floats, ...]:
    """Prices of a kW to begin with; shape (k, n) each. Where two are given, one is likely right."""
    ladder = np.maximum(_cleared(machines, demands, ahead), demands.energy + demands.coincident)
    ladder = np.maximum(ladder, _cleared_below(machines, ahead))
    if warm is None:
        return (ladder,)
    before_s = warm.start_s + warm.step_s * np.arange(len(warm.energy_usd_per_mwh))
    at = np.clip(np.searchsorted(before_s, ahead.starts_s(), side="right") - 1, 0, None)
    known = ahead.starts_s() < before_s[-1] + warm.step_s
    beyond = (warm.shadow_usd_per_mwh - warm.energy_usd_per_mwh)[at] * ahead.hours
    fenced = machines.fenced[:, None] * warm.fenced_usd_per_mwh[at] * ahead.hours
    below = _below(ahead, machines, warm, at)
    # Where a cap is full it sets the price, and that of energy does not; a charge comes on top.
    on_top = demands.energy + beyond + below
    capped = np.where(
        beyond + below > SCARCE_USD_PER_MWH * ahead.hours,
        warm.shadow_usd_per_mwh[at] * ahead.hours + below,
        on_top,
    )
    return tuple(np.where(known, one - fenced, ladder) for one in (on_top, capped))


def _below(ahead: Ahead, machines: Machines, warm: Warm, at: Ints) -> Floats:
    """What a kW of each machine costs on top under its limits, by the last plan; shape (k, n)."""
    below = np.zeros((len(machines), len(ahead)))
    for i, limit in enumerate(ahead.limits):
        if limit.name in warm.limit_usd_per_mwh:
            price = warm.limit_usd_per_mwh[limit.name][at] * ahead.hours
            below += machines.under[:, i, None] * price
    return below


def _cleared_below(machines: Machines, ahead: Ahead) -> Floats:
    """The value of the kW at which the tightest limit above each machine is full; shape (k, n)."""
    found, rooms_kw = np.full((len(machines), len(ahead)), -np.inf), limit_rooms_kw(ahead)
    for i, room_kw in enumerate(rooms_kw):
        mine = machines.under[:, i]
        if mine.any():
            found[mine] = np.maximum(found[mine], _full(machines, mine, room_kw))
    return found


def _cleared(machines: Machines, demands: Demands, ahead: Ahead) -> Floats:
    """The value of the kW at which each interval's cap is full, if sleep cost nothing; (n,)."""
    if not len(machines):
        return np.full(len(demands), -np.inf)
    batches_kw = sum(one.left_wh for one in ahead.batches) / W_PER_KW / (ahead.hours * len(ahead))
    room_kw = demands.cap_kw + demands.solar_kw - demands.base_kw - demands.services_kw
    return _full(machines, np.ones(len(machines), dtype=np.bool_), room_kw - batches_kw)


def _full(machines: Machines, mine: Bools, room_kw: Floats) -> Floats:
    """The value of the kW at which some machines fill each room, -inf where they do not; (n,)."""
    steps_kw = np.diff(machines.rise_kw[mine], axis=1, prepend=0.0)
    worth = np.diff(machines.worth[mine], axis=1, prepend=0.0)
    value = np.full_like(worth, -np.inf)
    np.divide(worth, steps_kw, out=value, where=steps_kw > 0)
    value = np.minimum.accumulate(value, axis=1)
    order = np.argsort(-value.ravel(), kind="stable")
    filled_kw = np.cumsum((steps_kw * machines.count[mine, None]).ravel()[order])
    at = np.searchsorted(filled_kw, room_kw)
    ranked = np.append(value.ravel()[order], -np.inf)
    return np.asarray(ranked[np.minimum(at, len(order))])
