"""The price ahead: as it is published, and as other prices followed that which was.

What was published for each quarter of an hour before it began is remembered beside what held in it
then. Where the two were alike a published price stands as it is. Where they were not, as real-time
prices beside day-ahead ones, it is foreseen how far they will differ (`scheduler.market`).
"""

import math
from collections.abc import Mapping

import numpy as np

from wattshift_cluster.controller.plan.curves import Foreseen, Grid, foreseen, means
from wattshift_cluster.controller.plan.history import SLOT_S
from wattshift_cluster.controller.plan.history import Past as Series
from wattshift_cluster.errors import TryLater
from wattshift_cluster.grid.said import Steps
from wattshift_scheduler.forecasts import market
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.state import State

FOLLOWS = "the price is foreseen from how others followed what was published"


class NothingToPlan(TryLater):
    """Something is not known yet without which no plan can be made."""


def price(state: State, curve: Steps | None, past: Mapping[str, Series], grid: Grid) -> Foreseen:
    """The price of each interval.

    Args:
        state: holds the price in force, and that of the site file.
        curve: what is published; None: nothing is.
        past: of the series "price" and "posted".
        grid: the intervals.

    Raises:
        NothingToPlan: the price in force is not known, or none of any hour ahead or past.
    """
    if math.isinf(state.price_usd_per_mwh()):
        raise NothingToPlan("the energy price is not known, and nothing is planned on hope")
    default = state.values.default_price_usd_per_mwh
    if curve is None and default is not None:
        # Nobody publishes one: what the site file says holds, and is no forecast.
        return Foreseen(Band.of(np.full(grid.count, default)), np.ones(grid.count, dtype=np.bool_))
    if curve is not None:
        found = _followed(state, curve, past, grid)
        if found is not None:
            return found
    plain = foreseen("the price", curve, past["price"], grid)
    if plain is None:
        raise NothingToPlan("no price is known of any hour ahead, and none of the past")
    return plain


def posted_next(curve: Steps | None, now_s: float) -> tuple[float, float]:
    """When the next quarter of an hour begins, s, and the price published for it; NaN: none is."""
    starts_s = (math.floor(now_s / SLOT_S) + 1) * SLOT_S
    if curve is None:
        return starts_s, math.nan
    return starts_s, float(means(curve, Grid(starts_s, SLOT_S, 1))[0])


def _followed(
    state: State, curve: Steps, past: Mapping[str, Series], grid: Grid
) -> Foreseen | None:
    """What will follow what is published; None where that always held, or too little is known."""
    known = _beside(past["posted"], past["price"], grid.start_s)
    found = market.Market.learnt(known, SLOT_S)
    now_s = math.floor(grid.start_s / SLOT_S) * SLOT_S
    posted_now = dict(zip(past["posted"].times_s.tolist(), past["posted"].values, strict=True))
    if found.sure or now_s not in posted_now:
        return None
    known = market.Past(
        np.append(known.times_s, now_s),
        np.append(known.posted, posted_now[now_s]),
        np.append(known.price, state.price_usd_per_mwh()),
    )
    posted = means(curve, grid)
    band, prospect = found.foreseen(known, posted, grid.starts_s, grid.step_s)
    # Of what is foreseen only the interval that runs is as it is seen.
    seen = np.arange(grid.count) == 0
    return Foreseen(band, seen, FOLLOWS, prospect)


def _beside(posted: Series, price: Series, until_s: float) -> market.Past:
    """The quarters of an hour that are over and of which both are known."""
    times_s, at, beside = np.intersect1d(posted.times_s, price.times_s, return_indices=True)
    over = times_s + SLOT_S <= until_s
    return market.Past(times_s[over], posted.values[at][over], price.values[beside][over])
