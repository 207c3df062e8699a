"""Random queues of batch with deadlines: who gives way loses nothing, and to nobody in vain."""

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.scheduler.batch_queue import TURN_S, Queue, batch

from wattshift_scheduler import worth
from wattshift_scheduler.compute import due
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.jobs import Job

AGAIN_MOST = 2
"""A job gave way to one and the same other no more often in 800 such queues."""


def _queue(seed: int) -> tuple[Queue, list[tuple[float, Job]]]:
    """Nodes, and jobs with when they come; of half of them is known how fast they go.

    Some deadlines are hopeless from the beginning, most are not; there is more than can be done.
    """
    rng = random.Random(seed)
    slots = [rng.randint(1, 2) for _ in range(rng.randint(1, 2))]
    paces: dict[str, float] = {}
    jobs: list[tuple[float, Job]] = []
    for name in [f"j{i}" for i in range(rng.randint(3, 10))]:
        pace, units, items = (
            rng.choice((0.05, 0.1, 0.2)),
            rng.choice((1, 1, 2)),
            rng.randint(20, 400),
        )
        comes_s, needs_s = rng.uniform(0.0, 3000.0), items / (pace * units)
        ease, known = rng.uniform(0.7, 6.0), pace if rng.random() < 0.5 else None
        job = batch(
            name,
            items,
            max_units=units,
            deadline_s=None if rng.random() < 0.2 else comes_s + needs_s * ease + 120.0,
            value_usd_per_h=rng.choice((0.0, 0.0, 1.0)),
            gang=1 < units <= max(slots) and rng.random() < 0.3,
            min_run_s=rng.choice((0.0, 0.0, 300.0)),
            pace_per_s=known,
            best_per_s=known,
        )
        paces[name] = pace
        jobs.append((comes_s, job))
    return Queue(slots, paces), sorted(jobs, key=lambda one: one[0])


def play(seed: int) -> list[str]:
    """What is broken in one queue."""
    queue, coming = _queue(seed)
    while coming or len(queue.ended_s) < len(queue.state.jobs):
        come = [job for at_s, job in coming if at_s <= queue.now_s]
        coming = coming[len(come) :]
        queue.submit(*come)
        if queue.now_s > 60_000.0:
            return ["stuck: " + ", ".join(sorted(set(queue.state.jobs) - set(queue.ended_s)))]
    return [*_in_turn(queue), *_in_vain(queue), *_missed(queue)]


def _in_turn(queue: Queue) -> list[str]:
    """Pairs that push each other out in turn."""
    pairs = Counter((one.victim.id, one.to.id) for one in queue.gave)
    found = [f"turn: {pair}" for pair, times in pairs.items() if times > AGAIN_MOST]
    first_s: dict[tuple[str, str], float] = {}
    for one in queue.gave:
        first_s.setdefault((one.victim.id, one.to.id), one.at_s)
        if (one.to.id, one.victim.id) in first_s and one.victim.late_s is None:
            found.append(f"turn: {one.victim.id} and {one.to.id}")
    return found


def _in_vain(queue: Queue) -> list[str]:
    """Those who gave way to one who is late, or whose time is too short for what he has to do at
    any speed that he has shown."""
    found = []
    for one in queue.gave:
        assert one.to.deadline_s is not None
        pace = queue.pace_per_s[one.to.id] * (1.0 + worth.UNSURE_SHARE) * one.to.max_units
        shown = one.to.best_per_s is not None
        left = (one.to.total or 0) - (one.to.done or 0) - one.to.units
        ends_s = one.at_s + (left / pace if shown else 0.0)
        if one.to.late_s is not None or ends_s > one.to.deadline_s:
            found.append(f"vain: {one.victim.id} to {one.to.id} at {one.at_s:.0f} s")
    return found


def _missed(queue: Queue) -> list[str]:
    """Those who could make their deadline when they gave way, and did not."""
    found = []
    for one in queue.gave:
        job = one.victim
        if job.late_s is None and job.deadline_s is not None:
            left_s = ((job.total or 0) - (job.done or 0)) / queue.pace_per_s[job.id] / job.max_units
            could = one.at_s + left_s <= job.deadline_s
            # What is done is seen a turn later.
            if could and queue.ended_s[job.id] > job.deadline_s + TURN_S:
                found.append(f"missed: {job.id} gave way to {one.to.id} at {one.at_s:.0f} s")
    return found


@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(seed=st.integers(0, 1_000_000))
@example(seed=1031)
@example(seed=1363)
def test_nobody_gives_way_in_vain_or_in_turn_or_misses_by_it(seed: int) -> None:
    assert play(seed) == []


def test_more_deadlines_are_kept_than_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        count = 0
        for seed in range(6):
            queue, coming = _queue(seed)
            for at_s, job in coming:
                queue.until(at_s)
                queue.submit(job)
            queue.until(20_000.0)
            jobs = [job for job in queue.state.jobs.values() if job.deadline_s is not None]
            count += sum(queue.ended_s.get(j.id, 1e9) <= (j.deadline_s or 0.0) for j in jobs)
        return count

    before = kept()
    monkeypatch.setattr(due.Due, "presses_s", lambda *_: None)
    assert before > kept()


def _all_that_is_due_later(self: due.Due, seat: Seat, due_s: float) -> list[Seat]:
    return [one for one in self._may if one.units and one.job.due_s > due_s and one is not seat]


MUTATIONS: list[tuple[str, Any, str, Any, str]] = [
    ("all have the time", due.Due, "giving", _all_that_is_due_later, "missed"),
    ("all can make it", worth, "least_s", lambda _: math.nan, "vain"),
    ("whoever presses gets it", due.Due, "_gives", lambda *_: True, "turn"),
    ("who gave way has no claim", due, "gave_way", lambda _: False, "missed"),
]


@pytest.mark.parametrize(
    ("where", "name", "mutant", "broken"),
    [row[1:] for row in MUTATIONS],
    ids=[row[0] for row in MUTATIONS],
)
def test_without_its_guard_that_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any, broken: str
) -> None:
    monkeypatch.setattr(where, name, mutant)
    broke = (one for seed in range(60) for one in play(seed) if one.startswith(broken))
    assert next(broke, "")
