"""Ray Serve's own calls: what runs, start, scale, take down, end one replica.

All of them go to the Serve controller, an actor, and have a deadline. Serve's REST endpoint makes
the same calls but needs Ray's dashboard: ten processes, a gigabyte, one more thing to be down.
Checked against Ray 2.60.0; `update_deployment_replicas` and `get_serve_instance_details` are behind
its REST API, `perform_graceful_shutdown` is what its controller calls on a replica it stops.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.cluster.ray_link import internal

log = structlog.get_logger()

CALL_S = 5.0
REQUEST_S = 60.0
RUNNING = "RUNNING"
STARTING = "STARTING"
STOPPING = "STOPPING"
SERVING = (RUNNING, "UPDATING", "PENDING_MIGRATION", "RECOVERING")
"""States in which a replica answers; RECOVERING is how a restarted controller first shows all."""

FAILED = "DEPLOY_FAILED"


class ServeSilent(WattshiftError):
    """The Serve controller did not answer; it may be starting again."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica: its id, Serve's word for its state, its node (None: not placed), its actor."""

    id: str
    state: str
    node_id: str | None
    actor: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment as Serve has it; `slots` requests at most are in work at a replica."""

    name: str
    status: str
    message: str
    target: int
    replicas: tuple[Replica, ...]
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Application:
    """One application as Serve has it."""

    name: str
    status: str
    message: str
    deployments: Mapping[str, Deployed] = field(default_factory=dict)


def read(details: Mapping[str, Any]) -> dict[str, Application]:
    """The applications of Serve's instance details."""
    found = {}
    for name, app in (details.get("applications") or {}).items():
        deployments = {
            key: Deployed(
                name=key,
                status=_word(one.get("status")),
                message=str(one.get("message") or ""),
                target=int(one.get("target_num_replicas") or 0),
                replicas=tuple(_replica(row) for row in one.get("replicas") or ()),
                slots=int((one.get("deployment_config") or {}).get("max_ongoing_requests") or 1),
            )
            for key, one in (app.get("deployments") or {}).items()
        }
        message = str(app.get("message") or "")
        found[str(name)] = Application(str(name), _word(app.get("status")), message, deployments)
    return found


def _replica(row: Mapping[str, Any]) -> Replica:
    return Replica(
        id=str(row.get("replica_id")),
        state=_word(row.get("state")),
        node_id=row.get("node_id") or None,
        actor=str(row.get("actor_name") or ""),
    )


def _word(state: Any) -> str:
    """Serve gives states as enumerations in one place and as their texts in another."""
    return str(getattr(state, "value", state) or "")


class ServeLink:
    """Serve on the cluster that this process is a driver of. Blocking, a call for 5 s at most."""

    def __init__(self, host: str, port: int) -> None:
        """`host`, `port`: where Serve shall listen; it is started with the first service."""
        self.host, self.port = host, port
        self._started = False

    def runs(self) -> bool:
        """Whether there is a Serve controller."""
        if not self._started:
            with suppress(ValueError):
                self._controller()
                self._started = True
        return self._started

    def start(self) -> None:
        """Start Serve unless it runs. Takes seconds."""
        if self.runs():
            return
        internal("ray.serve").start(
            proxy_location="HeadOnly",
            http_options={"host": self.host, "port": self.port, "request_timeout_s": REQUEST_S},
            logging_config={"enable_access_log": False},
        )
        self._started = True

    def look(self) -> dict[str, Application]:
        """All applications. Raises: ServeSilent."""
        return read(self._call("get_serve_instance_details"))

    def deploy(self, app: str, deployments: Sequence[bytes], external: bool) -> None:
        """Deploy what `building` made, or another form of it. Raises: ServeSilent."""
        whole = internal("ray.serve.generated.serve_pb2").ApplicationArgs(
            external_scaler_enabled=external
        )
        self._call(
            "deploy_applications", {app: list(deployments)}, {app: whole.SerializeToString()}
        )

    def scale(self, app: str, deployment: str, replicas: int) -> None:
        """Set the replicas of an application under the external scaler. Raises: ServeSilent."""
        ids = internal("ray.serve._private.common").DeploymentID(name=deployment, app_name=app)
        self._call("update_deployment_replicas", ids, replicas)
        log.info("service.scaled", service=app, replicas=replicas)

    def delete(self, app: str) -> None:
        """Take an application down, in the background. Raises: ServeSilent."""
        if self.runs():
            self._call("delete_apps", [app])

    def replica(self, actor: str) -> Any:
        """The handle of a replica's actor. Raises: ValueError when it is gone."""
        space = internal("ray.serve._private.constants").SERVE_NAMESPACE
        return internal("ray").get_actor(actor, space)

    def handle(self, app: str, deployment: str) -> Any:
        """A handle to call methods of a deployment's replicas."""
        return internal("ray.serve").get_deployment_handle(deployment, app)

    def _call(self, method: str, *arguments: Any) -> Any:
        ray = internal("ray")
        try:
            call = getattr(self._controller(), method, None)
            if call is None:
                raise ServeSilent(f"this Ray Serve has no {method}")
            return ray.get(call.remote(*arguments), timeout=CALL_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ValueError) as fault:
            raise ServeSilent(
                f"Serve's controller did not answer: {type(fault).__name__}"
            ) from fault

    def _controller(self) -> Any:
        names = internal("ray.serve._private.constants")
        return internal("ray").get_actor(names.SERVE_CONTROLLER_NAME, names.SERVE_NAMESPACE)
