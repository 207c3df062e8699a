"""What `ray-admission` has an unharmed site do: start jobs, preempt, take a burst."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from benchmarks.ray_jobs import (
    FINAL,
    JOB_S,
    UNIT_W,
    Work,
    holds,
    holds_less,
    serves,
    service,
    until_state,
)
from benchmarks.ray_site import Running, cap_for_w, say, until
from benchmarks.ray_watch import Watch

CALM_PER_S, BURST_PER_S, BURST_S = 4.0, 60.0, 12.0


async def submit_to_running_s(one: Running, work: Work, times: int) -> list[float]:
    """From POST to a batch job's running, on an idle cluster, s. A first job warms it up."""
    took_s = []
    for number in range(times + 1):
        began_s = time.monotonic()
        job = (await one.post("/v1/jobs", work.batch(64, 1)))["id"]
        await until_state(one, job, ("running", "completed"))
        if number:
            took_s.append(time.monotonic() - began_s)
        await until_state(one, job, FINAL)
    say(f"submit to running: {_said(took_s)}")
    return took_s


@dataclass(frozen=True, slots=True)
class Preempted:
    """One preemption, s from the service's POST: a batch worker gone, and the replica running."""

    left_s: float
    placed_s: float


async def preemptions(one: Running, work: Work, watch: Watch, times: int) -> list[Preempted]:
    """A service comes while batch holds all watts there are."""
    await watch.cap(one, cap_for_w(3.2 * UNIT_W), 300.0)
    batch = (await one.post("/v1/jobs", work.batch(100_000, 3)))["id"]
    seen = []
    for number in range(times):
        await until(lambda: holds(one, batch, 3), JOB_S, "three workers do not run")
        began_s = time.monotonic()
        job = (await one.post("/v1/jobs", service(f"late-{number}", 1)))["id"]
        await until(lambda: holds_less(one, batch, 3), JOB_S, "no worker gave way")
        left_s = time.monotonic() - began_s
        await until(lambda job=job: serves(one, job, 1), JOB_S, "the service does not run")  # type: ignore[misc]
        seen.append(Preempted(left_s, time.monotonic() - began_s))
        say(f"preempted: {seen[-1]}")
        await one.post(f"/v1/jobs/{job}:cancel")
        await until_state(one, job, FINAL)
    await one.post(f"/v1/jobs/{batch}:cancel")
    await until_state(one, batch, FINAL)
    work.outputs.pop()
    await watch.lift(one)
    return seen


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst, s from its first request: the replica asked for, and running; requests, failed."""

    asked_s: float
    running_s: float
    requests: int
    failed: int


async def burst(one: Running) -> Burst:
    """Load on one replica grows fifteenfold while ASICs hold the watts for a second one."""
    job = (await one.post("/v1/jobs", service("bursty", 2)))["id"]
    await until(lambda: serves(one, job, 1), JOB_S, "the service does not run")
    url = str((await one.job(job))["url"])
    crowd = Crowd(url)
    await crowd.send(CALM_PER_S, 4.0)
    began_s = time.monotonic()
    loading = asyncio.create_task(crowd.send(BURST_PER_S, BURST_S))
    try:
        asked_s = await until(lambda: _asked(one, job, 2), 30.0, "no second replica asked for")
        await until(lambda: serves(one, job, 2), 30.0, "no second replica runs")
        running_s = time.monotonic() - began_s
    finally:
        await loading
    await crowd.close()
    await one.post(f"/v1/jobs/{job}:cancel")
    await until_state(one, job, FINAL)
    found = Burst(asked_s, running_s, crowd.sent, crowd.failed)
    say(f"burst: {found}")
    return found


class Crowd:
    """Sends requests at an even pace whatever the server does."""

    def __init__(self, url: str) -> None:
        self.sent = self.failed = 0
        self._url = url
        self._http = httpx2.AsyncClient(timeout=10.0)
        self._open: set[asyncio.Task[None]] = set()

    async def send(self, rate_per_s: float, seconds: float) -> None:
        """Send for so long; the answers are awaited by `close`."""
        began_s = time.monotonic()
        for number in range(round(rate_per_s * seconds)):
            await asyncio.sleep(max(began_s + number / rate_per_s - time.monotonic(), 0.0))
            task = asyncio.create_task(self._one())
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self) -> None:
        self.sent += 1
        try:
            answer = await self._http.get(self._url)
            self.failed += answer.status_code != 200
        except httpx2.HTTPError:
            self.failed += 1

    async def close(self) -> None:
        """Wait for the last answers."""
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._http.aclose()


async def _asked(one: Running, job: str, replicas: int) -> bool:
    """Whether the bridge has asked Serve for so many replicas."""
    rows = (await one.report()).get("services", ())
    mine: dict[str, Any] = next((row for row in rows if row["name"] == job), {})
    there = int(mine.get("running") or 0) + int(mine.get("starting") or 0)
    return max(int(mine.get("target") or 0), there) >= replicas


def _said(values_s: Sequence[float]) -> str:
    return f"median {statistics.median(values_s):.2f} s of {[round(v, 2) for v in values_s]}"
