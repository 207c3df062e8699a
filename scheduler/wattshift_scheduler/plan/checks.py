"""Whether figures that a plan is made from, or made of, can be at all; refused by their name."""

import math
from collections.abc import Iterable

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.errors import SchedulerError
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.forecast import Band


class PlanInvalid(SchedulerError):
    """Something that no plan can be made from. `item` names it, `reason` says why."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(f"{item}: {reason}")
        self.item = item
        self.reason = reason


def finite(item: str, what: str, values: Iterable[float]) -> None:
    """Refuse NaN and what is endless."""
    for value in values:
        if not math.isfinite(value):
            raise PlanInvalid(item, f"its {what} must be finite, not {value}")


def least(item: str, what: str, values: Iterable[float], *, endless: bool = False) -> None:
    """Refuse NaN, what is negative, and, unless it may be, what is endless."""
    for value in values:
        if not value >= 0.0 or (math.isinf(value) and not endless):
            rule = "not be negative" if endless else "be finite and not negative"
            raise PlanInvalid(item, f"its {what} must {rule}, not {value}")


def column_of(item: str, column: Floats, n: int, least: float) -> None:
    """Refuse a column of another length, and figures in it that are no numbers or below `least`."""
    if column.shape != (n,):
        raise PlanInvalid(item, f"it has {len(column)} figures for {n} intervals")
    bad = np.flatnonzero(~np.isfinite(column) | (column < least))
    if len(bad):
        raise PlanInvalid(item, f"{column[bad[0]]} in interval {bad[0]}")


def band(item: str, band: Band, n: int, least: float = 0.0) -> None:
    """The same for each quantile of a band."""
    for name in ("low", "mid", "high"):
        column_of(f"{item}.{name}", getattr(band, name), n, least)


def prospect(item: str, one: Prospect, n: int) -> None:
    """Refuse prices and chances that cannot be, and a state that there is none of."""
    states = len(one.steps)
    prices, steps = one.price_usd_per_mwh, one.steps
    if prices.shape != (n, states) or steps.shape != (states, states):
        raise PlanInvalid(item, f"prices {prices.shape} and steps {steps.shape} do not fit {n}")
    if not np.isfinite(prices).all():
        raise PlanInvalid(item, "its prices must be finite")
    if not ((steps >= 0.0).all() and np.allclose(steps.sum(axis=1), 1.0)):
        raise PlanInvalid(item, "the chances of what follows a state must add up to one")
    if not 0 <= one.state < states:
        raise PlanInvalid(item, f"it has {states} states, and no state {one.state}")


def unique(what: str, names: list[str], most: int) -> None:
    """Refuse a name that comes twice, and more names than `most`."""
    if len(names) > most:
        raise PlanInvalid(what, f"{len(names)} of them, and {most} are the most")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanInvalid(twice[0], f"two of one {what} have this name")
