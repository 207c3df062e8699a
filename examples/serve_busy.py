"""A Ray Serve application whose replicas make mining yield: one line above the class.

The gates' directory is given to the replicas by their environment. A service that wattshift starts
has it already; one of your own says so, as below, or inherits it:

    serve run examples.serve_busy:app gate_dir=/dev/shm/wattshift
"""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.gate.hooks.serve import busy_replica


@busy_replica
class Model:
    """Stands for a model: busy while it is constructed and while it answers."""

    def __init__(self) -> None:
        self.suffix = ", answered"

    async def __call__(self, request: Any) -> str:
        """Answer an HTTP request; the gate counts it until the answer is complete."""
        return (await request.body()).decode() + self.suffix


def build(args: Mapping[str, str]) -> Any:
    """The application, bound. Ray is imported here, so that the class can be tried without it.

    Args:
        args: `gate_dir`, where the host's agent keeps its gates.
    """
    from ray import serve

    environment = {"WATTSHIFT_GATE_DIR": args.get("gate_dir", "/dev/shm/wattshift")}
    options = {"runtime_env": {"env_vars": environment}}
    return serve.deployment(ray_actor_options=options)(Model).bind()


app = build
