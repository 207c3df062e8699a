"""What `ray-admission` has an unharmed site do: start jobs, and preempt some."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

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


def _said(values_s: Sequence[float]) -> str:
    return f"median {statistics.median(values_s):.2f} s of {[round(v, 2) for v in values_s]}"
