"""One batch job: what is wanted of it, what its folder says, and the workers between the two.

    wish (commands) ─┐
    folder (files)  ─┼─▶ turn ─▶ crew (Ray) ─▶ row of the report
    nodes (Ray)     ─┘

The outcome in the folder is final, whoever wrote it. Workers that are too many end at their
checkpoint, those that are missing are seated where they are wanted; a worker that died is seated
again after a pause, and a job whose workers die without one chunk done has failed.
"""

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch import shortage
from wattshift_cluster.workload.batch.chunk_loop import ENDED
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.crew import NEVER_MADE, Crew, Fallen
from wattshift_cluster.workload.batch.findings import ERROR_CHARS_MAX, Findings
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
        self._found = Findings(wish.job)
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
        found, rate_per_s = self._found, self._rate.per_s
        return {
            "job": self.wish.job,
            "state": self.state,
            "done": found.done,
            "total": found.total,
            "error": self.error,
            "failed_items": found.failed_items,
            "rate_per_s": None if rate_per_s is None else round(rate_per_s, 4),
            "checkpoint_age_s": found.checkpoint_age_s,
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
            outcome = self._found.outcome(store)
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
        self.error = None
        self._found.begin()
        self._rate.forget()
        if self.state != "running":
            self.state = "starting"

    def _progress(self, store: ChunkStore, now_s: float) -> None:
        more = self._found.look(store, now_s)
        if more:
            self._deaths = 0
        if more is not None and self.crew.working:
            assert self._found.done is not None, "it was looked at"
            self._rate.seen(self._found.done, now_s)

    def _end(self, outcome: Outcome) -> None:
        self.state, self.error = outcome.state, outcome.error
        self._found.failed_items = outcome.items_failed
        if outcome.state == "completed" and outcome.items_failed:
            self.error = f"{_items(outcome.items_failed)} failed; see dead_letters.jsonl"

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
            failed = Outcome("failed", reason[:ERROR_CHARS_MAX], self._found.failed_items or 0)
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
        left = self._found.left
        most = math.inf if left is None else max(1, left)
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
        reason = shortage.reason(wish, self.crew, wanted, nodes, now_s)
        if reason is None and not self.crew.seats and self._deaths:
            return self._last_words[:ERROR_CHARS_MAX]
        return reason


def _there(node: Node | None) -> bool:
    """Whether a worker can be put on a node."""
    return node is not None and node.alive and not node.draining


def _take(counts: Counter[str], name: str) -> bool:
    """Take one away; False if there is none."""
    if counts[name] <= 0:
        return False
    counts[name] -= 1
    return True


def _items(count: int) -> str:
    """A number of items in words."""
    return "1 item" if count == 1 else f"{count} items"
