"""Which compute runs within the node's watts: services first, then batch by value per watt.

The answer for each job is one of four ordered verdicts with its reason: deny (it can never run
here), defer (not now), after_shedding (as soon as mining has given up the watts), fit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState
from wattshift_scheduler.site import Node, Rules

ONGOING_PER_REPLICA = 2.0
"""Requests in progress per replica above which a service wants one more: with one in work and one
waiting, a further arrival waits a whole service time."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What one job gets: how many units it should run, and why."""

    job: Job
    units: int
    admission: Admission
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What a node should run and the watts that it needs for it, W."""

    node: str
    placed: tuple[Placed, ...]
    target_w: float


def place(
    node: Node, jobs: Iterable[Job], *, room_w: float, free_w: float, rules: Rules, now_s: float
) -> Placement:
    """Divide a node's watts between the jobs that want to run on it.

    Args:
        node: the compute node.
        jobs: services and batch jobs that are not final.
        room_w: watts the node may have once every miner has given way, W.
        free_w: watts the node may have at once, with mining as it draws now, W.
        rules: the site's constants.
        now_s: our clock, s.
    """
    ranked = sorted(jobs, key=_rank)
    most_w = min(node.max_w, room_w)
    used_w = 0.0
    placed: list[Placed] = []
    for job in ranked:
        sized = _sized(job, rules, now_s) if job.kind is JobKind.SERVICE else job
        wanted = _wanted(sized)
        units = min(wanted, int((most_w - used_w + 1e-6) // job.unit_w)) if job.unit_w else wanted
        used_w += units * job.unit_w
        placed.append(_verdict(sized, units, wanted, used_w, free_w, node, most_w))
    return Placement(node.name, tuple(placed), used_w)


def _rank(job: Job) -> tuple[bool, float, float, str]:
    """Services before batch, then by value per watt, then the older one."""
    return (job.kind is not JobKind.SERVICE, -job.usd_per_mwh, job.submitted_s, job.id)


def _wanted(job: Job) -> int:
    if job.held or job.state is JobState.CANCELLING:
        return 0
    if job.kind is JobKind.SERVICE:
        return max(job.min_units, min(job.units or job.min_units, job.max_units))
    return 1


def _sized(job: Job, rules: Rules, now_s: float) -> Job:
    """Grow or shrink a service by one replica, as its load and its latency ask."""
    units = job.units or job.min_units
    if job.running < units:
        return job
    late = job.slo_p95_ms is not None and job.p95_ms is not None and job.p95_ms > job.slo_p95_ms
    if (late or job.ongoing > ONGOING_PER_REPLICA * units) and units < job.max_units:
        return replace(job, units=units + 1, quiet_since_s=None)
    quiet = not late and job.ongoing <= ONGOING_PER_REPLICA * (units - 1) * 0.5
    if not quiet or units <= job.min_units:
        return replace(job, quiet_since_s=None)
    if job.quiet_since_s is None:
        return replace(job, quiet_since_s=now_s)
    if now_s - job.quiet_since_s < rules.scale_down_after_s:
        return job
    return replace(job, units=units - 1, quiet_since_s=None)


def _verdict(
    job: Job, units: int, wanted: int, used_w: float, free_w: float, node: Node, most_w: float
) -> Placed:
    if job.unit_w > node.max_w:
        reason = f"a unit needs {job.unit_w:,.0f} W, {node.name} has {node.max_w:,.0f} W at most"
        return Placed(job, 0, Admission.DENY, reason)
    if wanted == 0:
        return Placed(job, 0, Admission.DEFER, "paused by a person")
    if units < wanted:
        have = f"{units} of {wanted} units fit" if units else "it does not fit"
        reason = f"{have}: {node.name} may have {most_w:,.0f} W under the cap in force"
        return Placed(job, units, Admission.DEFER, reason)
    if used_w > free_w + 1e-6:
        reason = f"it waits for mining to give up {used_w - free_w:,.0f} W"
        return Placed(job, units, Admission.AFTER_SHEDDING, reason)
    return Placed(job, units, Admission.FIT, f"{units * job.unit_w:,.0f} W on {node.name}")
