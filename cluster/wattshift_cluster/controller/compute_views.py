"""Jobs and compute nodes for people and scripts: plain dicts, units in names, None is unknown."""

import math
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.config.credentials import hidden
from wattshift_cluster.controller.clock import rfc3339
from wattshift_scheduler.jobs import Job, JobKind, Verdict
from wattshift_scheduler.site import Node
from wattshift_scheduler.state import NodePower, State

DEAD_LETTERS = "dead_letters.jsonl"
View = dict[str, Any]


def known(value: float | None) -> float | None:
    """A number for people: None where the core says NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def job(one: Job) -> View:
    """One job (api.compute_views.JobView)."""
    mining = one.kind is JobKind.MINING
    return {
        "id": one.id,
        "kind": one.kind.value,
        "name": one.name,
        "state": one.state.value,
        "reason": one.reason,
        "admission": one.admission.name.lower(),
        "verdict": None if one.verdict is None else verdict(one.verdict),
        "submitted_at": rfc3339(one.submitted_s),
        "tenant": one.terms.tenant,
        "priority": one.terms.priority,
        "watts_w": None if mining else one.wanted_w,
        "unit_w": None if mining else one.unit_w,
        "units": one.units,
        "running": one.running,
        "min_units": one.min_units,
        "max_units": one.max_units,
        "nodes": dict(one.nodes),
        "by_node": None if one.by_node is None else dict(one.by_node),
        "spec": hidden(one.spec),
        **_service(one),
        **_batch(one),
    }


def _service(one: Job) -> View:
    limit_w = one.unit_limit_w
    kept = [step.throughput for step in one.terms.steps if step.watts_w == limit_w]
    step = {"watts_w": limit_w, "throughput": kept[0] if kept else None}
    return {
        "ongoing": one.ongoing if one.kind is JobKind.SERVICE else None,
        "desired": one.desired,
        "p95_ms": one.p95_ms,
        "ttft_p95_ms": one.ttft_p95_ms,
        "itl_p95_ms": one.itl_p95_ms,
        "power_step": None if limit_w is None else step,
        "learnt": learnt(one) if one.spec.get("learn_watts") else None,
    }


def learnt(one: Job) -> View:
    """What is learnt of the watts of a service's replicas (api.compute_views.LearntView)."""
    known = one.learnt
    return {
        "given_w": one.unit_w if known is None else known.given_w,
        "learnt_w": None if known is None else known.unit_w,
        "in_use": known is not None and known.unit_w == one.unit_w,
        "quality": None if known is None else known.quality,
        "samples": 0 if known is None else known.samples,
        "since": None if known is None else rfc3339(known.since_s),
        "note": None,
    }


def _batch(one: Job) -> View:
    """Progress of a batch job, and when it is done at the rate that it has now."""
    progress = None if one.done is None else {"done": one.done, "total": one.total}
    left = None if one.done is None or one.total is None else one.total - one.done
    eta_s = None
    if left is not None and one.rate_per_s:
        eta_s = max(0.0, left / one.rate_per_s)
    batch = one.kind is JobKind.BATCH
    letters = f"{str(one.spec.get('output', '')).rstrip('/')}/{DEAD_LETTERS}"
    return {
        "progress": progress,
        "rate_per_s": known(one.rate_per_s),
        "eta_s": eta_s if batch and not one.state.final else None,
        "failed_items": one.items_failed if batch else None,
        "dead_letters": letters if one.items_failed else None,
        "checkpoint_at": None if one.checkpoint_s is None else rfc3339(one.checkpoint_s),
        "deadline_at": None if one.deadline_s is None else rfc3339(one.deadline_s),
        "late_since": None if one.late_s is None else rfc3339(one.late_s),
    }


def verdict(one: Verdict) -> View:
    """How a job stands (api.compute_views.VerdictView)."""
    return {
        "admission": one.admission.name.lower(),
        "rule": one.rule.value,
        "words": one.words,
        "bound_by": one.bound_by or None,
        "need_w": one.need_w,
        "have_w": known(one.have_w),
        "expected_at": None if one.expected_s is None else rfc3339(one.expected_s),
    }


def nodes(state: State) -> list[View]:
    """Every compute node (api.compute_views.NodeView)."""
    units: dict[str, dict[str, int]] = {node.name: {} for node in state.site.nodes}
    for one in state.jobs.values():
        if one.state.final:
            continue
        for name, count in (one.nodes if one.by_node is None else one.by_node).items():
            if count:
                units.setdefault(name, {})[one.id] = count
    return [
        {
            **_node(node, state.nodes.get(node.name), units[node.name]),
            "displaces_usd_per_mwh": displaces_usd_per_mwh(state, node.feeder),
        }
        for node in state.site.nodes
    ]


def displaces_usd_per_mwh(state: State, feeder: str) -> float | None:
    """What mining would earn with one more watt under a feeder, USD/MWh: 0 where no feeder above it
    keeps a rung out, None before the first decision."""
    tree, worth = state.site.tree, state.outlook.feeder_usd_per_mwh
    if len(worth) != len(tree.names):
        return None
    return max(worth[at] for at in tree.path(tree.index[feeder]))


def _node(node: Node, power: NodePower | None, units: Mapping[str, int]) -> View:
    if power is None:
        power = NodePower(granted_w=node.max_w)
    told = power.labels is not None
    return {
        "node": node.name,
        "feeder": node.feeder,
        "up": power.up,
        "draining": power.draining,
        "forgotten": power.forgotten,
        "power_w": known(power.granted_w),
        "asked_w": known(power.asked_w),
        "max_w": node.max_w,
        "used_w": known(power.used_w),
        "unasked_w": known(power.unasked_w),
        "system_w": known(power.system_w),
        "unasked": list(power.unasked),
        "relief_w": power.relief_w,
        "gpus": node.gpus if power.gpus is None else power.gpus,
        "labels": dict((power.labels or {}) if told else node.labels),
        "units": dict(units),
    }


def node_power_rows(state: State) -> list[tuple[str, str, float | None]]:
    """Watts of each node by kind, for /metrics."""
    kinds = ("power_w", "asked_w", "max_w", "used_w", "relief_w")
    named = {"power_w": "granted"}
    return [
        (view["node"], named.get(kind, kind.removesuffix("_w")), view[kind])
        for view in nodes(state)
        for kind in kinds
    ]


def unit_rows(state: State) -> list[tuple[str, str, int]]:
    """Units that hold watts, by job and node, for /metrics."""
    return [
        (job_id, view["node"], count)
        for view in nodes(state)
        for job_id, count in view["units"].items()
    ]
