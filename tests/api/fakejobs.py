"""Views of jobs and compute nodes as a controller gives them, for tests of the API and the CLI."""

import time
from typing import Any

from wattshift_cluster.api.tokens import rfc3339


def job_view(job_id: str, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A job that waits, with every key of a JobView."""
    batch, mining = spec["kind"] == "batch", spec["kind"] == "mining"
    unit_w = spec.get("watts_w", spec.get("watts_per_replica_w"))
    return {
        "id": job_id,
        "kind": spec["kind"],
        "name": spec["name"],
        "state": "pending",
        "reason": "waits for 60 W under feeder row-a",
        "admission": "defer",
        "verdict": {
            "admission": "defer",
            "rule": "feeder",
            "words": "waits for 60 W under feeder row-a",
            "bound_by": "row-a",
            "need_w": 60.0,
            "have_w": 20.0,
            "expected_at": None,
        },
        "submitted_at": rfc3339(time.time()),
        "tenant": spec.get("tenant", "default"),
        "priority": spec.get("priority", 0),
        "watts_w": None if mining else 0.0,
        "unit_w": unit_w,
        "units": 0,
        "running": 0,
        "min_units": spec.get("min_replicas", 1),
        "max_units": spec.get("max_replicas", spec.get("workers", 1)),
        "nodes": {},
        "by_node": None,
        "ongoing": None if batch or mining else 0.0,
        "desired": None,
        "p95_ms": None,
        "ttft_p95_ms": None,
        "itl_p95_ms": None,
        "power_step": None,
        "learnt": None,
        "progress": {"done": 12, "total": 80} if batch else None,
        "rate_per_s": None,
        "eta_s": None,
        "failed_items": 0 if batch else None,
        "dead_letters": None,
        "checkpoint_at": None,
        "deadline_at": None,
        "url": None,
        "error": None,
        "spec": spec,
        **changes,
    }


def node_view(name: str, **changes: Any) -> dict[str, Any]:
    """A node that is up, with every key of a NodeView."""
    return {
        "node": name,
        "feeder": "row-a",
        "up": True,
        "draining": False,
        "forgotten": False,
        "power_w": 900.0,
        "asked_w": 900.0,
        "max_w": 2000.0,
        "used_w": 600.0,
        "unasked_w": 40.0,
        "system_w": 4.0,
        "unasked": ["actor Foo 4.0 CPU: 40 W"],
        "relief_w": 0.0,
        "gpus": 8.0,
        "labels": {"ray.io/accelerator-type": "H100"},
        "units": {"chat": 2},
        **changes,
    }
