"""Batch jobs: who is wanted to run, and what became of each.

A job that was accepted is written to the state folder before the command is answered, so it
outlives this process. Its workers are detached actors with the job's name, which a new bridge finds
again. A pause ends each worker after its chunk, because only a worker that is gone gives its watts
back; one that takes too long is killed, and its chunk is done anew.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import NotFound, Refused, TryLater
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.crew import Crew
from wattshift_cluster.workload.batch.findings import ERROR_CHARS_MAX
from wattshift_cluster.workload.batch.job import FINAL, BatchJob
from wattshift_cluster.workload.batch.job_log import tail
from wattshift_cluster.workload.batch.wishes import CANCEL, PAUSE, RUN, Wish, WishBook
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

JOBS_MAX = 1000


class BatchJobs:
    """All batch jobs of one bridge. `poll` is for the engine's thread, and may block on Ray."""

    def __init__(self, folder: Path, gate_dir: str | None) -> None:
        """Read the jobs that were accepted earlier.

        Args:
            folder: where they are kept.
            gate_dir: given to workers, so that they can say they are busy.
        """
        self._gate_dir = gate_dir
        self._book = WishBook(folder)
        self._lock = threading.Lock()
        self._jobs = {wish.job: self._job(wish) for wish in self._book.read()}

    def start(self, job: str, spec: BatchSpec, nodes: Mapping[str, int] | None = None) -> None:
        """Accept a job, resume it, or change where it works; durable when this returns.

        Args:
            job: its id.
            spec: what it does.
            nodes: workers by node; none given: one on the node of the bridge's driver.

        Raises:
            Refused: its output folder is another job's, or it was cancelled.
            TryLater: too many jobs.
        """
        with self._lock:
            known = self._jobs.get(job)
            if known is not None and known.wish.wanted == CANCEL:
                raise Refused(f"job {job} was cancelled")
            if known is None:
                self._make_room()
            store = ChunkStore(Path(spec.output))
            plan = store.plan()
            if plan is not None and (plan.job, plan.work) != (job, spec.work):
                owner = f"job {plan.job}" if plan.job != job else plan.work
                raise Refused(f"{spec.output} holds the output of {owner}; name another output")
            store.reopen()
            division = {name: count for name, count in (nodes or {}).items() if count > 0}
            self._want(job, spec, RUN, division or None)

    def pause(self, job: str) -> None:
        """Want a job to stop at its next checkpoint. Raises: NotFound."""
        with self._lock:
            wish = self._known(job).wish
            if wish.wanted == RUN:
                self._want(job, wish.spec, PAUSE, wish.nodes)

    def cancel(self, job: str) -> None:
        """End a job for good; what it has written stays. A job nobody knows is cancelled too."""
        with self._lock:
            known = self._jobs.get(job)
            if known is None:
                self._want(job, None, CANCEL, None)
            elif known.state not in FINAL:
                self._want(job, known.wish.spec, CANCEL, None, hurry=True)

    def evict(self, job: str, node: str, units: int) -> int:
        """End workers on a node at once; how many. They do not come back before the next `start`.

        A gang is paused as a whole, and so is a job whose last worker this is.

        Raises:
            NotFound: no such job.
        """
        with self._lock:
            known = self._known(job)
            wish, division = known.wish, known.wish.nodes or known.by_node
            here = division.get(node, 0)
            if wish.wanted != RUN or wish.spec is None or here == 0 or units <= 0:
                return 0
            rest = {**division, node: here - units}
            rest = {name: count for name, count in rest.items() if count > 0}
            if wish.spec.gang or not rest:
                self._want(job, wish.spec, PAUSE, wish.nodes, hurry=True)
                return sum(division.values()) if wish.spec.gang else here
            self._want(job, wish.spec, RUN, rest, hurry=True)
            return min(units, here)

    def poll(self, nodes: Mapping[str, Node], now_s: float) -> None:
        """Look at every job once and bring it nearer to what is wanted.

        Args:
            nodes: the cluster's by name, the driver's own first.
            now_s: our clock, s.
        """
        for job in list(self._jobs.values()):
            try:
                job.turn(nodes, now_s)
            except Exception as fault:  # one job that cannot be driven must not stop the others
                job.error = f"{type(fault).__name__}: {fault}"[:ERROR_CHARS_MAX]
                log.warning("batch.trouble", job=job.wish.job, error=job.error)

    def moving(self, now_s: float) -> bool:
        """Whether a worker is on its way in or out, and watts with it."""
        crews = [job.crew for job in list(self._jobs.values())]
        return any(crew.leaving or crew.arriving(now_s) for crew in crews)

    def names(self) -> set[str]:
        """The jobs that are known."""
        return set(self._jobs)

    def report(self) -> list[dict[str, Any]]:
        """A row for each job (docs/protocol.md)."""
        return [job.row() for job in list(self._jobs.values())]

    def log_tail(self, job: str, lines: int) -> list[str]:
        """The last lines that a job's work printed; [] if there are none. Raises: NotFound."""
        spec = self._known(job).wish.spec
        return [] if spec is None else tail(Path(spec.output), lines)

    def _known(self, job: str) -> BatchJob:
        if job not in self._jobs:
            raise NotFound(f"no batch job {job}")
        return self._jobs[job]

    def _job(self, wish: Wish) -> BatchJob:
        return BatchJob(wish, Crew(wish.job, self._book.seats(wish.job), self._gate_dir))

    def _want(
        self,
        job: str,
        spec: BatchSpec | None,
        wanted: str,
        nodes: Mapping[str, int] | None,
        hurry: bool = False,
    ) -> None:
        known = self._jobs.get(job)
        number = known.wish.number + 1 if known else 0
        wish = Wish(job, spec, wanted, nodes, hurry, number)
        self._book.keep(wish)
        if known is None:
            self._jobs[job] = self._job(wish)
        else:
            known.wish = wish

    def _make_room(self) -> None:
        """Forget the job that has been at its end for longest, where there are too many."""
        if len(self._jobs) < JOBS_MAX:
            return
        oldest = next((name for name, job in self._jobs.items() if job.over), None)
        if oldest is None:
            raise TryLater(f"{JOBS_MAX} jobs are known already")
        self._book.forget(oldest)
        del self._jobs[oldest]
