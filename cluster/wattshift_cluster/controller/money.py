"""What hashing earns and costs now, said plainly: per device and point, and for the site.

Figures of a point are what it adds over the device's lowest point, because that is what a decision
can change. They rest on the point's own watts and hashrate, as its agent offers them. The verdict
is economics alone: caps, locks and the cost of a cycle decide beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from wattshift_cluster.controller import rung_views
from wattshift_cluster.controller.books import Account, Books, LeaseAccount
from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.controller.views import known
from wattshift_cluster.economics.feed import Known
from wattshift_scheduler.hashprice import break_even_usd_per_mwh, j_per_th
from wattshift_scheduler.in_force import carbon
from wattshift_scheduler.site import Device, OperatingPoint
from wattshift_scheduler.state import State

ENDED_SHOWN = 100

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """What everything is worth now; None is unknown."""

    usd_per_hash_hour: float | None
    usd_per_ph_day: float | None
    price_usd_per_mwh: float | None
    reserve_usd_per_mwh: float
    note: str
    carbon_usd_per_mwh: float | None = None

    @classmethod
    def of(cls, state: State, now_s: float) -> "Rates":
        """The rates in force."""
        values = state.values
        hashprice = values.hashprice_usd_per_ph_day
        return cls(
            usd_per_hash_hour=None if hashprice is None else values.usd_per_hash_hour,
            usd_per_ph_day=None if hashprice is None else hashprice * (1 - values.pool_fee_share),
            price_usd_per_mwh=known(state.price_usd_per_mwh()),
            reserve_usd_per_mwh=values.reserve_usd_per_mwh,
            note=state.quote.note,
            carbon_usd_per_mwh=carbon.usd_per_mwh(state, now_s),
        )


def economics(
    state: State,
    books: Books,
    feed: Known | None,
    scheme: str,
    now_s: float,
    pattern: str | None,
    most: int,
) -> View:
    """The whole answer (api.economics_views.EconomicsView).

    Args:
        state, books: what is decided, what was counted.
        feed: what the feed of the hashprice knows; None where it is a constant.
        scheme: how the pool pays.
        now_s: our clock, s.
        pattern: of device ids; None for all.
        most: devices listed; totals always hold all of them.
    """
    rates = Rates.of(state, now_s)
    columns = [
        i
        for i, device in enumerate(state.fleet.devices)
        if pattern is None or fnmatchcase(device.id, pattern)
    ]
    ended = [one for one in books.ended if pattern is None or fnmatchcase(one.device, pattern)]
    return {
        "at": rfc3339(now_s),
        "hashprice": _hashprice(state, feed, scheme, now_s),
        "price_usd_per_mwh": rates.price_usd_per_mwh,
        "carbon_usd_per_mwh": rates.carbon_usd_per_mwh,
        "reserve_usd_per_mwh": rates.reserve_usd_per_mwh,
        "devices": [
            {**device_money(state, books, rates, i), "rung": rung_views.rung(state, i, now_s)}
            for i in columns[:most]
        ],
        "devices_left_out": max(len(columns) - most, 0),
        "total": _account(books.total()),
        "leases": [_lease(one) for one in reversed(ended[-ENDED_SHOWN:])],
    }


def _hashprice(state: State, feed: Known | None, scheme: str, now_s: float) -> View:
    values, quote = state.values, state.quote
    return {
        "usd_per_ph_day": values.hashprice_usd_per_ph_day,
        "source": quote.source,
        "age_s": known(now_s - quote.observed_s),
        "note": quote.note if feed is None else feed.note,
        "held": [] if feed is None else list(feed.held),
        "figures": {} if feed is None else {n: seen.value for n, seen in feed.figures.items()},
        "scheme": scheme,
        "pool_fee_pct": 100.0 * values.pool_fee_share,
    }


def device_money(state: State, books: Books, rates: Rates, column: int) -> View:
    """One device: its points, the verdict in words, and what it came to so far."""
    device, fenced = state.fleet.devices[column], bool(state.fleet.fenced[column])
    points = [_point(device.points[0], point, fenced, rates) for point in device.points[1:]]
    verdict, sentence = judged(device, points, rates)
    held = int(state.ledger.point[column])
    lease = books.lease(device.id)
    return {
        "device": device.id,
        "kind": device.kind,
        "mode": device.points[held].mode if held >= 0 else None,
        "points": points,
        "verdict": verdict,
        "sentence": sentence,
        "account": _account(books.devices.get(device.id, Account())),
        "lease": None if lease is None else _lease(lease),
    }


def _point(base: OperatingPoint, point: OperatingPoint, fenced: bool, rates: Rates) -> View:
    watts_w = point.watts_w - base.watts_w
    hashes = point.hashrate_h_per_s - base.hashrate_h_per_s
    effort = j_per_th(watts_w, hashes)
    gross = _gross_usd_per_h(hashes, point.revenue_usd_per_h, rates)
    energy = None if rates.price_usd_per_mwh is None else watts_w * rates.price_usd_per_mwh / 1e6
    emitted = watts_w * (rates.carbon_usd_per_mwh or 0.0) / 1e6
    reserve = rates.reserve_usd_per_mwh * watts_w / 1e6 if fenced else 0.0
    even = None
    if rates.usd_per_ph_day is not None and effort is not None:
        even = break_even_usd_per_mwh(rates.usd_per_ph_day, effort)
    return {
        "mode": point.mode,
        "watts_w": watts_w,
        "hashrate_h_per_s": hashes,
        "j_per_th": effort,
        "gross_usd_per_h": gross,
        "reserve_usd_per_h": reserve,
        "energy_usd_per_h": energy,
        "carbon_usd_per_h": emitted,
        "net_usd_per_h": (
            None if gross is None or energy is None else gross + reserve - energy - emitted
        ),
        "break_even_usd_per_mwh": even,
    }


def _gross_usd_per_h(hashes: float, named_usd_per_h: float, rates: Rates) -> float | None:
    """What hashes earn, and what the owner says beside it; None where the former is unknown."""
    if hashes == 0.0:
        return named_usd_per_h
    known_rate = rates.usd_per_hash_hour
    return None if known_rate is None else hashes * known_rate + named_usd_per_h


def judged(device: Device, points: Sequence[View], rates: Rates) -> tuple[str, str]:
    """Whether hashing pays here now, in one word and in one sentence.

    Returns:
        "earns", "reserve" (it loses money for the sake of the reserve), "idles" or "unknown".
    """
    name = device.id
    if not points:
        return "unknown", f"{name} offers {device.points[0].mode} alone now"
    if rates.price_usd_per_mwh is None:
        return "unknown", f"{name}: the energy price is unknown, and nothing mines at such a price"
    # An unknown income counts as none: it is what the ladder does, too.
    best = max(points, key=lambda p: _worth(p) - _cost(p))
    cost, earns, reserve = _cost(best), best["gross_usd_per_h"], _reserve(best)
    told = "an unknown sum" if earns is None else usd(earns)
    emitted = cost - best["energy_usd_per_h"]
    of_it = f" ({usd(emitted)} of it for carbon)" if emitted else ""
    words = f"hashing on {name} costs {usd(cost)} USD/h{of_it} and earns {told}"
    if earns is None:
        words += f" (the hashprice is unknown: {rates.note})"
    if earns is not None and earns > cost:
        return "earns", f"{words}: {usd(earns - cost)} USD/h net at {best['mode']}"
    if _worth(best) > cost:
        return "reserve", f"{words}: it runs only as reserve worth {usd(reserve)} USD/h"
    if reserve > 0:
        return "idles", f"{words}, its reserve would be worth {usd(reserve)}: it idles"
    return "idles", f"{words}: it idles"


def _worth(point: View) -> float:
    return float(point["gross_usd_per_h"] or 0.0) + _reserve(point)


def _cost(point: View) -> float:
    """Energy of a known price, and what its carbon is to cost, USD/h."""
    return float(point["energy_usd_per_h"]) + float(point.get("carbon_usd_per_h", 0.0))


def _reserve(point: View) -> float:
    return float(point["reserve_usd_per_h"])


def usd(amount: float) -> str:
    """Money with two digits that count, and never as a power of ten."""
    if abs(amount) >= 0.1:
        return f"{amount:,.2f}"
    return np.format_float_positional(amount, precision=2, fractional=False, trim="-")


def _account(account: Account) -> View:
    return {
        "seconds_s": account.seconds_s,
        "energy_j": account.energy_j,
        "energy_usd": account.energy_usd,
        "revenue_usd": dict(account.revenue_usd),
        "net_usd": account.net_usd,
        "unpriced_j": account.unpriced_j,
        "unvalued_hashes": account.unvalued_hashes,
    }


def _lease(one: LeaseAccount) -> View:
    return {
        "device": one.device,
        "mode": one.mode,
        "watts_w": None if math.isnan(one.watts_w) else one.watts_w,
        "began_at": rfc3339(one.began_s),
        "ended_at": None if one.ended_s is None else rfc3339(one.ended_s),
        **_account(one.account),
    }
