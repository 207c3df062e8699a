"""Turns by the plan: nothing they say changes by itself before the moment that they name."""

import math
from dataclasses import replace

import numpy as np

from wattshift_scheduler.ladder.turns import HOUR_S, PATIENCE, Facts, Worths, turns, until_s

EXPECTED_S = 600.0
NOW_S = 10_000.0


def _facts(n: int, **given: object) -> Facts:
    """Running devices that lose 1 USD/h, called to sleep by a price, and turned long ago."""
    columns: dict[str, object] = {
        "runs": True,
        "margin_usd_per_h": -1.0,
        "cycle_usd": 0.2,
        "regret_usd": 0.0,
        "called": True,
        "pays": False,
        "turned_s": -math.inf,
        "priced": True,
        **given,
    }
    return Facts(**{name: np.broadcast_to(one, (n,)).copy() for name, one in columns.items()})


def _worths(*awake_usd: float) -> Worths:
    return Worths(np.array(awake_usd), 900.0)


def _asked(worths: Worths, facts: Facts, losing: np.ndarray, at_s: float) -> np.ndarray:
    """What is said at a later moment, if each has gone on to lose by staying as it is."""
    later = replace(facts, regret_usd=facts.regret_usd + losing * (at_s - NOW_S) / HOUR_S)
    return turns(worths, later, np.arange(len(losing)), EXPECTED_S, at_s)


def _until(worths: Worths, facts: Facts, losing: np.ndarray) -> np.ndarray:
    return until_s(worths, facts, np.arange(len(losing)), losing, EXPECTED_S, NOW_S)


def test_who_turned_by_a_price_may_turn_again_when_one_is_no_longer_expected_to_hold() -> None:
    worths, losing = _worths(0.0, 0.0, 0.0), np.zeros(3)
    facts = _facts(3, turned_s=np.array([NOW_S - 100.0, NOW_S - 700.0, NOW_S - 100.0]))
    facts = replace(facts, priced=np.array([True, True, False]))
    assert _asked(worths, facts, losing, NOW_S).tolist() == [False, True, True]
    # The first is to be asked again; the others, who may turn already, will say nothing new.
    assert _until(worths, facts, losing).tolist() == [NOW_S + 500.0, math.inf, math.inf]
    assert _asked(worths, facts, losing, NOW_S + 499.0)[0] == 0
    assert _asked(worths, facts, losing, NOW_S + 500.0)[0] == 1


def test_who_has_lost_two_cycles_is_to_be_asked_again_and_no_longer_by_the_plan() -> None:
    worths, losing = _worths(5.0), np.array([2.0])  # the plan wants it to stay as it is
    facts = _facts(1, margin_usd_per_h=-0.2)
    lost_s = NOW_S + PATIENCE * 0.2 / 2.0 * HOUR_S
    assert _until(worths, facts, losing).tolist() == [lost_s]
    assert not _asked(worths, facts, losing, lost_s - 1.0)[0]
    assert _asked(worths, facts, losing, lost_s + 1.0)[0]


def test_of_what_the_plan_does_not_know_it_names_no_moment() -> None:
    assert np.isnan(_until(_worths(math.nan), _facts(1), np.ones(1))).all()


def test_no_answer_changes_before_the_moment_that_was_named() -> None:
    rng, n = np.random.default_rng(4), 400
    worths = Worths(rng.uniform(-0.6, 0.6, n), 900.0)
    facts = _facts(
        n,
        runs=rng.random(n) < 0.5,
        margin_usd_per_h=rng.uniform(-2.0, 2.0, n),
        cycle_usd=rng.uniform(0.05, 0.4, n),
        regret_usd=rng.uniform(0.0, 0.5, n),
        called=rng.random(n) < 0.8,
        pays=rng.random(n) < 0.3,
        turned_s=NOW_S - rng.uniform(0.0, 1000.0, n),
        priced=rng.random(n) < 0.7,
    )
    losing = rng.choice([0.0, 0.5, 3.0], n)
    first, named_s = _asked(worths, facts, losing, NOW_S), _until(worths, facts, losing)
    changed_s = np.full(n, math.inf)
    for at_s in np.arange(NOW_S + 5.0, NOW_S + 3600.0, 5.0):
        new = (_asked(worths, facts, losing, at_s) != first) & np.isinf(changed_s)
        changed_s[new] = at_s
    assert (np.isfinite(changed_s)).sum() > n // 10, "some do change"
    assert (changed_s >= named_s - 1e-6).all()
