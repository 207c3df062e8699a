"""A job split among workers, so that no two of them ever hash the same thing.

A unit of work is a header without its nonce, a range of nonces, and a mask of version bits of which
the worker tries every value beside them. Units are numbered through: the number says nonce range,
extranonce2, version bits and time, in this order of preference. With an extranonce2 of two bytes or
more nothing but that changes from unit to unit; with less, version bits and ranges of nonces do,
and only then the time, which a pool takes for wrong if it runs far ahead.

Of a coin whose header is not ours to change (`nonces`), the number says the nonce's high part, from
a place chosen by chance: another agent whom the pool gives the same prefix begins elsewhere.

What was given out is remembered by what is hashed, not by the job's name: a pool may tell one block
template again, with another difficulty, mask or time, or to a session that it resumes.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from wattshift_cluster.mining.job import Extranonce, MiningWork, StratumJob
from wattshift_cluster.mining.nonces import COUNTED_BYTES, AnyWork, Job, NonceJob, NonceWork
from wattshift_kernels.hasher import ROLL_BITS_MOST, Range, Work
from wattshift_kernels.header import NONCES

NTIME_AHEAD_S = 600
"""The most by which the time of a job is rolled: real pools refuse 7,000 s and more ahead of their
clocks, and the job's own time may be ahead of them already."""

ENOUGH_UNITS = 4096
"""Where extranonce2 and version bits give fewer units to a job, nonces are split, too."""

MOST_PIECES = 64
"""Of the nonces of a header: beyond it a unit is too small to be worth its message."""

TEMPLATES_KEPT = 64
"""Block templates of which it is known what was given out; as many as jobs are kept."""


class WorkExhausted(Exception):
    """Everything was handed out; there is more with the next job."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """One worker's own part of a job.

    Attributes:
        work: its job, and what is chosen of it for this unit.
        kernel: the same for a hasher.
        nonces: those to try.
    """

    work: AnyWork
    kernel: Work
    nonces: Range


class _Template(NamedTuple):
    """What makes two headers different beside extranonce2, version bits, time and nonce."""

    prevhash: bytes
    coinbase1: bytes
    coinbase2: bytes
    branches: tuple[bytes, ...]
    nbits: int
    extranonce: Extranonce

    @classmethod
    def of(cls, job: StratumJob) -> "_Template":
        coinbase = (job.coinbase1, job.coinbase2)
        return cls(job.prevhash, *coinbase, job.branches, job.nbits, job.extranonce)


class WorkSplitter:
    """Hands out the units of jobs, each once. Not for several threads.

    Attributes:
        workers: that share a job; set it when it changes. It counts for templates that are new.
    """

    def __init__(
        self, workers: int = 1, *, worker_bits: int = 0, rng: random.Random | None = None
    ) -> None:
        """Nothing was given out yet.

        Args:
            worker_bits: version bits of which each worker tries all values.
            rng: where the high parts of nonces begin.
        """
        assert 0 <= worker_bits <= ROLL_BITS_MOST, "more than a worker can roll"
        self.workers = workers
        self._worker_bits = worker_bits
        self._rng = rng or random.Random()
        self._known: OrderedDict[Hashable, _Units] = OrderedDict()

    def take(self, job: Job) -> WorkUnit:
        """The next unit of a job.

        Raises:
            WorkExhausted: there is none.
        """
        template = job.template if isinstance(job, NonceJob) else _Template.of(job)
        units = self._known.get(template)
        if units is None:
            units = self._known[template] = self._units(job)
            while len(self._known) > TEMPLATES_KEPT:
                self._known.popitem(last=False)
        return units.take(job)

    def _units(self, job: Job) -> "_Units":
        if isinstance(job, NonceJob):
            return _HighParts(job, self.workers, self._rng)
        return _Space(job, self.workers, self._worker_bits)


class _Units(Protocol):
    """The units of one template."""

    def take(self, job: Job) -> WorkUnit:
        """The next one, for a job of this template. Raises: WorkExhausted."""
        ...


class _HighParts:
    """The high parts of a nonce behind one prefix, each handed out once."""

    def __init__(self, job: NonceJob, workers: int, rng: random.Random) -> None:
        self._free = max(0, job.nonce_bytes - COUNTED_BYTES - len(job.prefix))
        fixed = job.prefix[job.nonce_bytes - COUNTED_BYTES :]  # of the bytes that are counted
        width = 8 * (COUNTED_BYTES - len(fixed))
        self._total = 1 << (8 * self._free)
        self._first, count = int.from_bytes(fixed, "big") << width, 1 << width
        self._pieces = 1
        if self._total < ENOUGH_UNITS:
            self._pieces = min(MOST_PIECES, 1 << max(0, workers - 1).bit_length())
        self._count = count // self._pieces
        self._start = rng.randrange(self._total)
        self._position = 0

    def take(self, job: Job) -> WorkUnit:
        assert isinstance(job, NonceJob), "a job of another algorithm"
        step, piece = divmod(self._position, self._pieces)
        if step >= self._total:
            raise WorkExhausted("every unit of this job was handed out")
        self._position += 1
        ours = ((self._start + step) % self._total).to_bytes(self._free, "big")
        high = (job.prefix + ours)[: job.nonce_bytes - COUNTED_BYTES]
        work = NonceWork(job, high)
        return WorkUnit(work, work.kernel_work(), (self._first + piece * self._count, self._count))


class _Space:
    """The units of one block template, and which of them are left."""

    def __init__(self, job: StratumJob, workers: int, worker_bits: int) -> None:
        self._worker_bits = worker_bits
        self._extranonces = 1 << (8 * job.extranonce.extranonce2_size)
        self._pieces = 1
        ours = job.version_mask & ~_lowest(job.version_mask, worker_bits)
        if self._extranonces << ours.bit_count() < ENOUGH_UNITS:
            self._pieces = min(MOST_PIECES, 1 << max(0, workers - 1).bit_length())
        self._first_extranonce2 = 0
        self._least_ntime = self._latest_ntime = 0
        self._position = 0
        self._shape = (job.version, job.version_mask, job.ntime)

    def take(self, job: Job) -> WorkUnit:
        assert isinstance(job, StratumJob), "a job of another algorithm"
        shape = (job.version, job.version_mask, job.ntime)
        if shape != self._shape:
            self._reshape()
            self._shape = shape
        mask = job.version_mask
        roll_mask = _lowest(mask, self._worker_bits)
        rest, piece = divmod(self._position, self._pieces)
        rest, step = divmod(rest, self._extranonces - self._first_extranonce2)
        ahead, turn = divmod(rest, 1 << (mask & ~roll_mask).bit_count())
        ntime = max(job.ntime, self._least_ntime) + ahead
        if ntime > min(job.ntime + NTIME_AHEAD_S, 0xFFFFFFFF):
            raise WorkExhausted("every unit of this job was handed out")
        self._position += 1
        self._latest_ntime = max(self._latest_ntime, ntime)
        size = job.extranonce.extranonce2_size
        extranonce2 = (self._first_extranonce2 + step).to_bytes(size, "big")
        bits = (job.version & mask & ~roll_mask) ^ _spread(turn, mask & ~roll_mask)
        work = MiningWork(job, extranonce2, ntime, bits, roll_mask)
        count = NONCES // self._pieces
        return WorkUnit(work, work.kernel_work(), (piece * count, count))

    def _reshape(self) -> None:
        """Other version bits or another time from now on, so the numbers mean something else.

        An extranonce2 that nobody had yet is new whatever else is chosen; where all were used, a
        time later than any before is.
        """
        used = -(-self._position // self._pieces)
        if used < self._extranonces - self._first_extranonce2:
            self._first_extranonce2 += used
        else:
            self._first_extranonce2, self._least_ntime = 0, self._latest_ntime + 1
        self._position = 0


def _lowest(mask: int, count: int) -> int:
    """The lowest `count` bits that are set in a mask."""
    kept = 0
    for _ in range(min(count, mask.bit_count())):
        kept |= (mask ^ kept) & -(mask ^ kept)
    return kept


def _spread(number: int, mask: int) -> int:
    """The bits of a number laid into the set bits of a mask, lowest first."""
    spread = 0
    while mask:
        bit = mask & -mask
        if number & 1:
            spread |= bit
        number >>= 1
        mask ^= bit
    return spread
