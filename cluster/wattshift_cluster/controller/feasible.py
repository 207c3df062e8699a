"""What could never run here is refused at once, with the nearest request that could.

The core says what an empty site could hold (wattshift_scheduler.compute.feasible). Here it is asked
before a job is written down, for a whole service at once, and with what the site file says of a
node that Ray has not told of yet.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.errors import Refused
from wattshift_scheduler.compute.feasible import Feasible
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.in_force.effective import standing_caps
from wattshift_scheduler.jobs import Admission, Job, JobKind, Rule, Verdict
from wattshift_scheduler.signals.arbitrate import arbitrate
from wattshift_scheduler.site import Node
from wattshift_scheduler.state import NodePower, State


class Infeasible(Refused):
    """A job that could never run here. `verdict` says by which rule, for machines."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.words)
        self.verdict = verdict


def check(state: State, job: Job, now_s: float) -> None:
    """Raise Infeasible if a job could never run here, Refused if its tenant is unknown."""
    if job.kind is JobKind.MINING:
        return
    _known_tenant(state, job)
    if not state.site.nodes:
        words = "this site has no compute: its file has no [compute]"
        raise Infeasible(Verdict(Admission.DENY, Rule.NO_SUCH_NODE, words))
    found = Feasible(_ground(state, job, now_s)).refusal(_at_least(job))
    if found is not None:
        raise Infeasible(_with_nearest(job, found))


def _known_tenant(state: State, job: Job) -> None:
    known = sorted(one.name for one in state.site.tenants)
    if known and job.terms.tenant not in known:
        raise Refused(f"no tenant {job.terms.tenant!r} here; give one of {', '.join(known)}")


def _at_least(job: Job) -> Job:
    """The job as what it needs at once: a service's least replicas stand like a gang."""
    if job.kind is not JobKind.SERVICE or job.min_units < 2:
        return job
    return replace(job, max_units=job.min_units, terms=replace(job.terms, gang=True))


def _ground(state: State, job: Job, now_s: float) -> Ground:
    tree, caps = state.site.tree, standing_caps(state, now_s)
    powers = {n.name: _foreseen(n, state.nodes[n.name], job) for n in state.site.nodes}
    cap = arbitrate(caps, float(tree.limit_w[0]), now_s)
    return Ground(state.site, powers, tree.limit_w, tree.limit_w, cap, caps, now_s)


def _foreseen(node: Node, power: NodePower, job: Job) -> NodePower:
    """A node of which Ray has not told: what the site file says of it is believed meanwhile."""
    labels: Mapping[str, str] | None = power.labels
    if labels is None and all(key in node.labels for key, _ in job.terms.selector):
        labels = dict(node.labels)
    gpus = node.gpus if power.gpus is None and node.gpus else power.gpus
    return replace(power, labels=labels, gpus=gpus)


def _with_nearest(job: Job, found: Verdict) -> Verdict:
    """The refusal, with the nearest request that could be held where there is one."""
    words, together = found.words, _at_least(job).max_units if _whole(job) else 1
    each = "watts" if job.kind is JobKind.BATCH else "watts_per_replica"
    if found.rule is Rule.GANG:
        held = round(found.have_w / job.unit_w) if job.unit_w else 0
        key = "workers" if job.terms.gang else "min_replicas"
        if not job.terms.gang:
            words = (
                f"min_replicas {together} of {format_watts(job.unit_w)} each: an empty site holds "
                f"{held} of them"
            )
        words += f"; nearest: {key} {held}"
    elif found.rule in (Rule.NODE, Rule.FEEDER, Rule.QUOTA_WATTS) and not math.isnan(found.have_w):
        words += f"; nearest: {each} {format_watts(math.floor(found.have_w / together))}"
    return replace(found, words=words)


def _whole(job: Job) -> bool:
    return job.terms.gang or (job.kind is JobKind.SERVICE and job.min_units > 1)


def late(state: State, job: Job, now_s: float) -> str | None:
    """A sentence if a deadline cannot be met at the best speed that is known of this work.

    Known is what earlier jobs of the same callable or command did over the same input; it is no
    reason to refuse, for the next run may be faster.
    """
    if job.kind is not JobKind.BATCH or job.deadline_s is None:
        return None
    work = ("callable", "command", "input")
    alike = [
        (one.total / (one.rate_per_s / max(one.units, 1) * job.max_units), one.id)
        for one in state.jobs.values()
        if one.kind is JobKind.BATCH
        and one.total
        and one.rate_per_s
        and all(one.spec.get(key) == job.spec.get(key) for key in work)
    ]
    least_s, like = min(alike, default=(0.0, ""))
    if now_s + least_s <= job.deadline_s:
        return None
    return (
        f"its deadline leaves {job.deadline_s - now_s:,.0f} s; at the best speed seen of this work "
        f"({like}) it needs {least_s:,.0f} s with {job.max_units} workers"
    )
