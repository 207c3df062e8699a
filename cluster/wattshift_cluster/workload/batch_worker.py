"""The worker of a batch job: one Ray actor that does chunk after chunk until it is stopped.

It needs nobody: it is detached, reads what is left from the output folder, and ends its own process
when all is done, so that its watts are free even if the bridge is gone. A stop takes effect between
two chunks. The work runs in a thread of its own; the actor's methods only look and tell.
"""

import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import Refused, WattshiftError
from wattshift_cluster.gate import GATE_DIR_VARIABLE, ClientGate
from wattshift_cluster.workload.chunks import (
    ChunkStore,
    InputInvalid,
    Outcome,
    Plan,
    read_chunk,
    survey,
)
from wattshift_cluster.workload.ray_link import internal
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

ATTEMPTS_MAX = 3
"""Times a chunk is tried in one process before the job counts as failed."""

RETRY_S = 0.5
LEAVE_S = 3.0

Work = Callable[[Sequence[Any]], Sequence[Any]]


def imported(path: str) -> Any:
    """The object at "package.module:name".

    Raises:
        InputInvalid: there is none.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as fault:
        raise InputInvalid(f"{path}: {fault}") from fault


def rows_of(work: Work, first: int, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Outputs of a chunk: one row per line; a line that is not JSON has an error for its output.

    Args:
        work: the job's callable.
        first: index of the first line in the whole input.
        lines: the chunk.

    Raises:
        InputInvalid: the callable did not return one output per item.
        Exception: whatever the callable raises.
    """
    rows: list[dict[str, Any]] = [{} for _ in lines]
    good, items = [], []
    for offset, line in enumerate(lines):
        try:
            items.append(json.loads(line))
            good.append(offset)
        except (ValueError, RecursionError):
            rows[offset] = {"index": first + offset, "error": "not JSON"}
    outputs = list(work(items)) if items else []
    if len(outputs) != len(items):
        raise InputInvalid(f"the callable made {len(outputs)} outputs of {len(items)} items")
    for offset, output in zip(good, outputs, strict=True):
        rows[offset] = {"index": first + offset, "output": output}
    return rows


class Chunks:
    """Does a job's chunks one by one; the actor without Ray."""

    def __init__(self, job: str, spec: BatchSpec) -> None:
        self._job = job
        self._spec = spec
        self._store = ChunkStore(Path(spec.output))
        self._stop = threading.Event()
        gate_dir = os.environ.get(GATE_DIR_VARIABLE)
        self._gate = ClientGate(gate_dir) if gate_dir and spec.mark_busy else None

    def stop(self) -> None:
        """Ask for the end after the present chunk."""
        self._stop.set()

    def run(self) -> Outcome | None:
        """Work until all is done (how it ended) or a stop (None)."""
        if outcome := self._store.outcome():
            return outcome
        try:
            work: Work = imported(self._spec.callable)
            digest, items, starts = survey(Path(self._spec.input), self._spec.chunk_items)
            spec = self._spec
            plan = Plan(self._job, spec.callable, spec.input, digest, items, spec.chunk_items)
            self._store.open(plan)
            for chunk in self._left(plan):
                if self._stop.is_set():
                    return None
                if not self._chunk(work, plan, chunk, starts[chunk]):
                    return None
            return self._store.finish(plan)
        except Refused as fault:  # the folder is another job's: nothing may be written there
            return Outcome("failed", str(fault))
        except WattshiftError as fault:
            return self._failed(str(fault))

    def _left(self, plan: Plan) -> list[int]:
        return sorted(set(range(plan.chunks)) - self._store.committed())

    def _chunk(self, work: Work, plan: Plan, chunk: int, start: int) -> bool:
        """Do one chunk; False when stopped before it was done."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with self._busy():
                    lines = read_chunk(Path(plan.input), start, plan.items_of(chunk))
                    rows = rows_of(work, chunk * plan.chunk_items, lines)
                    if not self._store.commit(chunk, rows):
                        log.info("batch.late", job=self._job, chunk=chunk)
                return True
            except InputInvalid:
                raise
            except Exception as fault:
                log.exception("batch.chunk_failed", job=self._job, chunk=chunk, attempt=attempt)
                if attempt == ATTEMPTS_MAX:
                    text = f"chunk {chunk}: {type(fault).__name__}: {fault}"
                    raise InputInvalid(text[:500]) from fault
                if self._stop.wait(RETRY_S):
                    return False
        return False

    def _failed(self, error: str) -> Outcome:
        outcome = Outcome("failed", error)
        with suppress(OSError):
            return self._store.end(outcome)
        return outcome

    def _busy(self) -> AbstractContextManager[None]:
        return self._gate.busy() if self._gate else nullcontext()


class BatchWorker:
    """The actor. Its name is the job's; a second one of that name cannot exist."""

    def __init__(self, job: str, spec: dict[str, Any]) -> None:
        """Begin at once. `spec` holds the fields of a BatchSpec."""
        checked = BatchSpec(**spec)
        os.nice(checked.nice)
        self._chunks = Chunks(job, checked)
        self._ended: Outcome | None = None
        threading.Thread(target=self._work, name="chunks", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """That it lives; and how the job ended, for the moment until its process is gone."""
        ended = self._ended
        return {"pid": os.getpid(), "state": ended.state if ended else "running"}

    def stop(self) -> None:
        """End after the present chunk."""
        self._chunks.stop()

    def leave(self) -> None:
        """End this process now."""
        internal("ray.actor").exit_actor()

    def _work(self) -> None:
        try:
            self._ended = self._chunks.run()
        except Exception:
            log.exception("batch.worker_failed")
        with suppress(Exception):  # an end that Ray knows for one, if Ray still listens
            internal("ray").get_runtime_context().current_actor.leave.remote()
            time.sleep(LEAVE_S)
        os._exit(0)
