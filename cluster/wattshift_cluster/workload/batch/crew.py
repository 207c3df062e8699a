"""The workers of one batch job in Ray: seated on the nodes that are wanted, and ended again.

A worker is a detached actor `batch:<job>:<number>`, held to its node by that node's id. A number
stays taken until its actor is gone, so that a name never means two workers. Who sits where is
written down before an actor is made: a new bridge finds them all. A gang sits in a placement group
`gang:<job>`, one bundle per worker: Ray reserves all of it or nothing.

Everything here asks Ray and may block; nothing waits for a worker.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.gate import GATE_DIR_VARIABLE
from wattshift_cluster.inference.app import ONE_THREAD
from wattshift_cluster.workload.batch.worker import BatchWorker
from wattshift_cluster.workload.cluster.nodes import POWER, Node
from wattshift_cluster.workload.cluster.ray_link import NAMESPACE, internal
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

NODE_ID_LABEL = "ray.io/node-id"
SILENT_S = 30.0
"""A worker that has not answered for so long is told of."""

HUNG_S = 300.0
"""And after so long it is ended. Loading a model may hold the interpreter for minutes."""

ARRIVES_WITHIN_S = 5.0
"""A worker begins within this, where nothing is in its way."""

KILL_AGAIN_S = 2.0
CREATED, REMOVED = "CREATED", "REMOVED"
NEVER_MADE = "Ray knows no such worker"
"""It ended while nobody looked, or Ray failed when it was to be made."""


@dataclass(slots=True)
class Seat:
    """One worker.

    Attributes:
        number: of the worker, in its name.
        node: the site's name of its node.
        actor: Ray's handle.
        since_s: when it was made, on our clock; before all time if an earlier bridge made it.
        ping: a question that is under way, and since when.
        placed: whether Ray has given it a place, and watts with it.
        alive: whether it has answered.
        stop_by_s: it was told to end, and is killed then.
        words: what it said of its own end.
    """

    number: int
    node: str
    since_s: float = -math.inf
    actor: Any = None
    ping: Any = None
    ping_at_s: float = 0.0
    placed: bool = False
    alive: bool = False
    stop_by_s: float | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Fallen:
    """A worker that is no more: its seat, and Ray's words."""

    seat: Seat
    reason: str


class Crew:
    """All workers of one job."""

    def __init__(self, job: str, book: Path, gate_dir: str | None) -> None:
        """Read who sat where.

        Args:
            job: its id.
            book: the file in which that stands.
            gate_dir: given to workers, so that they can say they are busy.
        """
        self._job = job
        self._book = book
        self._gate_dir = gate_dir
        self._group: Any = None
        self._bundles: tuple[str, ...] = ()
        self.seats: dict[int, Seat] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            row = json.loads(book.read_text())
            self._bundles = tuple(str(node) for node in row["bundles"])
            self.seats = {
                int(number): Seat(int(number), str(node)) for number, node in row["seats"].items()
            }

    @property
    def empty(self) -> bool:
        """Whether nothing of the job is left in Ray."""
        return not self.seats and not self._bundles

    @property
    def leaving(self) -> bool:
        """Whether a worker is on its way out, and watts with it."""
        return any(seat.stop_by_s is not None for seat in self.seats.values())

    def arriving(self, now_s: float) -> bool:
        """Whether a worker is about to begin: one that was seated a moment ago."""
        seats = self.seats.values()
        return any(not seat.alive and now_s - seat.since_s < ARRIVES_WITHIN_S for seat in seats)

    @property
    def working(self) -> int:
        """Workers that live and are to stay."""
        return sum(seat.alive and seat.stop_by_s is None for seat in self.seats.values())

    @property
    def staying(self) -> Counter[str]:
        """Workers that are to stay, by node, whether they have begun or not."""
        return Counter(seat.node for seat in self.seats.values() if seat.stop_by_s is None)

    def by_node(self) -> dict[str, int]:
        """Units that hold watts now, by node: a gang's all, once it has its place."""
        if self._bundles:
            return dict(Counter(self._bundles)) if self._group_state() == CREATED else {}
        return dict(Counter(seat.node for seat in self.seats.values() if seat.placed))

    def silent(self, now_s: float) -> str | None:
        """Words for a worker that does not answer; None if all do."""
        for seat in self.seats.values():
            if seat.alive and seat.ping is not None and now_s - seat.ping_at_s > SILENT_S:
                silent_s = now_s - seat.ping_at_s
                return f"worker {seat.number} on {seat.node} has not answered for {silent_s:.0f} s"
        return None

    def waiting(self) -> Seat | None:
        """A worker that Ray has not placed; None if there is none."""
        found = (s for s in self.seats.values() if not s.placed and s.stop_by_s is None)
        return next(found, None)

    def look(self, now_s: float) -> list[Fallen]:
        """Learn who lives; those who do not are taken off their seats."""
        fallen: list[Fallen] = []
        for seat in list(self.seats.values()):
            reason = self._look(seat, now_s)
            if reason is not None:
                del self.seats[seat.number]
                fallen.append(Fallen(seat, reason))
        if fallen:
            self._keep()
        return fallen

    def halt(self, seat: Seat, within_s: float, now_s: float) -> None:
        """Have a worker end after its chunk, or after `within_s` anyway."""
        if seat.stop_by_s is None or seat.stop_by_s > now_s + within_s:
            seat.stop_by_s = now_s + within_s
            if seat.actor is not None:
                seat.actor.stop.remote(within_s)

    def enforce(self, now_s: float) -> None:
        """Kill those who have not ended in time, or have not begun, and those who hang."""
        for seat in self.seats.values():
            late = seat.stop_by_s is not None and (now_s >= seat.stop_by_s or not seat.placed)
            hung = seat.ping is not None and seat.alive and now_s - seat.ping_at_s > HUNG_S
            if seat.actor is not None and (late or hung):
                internal("ray").kill(seat.actor, no_restart=True)
                seat.stop_by_s = now_s + KILL_AGAIN_S

    def free_number(self) -> int:
        """The lowest number that no worker has."""
        return next(n for n in range(len(self.seats) + 1) if n not in self.seats)

    def seat(self, spec: BatchSpec, node: Node, number: int, workers: int, now_s: float) -> None:
        """Put one more worker on a node.

        Args:
            spec: what it works at.
            node: where.
            number: of the worker; in a gang that of its bundle.
            workers: how many the job is to have, for where this one begins.
            now_s: our clock, s.
        """
        seat = Seat(number, node.name, now_s)
        self.seats[number] = seat
        self._keep()
        actor = internal("ray").remote(BatchWorker).options(**self._options(spec, node, seat))
        seat.actor = actor.remote(
            self._job, asdict(spec), number, workers, node.name, self.environment(spec)
        )
        log.info("batch.worker", job=self._job, number=number, node=node.name)

    def environment(self, spec: BatchSpec) -> dict[str, str]:
        """What a worker sets for itself, before it loads anything of the job's."""
        gates = {GATE_DIR_VARIABLE: self._gate_dir} if self._gate_dir else {}
        return {**ONE_THREAD, **spec.env, **gates}

    def gang(self, spec: BatchSpec, bundles: tuple[str, ...], nodes: Mapping[str, Node]) -> bool:
        """Reserve the place of a gang, one bundle per entry; whether Ray has given it.

        `bundles` names a node per worker, all of them there. A gang of another division has to be
        `disbanded` before.
        """
        if self._bundles != bundles:
            assert not self._bundles, "the former gang is gone"
            self._bundles = bundles
            self._keep()
        if self._group is None and self._find() is None:
            shape = {POWER: spec.watts_w, "CPU": spec.num_cpus, "GPU": spec.gpus}
            selectors = [{**spec.labels, NODE_ID_LABEL: nodes[name].id} for name in bundles]
            self._group = internal("ray.util").placement_group(
                [{key: amount for key, amount in shape.items() if amount > 0}] * len(bundles),
                strategy="PACK",
                name=self._group_name,
                lifetime="detached",
                bundle_label_selector=selectors,
            )
            log.info("batch.gang", job=self._job, bundles=list(bundles))
        state = self._group_state()
        if state == REMOVED:
            self._group = None
        return state == CREATED

    @property
    def bundles(self) -> tuple[str, ...]:
        """The node of each worker of the gang that has been asked for; () if there is none."""
        return self._bundles

    def disband(self) -> None:
        """Give up the gang's place. Ray ends at once who still sits there."""
        group = self._group or self._find()
        if group is not None:
            internal("ray.util").remove_placement_group(group)
        self._group, self._bundles = None, ()
        self._keep()

    @property
    def _group_name(self) -> str:
        return f"gang:{self._job}"

    def _find(self) -> Any:
        """The gang that an earlier bridge made; None if there is none."""
        with suppress(ValueError):
            self._group = internal("ray.util").get_placement_group(self._group_name)
        return self._group

    def _group_state(self) -> str | None:
        group = self._group or self._find()
        if group is None:
            return None
        state: str | None = internal("ray.util").placement_group_table(group).get("state")
        return state

    def _look(self, seat: Seat, now_s: float) -> str | None:
        """Learn whether a worker lives, without waiting for it; the reason if it does not."""
        ray = internal("ray")
        if seat.actor is None:
            try:
                seat.actor = ray.get_actor(actor_name(self._job, seat.number), NAMESPACE)
            except ValueError:
                return NEVER_MADE
        if not seat.placed:
            seat.placed = _is_placed(seat.actor)
        if seat.ping is None:
            seat.ping, seat.ping_at_s = seat.actor.status.remote(), now_s
        ready, _ = ray.wait([seat.ping], timeout=0)
        if not ready:
            return None
        ping, seat.ping = seat.ping, None
        try:
            told = ray.get(ping, timeout=1.0)
            seat.alive = seat.placed = True
            seat.words = told["error"] or seat.words
        except ray.exceptions.ActorUnavailableError:
            return None
        except ray.exceptions.RayError as fault:
            return seat.words or " ".join(str(fault).split())
        return None

    def _options(self, spec: BatchSpec, node: Node, seat: Seat) -> dict[str, Any]:
        options: dict[str, Any] = {
            "name": actor_name(self._job, seat.number),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": spec.num_cpus,
            "num_gpus": spec.gpus,
            "resources": {POWER: spec.watts_w},
            "max_restarts": 0,
            "max_concurrency": 4,
        }
        if spec.env:
            # In force from the start of the process. It costs half a second: Ray makes such an
            # environment first, and no idle process of its own fits.
            options["runtime_env"] = {"env_vars": {**ONE_THREAD, **spec.env}}
        if self._group is None:
            return options | {"label_selector": {**spec.labels, NODE_ID_LABEL: node.id}}
        strategies = internal("ray.util.scheduling_strategies")
        return options | {
            "scheduling_strategy": strategies.PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=seat.number
            )
        }

    def _keep(self) -> None:
        """Write down who sits where. It has to outlive this process, not this machine."""
        if self.empty:
            self._book.unlink(missing_ok=True)
            return
        seats = {str(seat.number): seat.node for seat in self.seats.values()}
        attempt = self._book.with_suffix(".new-seats")
        attempt.write_text(json.dumps({"seats": seats, "bundles": self._bundles}))
        attempt.replace(self._book)


def actor_name(job: str, number: int) -> str:
    """The name of a worker in Ray."""
    return f"batch:{job}:{number}"


def _is_placed(actor: Any) -> bool:
    """Whether Ray has given an actor its place, and with it its watts."""
    row = internal("ray._private.state").actors(actor._actor_id.hex())
    node = row.get("Address", {}).get("NodeID", "") if row else ""
    return bool(node.strip("0f")) and row.get("State") != "DEAD"
