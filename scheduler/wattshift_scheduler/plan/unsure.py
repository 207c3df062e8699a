"""What awake is worth where prices are not known: an expectation over how they move on.

A forecast's middle says little of a turn: a spike may be over at once, or last for hours. So each
machine is looked at in every state that a price may be in (`chain.Prospect`), going back from the
last interval: in each state it does what is best, seeing the price, and the next one comes by its
chance. Least times are left to the control loop, which keeps them in any case (`cycles.held`).
"""

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.plan.machines import MUSD, Machines
from wattshift_scheduler.plan.words import Ahead


def worths(ahead: Ahead, prospect: Prospect, machines: Machines, beyond: Floats) -> Floats:
    """What a machine that is up is worth over one at rest, 0 to its cycle, USD.

    Args:
        ahead: what is planned.
        prospect: prices of energy that may come in its intervals.
        machines: `k` of them.
        beyond: what a kW costs in each interval on top of the middle of its price; shape (k, n),
            or (n,) where it is the same for all machines.

    Returns:
        At the end of each interval, as expected from the first one; nothing at the end of the last;
        shape (n, k).
    """
    n, k = len(ahead), len(machines)
    cycle = np.array([ahead.kinds[i].cycle_usd * MUSD for i in machines.kind.tolist()])[:, None]
    beyond, chances = np.broadcast_to(beyond, (k, n)), _chances(prospect, n)
    found = np.zeros((n, k))
    # Worth of the intervals after `t`, as expected in each state of `t`.
    up = down = np.zeros((k, len(prospect.steps)))
    for t in range(n - 1, 0, -1):
        price = prospect.price_usd_per_mwh[t] * ahead.hours + beyond[:, t, None]
        stays = _earned(machines, price) + up
        up = np.maximum(stays, down) @ prospect.steps.T
        down = np.maximum(down, stays - cycle) @ prospect.steps.T
        found[t - 1] = np.clip(up - down, 0.0, cycle) @ chances[t - 1]
    return found / MUSD


def _earned(machines: Machines, price: Floats) -> Floats:
    """What each earns in an interval at its best point, by state; both of shape (k, states)."""
    net = machines.worth[:, :, None] - machines.rise_kw[:, :, None] * price[:, None, :]
    return np.asarray(net.max(axis=1))


def _chances(prospect: Prospect, n: int) -> Floats:
    """Of each state in each interval, as seen from the first; shape (n, states)."""
    found = np.zeros((n, len(prospect.steps)))
    found[0, prospect.state] = 1.0
    for t in range(1, n):
        found[t] = found[t - 1] @ prospect.steps
    return found
