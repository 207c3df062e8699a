"""Answers and readings that are folded together come to the same as one after the other."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from tests.scheduler.decided_twice import DEVICES, MINING, SITE, VALUES, Life, Obeying, read

from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import rows_of
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.picked import Picked
from wattshift_scheduler.state import Sent, State, initial
from wattshift_scheduler.turn import answers, reducers

NOW_S = 2000.0
IDS = tuple(device.id for device in DEVICES)


def _life() -> State:
    """A site that has granted and was answered."""
    life = Life(Obeying())
    read(life, 4, ev.SignalChanged("price", (), 60.0, True))
    assert (life.state.ledger.point >= 0).all()
    return life.state


def _readings(rng: random.Random, ids: tuple[str, ...]) -> ev.Readings:
    n = len(ids)
    figures = [np.array([rng.choice((np.nan, 30.0, 900.0, 2500.0)) for _ in ids]) for _ in range(4)]
    marks = [np.array([rng.random() < 0.3 for _ in ids]) for _ in range(2)]
    at_s = np.array([NOW_S - rng.choice((0.1, 3.0, 90.0)) for _ in ids])
    modes = tuple(rng.choice(("", "mid", "top", "mine", "strange")) for _ in ids)
    w, limit, hashes, held = figures
    event = ev.Readings(ids, at_s, w, limit, hashes, held, np.full(n, 5.0), modes, *marks)
    if rng.random() < 0.5:
        return event
    return dataclasses.replace(event, table_held_bytes=np.zeros(n), clients=np.ones(n))


def _replied(rng: random.Random, state: State, ids: tuple[str, ...]) -> ev.LeasesReplied:
    at = state.fleet.columns_of(ids)
    sequence = np.where(at >= 0, state.ledger.sequence[at], 1) - (rng.random() < 0.2)
    taken = np.array([rng.random() < 0.7 for _ in ids])
    reasons = tuple(f"reason {i}" for i in range(len(ids)))
    return ev.LeasesReplied(rng.randint(1, 30), ids, sequence, taken, reasons)


def _any(rng: random.Random, state: State) -> ev.Event:
    ids = tuple(rng.sample((*IDS, "nobody"), rng.randint(1, 3)))
    if rng.random() < 0.3:
        begin = rng.randint(0, 3)
        ids = IDS[begin : begin + 2]
    some = rng.random()
    if some < 0.4:
        return _readings(rng, ids)
    if some < 0.75:
        return _replied(rng, state, ids)
    if some < 0.9:
        agent = rng.choice(("left", "right", "third"))
        boot = "boot" if rng.random() < 0.7 else "other"
        return ev.AgentSeen(agent, boot, rng.random(), NOW_S)
    if some < 0.95:
        return ev.AgentLost(rng.choice(("left", "right")), "timeout")
    return rng.choice((ev.Tick(), ev.DeviceLeft(("a2",), "sold"), ev.DeviceJoined(DEVICES)))


def _both(state: State, events: list[ev.Event]) -> list[str]:
    """What differs between events folded at once and one after the other."""
    folded, told = reducers.folded(state, events, NOW_S)
    single, told_single = state, list[Decision]()
    for event in events:
        single, facts = reducers.reduce(single, event, NOW_S)
        told_single += facts
    found = [] if repr(told) == repr(told_single) else ["told"]
    for name in ("agents", "sent"):
        one, other = getattr(folded, name), getattr(single, name)
        found += [] if list(one.items()) == list(other.items()) else [name]
    for table in ("ledger", "seen", "turns", "tables"):
        one, other = getattr(folded, table), getattr(single, table)
        for part in dataclasses.fields(one):
            a, b = (np.asarray(getattr(of, part.name)) for of in (one, other))
            found += [] if a.tobytes() == b.tobytes() else [f"{table}.{part.name}"]
    return found


@pytest.fixture(scope="module")
def running() -> State:
    """A state to start from: some commands wait for their end."""
    state = _life()
    sent = {number: Sent("grant_leases", "left", NOW_S) for number in range(1, 31)}
    return dataclasses.replace(state, sent=sent)


@pytest.mark.parametrize("fresh", [False, True])
def test_any_run_of_answers_and_readings_folds_as_one_after_the_other(
    running: State, fresh: bool
) -> None:
    state = running
    if fresh:
        state, _ = reducers.reduce(initial(SITE, VALUES, 1), ev.DeviceJoined(DEVICES), NOW_S)
        state, _ = reducers.reduce(state, ev.JobSubmitted(MINING), NOW_S)
    rng = random.Random(11)
    for turn in range(300):
        events = [_any(rng, state) for _ in range(rng.randint(1, 9))]
        assert _both(state, events) == [], (turn, events)


def _twice() -> list[ev.Event]:
    """A device is read, and then it cannot be read."""
    rng = random.Random(5)
    first, second = (_readings(rng, ("a0", "g0")) for _ in range(2))
    good = dataclasses.replace(first, failed=np.zeros(2, dtype=np.bool_))
    bad = dataclasses.replace(second, failed=np.ones(2, dtype=np.bool_), at_s=second.at_s - 500.0)
    return [good, bad]


def _then_refused(state: State) -> list[ev.Event]:
    """A gate's device is read, and then its agent refuses its newest lease."""
    no, nan = np.zeros(1, dtype=np.bool_), np.full(1, np.nan)
    at_s, drawn_w = np.full(1, NOW_S - 0.1), np.full(1, 10.0)
    reading = ev.Readings(("g0",), at_s, drawn_w, nan, nan, nan, nan, ("",), no, no)
    at = state.fleet.columns_of(("g0",))
    return [reading, ev.LeasesReplied(3, ("g0",), state.ledger.sequence[at], no, ("broken",))]


def test_what_is_of_one_device_twice_ends_a_run(
    running: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Granted a moment ago: gates were seen to draw more than their lease, beside inference.
    ledger, n = running.ledger, len(IDS)
    unanswered = dataclasses.replace(
        ledger,
        acked=np.zeros(n, dtype=np.bool_),
        confirmed=np.zeros(n, dtype=np.bool_),
        bound_w=ledger.lease_w.copy(),
    )
    seen = dataclasses.replace(
        running.seen, at_s=np.full(n, NOW_S - 1.0), watts_w=np.full(n, 2500.0)
    )
    state = dataclasses.replace(running, ledger=unanswered, seen=seen)
    scenes = [_twice(), _then_refused(state)]
    assert [_both(state, events) for events in scenes] == [[], []]

    def all_at_once(self: Any, event: Any) -> bool:
        columns = self.fleet.columns_of(event.devices)
        told = self.read if isinstance(event, ev.Readings) else self.answered
        told.append((event, columns))
        return True

    monkeypatch.setattr(answers.Run, "takes", all_at_once)
    assert all(_both(state, events) for events in scenes)


def test_a_failed_read_keeps_the_time_of_the_last_sample_and_who_wrote(running: State) -> None:
    at = running.fleet.columns_of(("a0", "a1"))
    n, yes = len(IDS), np.array([True, True])
    marked = dataclasses.replace(running.seen, foreign=np.ones(n, dtype=np.bool_))
    state = dataclasses.replace(running, seen=marked)
    some = _readings(random.Random(2), ("a0", "a1"))
    told = dataclasses.replace(
        some, at_s=np.full(2, NOW_S), failed=np.array([False, True]), foreign=~yes
    )
    for folded in (reducers.reduce(state, told, NOW_S), reducers.folded(state, [told], NOW_S)):
        seen = folded[0].seen
        assert seen.at_s[at].tolist() == [NOW_S, running.seen.at_s[at[1]]]
        assert seen.foreign[at].tolist() == [False, True]
        assert seen.failed[at].tolist() == [False, True]


def test_devices_that_nobody_knows_end_no_run(running: State) -> None:
    run = answers.Run(running.fleet)
    events = [_readings(random.Random(3), (name, "nobody")) for name in ("a0", "a1")]
    assert all(run.takes(event) for event in events)
    assert not run.takes(events[0])


def test_a_reboot_among_answers_forgets_what_came_before_it_alone(running: State) -> None:
    at = running.fleet.columns_of(("a0",))
    answer = ev.LeasesReplied(
        3, ("a0",), running.ledger.sequence[at], np.ones(1, dtype=np.bool_), ("",)
    )
    reboot = ev.AgentSeen("left", "other", 0.0, NOW_S)
    assert _both(running, [answer, reboot]) == [] == _both(running, [reboot, answer])
    after, _ = reducers.folded(running, [answer, reboot], NOW_S)
    assert after.ledger.point[at].tolist() == [-1]


def test_events_of_other_lengths_than_their_devices_are_a_mistake(running: State) -> None:
    short = dataclasses.replace(_readings(random.Random(1), ("a0", "g0")), at_s=np.zeros(1))
    with pytest.raises(AssertionError):
        reducers.folded(running, [short], NOW_S)


def test_devices_are_found_by_the_column_that_they_were_picked_from(running: State) -> None:
    fleet = running.fleet
    rows = np.array([4, 0, 2])
    assert fleet.columns_of(Picked(fleet.ids, rows)) is rows
    other = fleet.ids.copy()[::-1]
    assert fleet.columns_of(Picked(other, rows)).tolist() == [0, 4, 2]
    for ids in (
        IDS,
        IDS[1:3],
        IDS[3:],
        (*IDS[3:], "nobody"),
        ("nobody", *IDS),
        (IDS[1], IDS[1]),
        (),
    ):
        assert fleet.columns_of(ids).tolist() == [fleet.index.get(name, -1) for name in ids]
        assert fleet.columns_of(list(ids)).tolist() == fleet.columns_of(ids).tolist()


def test_columns_that_follow_each_other_are_a_slice() -> None:
    assert rows_of(np.array([3, 4, 5])) == slice(3, 6)
    assert rows_of(np.array([7])) == slice(7, 8)
    for apart in ([], [3, 5], [5, 4, 3], [-1, 0], [0, 2, 1, 3], [2, 2, 4]):
        assert rows_of(np.array(apart, dtype=np.int64)) is None


def test_commands_wait_for_their_end_one_to_a_subject(running: State) -> None:
    made = list(Sent.each("grant_leases", ["a", "b"], 5.0))
    assert made == [Sent("grant_leases", "a", 5.0), Sent("grant_leases", "b", 5.0)]
    assert all(type(one) is Sent and one.subject in "ab" for one in made)
    assert set(running.ended(1, 2, 99).sent) == set(range(3, 31))
