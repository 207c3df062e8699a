"""Takes shares to the pool: checked before, answered after, and kept while a connection is gone.

A share in flight when its connection ends is kept for `Keeping.age_s`. If the pool then goes on
with the session it is sent again, once, and a pool that has it already says so ("duplicate"), which
counts as accepted. Otherwise it is lost, with a reason.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from wattshift_cluster.mining.checker import aside
from wattshift_cluster.mining.jobs import JobBook
from wattshift_cluster.mining.lines import Message
from wattshift_cluster.mining.nonces import AnyShare, Job, Params
from wattshift_cluster.mining.refusals import CODES, Kind, error_text, kind_of
from wattshift_cluster.mining.session import (
    MAX_WAITING,
    AnswerMissing,
    PoolRefused,
    Session,
    SessionEnded,
)
from wattshift_cluster.mining.shares import ShareCounts, ShareLedger, ShareResult

MOST_REFUSED = 20
"""Refused shares in a row, none of them stale or known, after which we do not hash for a pool."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How many shares may be on their way, and how long one outlives its connection, s."""

    most: int = 1024
    age_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.most <= MAX_WAITING // 2:  # the rest is for those that may be blocks
            raise ValueError(f"0 to {MAX_WAITING // 2} shares may be on their way")


class _Lost(Exception):
    """A share that is not submitted (again); the text says why."""


class Courier:
    """One pool account's; its sessions come and go.

    Attributes:
        session: the one that is logged in; None while there is none.
        resumable: whether the pool has named the session, so that it may go on with it.
        accepted_here: whether a share was accepted in this session.
    """

    def __init__(
        self,
        user: str,
        book: JobBook,
        keeping: Keeping,
        answer_s: float,
        codes: Mapping[int, Kind] = CODES,
    ) -> None:
        """Nothing is on its way.

        Args:
            book: the jobs that may be submitted for.
            answer_s: the longest wait for a pool.
            codes: what those of the pool's refusals mean.
        """
        self.session: Session | None = None
        self.resumable = False
        self.accepted_here = False
        self._user = user
        self._book = book
        self._keeping = keeping
        self._answer_s = answer_s
        self._codes = codes
        self._ledger = ShareLedger()
        self._refused_in_row = 0
        self._next: asyncio.Future[Session | None] | None = None

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares so far."""
        return self._ledger.snapshot()

    def serve(self, session: Session, *, resumable: bool) -> None:
        """This session is logged in."""
        self.session, self.resumable = session, resumable
        self.accepted_here, self._refused_in_row = False, 0

    def answer_waiting(self, session: Session | None) -> None:
        """Tell the shares of a connection that has ended in which session they may go on.

        Args:
            session: None where the pool knows nothing of theirs.
        """
        if self._next is not None and not self._next.done():
            self._next.set_result(session)
        self._next = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """No other session will come."""
        self.answer_waiting(None)
        self._next = None

    async def submit(self, share: AnyShare, *, first: bool = False) -> ShareResult:
        """Check a share, send it, and say what became of it; see `StratumClient`."""
        job = self._book.find(share)
        if job is None:
            self._ledger.find()
            return self._lost("stale" if self.session else "not connected", 0.0)
        if not await self._valid(job, share):
            self._ledger.unverified += 1
            return ShareResult(False, "not a share: our own check failed", job.difficulty)
        self._ledger.find()
        if not job.same_template(self._book.find(share)):  # the check took long: it was overtaken
            return self._lost("stale" if self.session else "not connected", job.difficulty)
        if self._ledger.waiting > self._keeping.most and not first:
            return self._lost("too many on their way", job.difficulty)
        try:
            return await self._deliver(share, job)
        except _Lost as why:
            return self._lost(str(why), job.difficulty)
        except asyncio.CancelledError:
            self._lost("cancelled", job.difficulty)
            raise

    async def _valid(self, job: Job, share: AnyShare) -> bool:
        """Whether it is one, by our own check; what takes long is not done in the event loop."""
        if job.quick:
            return job.valid(share)
        try:
            return await aside(job.valid, share)
        except asyncio.CancelledError:
            self._ledger.find()
            self._lost("cancelled", job.difficulty)
            raise

    async def _deliver(self, share: AnyShare, job: Job) -> ShareResult:
        """Send a share, and once more if the connection ends under it. Raises: _Lost."""
        last_s = asyncio.get_running_loop().time() + self._keeping.age_s
        session = self.session
        if session is None:
            session = await self._resumption(last_s, "not connected")
            if self._book.find(share) is None:
                raise _Lost("stale")
        if job.quick:
            params = job.submission(share, self._user)
        else:
            params = await aside(job.submission, share, self._user)
        try:
            return self._judged(await self._ask(session, params), job)
        except SessionEnded as fault:
            why = str(fault)
        session = await self._resumption(last_s, why)
        if self._book.renamed(job):
            raise _Lost("its job's name is another job's now")
        self._ledger.resubmitted += 1
        try:
            return self._judged(await self._ask(session, params), job, again=True)
        except SessionEnded as fault:
            raise _Lost(f"{fault}, twice") from fault

    async def _ask(self, session: Session, params: Params) -> Message:
        """The pool's answer to a share.

        A connection on which nothing at all came meanwhile may be a dead one, so it is given up.

        Raises:
            SessionEnded: no answer can come any more.
            _Lost: none came, although the pool spoke of other things.
        """
        sent_s = asyncio.get_running_loop().time()
        try:
            return await session.request("mining.submit", params, self._answer_s)
        except AnswerMissing:
            if session.heard_s > sent_s:
                raise _Lost("no answer") from None
            silent = SessionEnded("no answer")
            session.end(silent)
            raise silent from None

    async def _resumption(self, last_s: float, why: str) -> Session:
        """The session in which the pool goes on with the one that ended.

        Raises:
            _Lost: for `why`, as there is none, or none before `last_s` on the loop's clock.
        """
        if self._next is None or not self.resumable:
            raise _Lost(why)
        wait_s = last_s - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({self._next}, timeout=max(0.0, wait_s))
        session = next(iter(done)).result() if done else None
        if session is None:
            raise _Lost(why)
        return session

    def _judged(self, reply: Message, job: Job, *, again: bool = False) -> ShareResult:
        """Book the pool's answer to a share."""
        if reply.result is True and not reply.error:
            return self._accepted(job)
        kind = kind_of(reply.error, self._codes)
        if again and kind is Kind.DUPLICATE:
            self._ledger.known_already += 1
            return self._accepted(job)
        reason = error_text(reply.error) or "refused without a reason"
        result = self._ledger.settle(ShareResult(False, reason, job.difficulty, kind))
        if kind not in (Kind.STALE, Kind.DUPLICATE):
            self._refused_in_row += 1
        if self._refused_in_row >= MOST_REFUSED and self.session is not None:
            self.session.end(PoolRefused(f"{self._refused_in_row} shares refused: {reason}"))
        return result

    def _accepted(self, job: Job) -> ShareResult:
        self._refused_in_row, self.accepted_here = 0, True
        return self._ledger.settle(ShareResult(True, None, job.difficulty))

    def _lost(self, reason: str, difficulty: float) -> ShareResult:
        result = ShareResult(False, f"lost: {reason}"[:80], difficulty)
        return self._ledger.settle(result, lost=True)
