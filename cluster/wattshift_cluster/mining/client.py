"""The Stratum client: keeps a session alive, offers work, submits and counts shares.

The owner calls `run()` once and keeps it as a task. While there is no session there is no job
(`current_job()` is None and `on_job(None)` was called), so nobody hashes for nothing. All counters
survive reconnecting.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.extranonce import Extranonce2Space
from wattshift_cluster.mining.job import MiningWork, Share, StratumJob
from wattshift_cluster.mining.session import (
    AnswerMissing,
    Deadlines,
    Login,
    PoolRefused,
    Session,
    SessionEnded,
    error_text,
)
from wattshift_cluster.mining.shares import ShareCounts, ShareLedger, ShareResult

log = structlog.get_logger()

MAX_JOBS = 64
"""Jobs of a session that may still be submitted for; a clean job voids all before it."""

REFUSED_WAIT_S = 30.0


class StratumClient:
    """One pool account and its connection.

    Attributes:
        reconnects: sessions that worked, after the first.
        fault: why there is no session now; None while there is one.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str = "x",
        *,
        suggest_difficulty: float | None = None,
        roll_versions: bool = True,
        on_job: Callable[[StratumJob | None], None] | None = None,
        deadlines: Deadlines | None = None,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare; nothing is connected before `run()`.

        Args:
            url: stratum+tcp://host:port.
            user, password: as the pool wants them.
            suggest_difficulty: share difficulty to ask for; None leaves it to the pool.
            roll_versions: offer BIP 310 version rolling.
            on_job: called in the event loop with each new job, and with None when it is lost.
            rng: jitter of the back-off.

        Raises:
            EndpointInvalid: `url` is not one.
        """
        self.endpoint = Endpoint.parse(url)
        self.reconnects = 0
        self.fault: str | None = "not started"
        self._login = Login(
            user, password, suggest_difficulty=suggest_difficulty, roll_versions=roll_versions
        )
        self._on_job = on_job
        self._deadlines = deadlines or Deadlines()
        self._backoff = backoff or Backoff(rng or random.Random())
        self._ledger = ShareLedger()
        self._sessions = 0
        self._session: Session | None = None
        self._job: StratumJob | None = None
        self._jobs: OrderedDict[str, StratumJob] = OrderedDict()
        self._space = Extranonce2Space(0)

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares so far."""
        return self._ledger.snapshot()

    @property
    def connected(self) -> bool:
        """Whether a session is logged in."""
        return self._session is not None

    def current_job(self) -> StratumJob | None:
        """The job to work on; None while there is no session or no job yet."""
        return self._job if self._session is not None else None

    def next_extranonce2(self) -> bytes:
        """An extranonce2 that nobody else got for the current job.

        Raises:
            Extranonce2Exhausted: the pool left us too few for this job.
        """
        return self._space.encode(self._space.take()[0])

    def next_work(self) -> MiningWork | None:
        """Work of its own for one worker: 2^32 nonces. None while there is no job.

        Raises:
            Extranonce2Exhausted: as above.
        """
        job = self.current_job()
        return job.work(self.next_extranonce2()) if job else None

    async def run(self) -> None:
        """Keep a session to the pool until cancelled."""
        following: Endpoint | None = None
        while True:
            session = Session(
                self._sessions, following or self.endpoint, self._deadlines, self._take_job
            )
            self._sessions += 1
            wait_s = 0.0
            try:
                await session.run(self._login, partial(self._ready, session))
            except PoolRefused as fault:
                self.fault, wait_s = str(fault), REFUSED_WAIT_S
            except SessionEnded as fault:
                self.fault = str(fault)
            finally:
                self._drop_session()
            following = session.redirect.endpoint if session.redirect else None
            wait_s += session.redirect.wait_s if session.redirect else self._backoff.next_s()
            if session.configured is False:  # perhaps configure was what it hung up on
                self._login = replace(self._login, roll_versions=False)
            log.warning(
                "stratum.ended", pool=str(session.endpoint), reason=self.fault, wait_s=wait_s
            )
            await asyncio.sleep(wait_s)

    async def submit(self, share: Share) -> ShareResult:
        """Check a share with hashlib, send it, and say what became of it. Never raises."""
        job, session = self._jobs.get(share.job_id), self._session
        if session is None or job is None or share.session != job.session:
            return self._found_but_lost("stale" if session else "not connected", job)
        work = MiningWork(job, share.extranonce2, share.ntime, share.version_bits)
        if not self._is_valid(work, share):
            self._ledger.unverified += 1
            return ShareResult(False, "not a share: our own check failed", job.difficulty)
        self._ledger.found += 1
        params = share.submit_params(self._login.user, with_version=bool(job.version_mask))
        try:
            reply = await session.request("mining.submit", params, self._deadlines.answer_s)
        except asyncio.CancelledError:
            self._lost("cancelled", job.difficulty)
            raise
        except AnswerMissing:
            return self._lost("no answer", job.difficulty)
        except SessionEnded as fault:
            return self._lost(str(fault), job.difficulty)
        if reply.result is True and not reply.error:
            return self._ledger.settle(ShareResult(True, None, job.difficulty))
        reason = error_text(reply.error) or "refused without a reason"
        return self._ledger.settle(ShareResult(False, reason, job.difficulty))

    def _is_valid(self, work: MiningWork, share: Share) -> bool:
        """Whether the share has the right form and really meets the target."""
        fits = len(share.extranonce2) == work.job.extranonce.extranonce2_size
        rolled = share.version_bits & ~work.job.version_mask
        in_range = 0 <= share.nonce < 1 << 32 and 0 <= share.ntime < 1 << 32
        return fits and not rolled and in_range and work.is_share(share.nonce)

    def _found_but_lost(self, reason: str, job: StratumJob | None) -> ShareResult:
        self._ledger.found += 1
        return self._lost(reason, job.difficulty if job else 0.0)

    def _lost(self, reason: str, difficulty: float) -> ShareResult:
        result = ShareResult(False, f"lost: {reason}"[:80], difficulty)
        return self._ledger.settle(result, lost=True)

    def _ready(self, session: Session) -> None:
        self._session, self.fault = session, None
        self._backoff.reset()
        self.reconnects += session.number > 0
        log.info("stratum.ready", pool=str(session.endpoint), session=session.number)
        if self._job is not None and self._on_job:
            self._on_job(self._job)

    def _take_job(self, job: StratumJob) -> None:
        if job.clean:
            self._jobs.clear()
        self._jobs[job.job_id] = job
        self._jobs.move_to_end(job.job_id)
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)
        if self._job is None or self._job.extranonce != job.extranonce:
            self._space = Extranonce2Space(job.extranonce.extranonce2_size)
        self._space.new_job()
        self._job = job
        # Until the login is through, shares could not be submitted; _ready tells the job then.
        if self._on_job and self._session is not None:
            self._on_job(job)

    def _drop_session(self) -> None:
        had_job = self._job is not None and self._session is not None
        self._session, self._job = None, None
        self._jobs.clear()
        if had_job and self._on_job:
            self._on_job(None)
