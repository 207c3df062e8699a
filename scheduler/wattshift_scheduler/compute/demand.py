"""How many units a job could use now: what admission then fits into the watts.

A service follows Serve's own autoscaling where that tells what it wants, else the requests in
progress. What it promised goes first: the next replica is asked for before a latency misses, from
where the latency and the queue will stand when that replica is up. It loses replicas only after a
quiet time, and then no more than it could have done without all that while.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from wattshift_scheduler.jobs import Job, JobKind, JobState, Load, Look
from wattshift_scheduler.site import Rules

ONGOING_PER_REPLICA = 2.0
"""Requests in progress per replica above which a service wants one more: with one in work and one
waiting, a further arrival waits a whole service time."""

LOOKS = 8
"""Reports that are remembered: enough to tell a trend from noise while they come once a second."""

TREND_S = 10.0
"""Reports older than this say nothing of the trend: a burst of requests builds up in seconds."""

TREND_LOOKS = 3
"""Fewer reports are no trend."""

UP_S = 6.0
"""How long a replica takes to serve until one was seen: 2 to 5 s were measured for a process and a
small model on Ray 2.60, and a turn of the controller and a look of the bridge come on top."""

UP_MOST_S = 30.0
"""A trend is drawn out no further than this, however slowly a replica starts: nothing is linear for
longer, and what a slow start costs the promise must say."""

LATE_SHARE = 0.9
"""Share of the promised latency that must not be foreseen: a tenth is the scatter of a 95th
percentile over the few hundred requests of a report's window."""

EASY_SHARE = 0.5
"""Share of the promised latency below which replicas may go: with half of it left, the load of one
replica fewer does not take the rest while it stays below half of `ONGOING_PER_REPLICA`."""

IDLE_PER_REPLICA = 0.5
"""Requests per remaining replica below which a latency is the model's own and no queue's."""

GROWTH_MOST = 2.0
"""A foreseen queue asks for no more than this many times the replicas there are: a line through a
few reports overshoots, and the next report can ask again."""


def units(job: Job) -> int:
    """Units that a job could use now; 0 for one that is held or on its way out.

    A service that was never `sized` wants the replicas it was asked for, within its bounds.
    """
    if job.held or job.state is JobState.CANCELLING:
        return 0
    if job.kind is JobKind.SERVICE:
        return _clamped(job, job.units if job.wanted is None else job.wanted)
    if job.terms.gang or job.done is None or job.total is None:
        return job.max_units
    # No more workers than chunks are left; a job that has not finished has one left at least.
    chunk = max(int(job.spec.get("chunk_items") or 1), 1)
    return max(1, min(job.max_units, -(-(job.total - job.done) // chunk)))


def looked(job: Job, now_s: float) -> Job:
    """The service with its last report remembered for the trend."""
    look = Look(now_s, job.running, job.ongoing, _worst(job))
    kept = [one for one in job.load.looks if now_s - one.at_s <= TREND_S]
    return job.changed(load=replace(job.load, looks=(*kept, look)[-LOOKS:]))


def sized(job: Job, rules: Rules, now_s: float) -> Job:
    """A service with `wanted` replicas as of now, and what its next size rests on.

    Args:
        job: the service; anything else is returned as it is.
        rules: `scale_down_after_s` is the quiet time before replicas go.
        now_s: our clock, s.
    """
    if job.kind is not JobKind.SERVICE:
        return job
    load = _start_watched(job, now_s)
    before = _clamped(job, job.units if job.wanted is None else job.wanted)
    need, late = _needed(job, load, before, now_s)
    if need > before:
        return _kept(job, need, None, replace(load, late_s=now_s) if late else load)
    need = _easy(job, need, before)
    if need == before:
        return _kept(job, before, None, load)
    if job.quiet_since_s is None:
        return _kept(job, before, now_s, replace(load, quiet_most=need))
    most = max(load.quiet_most, need)
    if now_s - job.quiet_since_s < rules.scale_down_after_s:
        load = load if most == load.quiet_most else replace(load, quiet_most=most)
        return _kept(job, before, job.quiet_since_s, load)
    return _kept(job, most, None, load)


def _kept(job: Job, wanted: int, quiet_since_s: float | None, load: Load) -> Job:
    """The job with what was worked out; itself where nothing has changed."""
    if (wanted, quiet_since_s) == (job.wanted, job.quiet_since_s) and load is job.load:
        return job
    return job.changed(wanted=wanted, quiet_since_s=quiet_since_s, load=load)


def _clamped(job: Job, wanted: int) -> int:
    return max(job.min_units, min(wanted, job.max_units))


def _worst(job: Job) -> float:
    """The worst of its latencies as a share of what it promises; NaN if none is known."""
    if job.p95_ms is None and job.ttft_p95_ms is None and job.itl_p95_ms is None:
        return math.nan
    pairs = (
        (job.p95_ms, job.slo_p95_ms),
        (job.ttft_p95_ms, job.terms.slo_ttft_p95_ms),
        (job.itl_p95_ms, job.terms.slo_itl_p95_ms),
    )
    shares = [ms / slo_ms for ms, slo_ms in pairs if ms is not None and slo_ms]
    return max(shares, default=math.nan)


def _start_watched(job: Job, now_s: float) -> Load:
    """Note when replicas were asked for, and learn from when they serve how long that takes."""
    load, due = job.load, _due(job)
    if due > max(load.asked, job.running):
        return replace(load, asked=due, asked_s=now_s)
    if job.running < due or math.isnan(load.asked_s):
        asked = min(load.asked, due)
        return load if asked == load.asked else replace(load, asked=asked)
    # Of replicas that were never seen to be missing nobody knows when they came up.
    missed = any(one.at_s >= load.asked_s and one.running < due for one in load.looks)
    up_s = now_s - load.asked_s if missed else load.up_s
    return replace(load, asked=due, asked_s=math.nan, up_s=up_s)


def _due(job: Job) -> int:
    """Replicas that are to serve: Serve starts no more than it wants, but of a service that
    promised a latency all that it is given."""
    promised = job.slo_p95_ms or job.terms.slo_ttft_p95_ms or job.terms.slo_itl_p95_ms
    return job.units if promised or job.desired is None else min(job.units, job.desired)


def _needed(job: Job, load: Load, before: int, now_s: float) -> tuple[int, bool]:
    """Replicas that its load and its promise need now, within its bounds; whether the promise
    asked for more than the load."""
    lead_s = _lead_s(load)
    ongoing = max(job.ongoing, _foreseen(job, lead_s, now_s))
    if job.desired is not None:
        need = job.desired
    else:
        most = GROWTH_MOST * ONGOING_PER_REPLICA * max(job.running, 1)
        capped = min(ongoing, max(job.ongoing, most))
        need = math.ceil(capped / ONGOING_PER_REPLICA - 1e-9)
    late = _late(job, ongoing, lead_s, now_s)
    # One more at a time: what was asked for last must have served for a moment to show.
    settled = job.running >= before and now_s - load.late_s >= lead_s
    if late:
        need = max(need, before + 1 if settled else before)
    need = _clamped(job, need)
    return need, late and need > before


def _lead_s(load: Load) -> float:
    """How far ahead must be seen: the time that a further replica takes to serve, s."""
    return UP_S if math.isnan(load.up_s) else min(max(load.up_s, 1.0), UP_MOST_S)


def _late(job: Job, ongoing: float, lead_s: float, now_s: float) -> bool:
    """Whether a latency is foreseen above its promise when a further replica would be up."""
    worst = _worst(job)
    if not math.isnan(worst):
        looks = _recent(job, now_s)
        slope = _slope([(one.at_s, one.worst) for one in looks if not math.isnan(one.worst)])
        if worst + max(slope, 0.0) * lead_s > LATE_SHARE:
            return True
    # A queue that grows is waited through at the rate at which requests are answered (Little's
    # law); one that does not grow is in the measured latency already.
    if not job.rate_per_s or ongoing <= job.ongoing:
        return False
    promised_ms = min(
        (ms for ms in (job.slo_p95_ms, job.terms.slo_ttft_p95_ms) if ms), default=None
    )
    if promised_ms is None:
        return False
    waits_ms = max(ongoing - job.running, 0.0) / job.rate_per_s * 1000.0
    return waits_ms > LATE_SHARE * promised_ms


def _easy(job: Job, need: int, before: int) -> int:
    """Replicas with which it would still be at ease; `before` if it needs all that it has."""
    if job.desired is None:
        need = max(need, math.ceil(job.ongoing / (0.5 * ONGOING_PER_REPLICA) - 1e-9))
    worst = _worst(job)
    calm = math.isnan(worst) or worst <= EASY_SHARE
    calm = calm or job.ongoing <= IDLE_PER_REPLICA * max(need, 1)
    return min(need, before) if calm else before


def _recent(job: Job, now_s: float) -> Sequence[Look]:
    """The reports that a trend may rest on: fresh, and since the replicas were as many as now."""
    looks = [one for one in job.load.looks if now_s - one.at_s <= TREND_S]
    first = len(looks)
    while first and looks[first - 1].running == job.running:
        first -= 1
    return looks[first:]


def _foreseen(job: Job, lead_s: float, now_s: float) -> float:
    """Requests in progress or queued when a further replica would be up."""
    if len(job.load.looks) < TREND_LOOKS:
        return job.ongoing
    slope = _slope([(one.at_s, one.ongoing) for one in _recent(job, now_s)])
    return job.ongoing + max(slope, 0.0) * lead_s


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares slope, per s; 0 for too few or simultaneous points."""
    if len(points) < TREND_LOOKS:
        return 0.0
    mean_t = math.fsum(t for t, _ in points) / len(points)
    mean_y = math.fsum(y for _, y in points) / len(points)
    spread = math.fsum((t - mean_t) ** 2 for t, _ in points)
    if spread <= 1e-9:
        return 0.0
    return math.fsum((t - mean_t) * (y - mean_y) for t, y in points) / spread
