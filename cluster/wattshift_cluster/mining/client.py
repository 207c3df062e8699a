"""The Stratum client: keeps a session alive, offers work, submits and counts shares.

The owner calls `run()` once and keeps it as a task. While there is no session there is no job
(`current_job()` is None and `on_job(None)` was called), so nobody hashes for nothing. All counters
survive reconnecting.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import structlog

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.courier import Courier, Keeping
from wattshift_cluster.mining.dialects.table import DIALECTS
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import MiningWork, StratumJob
from wattshift_cluster.mining.jobs import MAX_JOBS, JobBook
from wattshift_cluster.mining.nonces import AnyShare, Job
from wattshift_cluster.mining.session import (
    Deadlines,
    Login,
    PoolRefused,
    Resume,
    Session,
    SessionEnded,
)
from wattshift_cluster.mining.shares import ShareCounts, ShareResult
from wattshift_cluster.mining.tls import Trust, Verifier

__all__ = ["MAX_JOBS", "REFUSED_WAIT_S", "Keeping", "StratumClient"]

log = structlog.get_logger()

REFUSED_WAIT_S = 30.0
SOUND_S = 10.0
"""A session that lasts so long, or has a share accepted, works: back-off begins anew after it."""


class StratumClient:
    """One pool account and its connection.

    Attributes:
        endpoint: the pool.
        reconnects: sessions that worked, after the first.
        fault: why there is no session now; None while there is one.
        refused: whether it was the pool's word, so that trying again soon will not help.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str = "x",
        *,
        suggest_difficulty: float | None = None,
        minimum_difficulty: float | None = None,
        roll_versions: bool = True,
        on_job: Callable[[Job | None], None] | None = None,
        deadlines: Deadlines | None = None,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
        trust: Trust | None = None,
        consented: Collection[Endpoint] | None = None,
        keeping: Keeping | None = None,
        numbers: Iterator[int] | None = None,
        algorithm: str = "sha256d",
    ) -> None:
        """Prepare; nothing is connected before `run()`.

        Args:
            url: stratum+tls://host:port or stratum+tcp://host:port.
            user, password: as the pool wants them.
            suggest_difficulty: share difficulty to ask for; None leaves it to the pool.
            minimum_difficulty: the least that we accept, for pools that know BIP 310.
            roll_versions: offer BIP 310 version rolling.
            on_job: called in the event loop with each new job, and with None when it is lost.
            rng: jitter of the back-off.
            trust: whose certificate is believed; the system's authorities when None.
            consented: where client.reconnect may lead; None: to the same host only.
            keeping: of shares in flight.
            numbers: of its sessions, where several clients' sessions must differ.
            algorithm: what the pool wants hashed, which says how it speaks.

        Raises:
            EndpointInvalid: `url` is not one, or `trust` cannot be used.
        """
        self.endpoint = Endpoint.parse(url)
        self.reconnects = 0
        self.fault: str | None = "not started"
        self.refused = False
        self._verifier = Verifier(trust or Trust()) if self.endpoint.tls else None
        self._login = Login(
            user,
            password,
            suggest_difficulty=suggest_difficulty,
            roll_versions=roll_versions,
            minimum_difficulty=minimum_difficulty,
        )
        self._asks = self._login
        self._on_job = on_job
        self._deadlines = deadlines or Deadlines()
        self._backoff = backoff or Backoff(rng or random.Random())
        self._consented = consented
        self._numbers = numbers or itertools.count()
        self._book = JobBook()
        self._dialect = DIALECTS[algorithm]
        answer_s = self._deadlines.answer_s
        self._courier = Courier(
            user, self._book, keeping or Keeping(), answer_s, self._dialect.codes
        )
        self._attempt: Session | None = None
        self._settled: Session | None = None
        self._begun: int | None = None
        self._worked = False
        self._resume: Resume | None = None
        self._hung_up_on_configure = 0
        self._ready_s = 0.0

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares so far."""
        return self._courier.counts

    @property
    def _session(self) -> Session | None:
        return self._courier.session

    @property
    def connected(self) -> bool:
        """Whether a session is logged in."""
        return self._session is not None

    @property
    def sound(self) -> bool:
        """Whether this session has shown that it works."""
        if self._session is None:
            return False
        lasted_s = asyncio.get_running_loop().time() - self._ready_s
        return self._courier.accepted_here or lasted_s >= SOUND_S

    def current_job(self) -> Job | None:
        """The job to work on; None while there is no session or no job yet."""
        return self._book.current if self._session is not None else None

    def next_extranonce2(self) -> bytes:
        """An extranonce2 that nobody else got for the current job.

        Raises:
            Extranonce2Exhausted: the pool left us too few for this job.
        """
        return self._book.next_extranonce2()

    def next_work(self) -> MiningWork | None:
        """Work of its own for one worker: 2^32 nonces. None while there is no job of sha256d.

        Raises:
            Extranonce2Exhausted: as above.
        """
        job = self.current_job()
        return job.work(self.next_extranonce2()) if isinstance(job, StratumJob) else None

    async def run(self) -> None:
        """Keep a session to the pool until cancelled."""
        following: Endpoint | None = None
        self._courier.answer_waiting(None)
        try:
            while True:
                following = await self._one_session(following or self.endpoint)
        finally:
            self._courier.stop()
            self.fault = "not started"

    async def submit(self, share: AnyShare, *, first: bool = False) -> ShareResult:
        """Check a share by the reference of its algorithm, send it, and say what became of it.

        Args:
            first: it may be a block, so it goes out however many are on their way.

        Raises:
            CancelledError: the caller was cancelled; the share is booked as lost.
        """
        return await self._courier.submit(share, first=first)

    async def _one_session(self, endpoint: Endpoint) -> Endpoint | None:
        """Run a session and wait as long as is good after it; returns where it sent us."""
        session = self._attempt = Session(
            next(self._numbers),
            endpoint,
            self._deadlines,
            self._take_job,
            dialect=self._dialect,
            verifier=self._verifier,
            consented=self._consented,
        )
        wait_s, sound, worked = 0.0, False, False
        try:
            await session.run(replace(self._asks, resume=self._resume), self._ready)
        except SessionEnded as fault:
            self.fault, self.refused = str(fault), isinstance(fault, PoolRefused)
            wait_s = REFUSED_WAIT_S if self.refused else 0.0
        finally:
            worked, sound = self._session is not None, self.sound
            self._drop_session()
        if sound:
            self._backoff.reset()
        self._learn(session, worked=worked, sound=sound)
        redirect = session.redirect
        if redirect is None or not sound:  # or a pool could send us in circles without a pause
            wait_s += self._backoff.next_s()
        wait_s += redirect.wait_s if redirect else 0.0
        log.warning("stratum.ended", pool=str(endpoint), reason=self.fault, wait_s=wait_s)
        await asyncio.sleep(wait_s)
        return redirect.endpoint if redirect else None

    def _learn(self, session: Session, *, worked: bool, sound: bool) -> None:
        """Ask less where it was perhaps the asking that ended a session.

        A connection may also break at that moment by chance, so all is asked again after a session
        that worked, unless the pool has hung up on it twice.
        """
        if session.configured is False:
            self._hung_up_on_configure += 1
            self._asks = replace(self._asks, roll_versions=False, minimum_difficulty=None)
        elif session.extras is False:
            self._asks = replace(self._asks, extranonce_changes=False)
        elif not worked or (sound and self._hung_up_on_configure < 2):
            self._asks = self._login
        if session.resuming is False:
            self._resume, self._courier.resumable = None, False
            self._courier.answer_waiting(None)

    def _ready(self) -> None:
        """The login is through."""
        session = self._attempt
        assert session is not None, "a session that nobody began is ready"
        self.fault, self.refused = None, False
        self.reconnects += self._worked
        self._worked = True
        self._ready_s = asyncio.get_running_loop().time()
        self._resume = _resume(session)
        self._courier.serve(session, resumable=self._resume is not None)
        if not session.resumed:
            self._book.forget(session.number)
        log.info(
            "stratum.ready",
            pool=str(session.endpoint),
            session=session.number,
            resumed=session.resumed,
        )
        self._settle_next()
        if self._book.current is not None and self._on_job:
            self._on_job(self._book.current)

    def _take_job(self, job: Job) -> None:
        assert self._attempt is not None, "a job without a session"
        if self._begun != job.session:
            self._begun = job.session
            if self._attempt.resumed:
                self._book.resume()
            else:
                self._book.forget(job.session)
        self._book.take(job)
        self._settle_next()
        # Until the login is through, shares could not be submitted; _ready tells the job then.
        if self._on_job and self._session is not None:
            self._on_job(job)

    def _drop_session(self) -> None:
        had_job = self.current_job() is not None
        if self._session is not None:
            self._resume = _resume(self._session)
        self._courier.session = None
        self._book.suspend()
        if had_job and self._on_job:
            self._on_job(None)

    def _settle_next(self) -> None:
        """Tell shares that wait for this session whether it is theirs, once it can be known.

        Of a session that goes on, the first job says which of the old ones are void.
        """
        session = self._session
        if session is None or session is self._settled:
            return
        if session.resumed and self._book.current is None:
            return
        self._settled = session
        self._courier.answer_waiting(session if session.resumed else None)


def _resume(session: Session) -> Resume | None:
    """What to resume a session with; None where the pool has named none."""
    feed = session.feed
    if feed.session_id is None or feed.extranonce is None:
        return None
    return Resume(feed.session_id, feed.extranonce)
