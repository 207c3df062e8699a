"""When a price is worth a cycle: no machine sleeps and wakes for less than that costs.

A price near the break-even of a machine would send it to sleep and wake it again and again. So a
machine sleeps for a price only where that pays for the cycle (`Ladder.cycle_usd`):

- what it would lose awake, over the time for which the price is expected to hold, is more; and one
  that a price has just woken expects no more than the time since then;
- or what it has lost by staying awake has come to as much. By waiting it never loses more than the
  cycle would have cost (the ski-rental rule).

So from a wake to the next sleep lies the time in which sleep pays for the cycle, at least, however
the price flaps. A wake is the end of a cycle whose price is paid: it wakes as soon as it earns, but
where it ran only shortly the last time, as after a blip: then the same two questions are asked.

A cap, a lock or a paused job asks nobody: they always win.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder import HOUR_S, Ladder
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.site import Rules

SHORTEST_S = 60.0
"""The shortest horizon of an order, s: less is over before a machine has turned."""

DOUBLINGS_MAX = 14
"""Horizons double from the shortest up to eleven days: an event costs few new orders."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What is remembered of each device's turns between sleep and work; shape (n,) each.

    Attributes:
        turned_s: when it last turned, our clock; -inf where that is not known.
        priced: a price did that, and no cap or person.
        ran_s: between the last two turns by a price it ran so long, s; infinite without.
        regret_usd: what staying as it is has lost by the prices since its last turn, USD.
        losing_usd_per_h: how fast it loses that at the price in force; negative: it gains.
        kept: the price calls for a turn, and the cost of a cycle alone keeps it.
        payback_s: time in which that turn would pay for a cycle, s; NaN where none is called for.
    """

    turned_s: Floats
    priced: Bools
    ran_s: Floats
    regret_usd: Floats
    losing_usd_per_h: Floats
    kept: Bools
    payback_s: Floats

    @classmethod
    def none(cls, n: int) -> "Turns":
        """Nothing is known of `n` devices."""
        return cls(
            turned_s=np.full(n, -np.inf),
            priced=np.zeros(n, dtype=np.bool_),
            ran_s=np.full(n, np.inf),
            regret_usd=np.zeros(n),
            losing_usd_per_h=np.zeros(n),
            kept=np.zeros(n, dtype=np.bool_),
            payback_s=np.full(n, np.nan),
        )

    def realigned(self, old: Fleet, new: Fleet) -> "Turns":
        """The same for a changed fleet: kept devices keep their row."""
        fresh = Turns.none(len(new))
        source = old.columns_of(device.id for device in new.devices)
        to = np.flatnonzero(source >= 0)
        for name in Turns.__slots__:
            getattr(fresh, name)[to] = getattr(self, name)[source[to]]
        return fresh

    def later_usd(self, elapsed_s: float) -> Floats:
        """The regret after `elapsed_s` seconds more at the price in force, USD."""
        return np.maximum(self.regret_usd + self.losing_usd_per_h * elapsed_s / HOUR_S, 0.0)


def awake(ledger: Ledger, seen: Telemetry, base_w: Floats, now_s: float, stale_s: float) -> Bools:
    """Devices that run: leased above their lowest point or, never leased, seen to draw more."""
    drawing = (now_s - seen.at_s <= stale_s) & (seen.watts_w > base_w)
    return np.where(ledger.point >= 0, ledger.point > 0, drawing)


def horizon_s(lasts_s: float | None, rules: Rules) -> float:
    """Over which time the order of shedding spreads the cost of a cycle, s.

    Args:
        lasts_s: known remaining duration of what is asked, s; None where no end is known.
        rules: of the site.
    """
    if lasts_s is None:
        return rules.expected_shed_s
    doublings = math.floor(math.log2(max(lasts_s / SHORTEST_S, 1.0)))
    return SHORTEST_S * 2.0 ** min(doublings, DOUBLINGS_MAX)


def weigh(
    ladder: Ladder,
    turns: Turns,
    *,
    price_usd_per_mwh: float,
    free: Bools,
    expected_s: float,
    elapsed_s: float,
    now_s: float,
) -> tuple[Bools, Turns]:
    """Which devices are to run at this price, as far as there is room; and the memory, as of now.

    Args:
        ladder: for the devices that run now.
        turns: as of the last decision.
        price_usd_per_mwh: energy price; infinite while unknown, and then nothing is worth running.
        free: devices that may follow a price; shape (n,).
        expected_s: how long a price is expected to hold, s.
        elapsed_s: since the last decision, s.
        now_s: our clock, s.
    """
    runs, cycle_usd = ladder.awake, ladder.cycle_usd
    margin = margin_usd_per_h(ladder, price_usd_per_mwh)
    called = np.where(runs, margin <= 0.0, margin > 0.0)
    awake_s = np.where(turns.priced, np.minimum(now_s - turns.turned_s, expected_s), expected_s)
    # A table has still to be built, so that is not paid for: the price must hold until it is.
    asleep_s = np.where(ladder.cold, expected_s, np.inf)
    asleep_s = np.where(turns.priced, np.minimum(turns.ran_s, asleep_s), asleep_s)
    trust_s = np.maximum(np.where(runs, awake_s, asleep_s), 1e-9)
    regret_usd = turns.later_usd(elapsed_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth_usd = np.maximum(regret_usd, np.abs(margin) * trust_s / HOUR_S)
        payback_s = np.where(called, cycle_usd / np.abs(margin) * HOUR_S, np.nan)
    pays = ~(worth_usd < cycle_usd)
    # What turns now, or would if there were room, keeps its regret until it has turned.
    losing = np.where(free & ~(called & pays), np.where(runs, -margin, margin), 0.0)
    return np.where(runs, ~(called & pays), called & pays), Turns(
        turned_s=turns.turned_s,
        priced=turns.priced,
        ran_s=turns.ran_s,
        regret_usd=regret_usd,
        losing_usd_per_h=np.where(np.isfinite(losing), losing, 0.0),
        kept=free & called & ~pays,
        payback_s=payback_s,
    )


def margin_usd_per_h(ladder: Ladder, price_usd_per_mwh: float) -> Floats:
    """What each device can earn at most, or must lose at least, by running; NaN without rungs."""
    low = (ladder.first_usd_per_mwh - price_usd_per_mwh) * ladder.first_w
    best = (ladder.best_usd_per_mwh - price_usd_per_mwh) * ladder.best_w
    return np.maximum(low, best) / 1e6


def turned(turns: Turns, before: Ints, after: Ints, priced: Bools, now_s: float) -> Turns:
    """The memory after grants.

    Args:
        turns: before them.
        before, after: operating points of the leases, -1 for none; shape (n,).
        priced: devices that the price keeps from running; shape (n,).
        now_s: our clock, s.
    """
    slept = (before > 0) & (after == 0)
    woke = (before == 0) & (after > 0)
    either = slept | woke
    if not either.any():
        return turns
    ran_s = np.where(turns.priced, now_s - turns.turned_s, np.inf)
    return Turns(
        turned_s=np.where(either, now_s, turns.turned_s),
        # What a price put to sleep, a price wakes.
        priced=np.where(slept, priced, turns.priced),
        ran_s=np.where(slept, ran_s, turns.ran_s),
        regret_usd=np.where(either, 0.0, turns.regret_usd),
        losing_usd_per_h=np.where(either, 0.0, turns.losing_usd_per_h),
        kept=turns.kept & ~either,
        payback_s=turns.payback_s,
    )
