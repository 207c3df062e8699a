"""One batch job: what is wanted of it, what its folder says, and the workers between the two.

    wish (commands) ─┐
    folder (files)  ─┼─▶ turn ─▶ crew (Ray) ─▶ row of the report
    nodes (Ray)     ─┘

The outcome in the folder is final, whoever wrote it. Workers that are too many end at their
checkpoint, those that are missing are seated where they are wanted; a worker that died is seated
again after a pause, and a job whose workers die without one chunk done has failed.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch.chunk_loop import ENDED
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.crew import NEVER_MADE, Crew, Fallen
from wattshift_cluster.workload.batch.plans import Outcome
from wattshift_cluster.workload.batch.progress import Rate
from wattshift_cluster.workload.batch.wishes import CANCEL, PAUSE, RUN, Wish
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

PAUSE_GRACE_S = 2.0
"""So long a worker may go on with its chunk when watts are short, or its job is at its end."""

DEATHS_MAX = 5
"""Workers that may die in a row without one chunk done, before the job counts as failed."""

AGAIN_S = 1.0
BACK_OFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)
LOOK_PART = 20.0
"""Looking at the output folder takes at most this part of the time."""

LOOK_MAX_S = 30.0
ERROR_CHARS_MAX = 500
PLACED_WITHIN_S = 5.0
"""Ray places a worker within this, where nothing is in its way."""

NOT_PLACED = "Ray has not placed it yet; CPUs, GPUs or memory may be in use"
FINAL = ("completed", "failed", "cancelled")

Nodes = Mapping[str, Node]


class BatchJob:
    """One job as this bridge runs it. Commands replace `wish`; the rest is the engine's thread's.

    Attributes:
        wish: what is wanted.
        crew: its workers.
        state: as the report tells it.
        error: why it does not go on, or how it failed; None if all is well.
    """

    def __init__(self, wish: Wish, crew: Crew) -> None:
        self.wish = wish
        self.crew = crew
        self.state = "starting"
        self.error: str | None = None
        self._seen = -1
        self._deaths = 0
        self._last_words = ""
        self._not_before_s = -math.inf
        self._done: int | None = None
        self._total: int | None = None
        self._left: int | None = None
        self._failed_items: int | None = None
        self._letters: dict[int, int] = {}
        self._committed_at_s: float | None = None
        self._look_at_s = -math.inf
        self._taken: str | None = None
        self._rate = Rate()
        self._by_node: dict[str, int] = {}

    @property
    def over(self) -> bool:
        """Whether it is at its end and nothing of it is left in Ray."""
        return self.state in FINAL and self.crew.empty

    @property
    def by_node(self) -> Mapping[str, int]:
        """Units that hold watts, by node, at the last turn."""
        return self._by_node

    def row(self) -> dict[str, Any]:
        """Its row of the report (docs/protocol.md)."""
        age_s = None
        if self._committed_at_s is not None and self._done:
            age_s = round(max(0.0, time.time() - self._committed_at_s), 1)
        rate_per_s = self._rate.per_s
        return {
            "job": self.wish.job,
            "state": self.state,
            "done": self._done,
            "total": self._total,
            "error": self.error,
            "failed_items": self._failed_items,
            "rate_per_s": None if rate_per_s is None else round(rate_per_s, 4),
            "checkpoint_age_s": age_s,
            "by_node": dict(self._by_node),
        }

    def turn(self, nodes: Nodes, now_s: float) -> None:
        """Look at everything once, and do what brings it nearer to what is wanted."""
        wish = self.wish
        if wish.number != self._seen:
            self._begin(wish)
        if self.over or (self.state == "paused" and self.crew.empty):
            return
        store = None if wish.spec is None else ChunkStore(Path(wish.spec.output))
        fallen = self.crew.look(now_s)
        outcome = None
        if store is not None:
            self._progress(store, now_s)
            outcome = self._outcome(store)
        for one in fallen:
            self._fell(one, store, outcome, nodes, now_s)
        if outcome is not None and wish.wanted != CANCEL:
            self._end(outcome)
        wanted = self._division(wish, nodes)
        self._settle(wish, wanted, store, nodes, now_s)
        self._by_node = self.crew.by_node()
        self._tell(wish, wanted, nodes, now_s)

    def _begin(self, wish: Wish) -> None:
        """Take up a new wish: what went wrong before is forgiven."""
        self._seen, self._deaths, self._not_before_s = wish.number, 0, -math.inf
        self.error = self._taken = None
        self._letters.clear()
        self._rate.forget()
        if self.state != "running":
            self.state = "starting"

    def _progress(self, store: ChunkStore, now_s: float) -> None:
        if now_s < self._look_at_s:
            return
        began_s = time.monotonic()
        plan = store.plan()
        if plan is None:
            return
        if plan.job != self.wish.job:
            owner = f"{store.folder} holds the output of job {plan.job}"
            self._taken = f"{owner}; name another output"[:ERROR_CHARS_MAX]
            return
        chunks = store.committed()
        done = sum(plan.items_of(chunk) for chunk in chunks)
        if done > (self._done or 0):
            self._deaths = 0
        self._done, self._total, self._left = done, plan.items, plan.chunks - len(chunks)
        self._failed_items = store.dead_letters(self._letters)
        self._committed_at_s = store.committed_at_s()
        if self.crew.working:
            self._rate.seen(done, now_s)
        spent_s = time.monotonic() - began_s
        self._look_at_s = now_s + min(LOOK_MAX_S, LOOK_PART * spent_s)

    def _outcome(self, store: ChunkStore) -> Outcome | None:
        """How the job ended, as its folder says; None while it has not."""
        if self._taken is not None:  # two were given one folder at once, and the other was first
            return Outcome("failed", self._taken)
        outcome = store.outcome()
        if outcome is None:
            return None
        plan = store.plan()
        if plan is not None and plan.job != self.wish.job:
            return None
        # Without a plan the input or the work was at fault, before there was anything to plan.
        if plan is not None and outcome.state == "completed":
            self._done, self._total, self._left = plan.items, plan.items, 0
        return outcome

    def _end(self, outcome: Outcome) -> None:
        self.state, self.error = outcome.state, outcome.error
        self._failed_items = outcome.items_failed
        if outcome.state == "completed" and outcome.items_failed:
            self.error = f"{outcome.items_failed} items failed; see dead_letters.jsonl"

    def _fell(
        self,
        fallen: Fallen,
        store: ChunkStore | None,
        outcome: Outcome | None,
        nodes: Nodes,
        now_s: float,
    ) -> None:
        """Learn what the end of a worker means: only one that nobody asked for counts."""
        seat, node = fallen.seat, nodes.get(fallen.seat.node)
        if seat.stop_by_s is not None or self.wish.wanted != RUN or outcome or store is None:
            return
        if not _there(node) or store.left(seat.number) not in (None, ENDED):
            return
        if fallen.reason == NEVER_MADE:
            self._not_before_s = now_s + AGAIN_S
            return
        self._deaths += 1
        self._last_words = f"worker {seat.number} on {seat.node} died: {fallen.reason}"
        self._not_before_s = now_s + BACK_OFF_S[min(self._deaths, len(BACK_OFF_S)) - 1]
        log.warning(
            "batch.worker_died",
            job=self.wish.job,
            deaths=self._deaths,
            reason=fallen.reason[:200],
        )
        if self._deaths >= DEATHS_MAX:
            reason = f"{self._deaths} workers in a row ended with no chunk done: {fallen.reason}"
            failed = Outcome("failed", reason[:ERROR_CHARS_MAX], self._failed_items or 0)
            with suppress(OSError, WattshiftError):
                plan = store.plan()
                if plan is None or plan.job == self.wish.job:
                    store.end(failed)
            self._end(failed)

    def _division(self, wish: Wish, nodes: Nodes) -> dict[str, int]:
        """Workers that are wanted now, by node."""
        if wish.wanted != RUN or wish.spec is None or self.state in FINAL:
            return {}
        # The driver's own node stands first.
        division = wish.nodes or dict.fromkeys(list(nodes)[:1], 1)
        draining = {name for name in division if name in nodes and nodes[name].draining}
        if draining and wish.spec.gang:
            return {}
        return {name: count for name, count in division.items() if name not in draining}

    def _settle(
        self,
        wish: Wish,
        wanted: Mapping[str, int],
        store: ChunkStore | None,
        nodes: Nodes,
        now_s: float,
    ) -> None:
        """Bring the workers nearer to the division that is wanted."""
        crew, spec = self.crew, wish.spec
        within_s = PAUSE_GRACE_S
        if spec is not None and not wish.hurry and self.state not in FINAL:
            within_s = spec.pause_within_s
        bundles = tuple(name for name in sorted(wanted) for _ in range(wanted[name]))
        gang = spec is not None and spec.gang
        reshaped = bool(crew.bundles) and (not gang or crew.bundles != bundles)
        places = Counter(wanted)
        for seat in sorted(crew.seats.values(), key=lambda seat: seat.number):
            if seat.stop_by_s is not None or reshaped or not _take(places, seat.node):
                # Who has said goodbye is ended at once: Ray's own way out takes a second or two.
                done = store is not None and store.left(seat.number) is not None
                crew.halt(seat, 0.0 if done else within_s, now_s)
        crew.enforce(now_s)
        if reshaped:
            if not crew.seats:
                crew.disband()
        elif spec is not None and store is not None and now_s >= self._not_before_s:
            if gang and (
                not wanted
                or not all(_there(nodes.get(name)) for name in bundles)
                or not crew.gang(spec, bundles, nodes)
            ):
                return
            self._fill(spec, bundles, store, nodes, now_s)

    def _fill(
        self,
        spec: BatchSpec,
        bundles: tuple[str, ...],
        store: ChunkStore,
        nodes: Nodes,
        now_s: float,
    ) -> None:
        """Seat who is missing, as long as there are chunks for more workers."""
        staying = self.crew.staying
        filled = Counter(staying)
        most = math.inf if self._left is None else max(1, self._left)
        for bundle, name in enumerate(bundles):
            node = nodes.get(name)
            taken = bundle in self.crew.seats if spec.gang else _take(filled, name)
            if taken or node is None or not _there(node) or staying.total() >= most:
                continue
            number = bundle if spec.gang else self.crew.free_number()
            store.arrive(number)
            self.crew.seat(spec, node, number, len(bundles), now_s)
            staying[name] += 1

    def _tell(self, wish: Wish, wanted: Mapping[str, int], nodes: Nodes, now_s: float) -> None:
        """Put into words where the job stands."""
        if self.state in FINAL:
            self._rate.forget()
        elif wish.wanted == RUN:
            self.state = "running" if self.crew.working else "starting"
            self.error = self._trouble(wish, wanted, nodes, now_s) or self.crew.silent(now_s)
        elif self.crew.empty:
            self.state = "paused" if wish.wanted == PAUSE else "cancelled"
            self.error = None
            self._rate.forget()

    def _trouble(
        self, wish: Wish, wanted: Mapping[str, int], nodes: Nodes, now_s: float
    ) -> str | None:
        """Why workers are missing; None if none are."""
        spec = wish.spec
        assert spec is not None, "only a cancelled job has no specification"
        for name in wish.nodes or {}:
            node = nodes.get(name)
            if node is None or not node.alive:
                return f"node {name} is {'not alive' if node else 'not in the cluster'}"
            if node.draining:
                return f"node {name} is draining"
        if spec.gang and sum(self._by_node.values()) < sum(wanted.values()):
            found = (_waits(spec, nodes[name], wanted[name]) for name in wanted if name in nodes)
            reasons = "; ".join(filter(None, found)) or NOT_PLACED
            return f"a gang of {sum(wanted.values())} waits for its place: {reasons}"
        seat = self.crew.waiting()
        if seat is not None and seat.node in nodes:
            patient = now_s - seat.since_s < PLACED_WITHIN_S
            reason = _waits(spec, nodes[seat.node], 1)
            return reason or (None if patient else f"{seat.node}: {NOT_PLACED}")
        if not self.crew.seats and self._deaths:
            return self._last_words[:ERROR_CHARS_MAX]
        return None


def _there(node: Node | None) -> bool:
    """Whether a worker can be put on a node."""
    return node is not None and node.alive and not node.draining


def _take(counts: Counter[str], name: str) -> bool:
    """Take one away; False if there is none."""
    if counts[name] <= 0:
        return False
    counts[name] -= 1
    return True


def _waits(spec: BatchSpec, node: Node, workers: int) -> str | None:
    """Why Ray does not place workers on a node; None if that cannot be seen."""
    free_w, asked_w = node.power_w_available, workers * spec.watts_w
    asks = "its worker asks" if workers == 1 else f"its {workers} workers ask"
    if free_w is not None and free_w < asked_w:
        return f"{node.name}: {free_w:g} W free, {asks} for {asked_w:g} W"
    if workers * spec.gpus > node.gpus:
        return f"{node.name}: {node.gpus:g} GPUs, {asks} for {workers * spec.gpus:g}"
    for key, wanted in spec.labels.items():
        has = node.labels.get(key)
        if (has != wanted) if not wanted.startswith("!") else (has == wanted[1:]):
            return f"{node.name}: its label {key} is {has}, the job wants {wanted}"
    return None
