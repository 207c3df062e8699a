"""What is asked of each interval, in the units of a plan (kW, thousandths of a dollar)."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.plan.machines import MUSD, W_PER_KW, Machines
from wattshift_scheduler.plan.words import Ahead, Commitment, Hold

KG_PER_T = 1e3

HELD, LATE, RAMP, RESERVE, SERVICE, OVER = 1.5, 2.0, 4.0, 8.0, 16.0, 64.0
"""What gives way first where not all can be met, in multiples of the dearest kWh that money asks
for: mining that is held for a promise, a deadline, a ramp, the reserve of services, services, and
last what no decision can avoid."""


@dataclass(frozen=True, slots=True)
class Demands:
    """All that an interval asks for but machines; shape (n,) each.

    Attributes:
        base_kw: what nobody plans, and all devices at rest.
        services_kw, reserve_kw: to be served, and to be kept reachable beyond.
        solar_kw, sure_solar_kw: own generation as expected, and what of it a cap may count on.
        cap_kw: hard: the site's, and firm promises.
        energy: cost of a kW, carbon counted in.
        coincident: expected charge for a kW as part of a grid's peak.
        dearest: more than a kW of any interval can be worth; the measure of what gives way.
    """

    base_kw: Floats
    services_kw: Floats
    reserve_kw: Floats
    solar_kw: Floats
    sure_solar_kw: Floats
    cap_kw: Floats
    energy: Floats
    coincident: Floats
    dearest: float

    def __len__(self) -> int:
        return len(self.cap_kw)

    @classmethod
    def of(cls, ahead: Ahead, machines: Machines) -> "Demands":
        """The demands of `ahead`."""
        n = len(ahead)
        rest_w = sum(kind.count * kind.points_w[0] for kind in ahead.kinds)
        cap_w = ahead.cap_w.copy()
        for one in ahead.commitments:
            if one.firm:
                cap_w = np.where(overlap(ahead, one) > 0, np.minimum(cap_w, one.limit_w), cap_w)
        none = np.zeros(n)
        energy = price_usd_per_mwh(ahead) * ahead.hours
        coincident = sum(
            (
                one.chance * one.usd_per_w * W_PER_KW * MUSD
                for one in ahead.peaks
                if one.chance is not None
            ),
            start=none,
        )
        return cls(
            base_kw=(ahead.other.mid + rest_w) / W_PER_KW,
            services_kw=ahead.services.mid / W_PER_KW,
            reserve_kw=(ahead.services.high - ahead.services.mid) / W_PER_KW,
            solar_kw=none if ahead.solar is None else ahead.solar.mid / W_PER_KW,
            sure_solar_kw=none if ahead.solar is None else ahead.solar.low / W_PER_KW,
            cap_kw=cap_w / W_PER_KW,
            energy=energy,
            coincident=coincident,
            dearest=_dearest(ahead, machines, energy + coincident),
        )


def price_usd_per_mwh(ahead: Ahead) -> Floats:
    """Price of energy as expected, with what its carbon is to cost, USD/MWh."""
    carbon = carbon_usd_per_mwh(ahead)
    return ahead.price.mid if carbon is None else ahead.price.mid + carbon


def carbon_usd_per_mwh(ahead: Ahead) -> Floats | None:
    """What the carbon of a MWh is to cost, USD/MWh; None where none is counted."""
    if ahead.carbon_g_per_kwh is None:
        return None
    # A g/kWh is a kg/MWh.
    return np.asarray(ahead.carbon_g_per_kwh.mid * ahead.carbon_usd_per_t / KG_PER_T)


def overlap(ahead: Ahead, one: Commitment | Hold) -> Floats:
    """Share of each interval that lies in a promise, or in what is held for one."""
    begin_s = ahead.starts_s()
    inside_s = np.minimum(begin_s + ahead.step_s, one.ends_s) - np.maximum(begin_s, one.starts_s)
    return np.clip(inside_s / ahead.step_s, 0.0, 1.0)


def _dearest(ahead: Ahead, machines: Machines, burnt: Floats) -> float:
    """The most that a kW of an interval can be worth to any that pays money for it."""
    most = float(np.abs(burnt).max(initial=0.0))
    if len(machines):
        most += float((machines.worth / machines.rise_kw).max(initial=0.0))
    for peak in ahead.peaks:
        most += peak.usd_per_w * W_PER_KW * MUSD if peak.chance is None else 0.0
    for one in ahead.commitments:
        most += (one.usd_per_mwh + one.penalty_usd_per_mwh) * ahead.hours
    values = [b.value_usd / b.left_wh * W_PER_KW * MUSD for b in ahead.batches if b.left_wh > 0]
    return most + max(values, default=0.0) * ahead.hours + 1.0


def held_too_high(ahead: Ahead, machines: Machines, demands: Demands) -> bool:
    """Whether machines that must stay up for now draw more than a cap, or a limit, leaves them."""
    kept: Bools = machines.up[:, None] & (np.arange(len(demands)) < machines.held()[:, None])
    least_kw = np.maximum(
        machines.rise_kw[:, :1], machines.coming(len(demands)) * machines.top_kw[:, None]
    )
    each_kw = np.where(kept, least_kw, 0.0) * machines.count[:, None]
    over: Bools = each_kw.sum(axis=0) + demands.base_kw + demands.services_kw > demands.cap_kw
    below_kw = machines.under.T.astype(np.float64) @ each_kw
    return bool(over.any() or (below_kw > limit_rooms_kw(ahead)).any())


def limit_rooms_kw(ahead: Ahead) -> Floats:
    """What each limit leaves batch and machines above rest: inference goes first; (limits, n)."""
    rooms_w = np.zeros((len(ahead.limits), len(ahead)))
    for i, limit in enumerate(ahead.limits):
        mine = (kind for kind in ahead.kinds if limit.name in kind.under)
        rooms_w[i] = limit.room_w - sum(kind.count * kind.points_w[0] for kind in mine)
        for zone in ahead.zones:
            rooms_w[i] -= zone.services_w if limit.name in zone.under else 0.0
    return rooms_w / W_PER_KW
