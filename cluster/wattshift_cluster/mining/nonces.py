"""Jobs of coins whose header is finished when it reaches us: only the nonce is ours.

The pool fixes the first bytes of the nonce, its *prefix*. We count the others that come before the
last four, its *high part* together with the prefix, and a hasher tries those four. So every unit of
work is a message with a high part of its own (layouts: `wattshift_kernels.hasher`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wattshift_cluster.mining.job import JobFault, MiningWork, Share, StratumJob
from wattshift_kernels.algorithms import by_name
from wattshift_kernels.hasher import Work
from wattshift_kernels.header import MAX_TARGET, difficulty_of_target
from wattshift_kernels.verify import hit_of

COUNTED_BYTES = 4
"""Of the nonce: those that a hasher tries."""

CHECKED_KEPT = 4096
"""Hashes that are not done twice: a share is looked at when it is found and when it is sent, and
between the two so many others may be that an agent lets wait (`agent.assignments`)."""

Params = list[Any] | dict[str, Any]
Submission = Callable[["NonceJob", bytes, str], Params]
"""What mining.submit carries: of a job, the whole nonce, and who we are."""


@dataclass(frozen=True, slots=True)
class NonceShare:
    """A solution.

    Attributes:
        job_id: of the job it is for.
        nonce: all its bytes, as the algorithm's message has them.
        session: number of the connection that the job came from.
    """

    job_id: str
    nonce: bytes
    session: int = 0


@dataclass(frozen=True, slots=True)
class NonceJob:
    """What a pool wants hashed.

    Attributes:
        algorithm: a name of `wattshift_kernels.algorithms`.
        job_id: the pool's name for it.
        before, after: the message around the high part of the nonce.
        nonce_bytes: of a whole nonce.
        prefix: bytes of it that the pool has fixed.
        target: largest hash value of a share.
        submission_of: what a share of it says.
        height: of the block, where a table depends on it.
        clean: earlier jobs are void.
        session: number of our connection.
        notes: what `submission` needs beside the nonce.
        chains: of so many hashes that meet the target, one is good (blake3: 16 chains).
    """

    algorithm: str
    job_id: str
    before: bytes
    after: bytes
    nonce_bytes: int
    prefix: bytes
    target: int
    submission_of: Submission
    height: int = 0
    clean: bool = False
    session: int = 0
    notes: tuple[str | int, ...] = ()
    chains: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.job_id, str) or not 0 < len(self.job_id) <= 64:
            raise JobFault("job id is not a text of 1 to 64 characters")
        if not 0 < self.target <= MAX_TARGET:
            raise JobFault("a target that is not within 1 to 2^256 - 1")
        if len(self.prefix) >= self.nonce_bytes:
            raise JobFault("the pool leaves no byte of the nonce to us")
        try:
            self.kernel_work(bytes(self.nonce_bytes - COUNTED_BYTES))
        except ValueError as fault:
            raise JobFault(str(fault)) from fault

    @property
    def difficulty(self) -> float:
        """Hashes behind a share, as a multiple of 2^32 or nearly so, whatever the coin."""
        return self.chains * difficulty_of_target(self.target)

    @property
    def tip(self) -> bytes:
        """What it stands on is not told; only sessions that are resumed need to know."""
        return b""

    @property
    def quick(self) -> bool:
        """Whether a share is checked in microseconds; see `StratumJob`."""
        return False

    def same_template(self, other: object) -> bool:
        """Whether equal nonces give one hash in both."""
        return isinstance(other, NonceJob) and self.template == other.template

    @property
    def template(self) -> tuple[object, ...]:
        """What makes hashes of equal nonces different."""
        return self.algorithm, self.before, self.after, self.prefix, self.height

    def kernel_work(self, high: bytes) -> Work:
        """What a hasher is given for one high part of the nonce. Raises: ValueError."""
        message = self.before + high + self.after
        return Work(message, self.target, self.algorithm, self.height)

    def valid(self, share: object) -> bool:
        """Whether a share of this job has the right form and really meets the target.

        It takes up to seconds (etchash, with the first share of an epoch), so not in an event loop.
        """
        if not isinstance(share, NonceShare) or len(share.nonce) != self.nonce_bytes:
            return False
        high, counted = share.nonce[:-COUNTED_BYTES], share.nonce[-COUNTED_BYTES:]
        if not share.nonce.startswith(self.prefix):
            return False
        return _meets(self.kernel_work(high), int.from_bytes(counted, "big"))

    def submission(self, share: object, user: str) -> Params:
        """The parameters of mining.submit for a share of this job; as slow as `valid`."""
        assert isinstance(share, NonceShare), "a share of another algorithm"
        return self.submission_of(self, share.nonce, user)

    def proof(self, nonce: bytes) -> bytes:
        """What a share carries beside its nonce, by the algorithm's own reference."""
        proof = by_name(self.algorithm).proof
        assert proof is not None, f"a share of {self.algorithm} carries its nonce alone"
        high, counted = nonce[:-COUNTED_BYTES], nonce[-COUNTED_BYTES:]
        return proof(self.kernel_work(high), int.from_bytes(counted, "big"))


@dataclass(frozen=True, slots=True)
class NonceWork:
    """A job with one high part of its nonce: at most 2^32 nonces to search."""

    job: NonceJob
    high: bytes

    @property
    def target(self) -> int:
        """A hash value at or below this number is a share."""
        return self.job.target

    def kernel_work(self) -> Work:
        """The same for a hasher."""
        return self.job.kernel_work(self.high)

    def is_share(self, nonce: int, roll: int = 0) -> bool:
        """Whether these four bytes of the nonce meet the target; as slow as `NonceJob.valid`."""
        return not roll and self.job.valid(self.share(nonce))

    def is_block(self, nonce: int, roll: int = 0) -> bool:
        """Pools of these coins do not tell the network's target, so that is not known here."""
        return False

    def share(self, nonce: int, roll: int = 0) -> NonceShare:
        """What to submit for these four bytes of the nonce."""
        whole = self.high + nonce.to_bytes(COUNTED_BYTES, "big")
        return NonceShare(self.job.job_id, whole, self.job.session)


Job = StratumJob | NonceJob
AnyShare = Share | NonceShare
AnyWork = MiningWork | NonceWork


@lru_cache(CHECKED_KEPT)
def _meets(work: Work, nonce: int) -> bool:
    return hit_of(work, nonce) is not None
