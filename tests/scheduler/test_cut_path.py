"""A decision that starts from what the last one left equals one that works everything out anew."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.scheduler.decided_twice import (
    SERVICE,
    Life,
    compute_seen,
    read,
    settled,
    twin_of,
    unread,
)

from wattshift_scheduler import carried
from wattshift_scheduler import events as ev
from wattshift_scheduler import step as core
from wattshift_scheduler.commands import Granted
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.state import State
from wattshift_scheduler.turn import reducers, upkeep


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_carried_changes_no_decision(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", (0.1, 2.0)[seed % 2])
    life = Life(random.Random(seed))
    assert life.live(60) == []
    assert life.started > 50, "hardly a decision started from the one before"


def a_price_that_pays_later(life: Life) -> list[str]:
    """A price a little above what the machines earn: they sleep when waiting has cost a cycle."""
    price = ev.SignalChanged("price", (), 93.0, True)
    found = unread(life, 2, price) or unread(life, 12, every_s=1200.0)
    assert found or (life.state.ledger.point == 0).any(), "the price never paid"
    return found


def a_card_that_is_needed(life: Life) -> list[str]:
    """A unit comes that needs the card of a device which keeps a table."""
    found = unread(life, 3, ev.JobSubmitted(SERVICE), *compute_seen(life))
    assert found or life.state.tables.empty.any(), "the card was not needed"
    return found


def a_turn_that_comes(life: Life) -> list[str]:
    """A cap has gone, and feeders and hosts rise one after the other."""
    read(life, 6, ev.SignalChanged("schedule", (Cap("c", "schedule", 600.0),)))
    assert life.found or not (life.state.ledger.point > 0).all()
    found = unread(life, 9, ev.SignalChanged("schedule"))
    assert found or (life.state.ledger.point > 0).all(), "not all have had their turn"
    return found


def a_cut(life: Life) -> list[str]:
    """A cap comes, all obey it, and it goes."""
    read(life, 5, ev.SignalChanged("schedule", (Cap("c", "schedule", 2500.0),)))
    read(life, 8, ev.SignalChanged("schedule"))
    return life.found


def a_cut_that_nobody_reads(life: Life) -> list[str]:
    """A cap comes, and nothing shows that it is obeyed until gates close by themselves."""
    return unread(life, 9, ev.SignalChanged("schedule", (Cap("c", "schedule", 2500.0),)), every_s=2)


def another_hashprice(life: Life) -> list[str]:
    """Hashes are worth less than what they burn."""
    return unread(life, 2, ev.HashpriceSeen(20.0, life.now_s, "feed"))


def another_price(life: Life) -> list[str]:
    """Energy costs more than hashes bring."""
    return unread(life, 2, ev.SignalChanged("price", (), 500.0, True))


def a_pause(life: Life) -> list[str]:
    """A person pauses mining."""
    return unread(life, 2, ev.JobActed("mine", "pause"))


def more_compute(life: Life) -> list[str]:
    """The compute node holds more watts than before."""
    return unread(life, 2, ev.ComputeSeen("host", True, 300.0, used_w=300.0, gpus=1.0))


def a_silent_agent(life: Life) -> list[str]:
    """One agent says nothing any more, and a cap comes."""
    left = ev.SignalChanged("schedule", (Cap("c", "schedule", 900.0),))
    for turn in range(8):
        life.now_s += 1.0
        told = ev.AgentSeen("right", "boot", life.now_s, life.now_s)
        life.turn([told, left] if turn == 6 else [told])
    return life.found


SCENES = (
    a_price_that_pays_later,
    a_card_that_is_needed,
    a_turn_that_comes,
    a_cut,
    a_cut_that_nobody_reads,
    another_hashprice,
    another_price,
    a_pause,
    more_compute,
    a_silent_agent,
)


@pytest.fixture(scope="module")
def running() -> Life:
    """A site that runs; to be copied."""
    return settled()


@pytest.mark.parametrize("share", [0.1, 2.0])
@pytest.mark.parametrize("scene", SCENES)
def test_each_kind_of_change_is_decided_in_time(
    running: Life, scene: Callable[[Life], list[str]], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", share)
    assert scene(twin_of(running)) == []


def _last(*given: Any, was: Any = upkeep._heard) -> Any:
    """Who is silent is never worked out anew."""
    state, last, now_s = given
    return last if last is not None and last.fleet is state.fleet else was(state, last, now_s)


def _silent_unseen(state: Any, last: Any, heard: Any, now_s: float, was: Any = upkeep._due) -> Any:
    """Devices of an agent that falls silent are not looked at."""
    return was(state, replace(last, heard=heard), heard, now_s)


def _room_unseen(state: Any, last: Any, heard: Any, now_s: float, was: Any = upkeep._due) -> Any:
    """Devices that make room for compute are not looked at."""
    return was(state, replace(last, emptied=state.tables.empty), heard, now_s)


def _never_due(*given: Any, was: Any = upkeep._facts) -> Any:
    """No fact changes by itself."""
    facts = was(*given)
    return replace(facts, due_s=np.full(len(facts.due_s), np.inf))


def _as_then(state: Any, was: Any = upkeep._patterns) -> Any:
    """Mining jobs are asked once."""
    return was(state) if state.carried is None else state.carried.patterns


def _bounds_then(state: Any, was: Any = budget.host_bounds_w) -> Any:
    """Compute is asked once."""
    kept = state.carried
    return kept.bounds_w if kept is not None and kept.fleet is state.fleet else was(state)


def _leased_then(state: Any, was: Any = State.leased_w) -> Any:
    """Leases are summed once."""
    return was(state) if state.carried is None else state.carried.leased_w


def _summed_then(state: Any, kept: Any, was: Any = upkeep.summed) -> Any:
    """Facts are summed once."""
    return was(state, kept) if kept.sums is None else kept.sums


def _with(change: str, value: Callable[[Any, Any], Any]) -> Any:
    """A part of what the price said before is taken for what holds now."""

    def other(self: Any, ladder: Any, turns: Any, asked: Any, rows: Any) -> Any:
        known = replace(self, **{change: value(self, (ladder, asked))})
        return OTHER(known, ladder, turns, asked, rows)

    return other


OTHER = carried.Weights.other


def _unsettled_with(**change: Callable[[Any, Any], Any]) -> Any:
    """A reason to look at a device is left out."""

    def unsettled(state: Any, view: Any, wanted: Any) -> Any:
        kept = state.present
        if kept.wanted_w is not None:
            kept = replace(kept, **{name: of(kept, wanted) for name, of in change.items()})
        return UNSETTLED(replace(state, carried=kept), view, wanted)

    return unsettled


UNSETTLED = core._unsettled


NO_ROWS = np.zeros(0, dtype=np.int64)


Scene = Callable[[Life], list[str]]


GUARDS: list[tuple[str, Scene, Any, str, Any]] = [
    ("rows are noted", a_cut, carried.Carried, "followed",
     lambda self, ledger, seen, _rows: replace(self, ledger=ledger, seen=seen)),
    ("figures come of age", a_cut_that_nobody_reads, upkeep, "_facts", _never_due),
    ("agents are heard", a_silent_agent, upkeep, "_heard", _last),
    ("silence is seen", a_silent_agent, upkeep, "_due", _silent_unseen),
    ("room is seen", a_card_that_is_needed, upkeep, "_due", _room_unseen),
    ("jobs are asked", a_pause, upkeep, "_patterns", _as_then),
    ("compute is asked", more_compute, budget, "host_bounds_w", _bounds_then),
    ("leases are summed", a_cut, State, "leased_w", _leased_then),
    ("facts are summed", a_cut, upkeep, "summed", _summed_then),
    ("the price counts", another_price, carried.Weights, "other",
     _with("price_usd_per_mwh", lambda _, now: now[1].price_usd_per_mwh)),
    ("the ladder counts", another_hashprice, carried.Weights, "other",
     _with("ladder", lambda _, now: now[0])),
    ("time counts", a_price_that_pays_later, carried.Weights, "other",
     _with("weighed", lambda kept, _: replace(kept.weighed, until_s=np.inf))),
    ("what is wanted counts", another_price, core, "_unsettled",
     _unsettled_with(wanted_w=lambda _, wanted: wanted.watts_w)),
    ("who waits counts", a_turn_that_comes, core, "_unsettled",
     _unsettled_with(moving=lambda *_: NO_ROWS)),
    ("grants raise ceilings", a_cut, upkeep, "granted",
     lambda state, raised, now_s, was=upkeep.granted: was(state, raised[:0], now_s)),
    ("columns are copied", a_cut, reducers, "_private", lambda state: state),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "where", "name", "mutant"),
    [row[1:] for row in GUARDS],
    ids=[row[0] for row in GUARDS],
)
def test_without_its_guard_a_decision_is_another(
    running: Life, scene: Scene, where: Any, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", 2.0)
    monkeypatch.setattr(where, name, mutant)
    assert scene(twin_of(running)) != []


def test_columns_that_somebody_else_has_replaced_are_worked_out_anew(running: Life) -> None:
    life, more_w = twin_of(running), 500.0
    ledger = replace(life.state.ledger, bound_w=life.state.ledger.bound_w + more_w)
    life.state, before_w = replace(life.state, ledger=ledger), life.state.outlook.committed_w
    assert unread(life, 1) == []
    assert life.state.outlook.committed_w >= before_w + more_w


def test_the_ladder_is_always_ranked_for_what_runs(running: Life) -> None:
    life = twin_of(running)
    # A card with a table may have to build it first: then the ladder is looked at every time.
    bare = tuple(replace(device, table_bytes=0) for device in life.state.fleet.devices)
    life.turn([ev.DeviceJoined(bare)])
    for watts_w in (1e4, 2500.0, 600.0, 1e4):
        read(life, 1, ev.SignalChanged("schedule", (Cap("c", "schedule", watts_w),)))
        for _ in range(4):
            assert _holds(life.state)
            read(life, 1)
    state = life.state
    other = Ladder.of(state.fleet, state.values, None, state.ladder.horizon_s)
    assert not _holds(replace(state, ladder=other))
    after, _, _ = core.step(replace(state, ladder=other), [], life.now_s + 0.25)
    assert _holds(after)


def _holds(state: State) -> bool:
    runs, tables = state.present.facts.runs, state.tables
    return state.ladder.holds(runs, state.ladder.horizon_s, tables.cold(state.fleet))


def test_a_grant_of_a_batch_reads_as_one_on_its_own(running: Life) -> None:
    life, cap = twin_of(running), Cap("c", "schedule", 600.0)
    now_s = life.now_s + 0.5
    events: list[ev.Event] = [ev.SignalChanged("schedule", (cap,))]
    events += [ev.AgentSeen(name, "boot", now_s, now_s) for name in ("left", "right")]
    after, commands, _ = core.step(life.state, events, now_s)
    made = [one for one in commands if isinstance(one, Granted)]
    assert len(made) == 2
    for one in made:
        assert repr(one) == repr(one.plain())
        assert len(one.devices) == len(one.sequence) == len(one.modes) == len(one.watts_w)
        assert {life.state.fleet.devices[life.state.fleet.index[d]].agent for d in one.devices} == {
            one.agent
        }
    assert len({one.id for one in made}) == len(made)
    ids = {name for one in made for name in one.devices}
    granted = np.array([device.id in ids for device in after.fleet.devices])
    assert 0 < granted.sum() < len(granted)
    before, ledger = life.state.ledger, after.ledger
    assert (ledger.issued_s == np.where(granted, now_s, before.issued_s)).all()
    assert (ledger.until_s[~granted] == before.until_s[~granted]).all()
    assert (ledger.until_s[granted] > before.until_s[granted]).all()
