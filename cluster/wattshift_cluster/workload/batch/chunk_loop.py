"""Doing a job's chunks one by one, beside other workers of the same job; a worker without Ray.

    plan (survey, or what another worker planned) ─▶ [claim a chunk ─▶ do it ─▶ commit] ─▶ join

Each worker begins at a place of its own and goes on from there; what others hold is skipped, and
looked at again when nothing else is left, because a holder may be gone. A worker that finds nothing
to do for longer than a claim can be void leaves: its watts are better used elsewhere.
"""

import os
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from wattshift_cluster.errors import Refused, WattshiftError
from wattshift_cluster.gate import GATE_DIR_VARIABLE, ClientGate
from wattshift_cluster.workload.batch.callables import Work, called, imported, look_in
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.claims import LEASE_S, RENEW_S, Claims
from wattshift_cluster.workload.batch.commands import Command
from wattshift_cluster.workload.batch.datasets import Dataset, SurveyEnded, survey
from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.job_log import JobLog
from wattshift_cluster.workload.batch.plans import RESULTS, Outcome, Plan, chunk_name, planned
from wattshift_cluster.workload.batch.rows import error_of, is_dead, wrong_of
from wattshift_cluster.workload.batch.trial import RETRY_S, Broken, Health, Stopped, Trial
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

ATTEMPTS_MAX = 3
"""Times the work is built, and a chunk is written, before the job counts as failed."""

LOOK_S = 0.3
IDLE_LEASES = 1.5
"""So many leases a worker waits for a chunk that others hold."""

TRACES_MAX = 100
TRACE_CHARS_MAX = 8000
ERROR_CHARS_MAX = 500

STOPPED, IDLE, ENDED = "stopped", "idle", "ended"

T = TypeVar("T")


class Idle(Exception):
    """All that is left is in the hands of others."""


class Chunks:
    """One worker's way through a job."""

    def __init__(
        self,
        job: str,
        spec: BatchSpec,
        worker: int = 0,
        workers: int = 1,
        node: str | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        """Prepare.

        Args:
            job: its id.
            spec: what it does.
            worker: number of this worker, from 0.
            workers: how many there are, for where this one begins.
            node: the site's name of this node, for errors.
            lease_s: of claims, s.
        """
        self._job = job
        self._spec = spec
        self._worker = worker
        self._place = worker % max(1, workers) / max(1, workers)
        self._node = node or socket.gethostname()
        self._store = ChunkStore(Path(spec.output))
        self._lease_s = lease_s
        self._claims = Claims(self._store.claims, lease_s, min(RENEW_S, lease_s / 4))
        self._stop = threading.Event()
        self._work: Work | None = None
        self._queue: deque[int] = deque()
        self._traces = 0
        self.log = JobLog(self._store.folder, worker)
        self.why = ENDED

    def stop(self, within_s: float | None = None) -> None:
        """Ask for the end after the present chunk; after `within_s` a command is killed."""
        self._stop.set()
        if within_s is not None:
            timer = threading.Timer(within_s, self._interrupt)
            timer.daemon = True
            timer.start()

    def run(self) -> Outcome | None:
        """Work until the job is at its end (how) or this worker is (None, and `why`)."""
        try:
            if outcome := self._store.outcome():
                return outcome
            look_in(self._spec.python_path)
            if not self._spec.command:
                imported(self._spec.callable, self._node)
            plan = self._plan()
            self._claims.begin()
            dataset = Dataset(self._store.index(plan))
            dataset.check(self._spec.input, self._spec.format)
            if self._queued(plan):
                self._through(plan, dataset)
            return self._finish(plan)
        except Stopped:
            self.why = STOPPED
            return None
        except Idle:
            self.why = IDLE
            return None
        except Refused as fault:  # the folder is another job's: nothing may be written there
            return Outcome("failed", str(fault)[:ERROR_CHARS_MAX])
        except WattshiftError as fault:
            return self._failed(str(fault)[:ERROR_CHARS_MAX])
        finally:
            self._claims.end()
            self._store.close()
            if self._work is not None:
                self._work.close()

    def _interrupt(self) -> None:
        if self._work is not None:
            self._work.interrupt()

    def _pause(self, seconds: float) -> bool:
        return self._stop.wait(seconds) if seconds > 0 else self._stop.is_set()

    def _plan(self) -> Plan:
        """The plan that holds, made by this worker or by another."""
        spec = self._spec
        if self._store.plan() is None:
            with suppress(SurveyEnded):
                index = survey(spec.input, spec.format, spec.chunk_items, self._needless)
                return self._store.open(*planned(self._job, spec.work, spec.input, index))
        return self._store.held(self._job, spec.work)

    def _needless(self) -> bool:
        if self._stop.is_set():
            raise Stopped
        return self._store.plan() is not None

    def _built(self) -> Work:
        """The work, ready. Raises: InputInvalid, Stopped."""
        spec = self._spec
        if spec.command:
            # Beside the output folder: where names in a job file usually count from.
            beside = self._store.folder.parent
            return Command(spec.command, beside, self.log, spec.python_path)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return called(spec.callable, self._node)
            except InputInvalid:
                raise
            except (Exception, SystemExit) as fault:  # a model that cannot be built
                self._tell(0, 0, fault)
                if attempt == ATTEMPTS_MAX:
                    words = f"{spec.callable} cannot be built on node {self._node}"
                    raise InputInvalid(f"{words}: {wrong_of(fault)}") from fault
            if self._pause(RETRY_S):
                raise Stopped
        raise AssertionError("the last attempt returned or raised")

    def _through(self, plan: Plan, dataset: Dataset) -> None:
        """Chunk after chunk, until none is left for this worker."""
        self._work = self._built()
        gate_dir = os.environ.get(GATE_DIR_VARIABLE)
        gated = gate_dir and self._spec.mark_busy
        work = _Busy(self._work, ClientGate(gate_dir)) if gated and gate_dir else self._work
        trial, health = Trial(work, self._spec.item_attempts, self._pause, self._tell), Health()
        while (chunk := self._next(plan)) is not None:
            rows = trial.rows(chunk * plan.chunk_items, dataset.chunk(chunk))
            self._commit(chunk, rows)
            try:
                health.chunk(len(rows), [error_of(row) for row in rows if is_dead(row)])
            except Broken:
                self._store.join_letters()
                raise

    def _commit(self, chunk: int, rows: Sequence[bytes]) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self._store.check()
            try:
                if not self._store.commit(chunk, rows):
                    log.info("batch.late", job=self._job, chunk=chunk)
                return
            except OSError as fault:
                log.warning("batch.commit", job=self._job, chunk=chunk, reason=str(fault))
                if attempt == ATTEMPTS_MAX:
                    reason = fault.strerror or fault
                    raise InputInvalid(f"chunk {chunk} cannot be written: {reason}") from fault
            if self._pause(RETRY_S):
                raise Stopped

    def _next(self, plan: Plan) -> int | None:
        """A chunk that is this worker's now; None when none is left. Raises: Stopped, Idle."""

        def wanted() -> bool:
            return bool(self._queued(plan)) and self._store.outcome() is None

        return self._patiently(wanted, self._pass)

    def _patiently(self, wanted: Callable[[], bool], take: Callable[[], T | None]) -> T | None:
        """Try to take something that others may hold; None when it is wanted no more.

        Raises:
            Stopped: a stop came.
            Idle: they have held it for so long that they must be alive.
            Refused: the folder was removed.
        """
        tries = 0
        self._store.check()
        while wanted():
            if self._pause(LOOK_S if tries else 0.0):
                raise Stopped
            if (taken := take()) is not None:
                return taken
            tries += 1
            if tries * LOOK_S > IDLE_LEASES * self._lease_s:
                raise Idle
        return None

    def _pass(self) -> int | None:
        """Go through the queue once; what others hold stays for the next time."""
        while self._queue:
            chunk = self._queue.popleft()
            if self._store.is_committed(chunk):
                continue
            if self._claims.take(chunk_name(chunk)):
                if not self._store.is_committed(chunk):
                    return chunk
                self._claims.release()
        return None

    def _queued(self, plan: Plan) -> deque[int]:
        """What is not done, from this worker's place on, if nothing is queued."""
        if not self._queue:
            left = sorted(set(range(plan.chunks)) - self._store.committed())
            place = int(len(left) * self._place)
            self._queue = deque([*left[place:], *left[:place]])
        return self._queue

    def _finish(self, plan: Plan) -> Outcome | None:
        """Join the chunks, unless another does; how the job ended. Raises: Stopped, Idle."""
        joined = self._patiently(lambda: self._store.outcome() is None, lambda: self._joined(plan))
        return joined or self._store.outcome()

    def _joined(self, plan: Plan) -> Outcome | None:
        if not self._claims.take(RESULTS):
            return None
        try:
            return self._store.finish(plan)
        except OSError as fault:
            reason = fault.strerror or fault
            raise InputInvalid(f"results cannot be written: {reason}") from fault

    def _tell(self, first: int, count: int, fault: BaseException) -> None:
        """Write a failure to the job's log; the first ones with their trace."""
        items = f"item {first}" if count == 1 else f"items {first} to {first + count - 1}"
        self.log.line(f"{items if count else 'the work'} failed: {wrong_of(fault)}")
        self._traces += 1
        if self._traces <= TRACES_MAX:
            self.log.line("".join(traceback.format_exception(fault))[-TRACE_CHARS_MAX:])

    def _failed(self, error: str) -> Outcome:
        outcome = Outcome("failed", error, self._store.dead_letters({}))
        self.log.line(f"the job failed: {error}")
        with suppress(OSError, WattshiftError):
            return self._store.end(outcome)
        return outcome


class _Busy:
    """Work that says it is busy while it lasts, so that the miner of its host yields."""

    def __init__(self, work: Work, gate: ClientGate) -> None:
        self._work = work
        self._gate = gate

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        with self._gate.busy():
            return self._work(items)

    def interrupt(self) -> None:
        self._work.interrupt()

    def close(self) -> None:
        self._work.close()
