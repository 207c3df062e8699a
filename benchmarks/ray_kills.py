"""Kills of random processes of a running site, in a seeded order, each by SIGKILL.

Bridge and controller are children of the site and start again by themselves, as under any service
manager; a raylet takes its workers with it and is replaced by a new node of the same name; batch
worker, replica and Serve's controller are processes of Ray and come back as Ray and the bridge see
to it.
"""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ray_site import NODE_W, Running

KINDS = ("bridge", "batch worker", "replica", "raylet", "serve controller", "controller")
TITLES = {
    "batch worker": "ray::BatchWorker",
    "replica": "ray::ServeReplica",
    "serve controller": "ray::ServeController",
}
"""How Ray titles the processes of its actors: `ray::` and the class."""

CHILDREN = {"bridge": "compute", "controller": "controller"}
FOLLOWERS = ("n1", "n2")
"""Nodes without the control store: their raylets may die."""


def order(count: int, seed: int) -> list[str]:
    """So many kinds: each as often as any other, shuffled."""
    dice = random.Random(seed)
    rounds: list[str] = []
    while len(rounds) < count:
        rounds += dice.sample(KINDS, len(KINDS))
    return rounds[:count]


async def kill(one: Running, kind: str, dice: random.Random) -> bool:
    """Kill one process of a kind; False if there is none now."""
    if kind == "raylet":
        name = dice.choice(FOLLOWERS)
        await asyncio.to_thread(one.cluster.ask, "kill", name=name)
        await asyncio.to_thread(one.cluster.ask, "add", name=name, power_w=NODE_W)
        return True
    if kind in CHILDREN:
        pid = one.site.children.pid(CHILDREN[kind])
        found = [] if pid is None else [pid]
    else:
        found = titled(TITLES[kind], one.cluster.pids.values())
    if not found:
        return False
    try:
        os.kill(dice.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def titled(title: str, raylets: Sequence[int]) -> list[int]:
    """Children of these raylets whose title begins so."""
    parents, found = set(raylets), []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if words.startswith(title) and parent in parents:
            found.append(int(folder.name))
    return sorted(found)
