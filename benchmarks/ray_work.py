"""What `ray-admission` runs on Ray: items that wait, and a service that waits. None computes.

Two cores must hold three raylets, a controller, a bridge and all of this. What is measured is who
gets to run, and when; the work itself only has to last.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

ITEM_S = 0.01
REQUEST_S = 0.4
PER_REPLICA = 8
"""Requests that one replica takes at once; more wait in Serve's queue. Twenty a second at most: so
few that a replica's places run out, and not the processor time of Serve's proxy (some 15 ms each).
"""


def wait(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Ten milliseconds an item; its number comes back."""
    answers = []
    for item in items:
        time.sleep(ITEM_S)
        answers.append({"number": item["number"]})
    return answers


class Waiter:
    """A replica: a request takes 0.4 s of nobody's time."""

    async def __call__(self, request: Any) -> str:
        """Answer one HTTP request."""
        await asyncio.sleep(REQUEST_S)
        return "done"


def app(args: Mapping[str, Any]) -> Any:
    """The bound application, from the arguments of the service."""
    from ray import serve

    options: dict[str, Any] = {"num_cpus": float(args.get("num_cpus", 0.1))}
    if "power_w" in args:
        options["resources"] = {"power_w": float(args["power_w"])}
    return serve.deployment(
        name="Waiter", max_ongoing_requests=PER_REPLICA, ray_actor_options=options
    )(Waiter).bind()
