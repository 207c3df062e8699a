"""Inference services: Ray Serve applications whose replicas ask for watts.

A service is deployed by its import path with Serve's external scaler, so that Serve never scales it
by itself. Its replicas are set with the call that Serve's REST endpoint
`/api/v1/applications/…/scale` makes, on the Serve controller directly: the endpoint needs Ray's
dashboard, ten processes and a gigabyte for one call, and a fourth thing that can be down.

A replica is asked for only when its watts fit: Serve would start what Ray cannot place, and wait.
What was asked beyond that is asked for again as soon as watts are free.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch_worker import imported
from wattshift_cluster.workload.ray_link import Node, internal
from wattshift_cluster.workload.specs import ServiceSpec

log = structlog.get_logger()

CALL_S = 5.0
STATS_S = 2.0
STATS_DEADLINE_S = 1.0
DEPLOY_AGAIN_S = 5.0
QUANTILE = 0.95
HOLDING = ("RUNNING", "STARTING", "STOPPING", "UPDATING", "RECOVERING", "PENDING_MIGRATION")
"""Replica states in which it may hold its watts."""


class ServiceInvalid(WattshiftError):
    """The import path does not lead to a builder whose replicas ask for the right watts."""


@dataclass(slots=True)
class Service:
    """One service as this bridge runs it."""

    name: str
    spec: ServiceSpec
    target: int
    asked: int | None = None
    deployment: str | None = None
    handle: Any = None
    states: Mapping[str, int] = field(default_factory=dict)
    ongoing: int | None = None
    queued: int | None = None
    p95_ms: float | None = None
    gates: tuple[str, ...] = ()
    stats_s: float = -math.inf
    tried_s: float = -math.inf
    redeploy: bool = False
    waits: str | None = None
    error: str | None = None

    @property
    def running(self) -> int:
        """Replicas that answer requests."""
        return self.states.get("RUNNING", 0)

    @property
    def held_w(self) -> float:
        """Watts that its replicas may hold, W."""
        return sum(self.states.get(s, 0) for s in HOLDING) * self.spec.watts_per_replica_w

    @property
    def state(self) -> str:
        """One word for the report."""
        if self.target == 0:
            return "idle" if self.running == 0 else "stopping"
        if self.running == 0:
            return "failed" if self.error else "starting"
        return "running"


def quantile_ms(latencies_ms: list[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not latencies_ms:
        return None
    ranked = sorted(latencies_ms)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]


def fitting(target: int, running_or_starting: int, free_w: float, unit_w: float) -> int:
    """Replicas to ask for: the target, but no more new ones than the free watts hold."""
    return min(target, running_or_starting + max(0, math.floor(free_w / unit_w + 1e-9)))


class Services:
    """All services of one Ray cluster. Blocking; for the engine's thread."""

    def __init__(self, http_host: str, http_port: int, gate_dir: str | None, memory: Path) -> None:
        """Prepare; Serve is started with the first service.

        Args:
            http_host, http_port: where Serve listens.
            gate_dir: given to replicas, so that they can say they are busy.
            memory: file that keeps specifications over a restart of the bridge.
        """
        self._http = (http_host, http_port)
        self._gate_dir = gate_dir
        self._memory = memory
        self._services: dict[str, Service] = {}
        self._started = False
        self._remembered = ""

    def recover(self, cluster: str) -> None:
        """Know again the services that an earlier bridge deployed on the same cluster."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._memory.read_text())
            if found["cluster"] == cluster:
                for name, row in found["services"].items():
                    spec = ServiceSpec(**row["spec"])
                    self._services.setdefault(name, Service(name, spec, int(row["target"])))

    def remember(self, cluster: str) -> None:
        """Keep what `recover` needs, if it changed."""
        rows = {
            service.name: {"spec": asdict(service.spec), "target": service.target}
            for service in self._all()
        }
        text = json.dumps({"cluster": cluster, "services": rows})
        if text != self._remembered:
            attempt = self._memory.with_suffix(".new")
            attempt.write_text(text)
            attempt.replace(self._memory)
            self._remembered = text

    def names(self) -> frozenset[str]:
        """Known services."""
        return frozenset(self._services)

    def set_target(self, name: str, spec: ServiceSpec, replicas: int) -> None:
        """Want that many replicas; `poll` brings it about. Callable from any thread."""
        service = self._services.setdefault(name, Service(name, spec, replicas))
        if service.spec != spec:
            service.spec, service.redeploy = spec, True
        service.target = replicas
        service.tried_s = -math.inf

    def cancel(self, name: str) -> None:
        """Take a service down for good."""
        self._services.pop(name)
        if self._started or self._serve_runs():
            internal("ray.serve").delete(name, _blocking=False)

    def poll(self, node: Node, now_s: float) -> None:
        """Look at every service once, and ask for what fits the node's watts."""
        if not self._services:
            return
        self._look()
        free_w = node.power_w_available or 0.0
        # Watts of replicas that were asked for but that Ray has not placed yet are spoken for.
        for service in self._all():
            try:
                free_w -= self._drive(service, free_w, now_s)
            except Exception as fault:  # a service that cannot be driven must not stop the others
                service.error = f"{type(fault).__name__}: {fault}"[:500]
                log.warning("service.failed", service=service.name, error=service.error)

    def report(self) -> list[dict[str, Any]]:
        """A ServiceReport for each."""
        host, port = self._http
        return [
            {
                "name": service.name,
                "target": service.target,
                "running": service.running,
                "starting": service.states.get("STARTING", 0),
                "queued": service.queued,
                "ongoing": service.ongoing,
                "p95_ms": service.p95_ms,
                "state": service.state,
                "error": service.error or service.waits,
                "url": f"http://{host}:{port}{service.spec.route}",
                "gates": list(service.gates),
            }
            for service in self._all()
        ]

    def _all(self) -> list[Service]:
        # A copy: commands come in from other threads.
        return list(self._services.values())

    def _drive(self, service: Service, free_w: float, now_s: float) -> float:
        """Deploy or scale one service; the watts that this newly claims, W."""
        unit_w = service.spec.watts_per_replica_w
        placed = service.running + service.states.get("STARTING", 0)
        wanted = fitting(service.target, placed, free_w, unit_w)
        short = f"{free_w:g} W free, a replica asks for {unit_w:g} W"
        service.waits = short if wanted < service.target else None
        if service.deployment is None or service.redeploy:
            if now_s - service.tried_s < DEPLOY_AGAIN_S:
                return 0.0
            service.tried_s = now_s
            self._deploy(service, wanted)
        elif service.asked != wanted:
            self._scale(service, wanted)
        self._collect(service, now_s)
        return max(0, wanted - placed) * unit_w

    def _deploy(self, service: Service, replicas: int) -> None:
        serve = internal("ray.serve")
        if not self._started:
            host, port = self._http
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port, "request_timeout_s": 60},
                logging_config={"enable_access_log": False},
            )
            self._started = True
        target = serve.RunTarget(
            target=self._application(service.spec, replicas),
            name=service.name,
            route_prefix=service.spec.route,
            logging_config={"enable_access_log": False},
            external_scaler_enabled=True,
        )
        serve.run_many([target], wait_for_applications_running=False)
        service.error, service.redeploy = None, False
        service.asked = replicas
        log.info("service.deployed", service=service.name, replicas=replicas)

    def _application(self, spec: ServiceSpec, replicas: int) -> Any:
        builder = imported(spec.import_path)
        if not callable(builder):
            raise ServiceInvalid(f"{spec.import_path} is no builder: a function of its arguments")
        env = {"WATTSHIFT_GATE_DIR": self._gate_dir} if self._gate_dir else {}
        arguments = {
            "power_w": spec.watts_per_replica_w,
            "num_cpus": spec.num_cpus,
            "replicas": replicas,
            "env": env,
        }
        return builder(arguments)

    def _scale(self, service: Service, replicas: int) -> None:
        ray = internal("ray")
        deployment_id = internal("ray.serve._private.common").DeploymentID(
            name=service.deployment, app_name=service.name
        )
        call = self._controller().update_deployment_replicas
        ray.get(call.remote(deployment_id, replicas), timeout=CALL_S)
        service.asked = replicas
        log.info("service.scaled", service=service.name, replicas=replicas)

    def _controller(self) -> Any:
        names = internal("ray.serve._private.constants")
        actor = internal("ray").get_actor(names.SERVE_CONTROLLER_NAME, names.SERVE_NAMESPACE)
        if not hasattr(actor, "update_deployment_replicas"):
            raise ServiceInvalid("this Ray Serve has no external scaler")
        return actor

    def _serve_runs(self) -> bool:
        with suppress(ValueError):
            self._controller()
            return True
        return False

    def _look(self) -> None:
        if not self._started:
            if not self._serve_runs():
                return
            self._started = True
        applications = internal("ray.serve").status().applications
        for service in self._all():
            found = applications.get(service.name)
            if found is None:
                service.deployment, service.states = None, {}
                continue
            self._saw(service, found)

    def _saw(self, service: Service, found: Any) -> None:
        names = list(found.deployments)
        if not names:
            return
        if service.deployment is None:
            handle = internal("ray.serve").get_app_handle(service.name)
            service.handle = handle
            service.deployment = handle.deployment_name
            # Of an application found again nobody here knows what was asked for last.
        seen = found.deployments.get(service.deployment)
        if seen is None:
            return
        service.states = {_word(state): count for state, count in seen.replica_states.items()}
        status = _word(found.status)
        if status in ("DEPLOY_FAILED", "UNHEALTHY"):
            service.error = (found.message or seen.message or status)[:500]
        elif status == "RUNNING":
            service.error = None

    def _collect(self, service: Service, now_s: float) -> None:
        """Ask the replicas how they are, without waiting for them."""
        if service.running == 0:
            service.ongoing = service.queued = 0
            service.p95_ms, service.gates = None, ()
            return
        if now_s - service.stats_s < STATS_S or service.handle is None:
            return
        service.stats_s = now_s
        try:
            rows = service.handle.broadcast("stats").results(timeout_s=STATS_DEADLINE_S)
        except Exception as fault:  # an application without `stats` is served all the same
            log.debug("service.no_stats", service=service.name, error=str(fault)[:200])
            service.ongoing = service.queued = service.p95_ms = None
            return
        computing = sum(int(row["ongoing"]) - int(row["queued"]) for row in rows)
        service.ongoing = computing
        service.queued = sum(int(row["queued"]) for row in rows)
        latencies = [float(ms) for row in rows for ms in row["recent_ms"]]
        service.p95_ms = quantile_ms(latencies, QUANTILE)
        service.gates = tuple(sorted({gate for row in rows for gate in row["gates"]}))


def _word(state: Any) -> str:
    """Ray Serve gives states as enumerations in one place and as their texts in another."""
    return str(getattr(state, "value", state))
