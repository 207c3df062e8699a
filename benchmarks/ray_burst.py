"""A burst on a service of one replica, while ASICs hold the watts for a second one.

How much one replica carries on this machine, through Serve's proxy and beside all else that runs
here, is measured first: with a service that may have no second one, and askers that ask again when
they have their answer. The burst is so many times that (`BURST_SHARE`): more than one replica
carries and less than two, so that its requests wait for the second one and for nothing else. A load
that the machine itself cannot carry would only measure how patient the client is.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ray_jobs import FINAL, JOB_S, serves, service, until_state
from benchmarks.ray_site import Running, say, until
from benchmarks.ray_work import PER_REPLICA

from wattshift_cluster.inference.arrivals import steady
from wattshift_cluster.inference.asking import PlainAsk
from wattshift_cluster.inference.httplink import HttpLink
from wattshift_cluster.inference.load_report import OBJECTIVE_SHARE, Tally, quantile
from wattshift_cluster.inference.open_loop import Limits, OpenLoop

CALM_SHARE, BURST_SHARE = 0.1, 1.3
"""Of what one replica carries."""

CALM_S, BURST_S = 4.0, 12.0
ASKERS = 2 * PER_REPLICA
"""Enough that no place of the replica is ever empty for want of a request."""

GAUGE_WARM_S, GAUGE_S = 1.0, 4.0
PATIENCE_S = 30.0
"""A request with no answer by then has failed; Serve itself would keep it for a minute."""

IN_FLIGHT_MAX = 1000
SCALED_S = 30.0


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst.

    Attributes:
        carried_per_s: what one replica answered of as much as it could get, requests per second.
        asked_s, running_s: from the first request of the burst until Serve was asked for a second
            replica, and until that ran.
        requests: all that were due, before the burst and in it.
        failed_by: how many failed, by status or error word.
        examples: one in full of each.
        p95_ms, max_ms: latencies of those that were answered, from when they were due.
    """

    carried_per_s: float
    asked_s: float
    running_s: float
    requests: int
    failed_by: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    p95_ms: float | None = None
    max_ms: float | None = None

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return {
            "burst_decision_s": round(self.asked_s, 3),
            "burst_to_capacity_s": round(self.running_s, 3),
            "burst_replica_carries_per_s": round(self.carried_per_s, 1),
            "burst_load_per_s": round(BURST_SHARE * self.carried_per_s, 1),
            "burst_requests": self.requests,
            "burst_failed": sum(self.failed_by.values()),
            "burst_failed_by": self.failed_by,
            "burst_failed_examples": self.examples,
            "burst_p95_ms": None if self.p95_ms is None else round(self.p95_ms, 1),
            "burst_max_ms": None if self.max_ms is None else round(self.max_ms, 1),
        }


async def burst(one: Running) -> Burst:
    """Load on one replica grows thirteenfold; what came of it."""
    carried_per_s = await _carried_per_s(one)
    job, url = await _serving(one, "bursty", 2)
    crowd = _Crowd(url)
    await crowd.send(CALM_SHARE * carried_per_s, CALM_S)
    began_s = time.monotonic()
    loading = asyncio.create_task(crowd.send(BURST_SHARE * carried_per_s, BURST_S))
    try:
        asked_s = await until(
            lambda: _asked(one, job, 2), SCALED_S, "no second replica is asked for"
        )
        await until(lambda: serves(one, job, 2), SCALED_S, "no second replica runs")
        running_s = time.monotonic() - began_s
    finally:
        await loading
        await crowd.close()
        say(f"burst: {crowd.tally.due} requests, failed: {dict(crowd.tally.failed_by)}")
    await _ended(one, job)
    tally, good_ms = crowd.tally, sorted(crowd.tally.good_ms())
    found = Burst(
        carried_per_s, asked_s, running_s, tally.due, dict(tally.failed_by), tally.examples,
        quantile(good_ms, OBJECTIVE_SHARE), good_ms[-1] if good_ms else None,
    )  # fmt: skip
    say(f"burst: {found}")
    return found


async def _carried_per_s(one: Running) -> float:
    """What one replica answers a second while requests always wait for it."""
    job, url = await _serving(one, "gauge", 1)
    link = HttpLink(url, method="GET", headers=())
    began_s = time.monotonic()
    from_s, until_s = began_s + GAUGE_WARM_S, began_s + GAUGE_WARM_S + GAUGE_S
    answered = 0

    async def ask_on() -> None:
        nonlocal answered
        while time.monotonic() < until_s:
            await link.ask()
            answered += from_s <= time.monotonic() < until_s

    async with asyncio.timeout(GAUGE_WARM_S + GAUGE_S + PATIENCE_S), asyncio.TaskGroup() as asking:
        for _ in range(ASKERS):
            asking.create_task(ask_on())
    await link.close()
    await _ended(one, job)
    say(f"one replica carries {answered / GAUGE_S:.1f} requests a second")
    return max(answered, 1) / GAUGE_S


async def _serving(one: Running, name: str, most: int) -> tuple[str, str]:
    """Id and URL of a new service, once its first replica runs."""
    job = str((await one.post("/v1/jobs", service(name, most)))["id"])
    await until(lambda: serves(one, job, 1), JOB_S, f"the service {name} does not run")
    return job, str((await one.job(job))["url"])


async def _ended(one: Running, job: str) -> None:
    await one.post(f"/v1/jobs/{job}:cancel")
    await until_state(one, job, FINAL)


async def _asked(one: Running, job: str, replicas: int) -> bool:
    """Whether the bridge has asked Serve for so many replicas."""
    rows = (await one.report()).get("services", ())
    mine: dict[str, Any] = next((row for row in rows if row["name"] == job), {})
    there = int(mine.get("running") or 0) + int(mine.get("starting") or 0)
    return max(int(mine.get("target") or 0), there) >= replicas


class _Crowd:
    """Sends requests at an even pace whatever the server does."""

    def __init__(self, url: str) -> None:
        self.tally = Tally()
        self._link = HttpLink(url, method="GET", headers=())
        self._ask = PlainAsk(self._link, [b""], seed=0)

    async def send(self, rate_per_s: float, seconds: float) -> None:
        """Send for so long, and wait for the last answers."""
        limits = Limits(seconds, IN_FLIGHT_MAX, PATIENCE_S)
        await OpenLoop(steady(rate_per_s), self._ask, self.tally.note, limits).run(asyncio.Event())

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()
