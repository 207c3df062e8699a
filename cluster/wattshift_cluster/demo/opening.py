"""From a started site to a steady one: what the demo waits for before anything is judged."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.demo import recorder
from wattshift_cluster.demo.pace import least_rate_per_s
from wattshift_cluster.demo.stage import Stage
from wattshift_cluster.errors import TryLater

READY_DEADLINE_S = 150.0
SETTLE_DEADLINE_S = 75.0
LOOK_S = 0.5
CALM_MS = 250.0
"""Latency below which a starting service counts as warm."""

LOOKED_AT = 20
"""Requests that must have been so quick, the last ones."""

PATIENCE_S = 12.0
"""A queue that has not gone by then will not go: the crowd asks less often."""

SLOWER = 0.75


async def ready(client: ControllerClient) -> str:
    """Wait for every device to obey and for the service to answer; return the service's URL.

    Raises:
        TryLater: they did not in time.
    """

    async def serving() -> str | None:
        jobs = (await asyncio.to_thread(client.get, "/v1/jobs"))["jobs"]
        devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
        services = [job for job in jobs if job["kind"] == "service"]
        late = [str(one["id"]) for one in devices if one["state"] != "confirmed"]
        if not devices or late:
            return f"devices that do not obey yet: {', '.join(late) or 'all'}"
        if not services or not all(job["running"] for job in services):
            return "the inference service does not run yet"
        return None

    await until(serving, READY_DEADLINE_S)
    jobs = (await asyncio.to_thread(client.get, "/v1/jobs"))["jobs"]
    service = next(job for job in jobs if job["kind"] == "service")
    return str(service["url"])


async def settled(stage: Stage, client: ControllerClient, job: str) -> Stage:
    """Wait until rigs drew up, the batch runs and inference is warm.

    Where requests queue although all else is ready, other work holds this machine: the crowd is
    slowed, down to the least that can be judged.

    Returns:
        The stage with the rate that is kept.

    Raises:
        TryLater: it did not settle; says what was missing.
    """
    play = stage.scenario
    least = min(1.0, least_rate_per_s(play) / play.rate_per_s)
    factor, slower_at_s = 1.0, time.monotonic() + PATIENCE_S

    async def steady() -> str | None:
        nonlocal factor, slower_at_s
        missing = await _not_drawn(client) or await _not_begun(client, job)
        queue = _not_warm(stage)
        if missing is None and queue and factor > least and time.monotonic() > slower_at_s:
            factor = max(least, SLOWER * factor)
            slower_at_s = time.monotonic() + PATIENCE_S
            speed_load(stage, factor)
        return missing or queue

    await until(steady, SETTLE_DEADLINE_S)
    return replace(stage, calm_factor=factor)


def speed_load(stage: Stage, factor: float) -> None:
    """Have the crowd ask `factor` times as often as it was started to."""
    stage.load_control_file.write_text(json.dumps({"factor": factor}))


async def _not_drawn(client: ControllerClient) -> str | None:
    devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
    low = [
        str(one["id"])
        for one in devices
        if one["kind"] == "asic"
        and (one["watts_w"] is None or one["watts_w"] < 0.85 * one["leased_w"])
    ]
    return f"rigs that have not drawn up yet: {', '.join(low)}" if low else None


async def _not_begun(client: ControllerClient, job: str) -> str | None:
    progress = (await asyncio.to_thread(client.get, f"/v1/jobs/{job}"))["progress"]
    return None if progress and progress["done"] else "the batch job has no item done yet"


def _not_warm(stage: Stage) -> str | None:
    last = recorder.requests(stage.requests_file)[-LOOKED_AT:]
    if len(last) < LOOKED_AT:
        return f"{len(last)} of {LOOKED_AT} requests answered"
    failed = sum(not one.ok for one in last)
    slowest_ms = max(one.latency_ms for one in last)
    if failed or slowest_ms >= CALM_MS:
        return (
            f"of the last {LOOKED_AT} requests {failed} failed and the slowest took "
            f"{slowest_ms:,.0f} ms (a calm machine: below {CALM_MS:g} ms)"
        )
    return None


async def until(missing: Callable[[], Awaitable[str | None]], deadline_s: float) -> None:
    """Wait until nothing is missing. Raises TryLater with what still was at the deadline."""
    ends_s = time.monotonic() + deadline_s
    while (what := await missing()) is not None:
        if time.monotonic() > ends_s:
            raise TryLater(f"not ready after {deadline_s:g} s: {what}; see demo-report/logs")
        await asyncio.sleep(LOOK_S)
