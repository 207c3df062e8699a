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

And what takes long to come up turns no sooner again than its least time up or down
(`Rules.min_up_s`, `Rules.min_down_s`), whatever the price.

A cap, a lock or a paused job asks nobody: they always win.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from wattshift_scheduler.arrays import ALL, EARLY_S, Bools, Floats, Ints, Rows, put
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.fleet_changes import Moved
from wattshift_scheduler.ladder import turns as planned_turns
from wattshift_scheduler.ladder.ladder import HOUR_S, Ladder
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.site import Rules

SHORTEST_S = 60.0
"""The shortest horizon of an order, s: less is over before a machine has turned."""

WARM_S = 30.0
"""What is up within this time has no least time: it neither boots for long nor warms up."""

DOUBLINGS_MAX = 14
"""Horizons double from the shortest up to eleven days: an event costs few new orders."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What is remembered of each device's turns between sleep and work; shape (n,) each.

    Attributes:
        turned_s: when it last turned, our clock; -inf where that is not known.
        priced: a price did that, and no cap or person.
        ran_s: between the last two turns by a price it ran so long, s; infinite without.
        regret_usd: what staying as it is has lost by the prices since its last turn, USD, as of
            `waited_s` before the last decision.
        losing_usd_per_h: how fast it has lost that since; negative: it gains.
        kept: the price calls for a turn, and the cost of a cycle alone keeps it.
        payback_s: time in which that turn would pay for a cycle, s; NaN where none is called for.
        waited_s: for so long no device has lost faster or slower than before, s; a scalar.
    """

    turned_s: Floats
    priced: Bools
    ran_s: Floats
    regret_usd: Floats
    losing_usd_per_h: Floats
    kept: Bools
    payback_s: Floats
    waited_s: float = 0.0

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

    def realigned(self, old: Fleet, new: Fleet, moved: Moved | None = None) -> "Turns":
        """The same for a changed fleet: kept devices keep their row."""
        fresh, known = Turns.none(len(new)), self.passed(0.0)
        moved = moved or Moved.of(old, new)
        for one in fields(Turns):
            if one.name != "waited_s":
                moved.realigned(getattr(fresh, one.name), getattr(known, one.name))
        return fresh

    def later_usd(self, elapsed_s: float, at: Rows = ALL) -> Floats:
        """The regret `elapsed_s` seconds after the last decision, at its price, USD."""
        lost_usd = self.losing_usd_per_h[at] * (self.waited_s + elapsed_s) / HOUR_S
        return np.maximum(self.regret_usd[at] + lost_usd, 0.0)

    def passed(self, by_s: float) -> "Turns":
        """The same `by_s` seconds later, with the regret up to then written down."""
        return replace(self, regret_usd=self.later_usd(by_s), waited_s=0.0)


def awake(
    ledger: Ledger,
    seen: Telemetry,
    base_w: Floats,
    now_s: float,
    stale_s: float,
    at: Rows = ALL,
) -> Bools:
    """Devices that run: leased above their lowest point or, never leased, seen to draw more."""
    point = ledger.point[at]
    drawing = (now_s - seen.at_s[at] <= stale_s) & (seen.watts_w[at] > base_w[at])
    return np.where(point >= 0, point > 0, drawing)


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


def held(
    fleet: Fleet, turns: Turns, runs: Bools, rules: Rules, now_s: float, at: Rows = ALL
) -> Bools | None:
    """Devices that no price may turn yet, for they turned a moment ago; None if none is.

    What a cap or a person put to sleep has no least time down: it comes back with the room.

    Args:
        fleet, turns, rules: the devices, their memory, the least times.
        runs: whether each of those at `at` runs; shape (rows,).
        now_s: our clock, s.
        at: which devices.
    """
    since_s = now_s - turns.turned_s[at]
    if not (since_s < max(rules.min_up_s, rules.min_down_s)).any():
        return None
    down = ~runs & turns.priced[at] & (since_s < rules.min_down_s)
    slow = fleet.point_transition_s[fleet.first[1:][at] - 1] >= WARM_S
    both: Bools = slow & (runs & (since_s < rules.min_up_s) | down)
    return both


def weigh(
    ladder: Ladder,
    turns: Turns,
    *,
    price_usd_per_mwh: float,
    free: Bools,
    expected_s: float,
    elapsed_s: float,
    now_s: float,
    bound: Bools | None = None,
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
        bound: devices that no price may turn yet (`held`); shape (n,). None: none is.
    """
    asked = Asked(price_usd_per_mwh, expected_s, elapsed_s, now_s)
    weighed = weighed_anew(ladder, turns, free, asked, bound)
    return weighed.take, weighed.turns


@dataclass(frozen=True, slots=True)
class Asked:
    """What all devices are weighed at: the price, how long it is expected to hold, when, the least
    times up and down that bind some, what the look-ahead plan says, and which devices run; None:
    those that the ladder counts, which leaves out what a cycle costs nothing."""

    price_usd_per_mwh: float
    expected_s: float
    elapsed_s: float
    now_s: float
    min_up_s: float = 0.0
    min_down_s: float = 0.0
    worths: planned_turns.Worths | None = None
    runs: Bools | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """An answer for every device, and until when it holds if nothing happens.

    Attributes:
        take: devices that are to run; shape (n,).
        turns: the memory as of now.
        until_s: no answer changes by itself before this moment, our clock.
    """

    take: Bools
    turns: Turns
    until_s: float

    def waited(self, turns: Turns, elapsed_s: float) -> "Weighed":
        """The same answers so much later; `turns` is the memory as of the last decision."""
        return replace(self, turns=replace(turns, waited_s=turns.waited_s + elapsed_s))


def weighed_anew(
    ladder: Ladder, turns: Turns, free: Bools, asked: Asked, bound: Bools | None
) -> Weighed:
    """Weigh every device; args as for `weigh`."""
    found = _weigh_some(ladder, turns, free, asked, bound, ALL)
    return _written(turns, found, found.take, asked, ALL)


def weighed_again(
    last: Weighed,
    ladder: Ladder,
    turns: Turns,
    free: Bools,
    asked: Asked,
    bound: Bools | None,
    at: Rows,
) -> Weighed:
    """Weigh the devices `at` alone (`bound` is of those): for others nothing has changed."""
    found = _weigh_some(ladder, turns, free, asked, bound, at)
    weighed = _written(turns, found, put(last.take, at, found.take), asked, at)
    return replace(weighed, until_s=min(last.until_s, weighed.until_s))


@dataclass(frozen=True, slots=True)
class _Found:
    """The answers for some devices; shape (rows,) each."""

    take: Bools
    losing_usd_per_h: Floats
    kept: Bools
    payback_s: Floats
    until_s: Floats


def _weigh_some(
    ladder: Ladder, turns: Turns, free: Bools, asked: Asked, bound: Bools | None, at: Rows
) -> _Found:
    runs = (ladder.awake if asked.runs is None else asked.runs)[at]
    cycle_usd, priced = ladder.cycle_usd[at], turns.priced[at]
    expected_s, now_s, turned_s = asked.expected_s, asked.now_s, turns.turned_s[at]
    margin = margin_usd_per_h(ladder, asked.price_usd_per_mwh, at)
    called = np.where(runs, margin <= 0.0, margin > 0.0)
    awake_s = np.where(priced, np.minimum(now_s - turned_s, expected_s), expected_s)
    # A table has still to be built, so that is not paid for: the price must hold until it is.
    asleep_s = np.where(ladder.cold[at], expected_s, np.inf)
    asleep_s = np.where(priced, np.minimum(turns.ran_s[at], asleep_s), asleep_s)
    trust_s = np.maximum(np.where(runs, awake_s, asleep_s), 1e-9)
    regret_usd = turns.later_usd(asked.elapsed_s, at)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth_usd = np.maximum(regret_usd, np.abs(margin) * trust_s / HOUR_S)
        payback_s = np.where(called, cycle_usd / np.abs(margin) * HOUR_S, np.nan)
        pays = ~(worth_usd < cycle_usd)
        turn, facts = called & pays, None
        if asked.worths is not None:
            facts = planned_turns.Facts(
                runs, margin, cycle_usd, regret_usd, called, pays, turned_s, priced
            )
            turn = planned_turns.turns(asked.worths, facts, at, expected_s, now_s)
        # At an unknown price nothing runs, whenever it was woken.
        turn &= True if bound is None else ~(bound & np.isfinite(margin))
        # What turns now, or would if there were room, keeps its regret until it has turned.
        losing = np.where(free[at] & ~turn, np.where(runs, -margin, margin), 0.0)
        losing = np.where(np.isfinite(losing), losing, 0.0)
        lost_s = np.where(losing > 0.0, now_s + (cycle_usd - regret_usd) / losing * HOUR_S, np.inf)
        trusted_s = np.where(runs & priced & (awake_s < expected_s), turned_s + payback_s, np.inf)
    turns_s = np.fmin(lost_s, trusted_s)
    if asked.worths is not None and facts is not None:
        # What would turn without a plan may do so whenever the plan has it turn.
        future_s = np.where(turns_s > now_s, turns_s, np.inf)
        known_s = planned_turns.until_s(asked.worths, facts, at, losing, expected_s, now_s)
        turns_s = np.where(np.isnan(known_s), turns_s, np.minimum(known_s, future_s))
    if bound is not None:
        least_s = np.where(runs, asked.min_up_s, asked.min_down_s)
        turns_s = np.where(bound, turned_s + least_s, turns_s)
    return _Found(
        take=runs ^ turn,
        losing_usd_per_h=losing,
        kept=free[at] & called & ~turn,
        payback_s=payback_s,
        until_s=np.where(called & ~turn, turns_s - EARLY_S, np.inf),
    )


def _written(turns: Turns, found: _Found, take: Bools, asked: Asked, at: Rows) -> Weighed:
    """The answers with the memory as of now. The regret is written down when its rate changes."""
    losing = put(turns.losing_usd_per_h, at, found.losing_usd_per_h)
    now = replace(turns, waited_s=turns.waited_s + asked.elapsed_s)
    if losing is not turns.losing_usd_per_h:
        now = replace(turns.passed(asked.elapsed_s), losing_usd_per_h=losing)
    now = replace(
        now, kept=put(now.kept, at, found.kept), payback_s=put(now.payback_s, at, found.payback_s)
    )
    return Weighed(take, now, float(found.until_s.min(initial=np.inf)))


def margin_usd_per_h(ladder: Ladder, price_usd_per_mwh: float, at: Rows = ALL) -> Floats:
    """What each device can earn at most, or must lose at least, by running; NaN without rungs."""
    low = (ladder.first_usd_per_mwh[at] - price_usd_per_mwh) * ladder.first_w[at]
    best = (ladder.best_usd_per_mwh[at] - price_usd_per_mwh) * ladder.best_w[at]
    return np.maximum(low, best) / 1e6


def turned(turns: Turns, before: Ints, after: Ints, priced: Bools, now_s: float) -> Turns:
    """The memory after grants.

    Args:
        turns: before them.
        before, after: operating points of the leases, -1 for none; shape (n,).
        priced: devices that the price keeps from running; shape (n,).
        now_s: our clock, s.
    """
    ran, runs = before > 0, after > 0
    other = np.flatnonzero(ran != runs)
    # One whose first lease is a raise has not turned: nothing is known of what it did before.
    rows = other[(before[other] >= 0) & (after[other] >= 0)]
    if not len(rows):
        return turns
    slept, priced = ran[rows], priced[rows]
    ran_s = np.where(turns.priced[rows], now_s - turns.turned_s[rows], np.inf)
    return replace(
        turns,
        turned_s=put(turns.turned_s, rows, now_s),
        # What a price put to sleep, a price wakes.
        priced=put(turns.priced, rows, np.where(slept, priced, turns.priced[rows])),
        ran_s=put(turns.ran_s, rows, np.where(slept, ran_s, turns.ran_s[rows])),
        regret_usd=put(turns.regret_usd, rows, 0.0),
        losing_usd_per_h=put(turns.losing_usd_per_h, rows, 0.0),
        kept=put(turns.kept, rows, False),
    )
