"""Batch jobs: who is wanted to run, and what became of each.

A job that was accepted is written to the state folder before the command is answered, so it
outlives this process. Its worker is a detached actor with the job's name, which a new bridge finds
again. A pause ends the worker after its chunk, because only a worker that is gone gives its watts
back; one that takes too long is killed, and its chunk is done anew.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import NotFound, Refused, TryLater
from wattshift_cluster.gate import GATE_DIR_VARIABLE
from wattshift_cluster.inference.app import ONE_THREAD
from wattshift_cluster.workload.batch_worker import BatchWorker
from wattshift_cluster.workload.chunks import ChunkStore, Outcome
from wattshift_cluster.workload.ray_link import NAMESPACE, POWER, Node, internal
from wattshift_cluster.workload.specs import BatchSpec

log = structlog.get_logger()

JOBS_MAX = 1000
PAUSE_GRACE_S = 2.0
"""So long a worker may go on with its chunk after a pause or a cancel."""

DEATHS_MAX = 5
"""Workers that may die in a row without one chunk done, before the job counts as failed."""

BACK_OFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)

RUN, PAUSE, CANCEL = "run", "pause", "cancel"
FINAL = ("completed", "failed", "cancelled")


@dataclass(slots=True)
class BatchJob:
    """One job as this bridge runs it."""

    job: str
    spec: BatchSpec | None
    wanted: str
    state: str = "starting"
    error: str | None = None
    actor: Any = None
    ping: Any = None
    alive: bool = False
    deaths: int = 0
    done: int | None = None
    total: int | None = None
    not_before_s: float = -math.inf
    stop_by_s: float | None = None


class BatchJobs:
    """All batch jobs of one bridge. Methods that touch Ray block; for the engine's thread."""

    def __init__(self, folder: Path, gate_dir: str | None) -> None:
        """Read the jobs that were accepted earlier.

        Args:
            folder: where they are kept.
            gate_dir: given to workers, so that they can say they are busy.
        """
        self._folder = folder
        self._gate_dir = gate_dir
        self._jobs: dict[str, BatchJob] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(path.read_text())
                spec = BatchSpec(**row["spec"]) if row["spec"] else None
                self._jobs[row["job"]] = BatchJob(row["job"], spec, row["wanted"])

    def start(self, job: str, spec: BatchSpec) -> None:
        """Accept a job, or resume it; durable when this returns.

        Raises:
            Refused: its output folder is another job's, or it was cancelled.
            TryLater: too many jobs.
        """
        known = self._jobs.get(job)
        if known is None and len(self._jobs) >= JOBS_MAX:
            raise TryLater(f"{JOBS_MAX} jobs are known already")
        if known is not None and known.wanted == CANCEL:
            raise Refused(f"job {job} was cancelled")
        store = ChunkStore(Path(spec.output))
        plan = store.plan()
        if plan is not None and plan.job != job:
            raise Refused(f"{spec.output} holds the output of job {plan.job}; name another output")
        store.reopen()
        self._keep(job, spec, RUN)
        if known is None:
            self._jobs[job] = BatchJob(job, spec, RUN)
            return
        known.spec, known.wanted, known.stop_by_s = spec, RUN, None
        known.deaths, known.not_before_s, known.error = 0, -math.inf, None
        if known.state != "running":
            known.state = "starting"

    def pause(self, job: str) -> None:
        """Want a job to stop at its next checkpoint. Raises: NotFound."""
        known = self._known(job)
        if known.wanted == RUN:
            self._keep(job, known.spec, PAUSE)
            known.wanted = PAUSE

    def cancel(self, job: str) -> None:
        """End a job for good; what it has written stays. A job nobody knows is cancelled too."""
        known = self._jobs.setdefault(job, BatchJob(job, None, CANCEL))
        if known.state not in FINAL:
            self._keep(job, known.spec, CANCEL)
            known.wanted = CANCEL

    def poll(self, node: Node, now_s: float) -> None:
        """Look at every job once and bring it nearer to what is wanted."""
        for job in list(self._jobs.values()):
            if job.state in FINAL:
                continue
            try:
                self._progress(job)
                if not self._ended(job):
                    self._look(job, now_s)
                    self._drive(job, node, now_s)
            except Exception as fault:  # one job that cannot be driven must not stop the others
                job.error = f"{type(fault).__name__}: {fault}"[:500]
                log.warning("batch.trouble", job=job.job, error=job.error)

    def halting(self) -> bool:
        """Whether a worker is on its way out, and watts with it."""
        return any(job.stop_by_s is not None for job in list(self._jobs.values()))

    def report(self) -> list[dict[str, Any]]:
        """A BatchReport for each."""
        return [
            {
                "job": job.job,
                "state": job.state,
                "done": job.done,
                "total": job.total,
                "error": job.error,
            }
            for job in list(self._jobs.values())
        ]

    def _known(self, job: str) -> BatchJob:
        if job not in self._jobs:
            raise NotFound(f"no batch job {job}")
        return self._jobs[job]

    def _keep(self, job: str, spec: BatchSpec | None, wanted: str) -> None:
        path = self._folder / f"{job}.json"
        attempt = path.with_suffix(".new")
        row = {"job": job, "spec": asdict(spec) if spec else None, "wanted": wanted}
        with attempt.open("w") as file:
            json.dump(row, file)
            file.flush()
            os.fsync(file.fileno())
        attempt.replace(path)

    def _progress(self, job: BatchJob) -> None:
        if job.spec is None:
            return
        store = ChunkStore(Path(job.spec.output))
        plan = store.plan()
        if plan is None or plan.job != job.job:
            return
        done = store.done_items(plan)
        if done > (job.done or 0):
            job.deaths = 0
        job.done, job.total = done, plan.items

    def _ended(self, job: BatchJob) -> bool:
        """Whether its worker recorded how it ended."""
        outcome = self._outcome(job)
        if outcome is None or job.wanted == CANCEL:
            return False
        job.state, job.error = outcome.state, outcome.error
        if outcome.items_failed:
            job.error = f"{outcome.items_failed} items are not JSON"
        job.actor = job.ping = None
        return True

    def _look(self, job: BatchJob, now_s: float) -> None:
        """Learn whether the worker lives, without waiting for it."""
        ray = internal("ray")
        if job.actor is None:
            with suppress(ValueError):
                job.actor = ray.get_actor(_actor_name(job.job), NAMESPACE)
        if job.actor is None:
            job.alive = False
            return
        if job.ping is None:
            job.ping = job.actor.status.remote()
        ready, _ = ray.wait([job.ping], timeout=0)
        if not ready:
            return
        ping, job.ping = job.ping, None
        try:
            ray.get(ping, timeout=1.0)
            job.alive = True
        except ray.exceptions.ActorUnavailableError:
            return
        except ray.exceptions.RayError as fault:
            self._died(job, str(fault), now_s)

    def _died(self, job: BatchJob, reason: str, now_s: float) -> None:
        job.actor, job.alive = None, False
        if job.wanted != RUN or self._outcome(job):
            return
        job.deaths += 1
        job.not_before_s = now_s + BACK_OFF_S[min(job.deaths, len(BACK_OFF_S)) - 1]
        log.warning("batch.worker_died", job=job.job, deaths=job.deaths, reason=reason[:200])
        if job.deaths >= DEATHS_MAX:
            job.state = "failed"
            job.error = f"{job.deaths} workers in a row ended with no chunk done: {reason}"[:500]

    def _outcome(self, job: BatchJob) -> Outcome | None:
        if job.spec is None:
            return None
        store = ChunkStore(Path(job.spec.output))
        plan = store.plan()
        # Without a plan the input or the callable was at fault, before there was anything to plan.
        return store.outcome() if plan is None or plan.job == job.job else None

    def _drive(self, job: BatchJob, node: Node, now_s: float) -> None:
        if job.state in FINAL:
            return
        if job.wanted == RUN:
            self._run(job, node, now_s)
        elif job.actor is None:
            job.state = "paused" if job.wanted == PAUSE else "cancelled"
            job.error, job.stop_by_s = None, None
        else:
            self._halt(job, now_s)

    def _run(self, job: BatchJob, node: Node, now_s: float) -> None:
        assert job.spec is not None, "only a cancelled job has no specification"
        if job.stop_by_s is not None:
            return
        if job.actor is None:
            if now_s >= job.not_before_s:
                job.actor = self._worker(job.job, job.spec)
            job.state = "starting"
            return
        job.state = "running" if job.alive else "starting"
        free_w = node.power_w_available
        waits = not job.alive and free_w is not None and free_w < job.spec.watts_w
        job.error = (
            f"{free_w:g} W free, its worker asks for {job.spec.watts_w:g} W" if waits else None
        )

    def _halt(self, job: BatchJob, now_s: float) -> None:
        """Tell the worker to end; kill it when it does not, or when it has not begun."""
        if job.stop_by_s is None:
            job.stop_by_s = now_s + PAUSE_GRACE_S
            job.actor.stop.remote()
        if now_s >= job.stop_by_s or not job.alive:
            internal("ray").kill(job.actor, no_restart=True)
            job.stop_by_s = now_s + PAUSE_GRACE_S

    def _worker(self, job: str, spec: BatchSpec) -> Any:
        env = dict(ONE_THREAD)
        if self._gate_dir:
            env[GATE_DIR_VARIABLE] = self._gate_dir
        options: Mapping[str, Any] = {
            "name": _actor_name(job),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": spec.num_cpus,
            "resources": {POWER: spec.watts_w},
            "max_restarts": 0,
            "max_concurrency": 4,
            "runtime_env": {"env_vars": env},
        }
        actor = internal("ray").remote(BatchWorker).options(**options)
        log.info("batch.worker", job=job, watts_w=spec.watts_w)
        return actor.remote(job, asdict(spec))


def _actor_name(job: str) -> str:
    return f"batch:{job}"
