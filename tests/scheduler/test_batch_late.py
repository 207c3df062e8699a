"""Batch that is late: when that is certain, what it is worth then, and how it is told."""

import math
from pathlib import Path

import numpy as np
import pytest
from tests.scheduler.batch_queue import TURN_S, Queue, batch

from wattshift_cluster.cli.job_text import job_text
from wattshift_cluster.controller import compute_views
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.plan.demands import batches
from wattshift_scheduler import worth
from wattshift_scheduler.compute import lateness, pacing, ranking
from wattshift_scheduler.in_force import waiting
from wattshift_scheduler.jobs import Job, JobState, Rule
from wattshift_scheduler.plan.words import Standing

NOW_S = 10_000.0


def test_past_its_deadline_a_job_is_late_and_before_only_if_no_speed_seen_would_do() -> None:
    job = batch("a", 100, deadline_s=NOW_S + 500.0, best_per_s=0.1)
    assert lateness.late(job, NOW_S), "100 items at 0.12 an s are 833 s"
    assert not lateness.late(job.changed(best_per_s=0.2), NOW_S)
    assert not lateness.late(job.changed(max_units=2), NOW_S), "with all of its workers it may"
    assert not lateness.late(job.changed(best_per_s=None), NOW_S), "nobody knows how fast it goes"
    assert not lateness.late(job.changed(deadline_s=None), NOW_S)
    assert lateness.late(job.changed(best_per_s=None), NOW_S + 500.0)
    held = batch("a", 100, chunk_items=50, deadline_s=NOW_S + 500.0, best_per_s=0.1)
    running = held.changed(state=JobState.RUNNING, units=1, by_node={"n0": 1})
    assert not lateness.late(running, NOW_S), "a chunk in hand may be as good as done"
    assert lateness.late(held, NOW_S)


def test_a_pace_is_counted_between_checkpoints_and_not_from_the_start_of_the_workers() -> None:
    before = batch("a", 1000, state=JobState.RUNNING, units=2, by_node={"n0": 2})

    def then(job: Job, done: int, at_s: float) -> Job:
        return pacing.seen(job, job.changed(done=done), at_s)

    first = then(before, 50, 600.0)
    assert (first.pace_per_s, first.best_per_s) == (None, None), "ten minutes of it were a start"
    soon = then(first, 60, 630.0)
    assert soon.pace_per_s is None, "of half a minute nobody can tell"
    second = then(then(soon, 60, 900.0), 110, 1200.0)
    assert second.pace_per_s == pytest.approx(60 / 600.0 / 2)
    slower = then(second, 114, 1300.0)
    assert slower.pace_per_s == pytest.approx(0.02)
    assert slower.best_per_s == second.pace_per_s
    more = pacing.seen(slower, slower.changed(by_node={"n0": 3}, done=130), 1310.0)
    assert then(more, 160, 1365.0).pace_per_s == slower.pace_per_s, "counted anew with three"
    rests = pacing.seen(more, more.changed(state=JobState.PAUSED, by_node={}, units=0), 1400.0)
    assert rests.counted is None
    assert rests.pace_per_s == slower.pace_per_s


def test_a_late_job_is_worth_its_value_and_knows_no_hurry() -> None:
    due = batch("a", 100, value_usd_per_h=0.006, deadline_s=NOW_S + 500.0, best_per_s=0.1)
    late = due.changed(late_s=NOW_S)
    assert math.isinf(worth.of_batch(due, NOW_S, 600.0).usd_per_mwh)
    assert worth.of_batch(late, NOW_S, 600.0).usd_per_mwh == pytest.approx(60.0)
    assert math.isinf(late.due_s)
    assert math.isinf(ranking.slack_s(late, NOW_S))
    plain = due.changed(deadline_s=None)
    assert ranking.order(late, 0, NOW_S) == ranking.order(plain, 0, NOW_S)
    assert ranking.order(due, 0, NOW_S) < ranking.order(late, 0, NOW_S)


def test_to_the_plan_a_late_job_is_one_without_a_deadline() -> None:
    none = np.zeros(4)
    plan = Standing(0.0, 0.0, 300.0, 900.0, none, none, none, batch_usd_per_mwh={"a": 12.0})
    late = batch("a", value_usd_per_h=0.006, deadline_s=1.0, late_s=2.0, pace_per_s=0.1)
    assert waiting.usd_per_mwh(late, plan) == pytest.approx(60.0)
    assert waiting.usd_per_mwh(late.changed(late_s=None), plan) == 12.0
    found, _ = batches([late.changed(state=JobState.RUNNING)], {"a": 10.0}, NOW_S)
    assert [one.deadline_s for one in found] == [math.inf]


def test_what_was_seen_of_a_job_outlives_the_controller(tmp_path: Path) -> None:
    seen = batch(
        "a", deadline_s=NOW_S, pace_per_s=0.1, best_per_s=0.2, late_s=NOW_S, counted=(1.0, 2, 3)
    )
    journal = Journal.open(tmp_path / "journal.sqlite")
    journal.note([seen.changed(gave_way_to="b")], [])
    journal.close()
    journal = Journal.open(tmp_path / "journal.sqlite")
    job = journal.jobs()["a"]
    journal.close()
    assert (job.pace_per_s, job.best_per_s, job.late_s, job.gave_way_to) == (0.1, 0.2, NOW_S, "b")
    assert job.counted is None, "what was under way is counted anew"


def test_the_command_line_says_that_a_deadline_is_missed() -> None:
    late = batch("a", deadline_s=0.0, late_s=60.0)
    assert (
        "deadline       1970-01-01T00:00:00.000Z, missed: late since 1970-01-01T00:01:00.000Z"
        in [line.strip() for line in job_text(compute_views.job(late)).splitlines()]
    )
    assert "late" not in job_text(compute_views.job(late.changed(late_s=None)))


def test_that_a_job_is_late_is_told_once_and_over_a_restart() -> None:
    queue = Queue(pace_per_s={"a": 0.1})
    queue.submit(batch("a", 100, deadline_s=600.0))
    queue.until(1020.0)
    told = [one for one in queue.told if one.subject == "a" and one.action == "late"]
    assert len(told) == 1
    assert told[0].at_s < 600.0, "what no speed seen would make is not waited for"
    assert "cannot make its deadline" in told[0].reason
    assert told[0].inputs["best_items_per_s"] == pytest.approx(0.1)
    alarms = [one.action for one in queue.told if one.subject == "job-late:a"]
    assert alarms == ["alarm"]
    assert queue.state.alarms["job-late:a"].severity == "warning"
    job = queue.job("a")
    assert job.units == 1, "it runs on where nobody else needs the node"
    assert job.verdict is not None
    assert job.verdict.rule is Rule.FITS
    assert "it is late" in job.verdict.words
    queue.until(1200.0)
    assert job.total == queue.job("a").done
    assert "job-late:a" not in queue.state.alarms
    assert queue.job("a").late_s is not None, "that it was is kept"


def test_a_job_that_nobody_has_room_for_is_late_when_its_deadline_passes() -> None:
    queue = Queue(pace_per_s={"a": 0.1})
    queue.submit(batch("first", 1000, priority=5))
    queue.submit(batch("a", 100, deadline_s=600.0))
    queue.until(540.0)
    assert queue.job("a").late_s is None
    queue.until(660.0)
    assert queue.job("a").late_s == 600.0
    assert "it is late" in queue.job("a").reason
    reasons = [one.reason for one in queue.told if one.subject == "a" and one.action == "late"]
    assert reasons == [reasons[0]]
    assert reasons[0].startswith("its deadline has passed with 0 of 100 items done")


def test_one_that_goes_faster_than_it_ever_did_is_late_no_more() -> None:
    paces = {"a": 0.05}
    queue = Queue(pace_per_s=paces)
    queue.submit(batch("a", 100, deadline_s=1500.0))
    while queue.job("a").late_s is None:
        queue.turn()
    assert queue.now_s < 600.0
    paces["a"] = 0.5
    queue.until(queue.now_s + 3 * TURN_S)
    assert queue.job("a").late_s is None
    assert [one.action for one in queue.told if one.action in ("late", "in time")] == [
        "late", "in time",
    ]  # fmt: skip
    assert "job-late:a" not in queue.state.alarms


def test_of_many_late_jobs_some_are_named_and_the_rest_counted() -> None:
    queue = Queue()
    count = lateness.ALARMS + 3
    queue.submit(*[batch(f"j{i:02d}", deadline_s=90.0) for i in range(count)])
    queue.until(240.0)
    alarms = [name for name in queue.state.alarms if name.startswith("job-late:")]
    assert len(alarms) == lateness.ALARMS
    assert f"{count} batch jobs" in queue.state.alarms["jobs-late"].text
