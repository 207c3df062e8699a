"""No job waits for ever: a stream of newer, more urgent work is played past one that waits."""

import random
from dataclasses import replace

import numpy as np
import pytest

from wattshift_scheduler.compute import filling
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placed, place
from wattshift_scheduler.jobs import Job, JobKind, JobState, Terms
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import NodePower

TURN_S = 600.0
TURNS = 40
LASTS = 4
MOST_NEW = 2
ROOM_W = 400.0


def _batch(name: str, now_s: float, unit_w: float, **terms: int | bool) -> Job:
    units = 3 if terms.get("gang") else 1
    asked = Terms(**terms)  # type: ignore[arg-type]
    return Job(name, JobKind.BATCH, name, {}, now_s, unit_w=unit_w, max_units=units, terms=asked)


def _after(one: Placed, now_s: float) -> Job:
    state = JobState.RUNNING if one.units else JobState.PENDING
    began_s = None
    if one.units:
        began_s = now_s if one.job.began_s is None else one.job.began_s
    return replace(
        one.job, state=state, units=one.units, nodes=one.nodes, by_node=one.nodes, began_s=began_s
    )


def _turn_of_start(late: Job, ageing_per_h: float, seed: int) -> int | None:
    """The turn in which `late` begins the run that it finishes; None if it never does."""
    rng, ran = random.Random(seed), dict[str, int]()
    tree = FeederTree.of([Feeder("main", None, ROOM_W)])
    nodes: tuple[Node, ...] = (Node("n0", "main", 200.0), Node("n1", "main", 200.0))
    if late.unit_w > 200.0:
        nodes = (Node("n0", "main", ROOM_W),)
    site = Site("s", tree, nodes, Rules(margin_share=0.0, ageing_per_h=ageing_per_h))
    powers = {node.name: NodePower(0.0, up=True) for node in nodes}
    room_w = np.array([ROOM_W])
    cap = Arbitrated(ROOM_W, "connection", NO_CAP)
    jobs: list[Job] = [_batch("first", 0.0, 100.0, priority=10)]
    for turn in range(1, TURNS):
        now_s = turn * TURN_S
        if turn == 2:
            jobs.append(replace(late, submitted_s=now_s))
        # More than the site can do: one of these ends in a turn.
        new = range(rng.randint(1, MOST_NEW))
        jobs += [_batch(f"{turn}-{i}", now_s, 100.0, priority=10) for i in new]
        done = place(Ground(site, powers, room_w, room_w, cap, (), now_s), jobs)
        jobs = [_after(one, now_s) for one in done.placed]
        for job in jobs:
            ran[job.id] = ran.get(job.id, 0) + 1 if job.units else 0
        if ran.get(late.id) == LASTS:
            return turn - LASTS + 1
        jobs = [job for job in jobs if ran[job.id] < LASTS]
    return None


LATE = _batch("late", 0.0, 100.0)
LARGE = _batch("late", 0.0, 300.0)
GANG = _batch("late", 0.0, 100.0, gang=True)


@pytest.mark.parametrize("late", [LATE, LARGE, GANG], ids=["small", "large", "gang"])
@pytest.mark.parametrize("seed", range(3))
def test_a_stream_of_newer_and_more_urgent_jobs_holds_nobody_off_for_ever(
    late: Job, seed: int
) -> None:
    began = _turn_of_start(late, 10.0, seed)
    # An hour makes up for 10 points of priority, so only what came within six turns goes before it.
    assert began is not None
    assert began <= 2 + MOST_NEW * (2 + 6) + LASTS


def test_without_ageing_it_is_held_off() -> None:
    assert all(_turn_of_start(LATE, 0.0, seed) is None for seed in range(2))


@pytest.mark.parametrize("late", [LARGE, GANG], ids=["large", "gang"])
def test_without_a_reservation_small_jobs_take_what_comes_free(
    monkeypatch: pytest.MonkeyPatch, late: Job
) -> None:
    monkeypatch.setattr(filling, "MOST_RESERVED", 0)
    assert None in [_turn_of_start(late, 10.0, seed) for seed in range(2)]
