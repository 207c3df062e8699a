"""What the plan is made from on the bench: only what the market and the site know by then.

Prices: the interval that begins at its own price; then what the day-ahead price has been followed
by (`wattshift_scheduler.forecasts.market`), as far as it is posted; beyond, as the same time of day
was on the past's days. What follows what comes from the past of the trace alone.
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from benchmarks.economics_case import CONNECTION_W, CP_USD_PER_W, RAMP_UP_W_PER_S, Case
from benchmarks.economics_data import Trace
from benchmarks.economics_peaks import Watch
from benchmarks.economics_site import UNIT_W, UNITS
from benchmarks.economics_world import EPS_H, World

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.forecast import Band, seasonal
from wattshift_scheduler.forecasts.market import LEARNT_S, Market, Past
from wattshift_scheduler.plan.words import Ahead, Batch, Commitment, Kind, Peak

HORIZON_S = 24.0 * 3600.0
PAST_S = 28.0 * 86_400.0
"""Of the trace, by which the services' times of day are judged."""


def _times_s(trace: Trace, first: int, end: int) -> Floats:
    return np.asarray(trace.step_s * np.arange(first, end), dtype=np.float64)


@dataclass
class Foresight:
    """Forecasts of one case.

    Attributes:
        case: whose trace is foreseen.
        watch: of the grid's peaks; None: nobody watches.
    """

    case: Case
    watch: Watch | None
    _market: Market | None = None

    def price(self, i: int, n: int) -> tuple[Band, Prospect | None]:
        """Prices of `n` intervals from `i` on, USD/MWh, and how they may move on."""
        trace, past = self.case.trace, self._past(i)
        if self._market is None:
            self._market = Market.learnt(self._past(i - 1), trace.step_s)
        posted = np.full(n, np.nan)
        known = trace.ahead_usd_per_mwh[i : min(trace.published(i), i + n)]
        posted[: len(known)] = known
        return self._market.foreseen(past, posted, _times_s(trace, i, i + n), trace.step_s)

    def _past(self, i: int) -> Past:
        """What is known of the trace's prices when interval `i` begins, its own among it."""
        trace = self.case.trace
        first, end = max(i + 1 - round(LEARNT_S / trace.step_s), 0), max(i + 1, 0)
        return Past(
            _times_s(trace, first, end),
            trace.ahead_usd_per_mwh[first:end],
            trace.price_usd_per_mwh[first:end],
        )

    def services(self, i: int, n: int) -> Band:
        """What the services will draw, W; the interval that begins is known."""
        trace, need = self.case.trace, self.case.need
        first = max(i - round(PAST_S / trace.step_s), 0)
        past = UNIT_W * self.case.needs[first:i].astype(np.float64)
        if not len(past):
            return Band.of(np.full(n, UNIT_W * need(i)))
        times_s, starts_s = _times_s(trace, first, i), _times_s(trace, i, i + n)
        found = seasonal(times_s, past, starts_s)
        edges = [np.array(edge) for edge in (found.low, found.mid, found.high)]
        for edge in edges:
            edge[0] = UNIT_W * need(i)
        return Band(*edges)

    def ahead(self, world: World, kinds: tuple[Kind, ...], promised: Set[str]) -> Ahead:
        """All that a plan is made from when an interval begins.

        Args:
            world: the site as it is.
            kinds: its machines.
            promised: events that the site has answered with yes: they bind it.
        """
        case, i, step_s = self.case, world.i, self.case.trace.step_s
        n = round(HORIZON_S / step_s)
        price, prospect = self.price(i, n)
        batches = tuple(
            Batch(
                job.name, world.left_h[job.name] * UNIT_W, job.most * UNIT_W,
                deadline_s=(job.deadline - i) * step_s,
            )
            for job in case.open_jobs(i)
            if world.left_h[job.name] > EPS_H
        )  # fmt: skip
        promises = tuple(
            Commitment(
                one.name, max(one.starts, i) * step_s, one.ends * step_s, one.limit_w,
                one.usd_per_mwh, one.reduction_w, one.penalty_usd_per_mwh,
                one.firm or one.name in promised,
            )
            for one in case.known_events(i)
        )  # fmt: skip
        peaks: tuple[Peak, ...] = ()
        if self.watch is not None:
            peaks = (Peak("4CP", CP_USD_PER_W, self.watch.by_interval(i, n)),)
        return Ahead(
            start_s=i * step_s,
            step_s=step_s,
            price=price,
            compute_w=UNITS * UNIT_W,
            prospect=prospect,
            cap_w=np.full(n, CONNECTION_W),
            other=Band.of(np.zeros(n)),
            services=self.services(i, n),
            kinds=kinds,
            batches=batches,
            commitments=promises,
            peaks=peaks,
            ramp_up_w_per_s=RAMP_UP_W_PER_S,
        )
