"""How long one scheduling pass takes with 1,000 queued jobs on 50 nodes under a tree of feeders.

Modelled by a seeded generator: racks of nodes under rows under the site's connection, of which the
rows bind; three tenants with weights and a quota; services and batch of several priorities, sizes
and labels, some of them gangs. Four moments are timed: the queue before an empty site; the queue
before a site that is full and at rest; services of the queue that push out batch; and a cap that
falls by a third. Times are wall clock on the machine at hand (measured); the site is modelled.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from wattshift_scheduler.compute import demand
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placement, place
from wattshift_scheduler.jobs import Job, JobKind, JobState, PowerStep, Terms
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site, Tenant
from wattshift_scheduler.state import NodePower, State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

SEED = 11
NODES = 50
RACKS = 10
ROWS = 2
QUEUED = 1000
MOST_RUNNING = 400
NODE_W = 4000.0
REPEATS = 15
NOW_S = 100_000.0
STEPS = (PowerStep(300.0, 0.95), PowerStep(250.0, 0.8), PowerStep(200.0, 0.6))


def pass_ms(queued: int = QUEUED, repeats: int = REPEATS) -> dict[str, float]:
    """Times of one pass, ms: the median of the slowest moment and of each, and the worst of all.

    Returns:
        `pass_ms` (the median of the slowest moment: the figure for the bar), `empty_ms`, `full_ms`,
        `push_ms`, `cut_ms` (medians of `place`), `worst_ms`, `step_ms` (a whole turn of the core on
        the full site, the median), and `queued`, `nodes`.
    """
    site = _site()
    queue, runs = _at_rest(site, queued)
    others = _jobs(queued, SEED + 1)
    moments: dict[str, tuple[Ground, Sequence[Job]]] = {
        "empty": (_ground(site, 1.0), queue),
        "full": (_ground(site, 1.0), [*queue, *runs]),
        "push": (_ground(site, 1.0), [*others, *runs]),
        "cut": (_ground(site, 0.67), [*queue, *runs]),
    }
    times = {
        name: _timed(partial(place, ground, jobs), repeats)
        for name, (ground, jobs) in moments.items()
    }
    state = _state(site, [*queue, *runs])
    turns = _timed(partial(step, state, (), NOW_S), repeats)
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "pass_ms": max(medians.values()),
        **{f"{name}_ms": median for name, median in medians.items()},
        "worst_ms": max(max(found) for found in times.values()),
        "step_ms": statistics.median(turns),
        "queued": float(queued),
        "nodes": float(NODES),
    }


def _timed(act: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        act()
        found.append((time.perf_counter() - began_s) * 1000.0)
    return found


def _site() -> Site:
    """Racks that may carry all of their nodes, rows that may carry 80 % of their racks."""
    each = NODES // RACKS
    feeders = [Feeder("site", None, 0.75 * NODES * NODE_W)]
    feeders += [Feeder(f"row-{i}", "site", 0.8 * NODES * NODE_W / ROWS) for i in range(ROWS)]
    feeders += [Feeder(f"rack-{i}", f"row-{i % ROWS}", each * NODE_W) for i in range(RACKS)]
    nodes = tuple(
        Node(
            f"node-{i:02d}",
            f"rack-{i % RACKS}",
            NODE_W,
            gpus=float(8 * (i % 2)),
            labels={"accelerator": ("L4", "H100")[i % 2]},
        )
        for i in range(NODES)
    )
    tenants = (
        Tenant("a", weight=2.0),
        Tenant("b", quota_w=0.2 * NODES * NODE_W),
        Tenant("c", quota_w=0.1 * NODES * NODE_W, borrows=False),
    )
    return Site("pass", FeederTree.of(feeders), nodes, Rules(margin_share=0.0), (), tenants)


def _jobs(count: int, seed: int) -> list[Job]:
    rng = random.Random(seed)
    return [_job(rng, f"{seed}-{i:04d}") for i in range(count)]


def _job(rng: random.Random, name: str) -> Job:
    service = rng.random() < 0.1
    gang = not service and rng.random() < 0.1
    gpus = rng.choice((0.0, 0.0, 0.5, 1.0))
    terms = Terms(
        tenant=rng.choice("abc"),
        priority=rng.choice((0, 0, 0, 10, 50)),
        gpus=gpus,
        selector=(("accelerator", "H100"),) if gpus or rng.random() < 0.2 else (),
        gang=gang,
        flexibility=rng.randrange(4),
        steps=STEPS if service else (),
    )
    return Job(
        name,
        JobKind.SERVICE if service else JobKind.BATCH,
        name,
        {},
        NOW_S - rng.uniform(0.0, 7200.0),
        unit_w=400.0 if service else rng.choice((150.0, 300.0, 450.0, 900.0)) + rng.random(),
        min_units=1,
        max_units=rng.choice((2, 4)) if service or gang else rng.choice((1, 1, 1, 2)),
        value_usd_per_h=rng.uniform(0.1, 10.0),
        terms=terms,
    )


def _at_rest(site: Site, queued: int) -> tuple[list[Job], list[Job]]:
    """A queue, and what runs before it: as the site would have filled itself."""
    rng = random.Random(SEED)
    placement = place(_ground(site, 1.0), _jobs(queued + MOST_RUNNING, SEED))
    runs = [
        replace(
            one.job,
            state=JobState.RUNNING,
            units=one.units,
            running=one.units,
            ongoing=demand.ONGOING_PER_REPLICA * one.units,
            wanted=one.units,
            nodes=one.nodes,
            by_node=one.nodes,
            began_s=NOW_S - rng.uniform(0.0, 3600.0),
            checkpoint_s=NOW_S - rng.uniform(0.0, 60.0),
        )
        for one in placement.placed
        if one.units
    ]
    runs = [demand.sized(job, site.rules, NOW_S) for job in runs]
    queue = [one.job for one in placement.placed if not one.units]
    return queue[:queued], runs


def _ground(site: Site, share: float) -> Ground:
    """The site under a cap of a share of its connection, with every watt free at once."""
    root_w = float(site.tree.limit_w[0]) * share
    room_w = np.array(site.tree.limit_w)
    room_w[0] = root_w
    cap = Cap("event", "operator", root_w, ends_s=NOW_S + 3600.0)
    powers = {node.name: NodePower(node.max_w, up=True) for node in site.nodes}
    verdict = Arbitrated(root_w, cap.origin, cap.id)
    return Ground(site, powers, room_w, room_w, verdict, (cap,), NOW_S)


def _state(site: Site, jobs: Sequence[Job]) -> State:
    """The full site as the controller's memory holds it between two turns."""
    powers = {node.name: NodePower(node.max_w, up=True) for node in site.nodes}
    state = replace(initial(site, Values(), 1, {job.id: job for job in jobs}), nodes=powers)
    return step(state, (), NOW_S - 1.0)[0]


def placed_units(placement: Placement) -> int:
    """Units that a placement runs; for those who want to see that a pass did something."""
    return sum(one.units for one in placement.placed)


if __name__ == "__main__":
    for key, value in pass_ms().items():
        print(f"{key:>10} {value:10.3f}")
