"""Jobs on a real Ray cluster of three nodes: how soon they run, and what a cut and a kill cost.

    submit_to_running_s_p50   POST of a batch job until it runs; idle cluster, Ray's workers warm
    pass_ms_1000_jobs         one decision of the core with a thousand queued jobs (no Ray)
    preempt_to_placed_s_p50   a batch worker gone until the service's replica runs on its watts;
                              `submit_to_placed_s_p50` counts from the service's POST
    burst_decision_s          a burst's first request until Serve is asked for a second replica,
                              while ASICs mine with its watts; `burst_to_capacity_s` until it runs;
                              `burst_failed_by` says which requests of it failed, and how
    overcommit_w_max          watts promised above a cap once its transitions are over, while batch
                              and a service run, the cap is cut, and processes are killed
    ray_excess_w_max          what Ray still held above what its nodes were asked to hold
    items_lost, …_duplicated  of all items of all batch jobs through those kills

Nodes are raylets on one host; their watts are the jobs' own words. ASICs are emulated and obey over
their own protocol. WATTSHIFT_BENCH_LONG=1 makes it twenty kills, and more of all the rest.
"""

import asyncio
import os
import statistics
from typing import Any

from benchmarks import placement_pass, ray_burst, ray_jobs, ray_scenes, ray_survival
from benchmarks.ray_site import running
from benchmarks.ray_watch import watching

LONG_VARIABLE = "WATTSHIFT_BENCH_LONG"
SEED = 23


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    long = os.environ.get(LONG_VARIABLE) == "1"
    passes = {name: round(ms, 2) for name, ms in placement_pass.pass_ms().items()}
    live = asyncio.run(_live(long=long))
    return {"pass_ms_1000_jobs": passes["pass_ms"], **live, "pass": passes}


async def _live(*, long: bool) -> dict[str, Any]:
    async with running() as one, watching(one) as watch:
        work = ray_jobs.Work(one.folder)
        submitted_s = await ray_scenes.submit_to_running_s(one, work, 9 if long else 3)
        preempted = await ray_scenes.preemptions(one, work, watch, 6 if long else 2)
        burst = await ray_burst.burst(one)
        survived = await ray_survival.kills(one, work, watch, 20 if long else 6, SEED)
        return {
            "quality": "measured; watts of Ray's work are its jobs' own, of ASICs emulated",
            "nodes": len(one.cluster.ids),
            "submit_to_running_s_p50": _p50(submitted_s),
            "preempt_to_placed_s_p50": _p50([p.placed_s - p.left_s for p in preempted]),
            "submit_to_placed_s_p50": _p50([p.placed_s for p in preempted]),
            **burst.figures(),
            **watch.figures(),
            "kills": len(survived.kills),
            "kills_missed": survived.missed,
            "jobs": survived.jobs,
            "jobs_not_completed": survived.failed_jobs,
            "items": survived.items,
            "items_lost": survived.lost,
            "items_duplicated": survived.duplicated,
        }


def _p50(values_s: list[float]) -> float:
    return round(statistics.median(values_s), 3)
