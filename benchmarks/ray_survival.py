"""A site lives through kills: batch and a service run, the cap is cut and lifted, processes die."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
from benchmarks import ray_kills
from benchmarks.ray_jobs import FINAL, JOB_S, UNIT_W, Work, serves, service, until_state
from benchmarks.ray_site import NotInTime, Running, cap_for_w, say, until
from benchmarks.ray_watch import Watch

from wattshift_cluster.demo import recorder
from wattshift_cluster.errors import WattshiftError

CUT_S, OPEN_S = 14.0, 6.0
KILL_GAP_S = (3.0, 5.0)
THERE_S = 10.0
"""A process that is to be killed may be on its way back from the kill before."""

LEFT_W = 2.5 * UNIT_W
ITEMS_A_JOB = 1200
LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Survived:
    """What a row of kills left: by kind, and of all items that jobs were given."""

    kills: list[str]
    missed: list[str]
    jobs: int
    items: int
    lost: int
    duplicated: int
    failed_jobs: int


async def kills(one: Running, work: Work, watch: Watch, count: int, seed: int) -> Survived:
    """Kill processes while batch and a service run and the cap is cut and lifted."""
    dice = random.Random(seed)
    kept = (await one.post("/v1/jobs", service("kept", 2)))["id"]
    begun = len(work.outputs)
    stop = asyncio.Event()
    feeding = asyncio.create_task(_feed(one, work, stop))
    cutting = asyncio.create_task(_cut(one, watch, stop))
    done: list[str] = []
    missed: list[str] = []
    try:
        await until(lambda: serves(one, kept, 1), JOB_S, "the service does not run")
        for kind in ray_kills.order(count, seed):
            await asyncio.sleep(dice.uniform(*KILL_GAP_S))
            try:
                await until(partial(ray_kills.kill, one, kind, dice), THERE_S, f"no {kind}")
                done.append(kind)
            except NotInTime:
                missed.append(kind)
            say(f"kill {len(done)}: {kind}{' (none there)' if kind in missed else ''}")
    finally:
        stop.set()
        jobs = await feeding
        await cutting
    states = [await _ended(one, job) for job in jobs]
    served = await _serving_again(one, kept)
    say(f"jobs ended: {states}; the service serves again: {served}")
    lost = duplicated = 0
    for output, items in work.outputs[begun:]:
        found = _outputs(output)
        lost += items - len(found)
        duplicated += sum(count > 1 for count in found.values())
    failed = sum(state != "completed" for state in states) + (not served)
    total = sum(items for _, items in work.outputs[begun:])
    return Survived(done, missed, len(jobs), total, lost, duplicated, failed)


def _outputs(folder: Path) -> Counter[int]:
    """How often each item's right answer stands in the committed chunks of a job's output."""
    return Counter(
        int(row["index"])
        for file in sorted((folder / "chunks").glob("*.jsonl"))
        for row in recorder.json_lines(file)
        if row.get("output") == {"number": row["index"]}
    )


async def _feed(one: Running, work: Work, stop: asyncio.Event) -> list[str]:
    """Keep one batch job running: the next one is submitted when the last is done."""
    jobs: list[str] = []
    while not stop.is_set():
        body = work.batch(ITEMS_A_JOB, 3)
        while True:
            with suppress(WattshiftError):
                jobs.append((await one.post("/v1/jobs", body))["id"])
                break
            await asyncio.sleep(LOOK_S)  # the controller has just been killed
        while (await one.job(jobs[-1])).get("state") not in FINAL:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
                    return jobs
    return jobs


async def _cut(one: Running, watch: Watch, stop: asyncio.Event) -> None:
    """Cut the cap to less than what runs, lift it, and again."""
    while not stop.is_set():
        await asyncio.sleep(OPEN_S)
        if stop.is_set():
            return
        with suppress(WattshiftError):
            await watch.cap(one, cap_for_w(LEFT_W), CUT_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(CUT_S):
                await stop.wait()


async def _ended(one: Running, job: str) -> str:
    try:
        await until_state(one, job, FINAL)
    except NotInTime:
        return f"still {(await one.job(job)).get('state')}"
    return str((await one.job(job))["state"])


async def _serving_again(one: Running, job: str) -> bool:
    """Whether the service runs and answers after all that."""
    with suppress(NotInTime):
        await until(lambda: serves(one, job, 1), JOB_S, "the service does not come back")
        url = str((await one.job(job))["url"])
        async with httpx2.AsyncClient(timeout=5.0) as http:
            with suppress(httpx2.HTTPError):
                return bool((await http.get(url)).status_code == 200)
    return False
