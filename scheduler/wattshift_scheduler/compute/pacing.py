"""How fast one worker of a batch job goes: items per second, counted from checkpoint to checkpoint.

The rate that is reported is an average of the last minute over whole chunks, so where a chunk takes
longer than that it jumps and decays. Between two moments at which items were committed, with as
many workers all the time, nothing is left over: that is a pace. What comes before the first of them
holds the start of the workers, and is not counted.
"""

from wattshift_scheduler.jobs import Job, JobKind, JobState

COUNTED_S = 60.0
"""A pace is counted over no less: of short chunks several, so that their scatter is small."""


def seen(before: Job, job: Job, now_s: float) -> Job:
    """The job with its pace as of a report.

    Args:
        before: the job before the report.
        job: the job after it.
        now_s: our clock, s.
    """
    if job.kind is not JobKind.BATCH:
        return job
    units = job.units if job.by_node is None else sum(job.by_node.values())
    if job.state is not JobState.RUNNING or not units or job.done is None:
        return job if job.counted is None else job.changed(counted=None)
    counted = job.counted
    if counted is not None and (counted[2] != units or job.done < counted[1]):
        counted = None
    if before.done is None or job.done <= before.done:
        return job if counted is job.counted else job.changed(counted=counted)
    now = (now_s, job.done, units)
    if counted is None:
        return job.changed(counted=now)
    span_s = now_s - counted[0]
    if span_s < COUNTED_S:
        return job
    pace_per_s = (job.done - counted[1]) / (span_s * units)
    best_per_s = max(pace_per_s, job.best_per_s or 0.0)
    return job.changed(pace_per_s=pace_per_s, best_per_s=best_per_s, counted=now)
