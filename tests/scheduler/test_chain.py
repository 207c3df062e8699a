"""How prices move on: what was counted comes back, and spikes that last are told from those that
do not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.chain import AGES, Chain, Prospect
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.machines import Machines
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.unsure import worths
from wattshift_scheduler.plan.words import Ahead, Kind, PlanInvalid, Standing

N = 20_000


def drifting(seed: int, keeps: float) -> Floats:
    """Deviations of which the share `keeps` is left in the next interval, and noise comes."""
    dice, found = np.random.default_rng(seed), np.zeros(N)
    for i in range(1, N):
        found[i] = keeps * found[i - 1] + dice.normal()
    return found


@pytest.mark.parametrize("keeps", [0.2, 0.9])
def test_a_chain_has_the_persistence_that_it_was_learnt_from(keeps: float) -> None:
    off = drifting(1, keeps)
    chain = Chain.learnt(off)
    assert chain.steps.sum(axis=1) == pytest.approx(1.0)
    for share in (0.1, 0.5, 0.97):
        now = chain.state(np.array([0.0, 0.0, np.quantile(off, share)]))
        after = float(chain.steps[now] @ chain.middles)
        assert after == pytest.approx(keeps * float(chain.middles[now]), abs=0.25)
    later = chain.over(3.0)[now] @ chain.middles
    assert float(later) == pytest.approx(keeps**3 * float(chain.middles[now]), abs=0.45)


def test_a_spike_that_has_lasted_is_told_from_a_fresh_one() -> None:
    """Spikes are over after one interval, but for one in five, which then goes on for twenty."""
    dice, parts = np.random.default_rng(2), [np.zeros(1)]
    while sum(map(len, parts)) < N:
        parts.append(0.1 * dice.normal(size=18))
        parts.append(dice.uniform(2.0, 4.0, 20 if dice.random() < 0.2 else 1))
    chain = Chain.learnt(np.concatenate(parts))
    high = chain.middles > 1.0
    fresh = chain.state(np.array([0.0, 3.0]))
    old = chain.state(np.array([0.0, *([3.0] * AGES)]))
    assert float(chain.steps[fresh] @ high) == pytest.approx(0.2, abs=0.1)
    assert float(chain.steps[old] @ high) == pytest.approx(0.94, abs=0.05)


def test_a_shorter_interval_moves_on_less() -> None:
    chain = Chain.learnt(drifting(3, 0.5))
    third = chain.over(1.0 / 3.0)
    now = chain.state(np.array([2.0]))
    assert third.sum(axis=1) == pytest.approx(1.0)
    stays = 1.0 - (1.0 - chain.steps[now, now]) / 3.0
    assert third[now, now] == pytest.approx(stays)


def ahead(n: int, prospect: Prospect) -> Ahead:
    """A machine that burns 1 MWh an hour for 100 USD; a cycle costs 15."""
    price = prospect.price_usd_per_mwh[:, prospect.state]
    kind = Kind("m", 1, (0.0, 1e6), (0.0, 100.0), cycle_usd=15.0, running=1)
    return Ahead(0.0, 900.0, Band.of(price), np.full(n, math.inf), Band.of(np.full(n, 1e3)),
                 Band.of(np.zeros(n)), kinds=(kind,), prospect=prospect)  # fmt: skip


def two(n: int, stays: float, state: int) -> Prospect:
    """Cheap (20) or dear (300), and each goes on with the chance `stays`."""
    prices = np.tile([20.0, 300.0], (n, 1))
    return Prospect(prices, np.array([[stays, 1.0 - stays], [1.0 - stays, stays]]), state)


def worth(n: int, stays: float, state: int) -> Floats:
    made = ahead(n, two(n, stays, state))
    assert made.prospect is not None
    return worths(made, made.prospect, Machines.of(made), np.zeros(n))[:, 0]


def test_awake_is_worth_its_cycle_in_a_spike_that_will_be_over_and_nothing_in_one_that_lasts() -> (
    None
):
    assert worth(96, 0.0, 1)[0] == pytest.approx(15.0), "the next quarter is cheap for sure"
    assert worth(96, 0.0, 1)[1] == 0.0, "and the one after it is dear again"
    assert worth(96, 1.0, 1)[0] == 0.0, "it is dear for ever"
    # Half are over after one dear quarter: one at rest then pays a cycle to earn 20. In the other
    # half one that is up sleeps at once: there it is worth nothing.
    assert worth(96, 0.5, 1)[0] == pytest.approx(7.5, abs=1e-6)
    assert worth(96, 0.5, 1)[-1] == 0.0


def test_what_is_on_top_of_the_price_counts_in_every_state() -> None:
    made = ahead(96, two(96, 0.0, 1))
    assert made.prospect is not None
    peak = np.zeros(96)
    peak[1] = 1000.0  # of a kW, in thousandths of a dollar: a MWh of it is 4,000 USD dearer
    found = worths(made, made.prospect, Machines.of(made), peak)
    assert found[0, 0] == 0.0
    assert found[2, 0] == pytest.approx(15.0)


def test_an_interval_without_states_is_refused() -> None:
    good = two(4, 0.5, 1)
    for bad in (
        Prospect(good.price_usd_per_mwh[:3], good.steps, 1),
        Prospect(good.price_usd_per_mwh * math.nan, good.steps, 1),
        Prospect(good.price_usd_per_mwh, good.steps * 0.5, 1),
    ):
        with pytest.raises(PlanInvalid, match="prospect"):
            Ahead(0.0, 900.0, Band.of(np.zeros(4)), np.full(4, 1.0), Band.of(np.zeros(4)),
                  Band.of(np.zeros(4)), prospect=bad)  # fmt: skip
    with pytest.raises(PlanInvalid, match="no state 7"):
        Ahead(0.0, 900.0, Band.of(np.zeros(4)), np.full(4, 1.0), Band.of(np.zeros(4)),
              Band.of(np.zeros(4)), prospect=two(4, 0.5, 7))  # fmt: skip


def test_a_plan_tells_what_awake_is_worth_where_it_is_known_how_prices_move_on() -> None:
    known = ahead(96, two(96, 0.2, 1))
    wide = replace(known, price=Band(known.price.mid - 50.0, known.price.mid, known.price.high))
    plan, _ = planned(wide)
    told = Standing.of(plan)
    assert set(told.awake_usd) == {"m"}
    assert told.awake_usd["m"][0] == pytest.approx(float(worth(96, 0.2, 1)[0]), abs=1e-3)
    unknown, _ = planned(replace(wide, prospect=None))
    assert not Standing.of(unknown).awake_usd
