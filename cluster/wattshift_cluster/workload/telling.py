"""The words of the bridge's report about Ray and its nodes (docs/protocol.md, "Compute bridge")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.cluster.unasked import Unasked

GONE = "Ray holds this node for dead"


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of the bridge and of Ray as a whole.

    Attributes:
        bridge: its name.
        address, release, resize: of Ray; None before a connection.
        error: why Ray cannot be used; None if it can.
        age_s: how old the last word of Ray is, s.
    """

    bridge: str
    address: str | None
    release: str | None
    resize: str | None
    error: str | None
    age_s: float


NodeRow = tuple[Node, float | None, str | None, Unasked]
"""A node, its total as confirmed, W, why it is not what was asked, and its unasked work."""


def tell(
    told: Told,
    nodes: Sequence[NodeRow],
    services: list[dict[str, Any]],
    jobs: list[dict[str, Any]],
) -> dict[str, Any]:
    """The body of `report`, but for its version. The first node is the driver's own."""
    rows = [_row(*node) for node in nodes]
    first = rows[0] if rows else None
    return {
        "bridge": told.bridge,
        "boot_id": boot_id(),
        "boot_s": boot_s(),
        "ray": {
            "up": told.error is None and first is not None,
            "address": told.address,
            "error": told.error,
            "age_s": round(told.age_s, 3),
            "release": told.release,
            "resize": told.resize,
        },
        "node": {
            key: None if first is None else first[key]
            for key in ("id", "power_w_total", "power_w_available")
        },
        "nodes": rows,
        "services": services,
        "jobs": jobs,
    }


def _row(node: Node, total_w: float | None, error: str | None, unasked: Unasked) -> dict[str, Any]:
    if not node.alive:
        unasked = Unasked()  # the last look at a node that is gone says nothing of now
    return {
        "name": node.name,
        "id": node.id,
        "alive": node.alive,
        "draining": node.draining,
        "labels": dict(node.labels),
        "gpus": node.gpus,
        "power_w_total": total_w,
        "power_w_available": node.power_w_available,
        "unasked_w": None if unasked.watts_w is None else round(unasked.watts_w, 2),
        "system_w": None if unasked.system_w is None else round(unasked.system_w, 2),
        "unasked": list(unasked.what),
        "unasked_quality": unasked.quality,
        "error": error if node.alive else GONE,
    }
