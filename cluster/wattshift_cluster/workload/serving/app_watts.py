"""Which deployments of a Serve application ask for watts, and through which hook it is scaled.

The rule: every deployment with GPUs gets the watts; where none has any, the ingress does. What the
user wrote as `power_w` into `ray_actor_options` stays as it is. A deployment without watts is work
that did not ask, and is metered as such. One deployment is the *unit*, whose replicas are counted
and scaled: the first with GPUs, else the ingress. Others with watts keep the replicas that the
application gives them, within what Ray's `power_w` places.

Plain data only: Ray is not imported here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

POWER = "power_w"
GPU = "GPU"
POLICY = "policy"
EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Part:
    """One deployment of an application, as its author wrote it.

    Attributes:
        name: of the deployment.
        options: its `ray_actor_options`.
        bundles: its placement group bundles, if it has any.
        fixed: its author gave it a number of replicas.
        own_policy: its author gave it an autoscaling policy of his own.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    bundles: Sequence[Mapping[str, float]] | None = None
    fixed: bool = False
    own_policy: bool = False

    @property
    def has_gpus(self) -> bool:
        """Whether a replica asks Ray for GPUs."""
        bundled = any(bundle.get(GPU) for bundle in self.bundles or ())
        return bundled or bool(self.options.get("num_gpus"))

    @property
    def power_w(self) -> float | None:
        """Watts that its author asked for, W."""
        watts_w = (self.options.get("resources") or {}).get(POWER)
        return None if watts_w is None else float(watts_w)


@dataclass(frozen=True, slots=True)
class Asks:
    """What a replica with watts asks for where its author does not say.

    Attributes:
        watts_w: W.
        num_cpus, gpus: of Ray.
        labels: that its node must have, or must not ("!value").
        env: environment of its process.
    """

    watts_w: float
    num_cpus: float
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def bearing(parts: Sequence[Part], ingress: str) -> list[str]:
    """Names of the deployments that get watts; the unit comes first."""
    with_gpus = [part.name for part in parts if part.has_gpus]
    unit = with_gpus[0] if with_gpus else ingress
    own = [part.name for part in parts if part.power_w]
    return list(dict.fromkeys([unit, *with_gpus, *own]))


def unit_watts_w(part: Part, asks: Asks) -> float:
    """Watts of one replica of a deployment that gets them, W."""
    return asks.watts_w if part.power_w is None else part.power_w


def laid_in(part: Part, asks: Asks, cpus_given: bool) -> dict[str, Any]:
    """`ray_actor_options` (and bundles) of a deployment that gets watts, as Serve takes them.

    Args:
        part: the deployment.
        asks: what to lay in.
        cpus_given: its author wrote `num_cpus`; Serve fills in 1 where he did not.
    """
    options = dict(part.options)
    watts_w = unit_watts_w(part, asks)
    options["resources"] = {**(options.get("resources") or {}), POWER: watts_w}
    if not cpus_given:
        options["num_cpus"] = asks.num_cpus
    if asks.gpus and not part.has_gpus:
        options["num_gpus"] = asks.gpus
    if asks.labels:
        options["label_selector"] = {**asks.labels, **(options.get("label_selector") or {})}
    laid: dict[str, Any] = {"ray_actor_options": with_env(options, asks.env)}
    if part.bundles:
        # Serve puts the replica itself into the first bundle, which must hold all it asks for.
        first = {POWER: watts_w, **part.bundles[0]}
        laid["placement_group_bundles"] = [first, *map(dict, part.bundles[1:])]
    return laid


def with_env(options: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """`ray_actor_options` with further environment; what its author wrote there goes first."""
    if not env:
        return dict(options)
    runtime = dict(options.get("runtime_env") or {})
    runtime["env_vars"] = {**env, **(runtime.get("env_vars") or {})}
    return {**options, "runtime_env": runtime}


def hook(asked: str, unit: Part, external_in_file: bool) -> tuple[str, str | None]:
    """The scaling hook of an application, and why it is not the one that was asked for."""
    if asked == EXTERNAL:
        return EXTERNAL, None
    if external_in_file:
        return EXTERNAL, "its Serve config says external_scaler_enabled"
    if unit.fixed:
        return EXTERNAL, f"deployment {unit.name} fixes num_replicas"
    if unit.own_policy:
        return EXTERNAL, f"deployment {unit.name} has an autoscaling policy of its own"
    return POLICY, None


KEPT = (
    "target_ongoing_requests",
    "look_back_period_s",
    "metrics_interval_s",
    "aggregation_function",
)
"""What of the user's autoscaling configuration goes on to Serve as it is."""

METRICS_INTERVAL_S = 0.1
LOOK_BACK_S = 1.0
"""A burst is seen within these: Serve's own 10 s and 30 s would answer it after half a minute."""


def autoscaling(
    app: str, user: Mapping[str, Any], least: int, most: int, begin: int, policy: str
) -> dict[str, Any]:
    """An AutoscalingConfig under which our policy decides.

    Serve's delays and factors act after the policy and would hold back a clamp, so they are off
    there, and the user's delays are given to the policy, which applies them to Serve's wish.

    Args:
        app: the application.
        user: the autoscaling values that the author set himself.
        least, most: bounds of the number of replicas.
        begin: replicas to start with.
        policy: where the policy's class is.
    """
    delays = {k: float(user[k]) for k in ("upscale_delay_s", "downscale_delay_s") if k in user}
    least = max(least, int(user.get("min_replicas") or 0))
    return {
        "metrics_interval_s": METRICS_INTERVAL_S,
        "look_back_period_s": LOOK_BACK_S,
        **{key: user[key] for key in KEPT if key in user},
        # Whatever the least is, a cut may take the last replica.
        "min_replicas": 0,
        # More come within two turns of the policy; of a service that comes back after a cut it
        # is not known here how many it may have then.
        "initial_replicas": min(begin, 1),
        "max_replicas": most,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "policy": {
            "policy_function": policy,
            "policy_kwargs": {"app": app, "least": min(least, most), **delays},
        },
    }
