"""What the devices near a feeder's cut could run at instead, as tables of one row per feeder.

Whole devices offer each of their operating points, those below the envelope too: a smaller step may
fit where none of the envelope does. Divisible devices offer watts, best rung first. Watts are those
that the feeders count; value is net of energy, above the device's lowest point.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import envelopes
from wattshift_scheduler.ladder.ladder import Ladder

CENT_W = 1e-6
"""Watts below which two sums count as equal."""

NEVER = 1e15
"""Watts, or USD/h, of what is not on offer: above any sum, and finite so that sums stay so."""

LEAST_USD_PER_H = 1e-9
"""What a device is worth that is to run although it loses: room left over, and nothing else."""


@dataclass(frozen=True, slots=True)
class Prices:
    """How the points of a ladder's fleet are valued and counted. `n` devices.

    Attributes:
        ladder: what hashes, reserve and cycles are worth.
        price_usd_per_mwh: energy price.
        credit_w: watts of each device that are counted already; shape (n,).
    """

    ladder: Ladder
    price_usd_per_mwh: float
    credit_w: Floats

    @property
    def fleet(self) -> Fleet:
        """The devices."""
        return self.ladder.fleet

    def net_usd_per_h(self, device: Ints, at: Ints) -> Floats:
        """What points earn beyond their energy.

        Args:
            device: columns; shape (...).
            at: places of their points in the fleet's table; shape (points, ...).
        """
        fleet, values = self.fleet, self.ladder.values
        usd = fleet.point_h_per_s[at] * values.usd_per_hash_hour
        if fleet.point_usd_per_h.any():
            usd += fleet.point_usd_per_h[at]
        by_w = fleet.fenced[device] * values.reserve_usd_per_mwh - self.price_usd_per_mwh
        usd += by_w / 1e6 * fleet.point_limit_w[at]
        return usd

    def points_at(self, device: Ints, lease_w: Floats) -> Ints:
        """The highest point within each lease, in the fleet's table of points; same shape."""
        here, top = self.fleet.first[device], self.fleet.first[device + 1] - 1
        at = here
        for _ in range(int((top - here).max(initial=0))):
            at = np.minimum(at + 1, top)
            here = here + (self.fleet.point_limit_w[at] <= lease_w + CENT_W) * (at > here)
        return here

    def counted_w(self, device: Ints, lease_w: Floats) -> Floats:
        """Watts above its lowest point that count against the feeders at a lease of so many."""
        credit_w = self.credit_w[device]
        base_w = self.fleet.point_limit_w[self.fleet.first[device]]
        return np.maximum(lease_w - credit_w, 0.0) - np.maximum(base_w - credit_w, 0.0)

    def lease_w(self, device: Ints, counted_w: Floats) -> Floats:
        """The lease of which so many watts count: what is counted already comes first."""
        base_w = self.fleet.point_limit_w[self.fleet.first[device]]
        top_w = self.fleet.point_limit_w[self.fleet.first[device + 1] - 1]
        return np.minimum(np.maximum(self.credit_w[device], base_w) + counted_w, top_w)


@dataclass(frozen=True, slots=True)
class Points:
    """Points of the devices of `f` feeders, `c` devices each; shape (points, f, c).

    Attributes:
        device: the devices' columns, -1 where a feeder has fewer; shape (f, c).
        real: whether there is such a point.
        lease_w: lease watts, infinite where there is no such point.
        need_w: watts that count; NEVER where there is no such point.
        usd_per_h: net value; -NEVER where there is no such point.
    """

    device: Ints
    real: Bools
    lease_w: Floats
    need_w: Floats
    usd_per_h: Floats

    @classmethod
    def of(cls, prices: Prices, device: Ints) -> "Points":
        """Gather the points of `device`, shape (f, c)."""
        fleet = prices.fleet
        one = np.maximum(device, 0)
        begin = fleet.first[one]
        count = np.where(device >= 0, fleet.first[one + 1] - begin, 0)
        point = np.arange(max(int(count.max(initial=1)), 1))[:, None, None]
        real = point < count
        at = np.where(real, begin + point, begin)
        lease_w, usd = fleet.point_limit_w[at], prices.net_usd_per_h(one, at)
        usd -= usd[0].copy()
        usd[1:] += prices.ladder.bonus_usd_per_h[one]
        best = np.where(real[1:], usd[1:], -np.inf).max(axis=0, initial=-np.inf)
        usd[1:] += np.maximum(LEAST_USD_PER_H - best, 0.0)
        return cls(
            device=device,
            real=real,
            lease_w=np.where(real, lease_w, np.inf),
            need_w=np.where(real, prices.counted_w(one, lease_w), NEVER),
            usd_per_h=np.where(real, usd, -NEVER),
        )

    def of_feeders(self, rows: Ints) -> "Points":
        """The same of some of the feeders."""
        return Points(
            self.device[rows],
            self.real[:, rows],
            self.lease_w[:, rows],
            self.need_w[:, rows],
            self.usd_per_h[:, rows],
        )

    def at(self, watts_w: Floats) -> Ints:
        """Which point each device is at; shape (f, c)."""
        within = self.lease_w <= watts_w[np.maximum(self.device, 0)] + CENT_W
        here: Ints = np.maximum(within.sum(axis=0) - 1, 0)
        return here


@dataclass(frozen=True, slots=True)
class Rungs:
    """Rungs of the divisible devices of `f` feeders, `d` devices each; shape (f, rungs x d).

    Attributes:
        device: whose rung it is, -1 for none; shape (f, rungs x d).
        low_w, span_w: watts that count below it, and of it; 0 of one that is none.
        usd_per_wh: its net value by watt, USD/h per W; 0 where there is no such rung.
        prices: by which they are counted.
    """

    device: Ints
    low_w: Floats
    span_w: Floats
    usd_per_wh: Floats
    prices: Prices

    @classmethod
    def of(cls, prices: Prices, device: Ints) -> "Rungs":
        """The rungs of `device`, shape (f, d), as far as they are worth their energy."""
        f, d = device.shape
        points = Points.of(prices, device.reshape(1, f * d))
        one = np.maximum(device.reshape(-1), 0)
        # Past its last point a device repeats it: a step of no watts leads nowhere.
        last = np.maximum(points.real[:, 0].sum(axis=0) - 1, 0)
        at = np.minimum(np.arange(len(points.real))[:, None], last), np.arange(f * d)
        lease_w, usd = points.lease_w[:, 0][at].T, points.usd_per_h[:, 0][at].T
        alive = device.reshape(-1) >= 0
        lease_w[~alive], usd[~alive] = 0.0, 0.0
        on = envelopes(lease_w, usd)
        before = np.maximum.accumulate(np.where(on, np.arange(on.shape[1]), 0), axis=1)[:, :-1]
        row = np.arange(f * d)[:, None]
        span_w = lease_w[:, 1:] - lease_w[row, before]
        rise = usd[:, 1:] - usd[row, before]
        steep = np.divide(rise, span_w, out=np.zeros_like(rise), where=span_w > CENT_W)
        good = on[:, 1:] & (steep > 0.0) & alive[:, None]
        low_w = prices.counted_w(one[:, None], lease_w[row, before])
        high_w = prices.counted_w(one[:, None], lease_w[:, 1:])
        flat = (f, d * (lease_w.shape[1] - 1))
        return cls(
            device=np.repeat(device.reshape(-1), lease_w.shape[1] - 1).reshape(flat),
            low_w=low_w.reshape(flat),
            span_w=((high_w - low_w) * good).reshape(flat),
            usd_per_wh=(steep * good).reshape(flat),
            prices=prices,
        )

    def of_feeders(self, rows: Ints) -> "Rungs":
        """The same of some of the feeders."""
        columns = (self.device[rows], self.low_w[rows], self.span_w[rows], self.usd_per_wh[rows])
        return Rungs(*columns, self.prices)

    def taken_w(self, watts_w: Floats) -> Floats:
        """Watts of each rung that are taken at leases of so many, shape (n,)."""
        one = np.maximum(self.device, 0)
        taken: Floats = np.clip(
            self.prices.counted_w(one, watts_w[one]) - self.low_w, 0.0, self.span_w
        )
        return taken
