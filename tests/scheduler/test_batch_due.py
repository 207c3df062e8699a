"""Who gives way to batch that is due: late work, and work that has the time."""

from typing import Any

import numpy as np
import pytest
from tests.scheduler.batch_queue import UNIT_W, Queue, batch

from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind, JobState, Rule, Terms
from wattshift_scheduler.plan.words import Standing


def known(name: str, items: int, deadline_s: float | None, **fields: Any) -> Job:
    """A job of which is known that a worker does 0.1 items a second."""
    named = {"pace_per_s": 0.1, "best_per_s": 0.1, **fields}
    return batch(name, items, deadline_s=deadline_s, **named)


def queue_with(*jobs: Job, slots: tuple[int, ...] = (1,)) -> Queue:
    """These jobs run."""
    queue = Queue(slots)
    queue.submit(*jobs)
    queue.turn()
    assert queue.running() == sorted(job.id for job in jobs)
    return queue


def test_a_late_job_gives_way_to_one_that_would_miss_its_deadline_and_goes_on_after() -> None:
    queue = queue_with(known("late", 200, 300.0))
    assert queue.job("late").late_s is not None
    queue.submit(known("in-time", 20, 600.0))
    queue.turn()
    assert queue.running() == ["in-time"]
    assert [(one.victim.id, one.to.id) for one in queue.gave] == [("late", "in-time")]
    late = queue.job("late")
    assert late.state is JobState.PAUSED, "it is paused at its checkpoint, and never killed"
    assert "it gives way to in-time" in late.reason
    queue.until(3000.0)
    assert queue.ended_s["in-time"] <= 600.0
    assert queue.ended_s["late"] > 2000.0
    assert len(queue.gave) == 1


def test_a_late_job_runs_on_beside_who_cannot_make_it_and_who_has_the_time() -> None:
    unknown = batch("o", 20, deadline_s=230.0)
    for other in (unknown, known("o", 100, 400.0), known("o", 20, 5000.0), known("o", 20, None)):
        queue = queue_with(known("late", 200, 300.0))
        queue.submit(other)
        queue.turn()
        assert queue.running() == ["late"], other


def test_without_a_plan_one_that_has_the_time_gives_way_to_one_that_is_due() -> None:
    queue = queue_with(known("easy", 100, 6000.0))
    queue.submit(known("due", 50, 900.0))
    queue.turn()
    assert queue.running() == ["due"]
    verdicts = [one.reason for one in queue.told if one.subject == "easy" and one.action == "defer"]
    assert verdicts[0].startswith("it gives way to due (due), which is due in")
    assert verdicts[0].endswith("it has the time")
    queue.until(3000.0)
    assert queue.ended_s["due"] <= 900.0
    assert queue.ended_s["easy"] <= 6000.0


@pytest.mark.parametrize(
    ("runs", "comes", "gives"),
    [
        ({}, {}, True),
        ({"deadline_s": 2200.0}, {}, False),
        ({"deadline_s": 1300.0}, {}, False),
        ({"deadline_s": None}, {}, True),
        ({"deadline_s": None, "submitted_s": -90_000.0}, {}, False),
        ({"pace_per_s": None, "best_per_s": None, "chunk_items": 100}, {}, False),
        ({"min_run_s": 3600.0}, {}, False),
        ({"priority": 1}, {}, False),
        ({"priority": 1}, {"priority": 1}, True),
        ({}, {"deadline_s": 5900.0}, False),
        ({}, {"pace_per_s": None, "best_per_s": None}, True),
        ({}, {"deadline_s": 5000.0, "pace_per_s": None, "best_per_s": None}, False),
        ({"max_units": 2, "gang": True}, {}, False),
        ({"max_units": 2, "gang": True, "deadline_s": None}, {}, True),
        ({"max_units": 2, "gang": True, "deadline_s": 60.0}, {}, True),
    ],
    ids=[
        "it has the time", "not twice over", "it is due itself", "it has no deadline",
        "it waited for a day", "nobody knows its need", "it must run for a while yet",
        "it goes before by its priority", "of one priority", "the other has the time as well",
        "the other's need is not known", "and may take all its time", "a gang", "a gang without",
        "a late gang",
    ],
)  # fmt: skip
def test_who_gives_way(runs: dict[str, Any], comes: dict[str, Any], gives: bool) -> None:
    fields = {"deadline_s": 6000.0, **runs}
    waited = fields.pop("submitted_s", 0.0)
    queue = Queue((2,) if fields.get("gang") else (1,))
    job = known("runs", 100, fields.pop("deadline_s"), **fields)
    queue.turn(ev.JobSubmitted(job.changed(submitted_s=waited)))
    queue.turn()
    assert queue.running() == ["runs"]
    queue.submit(known("comes", 50, **{"deadline_s": 900.0, **comes}))
    queue.turn()
    assert (queue.running() == ["comes"]) == gives
    assert bool(queue.gave) == gives


def test_what_is_done_sooner_than_another_begins_runs_on() -> None:
    queue = queue_with(known("short", 10, None))
    queue.submit(known("due", 50, 900.0), later_s=1.0)
    assert queue.running() == ["short"]


def test_who_is_late_gives_way_before_who_has_the_time() -> None:
    queue = queue_with(known("easy", 100, None), known("late", 200, 300.0), slots=(1, 1))
    queue.submit(known("due", 50, 900.0))
    queue.turn()
    assert queue.running() == ["due", "easy"]


@pytest.mark.parametrize(("deadline_s", "gives"), [(2900.0, False), (3500.0, True)])
def test_there_must_be_time_left_when_the_other_is_over(deadline_s: float, gives: bool) -> None:
    """The other takes half an hour, and `easy` a quarter."""
    queue = queue_with(known("first", 900, None, priority=5), known("easy", 100, deadline_s),
                       slots=(1, 1))  # fmt: skip
    queue.submit(known("due", 150, 2200.0))
    queue.turn()
    assert (queue.running() == ["due", "first"]) == gives


def test_no_more_gives_way_than_must_and_nobody_where_there_is_room() -> None:
    queue = queue_with(known("a", 100, None, max_units=3), slots=(3,))
    queue.submit(known("due", 50, 900.0))
    queue.turn()
    assert (queue.job("a").units, queue.job("due").units) == (2, 1)
    free = queue_with(known("a", 100, None), slots=(1, 1))
    free.submit(known("due", 50, 900.0))
    free.turn()
    assert free.running() == ["a", "due"]
    assert not free.gave


def test_it_presses_for_as_many_workers_as_it_needs() -> None:
    queue = queue_with(known("a", 100, None, max_units=3), slots=(3,))
    queue.submit(known("due", 100, 900.0, max_units=3))
    queue.turn()
    assert (queue.job("a").units, queue.job("due").units) == (1, 2)


def test_services_go_before_what_is_due() -> None:
    service = Job("s", JobKind.SERVICE, "s", {}, 0.0, unit_w=UNIT_W, terms=Terms(priority=-5))
    queue = Queue((1,))
    queue.turn(ev.JobSubmitted(service))
    queue.submit(known("due", 50, 900.0))
    queue.turn()
    assert queue.job("s").units == 1
    assert not queue.job("due").units


def test_who_gave_way_has_what_comes_free_before_those_who_came_later() -> None:
    queue = queue_with(known("easy", 100, 6000.0))
    queue.submit(known("due", 30, 700.0))
    queue.turn()
    queue.submit(known("dear", 100, None, value_usd_per_h=5.0))
    queue.until(600.0)
    assert queue.ended_s["due"] <= 700.0
    assert queue.running() == ["easy"]


def test_with_a_plan_its_word_on_what_a_job_needs_holds() -> None:
    for needs_s, gives in ((1000.0, True), (3500.0, False)):
        queue = queue_with(known("easy", 100, 6000.0))
        none = np.zeros(8)
        plan = Standing(queue.now_s, queue.now_s, 300.0, queue.now_s + 900.0, none, none, none,
                        batch_usd_per_mwh={"easy": 50.0, "due": 50.0},
                        needs_s={"easy": needs_s, "due": 600.0})  # fmt: skip
        queue.turn(ev.PlanUpdated(plan))
        queue.submit(known("due", 50, 900.0))
        queue.turn()
        assert (queue.running() == ["due"]) == gives
        late = queue.job("easy").verdict
        assert late is not None
        assert late.rule is not Rule.PLAN


def test_what_is_due_earlier_counts_in_what_a_job_needs() -> None:
    """An hour of work that is due before is done before: what looked like time is none."""
    queue = Queue((1, 1))
    queue.submit(known("other", 300, 4000.0), known("easy", 100, 4700.0))
    queue.turn()
    queue.submit(known("due", 50, 900.0))
    queue.turn()
    assert queue.running() == ["due", "other"]
    alone = Queue((1,))
    alone.submit(known("easy", 100, 4700.0))
    alone.submit(known("other", 300, 4000.0), known("due", 50, 900.0))
    alone.turn()
    assert alone.running() == ["easy"]
