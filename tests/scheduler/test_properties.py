"""Invariants I1, I3, I6 and I7 over generated histories; each shown to fail without its guard."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattshift_cluster.simulate.agents import ModelledAgent
from wattshift_scheduler import leases
from wattshift_scheduler import step as core
from wattshift_scheduler.turn import moves

pytestmark = pytest.mark.timeout(400)  # a minute of processor time, on a machine shared with others

HISTORIES = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 99)), min_size=4, max_size=16)


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(history=HISTORIES, seed=st.integers(0, 10_000), wear_usd=st.sampled_from([0.0, 0.02, 40.0]))
def test_no_history_breaks_an_invariant(
    bad_wire: SimpleNamespace, history: list[tuple[int, int]], seed: int, wear_usd: float
) -> None:
    assert bad_wire.actions == 16
    assert bad_wire.play(seed, wear_usd, [(0, 12), *history]) == []


def test_the_seeds_of_the_mutation_tests_are_clean_with_all_guards(
    bad_wire: SimpleNamespace,
) -> None:
    assert bad_wire.first_found(range(12)) == ""
    assert bad_wire.first_found(range(31, 32)) == ""
    assert bad_wire.first_found(range(35, 37)) == ""


def _as_leased(fleet: Any, ledger: Any, *_rest: Any) -> Any:
    """A device counts at its word: what it was last leased, and nothing before that."""
    return np.nan_to_num(ledger.lease_w[_rest[-1]], nan=0.0)


def _stale_is_zero(
    fleet: Any, ledger: Any, seen: Any, now_s: float, *rest: Any, was: Any = leases.ceilings
) -> Any:
    """What was not read lately counts as nothing."""
    fresh = ((now_s - seen.at_s <= rest[0]) & ~np.isnan(seen.watts_w))[rest[-1]]
    return np.where(fresh, was(fleet, ledger, seen, now_s, *rest), 0.0)


def _obeyed_unseen(fleet: Any, ledger: Any, *_rest: Any, **_named: Any) -> Any:
    """Every granted device is taken to obey."""
    held = ledger.point >= 0
    bound_w = np.where(held, ledger.lease_w, ledger.bound_w)
    return replace(ledger, confirmed=held, bound_w=bound_w)


def _nan_is_zero(
    fleet: Any, ledger: Any, seen: Any, *rest: Any, was: Any = leases.confirm, **named: Any
) -> Any:
    """A reading without watts is taken for a reading of nothing."""
    zeroed = replace(seen, watts_w=np.nan_to_num(seen.watts_w, nan=0.0), failed=seen.failed & False)
    return was(fleet, ledger, zeroed, *rest, **named)


def _believed_at_once(
    ledger: Any, columns: Any, point: Any, held_w: Any, now_s: float, was: Any = leases.adopted
) -> Any:
    """A lease of an earlier controller bounds its device before our epoch has been taken."""
    strange = ledger.point[columns] < 0
    new = was(ledger, columns, point, held_w, now_s)
    new.held_w[columns[strange]] = np.nan_to_num(held_w[strange], nan=0.0)
    new.acked[columns[strange]] = True
    return new


def _unnumbered(ledger: Any, *args: Any, was: Any = leases.granted, **named: Any) -> Any:
    return replace(was(ledger, *args, **named), sequence=ledger.sequence)


def _nothing_lowered(state: Any, wanted: Any, was: Any = moves.target, **named: Any) -> Any:
    target = was(state, wanted, **named)
    held_w = state.ledger.lease_w
    keep = (state.ledger.point >= 0) & (target.watts_w < held_w)
    return replace(
        target,
        point=np.where(keep, state.ledger.point, target.point),
        watts_w=np.where(keep, held_w, target.watts_w),
    )


def _careless(
    self: Any, command: Any, row: int, now_s: float, was: Any = ModelledAgent._taken
) -> Any:
    """An agent that has forgotten every epoch and sequence."""
    self.epoch = 0
    for one in self.devices.values():
        one.last = (0, 0)
    return was(self, command, row, now_s)


def _put_in_place(column: Any, at: Any, values: Any) -> Any:
    """As `arrays.put`, into the very column that the state before holds."""
    column.setflags(write=True)
    column[at] = values
    return column


MUTATIONS: list[tuple[str, Any, str, Any, str]] = [
    ("raise without room", moves, "fit_prefix", lambda *a: np.ones(len(a[1]), bool), "I1"),
    ("ceiling is the lease", leases, "ceilings", _as_leased, "I1"),
    ("unknown is zero", leases, "ceilings", _stale_is_zero, "I1"),
    ("nothing is lowered", moves, "target", _nothing_lowered, "I1"),
    ("confirmed unseen", leases, "confirm", _obeyed_unseen, "I3"),
    ("NaN watts confirm", leases, "confirm", _nan_is_zero, "I3"),
    ("agent forgets epochs", ModelledAgent, "_taken", _careless, "I"),
    ("sequence stands still", leases, "granted", _unnumbered, "I6"),
    ("moves untold", moves, "_told", lambda *_: (), "I7"),
    ("verdicts untold", core.act, "_explain", lambda *_: (), "I7"),
    ("cap untold", core, "_cap_told", lambda *_: (), "I7"),
    ("state shared", leases, "put", _put_in_place, "step changed"),
]


@pytest.mark.parametrize(
    ("where", "name", "mutant", "broken"),
    [row[1:] for row in MUTATIONS],
    ids=[row[0] for row in MUTATIONS],
)
def test_without_its_guard_the_invariant_is_seen_to_break(
    bad_wire: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    mutant: Any,
    broken: str,
) -> None:
    monkeypatch.setattr(where, name, mutant)
    # The first seed that shows it is low for all but one; all are clean with all guards.
    seeds = range(35, 45) if mutant is _nan_is_zero else range(20)
    assert bad_wire.first_found(seeds).startswith(broken)


def test_a_raise_still_under_way_at_a_restart_is_counted(bad_wire: SimpleNamespace) -> None:
    assert bad_wire.overtaken_by_a_late_raise() == []


def test_a_found_lease_must_not_be_believed_before_our_epoch_is_taken(
    bad_wire: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "adopted", _believed_at_once)
    assert bad_wire.overtaken_by_a_late_raise()[0].startswith("I3")
