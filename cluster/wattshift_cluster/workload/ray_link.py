"""A connection to a Ray cluster: its nodes, its health, and what it needs in the environment.

Ray reads its settings from the environment when it is imported, so `prepare_environment` comes
first and every import of Ray lies inside a function. Checked against Ray 2.60.0.
"""

import importlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import Unreachable

log = structlog.get_logger()

NAMESPACE = "wattshift"
POWER = "power_w"
"""The custom resource in which Ray counts watts."""

HEALTH_S = 2.0

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Workers that nobody asked for cost a second of a small machine's start.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}

LOOPBACK = {
    # Without this switch Ray 2.60 replaces 127.0.0.1 by an address that others can reach.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def internal(module: str) -> Any:
    """A module of Ray whose types are not declared or whose names are not public."""
    return importlib.import_module(module)


class RayUnavailable(Unreachable):
    """Ray cannot be started or reached, or lacks what is needed here."""


@dataclass(frozen=True, slots=True)
class Node:
    """The node whose watts are managed.

    Attributes:
        id: Ray's NodeID, hexadecimal.
        power_w_total: size of its `power_w`, W; None if it has none.
        power_w_available: what of it nobody holds, W; None if unknown.
    """

    id: str
    power_w_total: float | None
    power_w_available: float | None


def local_environment(token_file: Path) -> dict[str, str]:
    """Environment of everything that belongs to a Ray of our own: loopback, with a token."""
    return {
        **QUIET,
        **LOOPBACK,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
    }


def prepare_environment(values: Mapping[str, str]) -> None:
    """Put settings in force for this process, before Ray is imported."""
    os.environ.update(values)


def preload() -> None:
    """Import what takes a second or two, when there is something else to wait for.

    Raises:
        RayUnavailable: Ray is not installed.
    """
    try:
        internal("ray")
        internal("ray.serve")
    except ImportError as fault:
        raise RayUnavailable(f"Ray is not installed: {fault}") from fault


class RayLink:
    """This process as a driver of a cluster. Blocking; for the engine's thread."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: host:port of the cluster's GCS.

        Raises:
            RayUnavailable: no cluster there, or no Ray here.
        """
        try:
            import ray

            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
            )
            self.address: str = ray.get_runtime_context().gcs_address
            self.node_id: str = ray.get_runtime_context().get_node_id()
        except ImportError as fault:
            raise RayUnavailable(f"Ray is not installed: {fault}") from fault
        except (ConnectionError, OSError, RuntimeError, ValueError) as fault:
            raise RayUnavailable(f"{address}: {_first_line(fault)}") from fault

    def node(self) -> Node:
        """The managed node as the GCS sees it, up to some 100 ms old.

        Raises:
            RayUnavailable: the node is not alive or the GCS did not answer.
        """
        try:
            rows: list[dict[str, Any]] = internal("ray").nodes()
            free = self._available()
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"{self.address}: {_first_line(fault)}") from fault
        for row in rows:
            if row["NodeID"] == self.node_id and row["Alive"]:
                total_w = row["Resources"].get(POWER)
                return Node(self.node_id, total_w, None if total_w is None else free)
        raise RayUnavailable(f"{self.address}: node {self.node_id} is not alive")

    def _available(self) -> float | None:
        per_node = internal("ray._private.state").available_resources_per_node()
        free = per_node.get(self.node_id)
        # Ray leaves out what is used up.
        return None if free is None else float(free.get(POWER, 0.0))

    def close(self) -> None:
        """Disconnect; detached actors and Serve go on."""
        import ray

        ray.shutdown()


def listens(address: str) -> bool:
    """Whether anybody listens at the GCS's address.

    Not a question to Ray: its clients wait a minute for a GCS that is gone, then end the process.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=HEALTH_S):
            return True
    except OSError as fault:
        log.warning("ray.health", address=address, reason=_first_line(fault))
        return False


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]
