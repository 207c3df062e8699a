"""The Ray task that builds a service, from the bridge's side: begin, see how it ended, cancel."""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.fault_words import told
from wattshift_cluster.workload.serving.app_watts import Asks
from wattshift_cluster.workload.serving.building import build
from wattshift_cluster.workload.serving.service import Service
from wattshift_cluster.workload.specs import ServiceSpec

BUILD_S = 120.0
"""An import of a large framework takes tens of seconds on a busy machine."""


def request(app: str, spec: ServiceSpec, replicas: int, gate_dir: str | None) -> dict[str, Any]:
    """What `building.build` is asked."""
    gate = {"WATTSHIFT_GATE_DIR": gate_dir} if gate_dir else {}
    asks = Asks(
        watts_w=spec.watts_per_replica_w,
        num_cpus=spec.num_cpus,
        gpus=spec.gpus,
        labels=spec.labels,
        env={**gate, **spec.env},
    )
    return {
        "app": app,
        "route": spec.route,
        "import_path": spec.import_path,
        "args": dict(spec.args),
        "serve_app": None if spec.serve_app is None else dict(spec.serve_app),
        "asks": asdict(asks),
        "scaling": spec.scaling,
        "least": spec.min_replicas,
        "most": spec.max_replicas,
        "begin": replicas,
    }


def begin(app: str, spec: ServiceSpec, replicas: int, gate_dir: str | None) -> Any:
    """Start the task on this node, if it has room, and return its reference at once."""
    ray = internal("ray")
    place = internal("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    runtime = dict((spec.serve_app or {}).get("runtime_env") or {})
    if spec.env:
        runtime["env_vars"] = {**spec.env, **(runtime.get("env_vars") or {})}
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_retries": 0,
        "name": f"build:{app}",
        "scheduling_strategy": place,
    }
    if runtime:
        options["runtime_env"] = runtime
    task = ray.remote(max_calls=1)(build)  # a process of its own: changed code is read anew
    return task.options(**options).remote(request(app, spec, replicas, gate_dir))


def ended(service: Service, now_s: float) -> dict[str, Any] | None:
    """What the build came to; None while it goes on. An answer with `error` is a failure."""
    ray = internal("ray")
    ready, _ = ray.wait([service.build], timeout=0)
    if ready:
        try:
            found: dict[str, Any] = ray.get(ready[0], timeout=1.0)
        except Exception as fault:  # the process died, or its environment could not be made
            return {"error": f"the application could not be built: {told(fault)}"}
        return found
    within_s = max(BUILD_S, service.spec.healthy_within_s)
    if now_s - service.build_began_s > within_s:
        cancel(service)
        return {"error": f"the application was not built within {within_s:g} s"}
    return None


def cancel(service: Service) -> None:
    """End a build that is under way."""
    if service.build is not None:
        with suppress(Exception):  # it has ended, or Ray has; either way there is no build any more
            internal("ray").cancel(service.build, force=True)
        service.build = None
