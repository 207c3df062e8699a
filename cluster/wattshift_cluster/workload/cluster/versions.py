"""Which releases of Ray are known, what each of them offers, and what was run with it.

What is needed of Ray beyond its public interface is tested for by doing (`capabilities`), because a
release that nobody has run may have it or not. The table tells what is known: `run` with the tests
of this repository, or read in its packages.
"""

from dataclasses import dataclass
from typing import Any

from wattshift_cluster.workload.cluster.ray_link import internal


@dataclass(frozen=True, slots=True)
class Release:
    """One release of Ray.

    Attributes:
        release: its number, without the patch level where that makes no difference.
        run: what was run with it here; empty if nothing.
        resize: whether a node's `power_w` can be resized while it runs.
        external_scaler: whether Serve's replicas can be set from outside.
        gcs_on_disk: whether its control store can be kept on disk without Redis.
    """

    release: str
    run: str
    resize: bool
    external_scaler: bool
    gcs_on_disk: bool


RELEASES: tuple[Release, ...] = (
    Release("2.60", "all tests", resize=True, external_scaler=True, gcs_on_disk=True),
    Release(
        "2.56",
        "nodes, watts, unasked work, services, batch workers, drain, purge",
        resize=True,
        external_scaler=True,
        gcs_on_disk=False,
    ),
)
"""Newest first. docs/ray.md has it with the particulars."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something Ray offers, or not.

    Attributes:
        name: what it is.
        present: whether the Ray installed here has it.
        without: what becomes of us without it.
    """

    name: str
    present: bool
    without: str


def known(release: str) -> Release | None:
    """The row of a release such as "2.60.0"; None for one that nobody knows."""
    return next((row for row in RELEASES if f"{release}.".startswith(f"{row.release}.")), None)


def capabilities() -> list[Capability]:
    """What the Ray installed here offers, found by looking for each call. Imports Ray.

    Raises:
        ImportError: no Ray is installed.
    """
    client = _attribute("ray._raylet", "InnerGcsClient")
    state = _attribute("ray._private.state", "GlobalState")
    node = _attribute("ray._private.node", "Node")
    controller = _attribute("ray.serve._private.controller", "ServeController")
    policy = _attribute("ray.serve.config", "AutoscalingPolicy")
    return [
        Capability(
            "resize of power_w while a node runs",
            hasattr(client, "resize_raylet_resource_instances"),
            "watts are held back by placement groups, which is coarser",
        ),
        Capability(
            "control store on disk",
            hasattr(node, "_is_rocksdb_gcs"),
            "a Ray of our own ends when its control store does",
        ),
        Capability(
            "node drain", hasattr(client, "drain_node"), "a node cannot be drained from here"
        ),
        Capability(
            "totals per node",
            hasattr(state, "total_resources_per_node"),
            "watts are those of the start, not those of now",
        ),
        Capability(
            "Serve autoscaling policies of one's own",
            policy is not None,
            "services need scaling = external",
        ),
        Capability(
            "Serve external scaler",
            hasattr(controller, "update_deployment_replicas"),
            "services need scaling = policy",
        ),
    ]


def _attribute(module: str, name: str) -> Any:
    """The named thing, or None where this release has no such module or name."""
    internal("ray")
    try:
        return getattr(internal(module), name, None)
    except ImportError:
        return None
