"""What no single value can tell of `[plan]`: a charge needs what it is counted by."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wattshift_cluster.config.draft import Draft, Finding
from wattshift_cluster.config.market import Market
from wattshift_cluster.config.plan import Plan


def demand_is_metered(draft: Draft) -> Iterator[Finding]:
    """The month's highest demand is counted by the site meter."""
    for path, plan in draft.all(Plan):
        if plan.demand_charge_usd_per_kw > 0 and "meter" not in draft.raw:
            told = "is counted by the site meter; allowed: with [meter]"
            yield f"{path}.demand_charge", plan.demand_charge_usd_per_kw, told


def peaks_are_foreseen(draft: Draft) -> Iterator[Finding]:
    """Nobody knows a grid's peaks without a forecast of its load."""
    peaks = any(market.peaks for _, market in draft.all(Market))
    for path, plan in draft.all(Plan):
        if plan.peak_charge_usd_per_kw > 0 and not peaks:
            told = "nobody says when the grid peaks; allowed: with [[market.peaks]]"
            yield f"{path}.peak_charge", plan.peak_charge_usd_per_kw, told


CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (demand_is_metered, peaks_are_foreseen)
