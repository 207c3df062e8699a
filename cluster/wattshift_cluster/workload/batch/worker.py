"""The worker of a batch job: one Ray actor that does chunk after chunk until it is stopped.

It needs nobody: it is detached, reads what is left from the output folder, and ends its own process
when nothing is left for it, so that its watts are free even if the bridge is gone. A stop takes
effect between two chunks, or at its deadline. The work runs in a thread of its own; the actor's
methods only look and tell. What the work prints goes to the job's log as well.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.workload.batch.callables import imported as imported
from wattshift_cluster.workload.batch.chunk_loop import STOPPED, Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.job_log import Copied
from wattshift_cluster.workload.batch.rows import wrong_of
from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

LEAVE_S = 3.0
TOLD_S = 1.0
"""So long a failure can be asked for: the folder may be one where it cannot be written down."""

THREADED = "numpy"
"""Its libraries read how many threads they may start when they are loaded, and never again."""

OVERDUE_S = 1.0
"""After the deadline of a stop, for a command that is being killed."""


class BatchWorker:
    """The actor. Its name is the job's and its number; a second one of that name cannot exist."""

    def __init__(
        self,
        job: str,
        spec: dict[str, Any],
        worker: int = 0,
        workers: int = 1,
        node: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Begin at once.

        Args:
            job: its id.
            spec: the fields of a BatchSpec.
            worker, workers: number of this worker, and of workers.
            node: the site's name of this node.
            environment: variables for this process. It is the actor's own, and ends with it.
        """
        # Set here and not by Ray, so that any process that Ray has ready will do.
        os.environ.update(environment or {})
        if THREADED in sys.modules:
            log.warning(
                "batch.threads", reason=f"{THREADED} was loaded before its threads were set"
            )
        checked = BatchSpec.kept(spec)
        os.nice(checked.nice)
        self._worker = worker
        self._store = ChunkStore(Path(checked.output))
        self._chunks = Chunks(job, checked, worker, workers, node or None)
        sys.stdout = Copied(sys.stdout, self._chunks.log)
        sys.stderr = Copied(sys.stderr, self._chunks.log)
        self._words: str | None = None
        threading.Thread(target=self._work, name="chunks", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """That it lives; and its last words, for the moment until its process is gone."""
        return {"pid": os.getpid(), "error": self._words}

    def stop(self, within_s: float) -> None:
        """End after the present chunk, and in any case after `within_s`."""
        self._chunks.stop(within_s)
        timer = threading.Timer(within_s + OVERDUE_S, self._end, [STOPPED])
        timer.daemon = True
        timer.start()

    def leave(self) -> None:
        """End this process now."""
        internal("ray.actor").exit_actor()

    def _work(self) -> None:
        try:
            outcome = self._chunks.run()
        except BaseException as fault:  # of a thread whose end nobody else would notice
            log.exception("batch.worker_failed")
            self._words = str(wrong_of(fault))
            time.sleep(TOLD_S)
            os._exit(1)
        if outcome is not None and outcome.state == "failed":
            self._words = outcome.error
            time.sleep(TOLD_S)
        self._store.leave(self._worker, self._chunks.why)
        with suppress(Exception):  # an end that Ray knows for one, if Ray still listens
            internal("ray").get_runtime_context().current_actor.leave.remote()
            time.sleep(LEAVE_S)
        os._exit(0)

    def _end(self, why: str) -> None:
        self._store.leave(self._worker, why)
        os._exit(0)
