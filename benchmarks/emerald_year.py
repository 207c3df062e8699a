"""A year on one interconnect, with AI alone and with mining in its valleys. Closed form, modelled.

Both arms have the same connection, the same AI and the same events. AI's load follows a real trace
of requests; its highest ten minutes fill the connection. With mining, what AI leaves free is mined
while a hash is worth its energy. In an event the site gives up a quarter of what it drew in the
hour before it: mining first, and what is then still missing is taken from AI by power caps, at the
loss that the linear programme over Emerald's sweep gives.

    ai_per_interconnect_mw    mean AI load, weighted by its performance, over the connection
    usd_per_year              worth of that AI and of the hashes, less energy, for one MW
    usd_per_mwh_flexibility   worth lost in the events, over the energy shed in them

What is left out: the price of the machines, payments for the flexibility, demand charges.
"""

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.emerald_data import Quarter, Workload, demand_shares, quarters
from benchmarks.emerald_lp import base_w, best_performance

AI_USD_PER_GPU_HOUR, KW_PER_GPU = 1.5, 0.6
"""Assumed: the rent of an A100, and its draw with its share of host and cooling."""

AI_USD_PER_MWH = AI_USD_PER_GPU_HOUR / KW_PER_GPU * 1000.0
HASHPRICE_USD_PER_PH_DAY, J_PER_TH = 42.3, 17.5
"""Assumed: the demo's hashprice, and an ASIC of 2024."""

HASH_USD_PER_MWH = HASHPRICE_USD_PER_PH_DAY / 24.0 / (J_PER_TH / 1000.0)
IDLE_SHARE = 0.3
"""Assumed: what a server that waits draws, of what it draws at work."""

MINING_MW = 0.5
EVENTS_A_YEAR, EVENT_QUARTERS, SHED_SHARE = 25, 12, 0.25
QUARTERS_A_YEAR = 365 * 96
SEED = 7
NOTES = (
    f"AI {AI_USD_PER_MWH:,.0f} USD/MWh ({AI_USD_PER_GPU_HOUR} USD per GPU-hour, {KW_PER_GPU} kW)",
    f"servers that wait draw {IDLE_SHARE:.0%}",
    f"hashes {HASH_USD_PER_MWH:,.0f} USD/MWh ({HASHPRICE_USD_PER_PH_DAY} USD/PH/day, {J_PER_TH} "
    f"J/TH), {MINING_MW} MW of miners per MW of connection",
    f"{EVENTS_A_YEAR} events a year of 3 h, {SHED_SHARE:.0%} of the hour before; in the dearest "
    "hours of ERCOT's day-ahead market a miner is often off already, and what is off cannot shed",
    "no payment for flexibility, no price of machines; AI that always fills the connection would "
    "earn more than any hash on the same watts",
)


@dataclass(slots=True)
class _Books:
    """Sums of one arm over the quarters; MWh and USD of a connection of 1 MW."""

    ai_mwh: float = 0.0
    usd: float = 0.0
    lost_usd: float = 0.0
    shed_mwh: float = 0.0
    ai_lost_mwh: float = 0.0


class Performance:
    """Best performance of AI at a share of its power, from the linear programme."""

    def __init__(self, workloads: Sequence[Workload], points: int = 26) -> None:
        """Solve it once for shares from 50 % to 100 %; between them it is a straight line."""
        full_w = base_w(workloads)
        self._shares = [0.5 + 0.5 * i / (points - 1) for i in range(points)]
        found = [best_performance(workloads, share * full_w) for share in self._shares]
        # Below what the promises allow, work and watts are taken in the same measure.
        least = next(p for p in found if p is not None)
        at = self._shares[found.index(least)]
        self._best = [
            least * s / at if p is None else p for s, p in zip(self._shares, found, strict=True)
        ]

    def at(self, share: float) -> float:
        """Performance at that share of the power without a cap."""
        if share >= 1.0:
            return self._best[-1]
        if share <= self._shares[0]:
            return self._best[0] * share / self._shares[0]
        i = bisect.bisect_right(self._shares, share)
        low, high = self._shares[i - 1], self._shares[i]
        part = (share - low) / (high - low)
        return self._best[i - 1] + part * (self._best[i] - self._best[i - 1])


def equal_interconnect(
    workloads: Sequence[Workload], *, dearest: bool = True
) -> dict[str, dict[str, float]]:
    """Both arms; the keys are those of INTERFACES.

    Args:
        workloads: AI, as Emerald swept it.
        dearest: events lie in the dearest hours; else at any hour, as a fault of the grid comes.

    Raises:
        CannotRunHere: there is no data.
    """
    market, demand = quarters(), demand_shares()
    events = event_quarters(market, dearest=dearest)
    performance = Performance(workloads)
    return {
        name: _arm(market, demand, events, performance, mining_mw)
        for name, mining_mw in (("ai_only", 0.0), ("with_mining", MINING_MW))
    }


def event_quarters(market: Sequence[Quarter], *, dearest: bool) -> dict[int, int]:
    """Quarters that lie in an event, each with the first one of its event; one event a day."""
    count = round(EVENTS_A_YEAR * len(market) / QUARTERS_A_YEAR)
    if not dearest:
        dice = random.Random(SEED)
        days = dice.sample(range(1, len(market) // 96 - 1), count)
        starts = [96 * day + 4 * dice.randrange(24) for day in days]
        return {start + i: start for start in starts for i in range(EVENT_QUARTERS)}
    best: dict[str, tuple[float, int]] = {}
    window = sum(one.usd_per_mwh for one in market[:EVENT_QUARTERS])
    for start in range(len(market) - EVENT_QUARTERS):
        day = market[start].at.date().isoformat()
        # Begun on the hour, after an hour of the trace from which the site's draw is taken.
        if start >= 4 and market[start].at.minute == 0 and window > best.get(day, (-1e9, 0))[0]:
            best[day] = (window, start)
        window += market[start + EVENT_QUARTERS].usd_per_mwh - market[start].usd_per_mwh
    chosen = sorted(best.values(), reverse=True)[:count]
    return {start + i: start for _, start in chosen for i in range(EVENT_QUARTERS)}


def _arm(
    market: Sequence[Quarter],
    demand: Sequence[float],
    events: dict[int, int],
    performance: Performance,
    mining_mw: float,
) -> dict[str, float]:
    books, scale = _Books(), QUARTERS_A_YEAR / len(market)
    ai_mw = [IDLE_SHARE + (1 - IDLE_SHARE) * _demand(demand, i) for i in range(len(market))]
    mined_mw = [
        min(mining_mw, 1.0 - ai) if one.usd_per_mwh < HASH_USD_PER_MWH else 0.0
        for ai, one in zip(ai_mw, market, strict=True)
    ]
    for i, one in enumerate(market):
        ai, mine, works = ai_mw[i], mined_mw[i], 1.0
        if i in events:
            before = range(events[i] - 4, events[i])
            cap_mw = (1 - SHED_SHARE) * sum(ai_mw[j] + mined_mw[j] for j in before) / 4
            given_mw = min(mine, max(ai + mine - cap_mw, 0.0))
            taken_mw = max(ai - cap_mw, 0.0)
            works = performance.at(1.0 - taken_mw / ai)
            books.shed_mwh += (given_mw + taken_mw) / 4
            mined_usd = given_mw / 4 * (HASH_USD_PER_MWH - one.usd_per_mwh)
            saved_usd = taken_mw / 4 * one.usd_per_mwh
            books.lost_usd += mined_usd + ai / 4 * (1 - works) * AI_USD_PER_MWH - saved_usd
            books.ai_lost_mwh += ai / 4 * (1 - works)
            ai, mine = ai - taken_mw, mine - given_mw
        books.ai_mwh += ai_mw[i] / 4 * works
        energy_usd = (ai + mine) / 4 * one.usd_per_mwh
        hashes_usd = mine / 4 * HASH_USD_PER_MWH
        books.usd += ai_mw[i] / 4 * works * AI_USD_PER_MWH + hashes_usd - energy_usd
    return {
        "ai_per_interconnect_mw": round(books.ai_mwh * scale / 8760.0, 5),
        "usd_per_year": round(books.usd * scale),
        "usd_per_mwh_flexibility": round(books.lost_usd / books.shed_mwh, 2),
        "ai_mwh_lost_in_events_per_year": round(books.ai_lost_mwh * scale, 3),
        "mwh_shed_per_year": round(books.shed_mwh * scale, 2),
    }


def _demand(demand: Sequence[float], quarter: int) -> float:
    """The trace's share in a quarter; its two weeks are repeated."""
    return demand[int(quarter * 1.5) % len(demand)]
