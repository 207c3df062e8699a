"""What prices to begin with: those of the last plan, moved on, else a walk up the ladder."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.plan.demands import Demands
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
    """

    start_s: float
    step_s: float
    energy_usd_per_mwh: Floats
    shadow_usd_per_mwh: Floats
    fenced_usd_per_mwh: Floats


def guesses(
    ahead: Ahead, machines: Machines, demands: Demands, warm: Warm | None
) -> tuple[Floats, ...]:
    """Prices of a kW to begin with; shape (k, n) each. Where two are given, one is likely right."""
    ladder = np.maximum(_cleared(machines, demands, ahead), demands.energy + demands.coincident)
    ladder = np.broadcast_to(ladder, (len(machines), len(ahead)))
    if warm is None:
        return (ladder,)
    before_s = warm.start_s + warm.step_s * np.arange(len(warm.energy_usd_per_mwh))
    at = np.clip(np.searchsorted(before_s, ahead.starts_s(), side="right") - 1, 0, None)
    known = ahead.starts_s() < before_s[-1] + warm.step_s
    beyond = (warm.shadow_usd_per_mwh - warm.energy_usd_per_mwh)[at] * ahead.hours
    fenced = machines.fenced[:, None] * warm.fenced_usd_per_mwh[at] * ahead.hours
    # Where a cap is full it sets the price, and that of energy does not; a charge comes on top.
    on_top = demands.energy + beyond
    capped = np.where(
        beyond > SCARCE_USD_PER_MWH * ahead.hours,
        warm.shadow_usd_per_mwh[at] * ahead.hours,
        on_top,
    )
    return tuple(np.where(known, one - fenced, ladder) for one in (on_top, capped))


def _cleared(machines: Machines, demands: Demands, ahead: Ahead) -> Floats:
    """The value of the kW at which each interval's cap is full, if sleep cost nothing; (n,)."""
    if not len(machines):
        return np.full(len(demands), -np.inf)
    steps_kw = np.diff(machines.rise_kw, axis=1, prepend=0.0)
    worth = np.diff(machines.worth, axis=1, prepend=0.0)
    value = np.full_like(worth, -np.inf)
    np.divide(worth, steps_kw, out=value, where=steps_kw > 0)
    value = np.minimum.accumulate(value, axis=1)
    order = np.argsort(-value.ravel(), kind="stable")
    filled_kw = np.cumsum((steps_kw * machines.count[:, None]).ravel()[order])
    batches_kw = sum(one.left_wh for one in ahead.batches) / W_PER_KW / (ahead.hours * len(ahead))
    room_kw = demands.cap_kw + demands.solar_kw - demands.base_kw - demands.services_kw
    at = np.searchsorted(filled_kw, room_kw - batches_kw)
    ranked = np.append(value.ravel()[order], -np.inf)
    return np.asarray(ranked[np.minimum(at, len(order))])
