"""A connection to a Ray cluster: its nodes, its health, and what it needs in the environment.

Ray reads its settings from the environment when it is imported, so `prepare_environment` comes
first and every import of Ray lies inside a function. Checked against Ray 2.60.0.
"""

import importlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import Unreachable
from wattshift_cluster.workload.cluster.nodes import Seen
from wattshift_cluster.workload.cluster.ray_token import find_token, no_entry

log = structlog.get_logger()

NAMESPACE = "wattshift"
HEALTH_S = 2.0

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Workers that nobody asked for cost a second of a small machine's start.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # A call after we have left a cluster fails; without this it would start a Ray of its own.
    "RAY_ENABLE_AUTO_CONNECT": "0",
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


def local_environment(token_file: Path) -> dict[str, str]:
    """Environment of everything that belongs to a Ray of our own: loopback, with a token."""
    return {
        **QUIET,
        **LOOPBACK,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # Ray nices its workers to 15, replicas too: batch work at 19 would then take nearly a third
        # of a core that both want, and everything else of the host would come before inference.
        "RAY_worker_niceness": "0",
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
            RayUnavailable: no cluster there, one of another release, one that does not let us in,
                or no Ray here.
        """
        if not listens(address):
            # Asked itself, Ray's client library would wait for more than a minute.
            raise RayUnavailable(f"{address}: nobody listens there; is that Ray running?")
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
            self.gcs: Any = internal("ray._raylet").GcsClient(address=self.address)
            self.release: str = str(ray.__version__)
        except ImportError as fault:
            raise RayUnavailable(f"Ray is not installed: {fault}") from fault
        except ConnectionError as fault:
            why = no_entry(find_token(os.environ, Path.home()))
            raise RayUnavailable(f"{address}: {why}") from fault
        except Exception as fault:  # a release that does not fit, a token file that is not there, …
            raise RayUnavailable(f"{address}: {_whole(fault)}") from fault

    def look(self) -> Seen:
        """What the GCS knows of the nodes, up to some 100 ms old.

        Raises:
            RayUnavailable: the GCS did not answer.
        """
        try:
            state = internal("ray._private.state").state
            return Seen(
                rows=internal("ray").nodes(),
                totals=state.total_resources_per_node(),
                free=state.available_resources_per_node(),
                draining=frozenset(state.get_draining_nodes()),
                driver=self.node_id,
            )
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"{self.address}: {_first_line(fault)}") from fault

    def drain(self, node_id: str, within_s: float) -> None:
        """Have a node left: Ray places nothing new there. May block for as long as Ray is gone.

        Args:
            node_id: Ray's NodeID, hexadecimal.
            within_s: what Ray's libraries are told they have, s; at its end nothing is killed.

        Raises:
            RayUnavailable: refused, or no answer.
        """
        reasons = internal("ray.core.generated.autoscaler_pb2").DrainNodeReason
        deadline_ms = int((time.time() + within_s) * 1000)
        try:
            taken, why = self.gcs.drain_node(
                node_id, reasons.DRAIN_NODE_REASON_PREEMPTION, "wattshift drain", deadline_ms
            )
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"node {node_id}: {_first_line(fault)}") from fault
        if not taken:
            raise RayUnavailable(f"Ray does not drain node {node_id}: {why}")

    def keep(self, key: str, value: bytes) -> None:
        """Put a value into Ray's internal store of keys. Raises: RayUnavailable."""
        try:
            internal("ray.experimental.internal_kv")._internal_kv_put(key, value, overwrite=True)
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"{key}: {_first_line(fault)}") from fault

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
    except (OSError, ValueError) as fault:
        log.warning("ray.health", address=address, reason=_first_line(fault))
        return False


def _whole(fault: BaseException) -> str:
    """All lines in one: of a release that does not fit, both releases stand further down."""
    return " ".join(str(fault).split())[:300] or type(fault).__name__


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]
