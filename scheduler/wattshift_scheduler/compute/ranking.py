"""In which order jobs are served, and in which they give way.

Services go before batch. Within a kind the effective priority decides: the priority, and for what
waits the points that waiting earns. Ties go by fair share, value per watt, how little time is left
until a deadline that may still be kept, age, and the id. A running job keeps the points with which
it began; waiting earns a place in the queue and never the right to push out what runs, so two jobs
cannot push each other out in turn.
"""

import math

from wattshift_scheduler import worth
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.site import Rules

Order = tuple[bool, int, float, float, float, str]
"""Services first; then by effective priority, value per watt, slack, age, and the id."""


def waited_s(job: Job, now_s: float) -> float:
    """How long a job has waited, or had waited when it began, s: since it came, or was last
    preempted or held off."""
    from_s, until_s = job.submitted_s, now_s if job.began_s is None else job.began_s
    if job.not_before_s > from_s:
        from_s = job.not_before_s
    return until_s - from_s if until_s > from_s else 0.0


def effective(job: Job, rules: Rules, now_s: float) -> int:
    """Priority with the points of ageing, in whole points so that jobs of one age tie."""
    points = rules.ageing_per_h * waited_s(job, now_s) / 3600.0
    return job.terms.priority + math.floor(points + 1e-9)


def order(job: Job, points: int, now_s: float) -> Order:
    """The place in line of a job with so many points, among those with the same claim to a fair
    share."""
    left_s = slack_s(job, now_s)
    batch = job.kind is not JobKind.SERVICE
    return (batch, -points, -job.usd_per_mwh, left_s, job.submitted_s, job.id)


def slack_s(job: Job, now_s: float) -> float:
    """Time to the deadline beyond what the job still needs, s; infinite without a deadline that it
    may make."""
    if math.isinf(job.due_s):
        return math.inf
    needs_s = worth.needs_s(job)
    return job.due_s - now_s - (0.0 if math.isnan(needs_s) else needs_s)


def young(job: Job, now_s: float) -> bool:
    """Whether a job has not yet run for the time that it was promised."""
    return job.began_s is not None and now_s - job.began_s < job.terms.min_run_s


def holds(job: Job) -> bool:
    """Whether a job's units count as its own: a batch job that pauses has given them up."""
    if job.kind is JobKind.BATCH:
        return job.state in (JobState.STARTING, JobState.RUNNING)
    return job.state is not JobState.CANCELLING


def loss(job: Job, points: int, above_share: bool) -> tuple[float, ...]:
    """What is lost by preempting a batch job: the least first.

    Low effective priority, then tenants above their fair share, then the one that has committed a
    chunk most recently (it repeats the least), then the least value per watt.
    """
    committed_s = -math.inf if job.checkpoint_s is None else job.checkpoint_s
    return (points, not above_share, -committed_s, job.usd_per_mwh, -job.submitted_s)


def returns(job: Job) -> tuple[int, float, str]:
    """In what order borrowed watts go back: the newest first among those of one priority.

    A higher priority comes last, for it would push the lower one out in its turn.
    """
    began_s = job.submitted_s if job.began_s is None else job.began_s
    return (job.terms.priority, -began_s, job.id)
