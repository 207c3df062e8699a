"""Building one Serve application, in a Ray task of its own.

The application's code is imported in that task and nowhere else: it cannot hold up the bridge, an
import that fails or a process that dies is an answer like any other, and code that was changed is
read anew. Accepted are a bound application, a builder (a function of its arguments), and one
application of a Serve config file, whose overrides of deployments are laid over the code's options
in Serve's own order before the watts are laid in.

What comes back is the application in the form that the Serve controller takes, twice: as it runs,
and *held*, with no replica of the unit and no policy. The bridge deploys one or the other.

Internals of Ray Serve 2.60: `build_app`, and what its client makes of it in `deploy_applications`;
`serve.run_many` consists of these two.
"""

import importlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from wattshift_cluster.workload import fault_words
from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.serving import app_watts, routing
from wattshift_cluster.workload.serving.app_watts import Asks, Part
from wattshift_cluster.workload.serving.stats_desk import METHOD

POLICY_CLASS = "wattshift_cluster.workload.serving.scaling_policy:Clamped"
SERVES_CPUS = 1
"""Ray CPUs that Serve fills in where an author names none; taken for his not naming any."""

DRAIN_LOOK_S = 0.2
HEALTH_PERIOD_S = 2.0
"""Serve looks every 2 s whether a replica that shall go has drained, and every 10 s whether one has
died; watts wait for both. Used where the author set nothing himself."""

QUIET = {"enable_access_log": False}
QUICK = {
    "graceful_shutdown_wait_loop_s": DRAIN_LOOK_S,
    "health_check_period_s": HEALTH_PERIOD_S,
}


class NotAnApplication(ValueError):
    """The import path leads to something that Serve cannot deploy."""


def build(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build an application; runs as a Ray task.

    Args:
        request: `app`, `route`, `import_path`, `args`, `serve_app` (or None), `asks` (of Asks),
            `scaling`, `least`, `most`, `begin`.

    Returns:
        `{"error": text}`, or `{"unit", "unit_w", "watts": {deployment: W}, "hook", "note",
        "tells", "ingress", "route", "took_s", "run": deployments, "held": deployments}`.
    """
    began_s = time.monotonic()
    try:
        done = _build(request)
    except (Exception, SystemExit) as fault:  # whatever a stranger's module does at its import
        return {"error": _told(fault, request)}
    return {**done, "took_s": time.monotonic() - began_s}


def _told(fault: BaseException, request: Mapping[str, Any]) -> str:
    path = request["import_path"] or (request["serve_app"] or {}).get("import_path")
    words = fault_words.told(fault).removeprefix(f"{__name__}.{NotAnApplication.__name__}: ")
    return f"{path}: {words}"


def _build(request: Mapping[str, Any]) -> dict[str, Any]:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve._private.build_app import build_app
    from ray.serve.schema import ServeApplicationSchema

    schema, path, arguments = None, request["import_path"], dict(request["args"])
    if request["serve_app"] is not None:
        schema = ServeApplicationSchema.model_validate(request["serve_app"])
        path, arguments = schema.import_path, {**schema.args, **arguments}
    application = call_user_app_builder_with_args_if_necessary(imported(path), arguments)
    built = build_app(application, name=request["app"], route_prefix=_route(request, schema))
    built.validate_single_fastapi_ingress()
    deployments = [_overridden(one, schema) for one in built.deployments]
    deployments, plan = _laid(deployments, built.ingress_deployment_name, request, schema)
    held = [_scaled_to(one, 0) if one.name == plan["unit"] else one for one in deployments]
    ingress, route, version = built.ingress_deployment_name, built.route_prefix, uuid.uuid4().hex
    return {
        **plan,
        "ingress": ingress,
        "route": route,
        "run": _taken(deployments, ingress, route, version),
        "held": _taken(held, ingress, route, version),
    }


def _taken(
    deployments: Sequence[Any], ingress: str, route: str | None, version: str
) -> list[bytes]:
    """Deployments as the Serve controller takes them; one version, so that none starts anew."""
    from ray.serve._private.deploy_utils import get_deploy_args

    arguments = internal("ray.serve.generated.serve_pb2").DeploymentArgs
    # Ray 2.56 has no such word yet.
    multiplexes = getattr(internal("ray.serve._private.utils"), "_callable_uses_multiplexing", None)
    taken = []
    for one in deployments:
        quiet = one if one.logging_config else one.options(logging_config=QUIET)
        more = {"uses_multiplexing": multiplexes(one.func_or_class)} if multiplexes else {}
        row = get_deploy_args(
            one.name,
            ingress=one.name == ingress,
            replica_config=quiet._replica_config,
            deployment_config=quiet._deployment_config,
            version=version,
            route_prefix=route if one.name == ingress else None,
            **more,
        )
        told = arguments(
            deployment_name=row["deployment_name"],
            deployment_config=row["deployment_config_proto_bytes"],
            replica_config=row["replica_config_proto_bytes"],
            deployer_job_id=row["deployer_job_id"],
            ingress=row["ingress"],
            **more,
        )
        if row["route_prefix"]:
            told.route_prefix = row["route_prefix"]
        taken.append(told.SerializeToString())
    return taken


def imported(path: str) -> Any:
    """The object at "package.module:name" (or with a dot, as Serve allows).

    Raises:
        NotAnApplication: it is not there, with the module and the name that are missing.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as fault:
        raise NotAnApplication(
            f"no module named {fault.name or module!r} on the node; install it there or give its"
            " folder as env PYTHONPATH"
        ) from fault
    if not hasattr(found, name):
        raise NotAnApplication(f"module {module!r} has no {name!r}")
    return getattr(found, name)


def _route(request: Mapping[str, Any], schema: Any) -> str:
    if schema is not None and "route_prefix" in schema.model_fields_set and schema.route_prefix:
        return str(schema.route_prefix)
    return str(request["route"])


def _overridden(deployment: Any, schema: Any) -> Any:
    """A deployment with what the config file says of it."""
    if schema is None:
        return deployment
    from ray.serve._private.utils import override_runtime_envs_except_env_vars as merged

    options: dict[str, Any] = {}
    for one in schema.deployments:
        if one.name == deployment.name:
            options = one.model_dump(exclude_unset=True, exclude={"name"})
    actor = dict(options.pop("ray_actor_options", None) or deployment.ray_actor_options or {})
    runtime = merged(schema.runtime_env, actor.get("runtime_env") or {})
    if runtime:
        actor["runtime_env"] = runtime
    return deployment.options(ray_actor_options=actor, **options)


def _laid(
    deployments: list[Any], ingress: str, request: Mapping[str, Any], schema: Any
) -> tuple[list[Any], dict[str, Any]]:
    """The deployments with watts and scaling laid in, and what was decided."""
    asks = Asks(**request["asks"])
    parts = {one.name: _part(one) for one in deployments}
    if schema is not None:
        unknown = {one.name for one in schema.deployments} - set(parts)
        if unknown:
            raise NotAnApplication(f"no deployments named {', '.join(sorted(unknown))}")
    watts = app_watts.bearing(list(parts.values()), ingress)
    unit = parts[watts[0]]
    external = bool(schema is not None and schema.external_scaler_enabled)
    hook, note = app_watts.hook(request["scaling"], unit, external)
    if hook == app_watts.POLICY and not _takes_policy_objects():
        hook, note = app_watts.EXTERNAL, "this Ray Serve takes no policy object with arguments"
    laid, tells = [], False
    for one in deployments:
        options = dict(one.ray_actor_options or {})
        if one.name not in watts:
            options = app_watts.with_env(options, asks.env)
            laid.append(one.options(ray_actor_options=options, **routing.options(one)))
            continue
        cpus_given = options.get("num_cpus") not in (None, SERVES_CPUS)
        asking = app_watts.laid_in(parts[one.name], asks, cpus_given)
        with_watts = one.options(**asking, **_quick(one), **routing.options(one))
        if one.name == unit.name:
            tells = hasattr(one.func_or_class, METHOD)
            with_watts = _scaled(with_watts, hook, request)
        laid.append(with_watts)
    return laid, {
        "unit": unit.name,
        "unit_w": app_watts.unit_watts_w(unit, asks),
        "watts": {name: app_watts.unit_watts_w(parts[name], asks) for name in watts},
        "hook": hook,
        "note": note,
        "tells": tells,
    }


def _takes_policy_objects() -> bool:
    return "policy_kwargs" in internal("ray.serve.config").AutoscalingPolicy.model_fields


def _part(deployment: Any) -> Part:
    config = deployment._deployment_config
    scaling = config.autoscaling_config
    own_policy = scaling is not None and not scaling.policy.is_default_policy_function()
    named = config.user_configured_option_names
    return Part(
        name=deployment.name,
        options=dict(deployment.ray_actor_options or {}),
        bundles=deployment._replica_config.placement_group_bundles,
        fixed="num_replicas" in named and scaling is None,
        own_policy=own_policy,
    )


def _quick(deployment: Any) -> dict[str, Any]:
    named = deployment._deployment_config.user_configured_option_names
    return {key: value for key, value in QUICK.items() if key not in named}


def _scaled(deployment: Any, hook: str, request: Mapping[str, Any]) -> Any:
    if hook == app_watts.EXTERNAL:
        return _scaled_to(deployment, request["begin"])
    scaling = deployment._deployment_config.autoscaling_config
    user = {}
    if scaling is not None:
        user = scaling.model_dump(include=set(scaling.model_fields_set))
    config = app_watts.autoscaling(
        request["app"], user, request["least"], request["most"], request["begin"], POLICY_CLASS
    )
    return deployment.options(autoscaling_config=config)


def _scaled_to(deployment: Any, replicas: int) -> Any:
    """A deployment for the external scaler."""
    plain = deployment.options(autoscaling_config=None)
    # The options refuse 0 replicas; Serve itself does not.
    plain._deployment_config.num_replicas = replicas
    return plain
