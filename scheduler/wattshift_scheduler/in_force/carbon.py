"""What the carbon of energy is to cost by the operator's own price on it, beside what energy costs.

It counts as the plan and batch that rests for a price count it (`waiting`): mining and batch weigh
one cost. Nobody is billed for it: accounts leave it out.
"""

from wattshift_scheduler.in_force import acting
from wattshift_scheduler.state import State

KG_PER_T = 1e3


def usd_per_mwh(state: State, now_s: float) -> float | None:
    """What the carbon of a MWh is to cost now, USD/MWh; None: it has no price, or is not known.

    What a source tells of now goes before what the plan foresees of it, which is used while none
    tells. Unknown carbon is not priced: the plan does the same.
    """
    usd_per_t = state.values.carbon_usd_per_t
    if not usd_per_t > 0.0:
        return None
    grams = state.signals.carbon_g_per_kwh
    if grams is not None:
        return grams * usd_per_t / KG_PER_T  # a g/kWh is a kg/MWh
    plan = state.plan
    at = None if plan is None else plan.at(now_s)
    if plan is None or at is None or plan.carbon_usd_per_mwh is None:
        return None
    return float(plan.carbon_usd_per_mwh[at])


def mining_usd_per_mwh(state: State, now_s: float) -> float:
    """What a MWh costs mining, USD/MWh: the price in force, what the plan puts on top, and its
    carbon; infinite while the price is unknown."""
    return acting.price_usd_per_mwh(state, now_s) + (usd_per_mwh(state, now_s) or 0.0)
