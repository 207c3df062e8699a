"""How long Serve's router waits for a place at replicas that are full.

Between two looks it waits 25 ms, then twice as long each time, up to half a second. In Ray 2.60
that wait goes on growing while places are found: a task of the router works for one request but
gives each place to the request that came first, and where that is another one it waits again
before it gives the next. It comes to that when replicas have refused requests, which queue up in
front again. Then each of the two tasks that there are per replica gives out two places a second,
to replicas that stand idle, until clients give up. Sixty requests a second, at one replica that
takes 8 at once for 0.1 s each, became four, and half of all waited for more than 10 s: measured
with Ray's own router on a clock of its own, and seen on a busy machine. With a short longest wait
none did. That costs some 40 short questions a second to each replica, while requests wait.

The longest wait is a documented field of a deployment's `request_router_config`; an author whose
requests take many seconds may well choose a longer one.
"""

from typing import Any

from wattshift_cluster.workload.cluster.ray_link import internal

WAIT_MAX_S = 0.05


def options(deployment: Any) -> dict[str, Any]:
    """Options for a deployment; none where its author chose a router's settings himself."""
    config = internal("ray.serve.config").RequestRouterConfig
    named = deployment._deployment_config.user_configured_option_names
    if "request_router_config" in named or "max_backoff_s" not in config.model_fields:
        return {}
    return {"request_router_config": config(max_backoff_s=WAIT_MAX_S)}
