"""Meters of unasked work: the bridge itself for the nodes of its own host, a small actor elsewhere.

    bridge's host   the raylet is found in this host's process table by its NodeID
    other hosts     a detached actor `meter:<node>`, pinned to the node, which looks every 2 s

A node whose meter says nothing has unknown unasked watts, not none.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.cluster.ray_link import NAMESPACE, RayUnavailable, internal
from wattshift_cluster.workload.cluster.unasked import (
    Actor,
    Rates,
    Sampler,
    Unasked,
    Usage,
    judged,
    processes,
    raylets,
)

log = structlog.get_logger()

PERIOD_S = 2.0
FIRST_S = 0.5
SILENT_S = 12.0
"""So old a reading may be, on a loaded machine, before a node counts as unknown."""

ROWS_MAX = 256
NICE = 19


@dataclass(slots=True)
class Reading:
    """CPU use under one raylet, and when it was read."""

    raylet: int
    usages: Sequence[Usage]
    at_s: float


class NodeMeter:
    """The actor: looks at its own node every 2 s, and tells when asked."""

    def __init__(self, node_id: str) -> None:
        """Begin to look."""
        os.nice(NICE)
        self._node_id = node_id
        self._lock = threading.Lock()
        self._told: dict[str, Any] | None = None
        threading.Thread(target=self._work, name="meter", daemon=True).start()

    def read(self) -> dict[str, Any]:
        """`raylet`, `age_s` and `rows` of [pid, title, cores]; no rows before the second look."""
        with self._lock:
            if self._told is None:
                return {"raylet": 0, "age_s": 0.0, "rows": None}
            age_s = time.monotonic() - self._told["at_s"]
            return {"raylet": self._told["raylet"], "age_s": age_s, "rows": self._told["rows"]}

    def _work(self) -> None:
        sampler = Sampler()
        while True:
            table, now_s = processes(), time.monotonic()
            raylet = raylets(table).get(self._node_id, os.getppid())
            usages = (sampler.look([raylet], now_s, table) or {}).get(raylet)
            if usages is not None:
                busiest = sorted(usages, key=lambda usage: -usage.cores)[:ROWS_MAX]
                rows = [[one.pid, one.title, one.cores] for one in busiest]
                with self._lock:
                    self._told = {"raylet": raylet, "at_s": now_s, "rows": rows}
            time.sleep(FIRST_S if usages is None else PERIOD_S)


class Meters:
    """Readings of all nodes; a thread's work, in turns."""

    def __init__(
        self,
        rates: Rates,
        actors: Callable[[], list[Actor]],
        *,
        look_here: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            rates: watts per core and per GPU.
            actors: Ray's living actors. May raise RayUnavailable.
            look_here: whether raylets of this host are metered without an actor.
            clock: monotonic, s.
        """
        self._rates = rates
        self._actors = actors
        self._look_here = look_here
        self._clock = clock
        self._sampler = Sampler()
        self._readings: dict[str, Reading] = {}
        self._meters: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self._results: Mapping[str, Unasked] = {}

    def of(self, node: Node) -> Unasked:
        """What was found for a node last."""
        return self._results.get(node.id, Unasked())

    def turn(self, nodes: Mapping[str, Node]) -> None:
        """Look once. Raises: RayUnavailable when Ray did not tell its actors."""
        now_s = self._clock()
        living = {node.id: node for node in nodes.values() if node.alive}
        table = processes() if self._look_here else {}
        here = raylets(table)
        here = {id_: pid for id_, pid in here.items() if id_ in living}
        found = self._sampler.look(here.values(), now_s, table) or {}
        for id_, pid in here.items():
            if pid in found:
                self._readings[id_] = Reading(pid, found[pid], now_s)
        for id_, node in living.items():
            if id_ not in here:
                self._ask(node, now_s)
        self._forget(living)
        self.judge(now_s)

    def _forget(self, living: Mapping[str, Node]) -> None:
        for id_ in [id_ for id_ in self._meters if id_ not in living]:
            with suppress(Exception):  # one that was never placed would wait for its node for ever
                internal("ray").kill(self._meters[id_], no_restart=True)
        for known in (self._readings, self._meters, self._asked):
            for id_ in [id_ for id_ in known if id_ not in living]:
                known.pop(id_)

    def judge(self, now_s: float) -> None:
        """Work out the watts of every node that was read lately. Raises: RayUnavailable."""
        by_node: dict[str, dict[int, Actor]] = {}
        for actor in self._actors():
            by_node.setdefault(actor.node_id, {})[actor.pid] = actor
        self._results = {
            id_: judged(reading.usages, reading.raylet, by_node.get(id_, {}), self._rates)
            for id_, reading in self._readings.items()
            if now_s - reading.at_s <= SILENT_S
        }

    def _ask(self, node: Node, now_s: float) -> None:
        """Take the answer to the last question, if there is one by now, and ask again."""
        ray = internal("ray")
        try:
            asked = self._asked.get(node.id)
            if asked is not None:
                ready, _ = ray.wait([asked], timeout=0)
                if not ready:
                    return
                told = ray.get(asked, timeout=0)
                self._take(node, told, now_s)
            meter = self._meters.get(node.id) or self._meter(node)
            self._meters[node.id] = meter
            self._asked[node.id] = meter.read.remote()
        except Exception as fault:  # Ray's own types differ by what broke; the next turn asks anew
            log.debug("meter.silent", node=node.name, reason=str(fault)[:200])
            self._asked.pop(node.id, None)
            self._meters.pop(node.id, None)

    def _take(self, node: Node, told: Mapping[str, Any], now_s: float) -> None:
        if told["rows"] is not None:
            rows = told["rows"][:ROWS_MAX]
            usages = [Usage(int(pid), str(title), float(cores)) for pid, title, cores in rows]
            at_s = now_s - float(told["age_s"])
            self._readings[node.id] = Reading(int(told["raylet"]), usages, at_s)

    def _meter(self, node: Node) -> Any:
        options = {
            "name": f"meter:{node.name}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": 0,
            "label_selector": {"ray.io/node-id": node.id},
        }
        log.info("meter.placed", node=node.name)
        return internal("ray").remote(NodeMeter).options(**options).remote(node.id)


def living_actors() -> list[Actor]:
    """Ray's living actors, with what they asked for.

    Raises:
        RayUnavailable: the control store did not answer.
    """
    try:
        tables = internal("ray.core.generated.gcs_pb2")
        state = internal("ray._private.state").state
        raw = state._connect_and_get_accessor().get_actor_table(None, "ALIVE")
        return [_actor(tables.ActorTableData.FromString(row)) for row in raw]
    except Exception as fault:  # Ray's own types differ by what broke
        raise RayUnavailable(f"the actors are not known: {str(fault)[:200]}") from fault


def _actor(row: Any) -> Actor:
    return Actor(
        node_id=row.address.node_id.hex(),
        pid=int(row.pid),
        kind=str(row.class_name),
        name=str(row.name),
        resources=dict(row.required_resources),
    )
