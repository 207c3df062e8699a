"""Batch that is late: its deadline has passed, or no speed that was ever seen would make it.

What is late is worth its plain value and no hurry: it goes on where nobody else needs its nodes,
and gives way to work that can still make a deadline of its own (`due`). That a job is late is told
once, and so is it if it goes faster than it ever did and may make it after all.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from wattshift_scheduler import worth
from wattshift_scheduler.decisions import Decision, span_text
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.state import State

ALARMS = 16
"""Late jobs with an alarm of their own, those that are so for longest; of the others one counts."""


def late(job: Job, now_s: float) -> bool:
    """Whether a batch job is sure to miss its deadline."""
    if job.kind is not JobKind.BATCH or job.deadline_s is None:
        return False
    least_s = worth.least_s(job)
    return now_s + (0.0 if math.isnan(least_s) else least_s) >= job.deadline_s


def marked(state: State, now_s: float) -> tuple[State, tuple[Decision, ...]]:
    """Note which jobs are late, and tell of those of which that is news."""
    changed: dict[str, Job] = {}
    told: list[Decision] = []
    for job in state.jobs.values():
        if job.deadline_s is None or job.state.final:
            continue
        is_late = late(job, now_s)
        if is_late != (job.late_s is not None):
            changed[job.id] = job.changed(late_s=now_s if is_late else None)
            told.append(_told(job, now_s, is_late=is_late))
    if not changed:
        return state, ()
    return replace(state, jobs={**state.jobs, **changed}), tuple(told)


def _told(job: Job, now_s: float, *, is_late: bool) -> Decision:
    assert job.deadline_s is not None
    left_s, least_s = job.deadline_s - now_s, worth.least_s(job)
    words = "it goes faster than it ever did, and may make its deadline after all"
    if is_late:
        words = (
            f"its deadline has passed with {job.done or 0} of {job.total or 'unknown'} items done"
        )
        if left_s > 0:
            words = f"it cannot make its deadline: it needs {span_text(least_s)} at a speed above "
            words += f"the best that was seen, and {span_text(left_s)} are left"
        words += "; it is worth its plain value from now on, and gives way to work that can still "
        words += "make a deadline"
    inputs = {
        "deadline_s": job.deadline_s,
        "needs_least_s": None if math.isnan(least_s) else least_s,
        "best_items_per_s": job.best_per_s,
        "done": job.done,
        "total": job.total,
        "max_units": job.max_units,
    }
    return Decision(now_s, job.id, "late" if is_late else "in time", words, inputs)


def causes(state: State) -> Iterator[tuple[str, tuple[str, str]]]:
    """Alarms: late jobs that are not over."""
    found = [j for j in state.jobs.values() if j.late_s is not None and not j.state.final]
    found.sort(key=lambda job: (job.late_s, job.id))
    for job in found[:ALARMS]:
        text = f"batch job {job.id} ({job.name}) is late: it misses its deadline, and gives way to "
        yield f"job-late:{job.id}", ("warning", text + "work that can still make its own")
    if len(found) > ALARMS:
        text = f"{len(found)} batch jobs are late; the first {ALARMS} are named each"
        yield "jobs-late", ("warning", text)
