"""A Stratum job and what is hashed for it: from mining.notify to the 76 header bytes and back.

Header construction (checked against a third-party pool): version = (job version & ~mask) | rolled
bits; previous hash with the bytes of each 32-bit word swapped; merkle root = dsha(coinbase1 +
extranonce1 + extranonce2 + coinbase2), then dsha(root + branch) for each branch; integers
little-endian; target = (0xffff << 208) / difficulty.
"""

from dataclasses import dataclass, replace
from typing import Any

from wattshift_cluster.mining.refusals import brief
from wattshift_kernels.hasher import Work
from wattshift_kernels.header import (
    hash_value,
    header76,
    sha256d,
    target_of_difficulty,
    target_of_nbits,
    with_nonce,
)

MAX_BRANCHES = 32
MAX_COINBASE_BYTES = 16 * 1024
MAX_EXTRANONCE1_BYTES = 32
MAX_EXTRANONCE2_BYTES = 16
LEAST_DIFFICULTY, MOST_DIFFICULTY = 1e-9, 1e15


class JobFault(Exception):
    """A message of the pool that makes no valid job, difficulty or extranonce."""


@dataclass(frozen=True, slots=True)
class Extranonce:
    """What the pool assigned to a connection: its own part and the size left to us."""

    extranonce1: bytes
    extranonce2_size: int

    @classmethod
    def parse(cls, extranonce1: Any, size: Any) -> "Extranonce":
        """From the subscribe result or set_extranonce. Raises: JobFault."""
        first = parse_hex(extranonce1, "extranonce1", MAX_EXTRANONCE1_BYTES)
        if isinstance(size, bool) or not isinstance(size, int):
            raise JobFault("extranonce2 size is not a number")
        if not 0 <= size <= MAX_EXTRANONCE2_BYTES:
            raise JobFault(
                f"extranonce2 size {brief(size)} is not within 0 to {MAX_EXTRANONCE2_BYTES}"
            )
        return cls(first, size)


@dataclass(frozen=True, slots=True)
class StratumJob:
    """One mining.notify with what the session adds to it.

    Attributes:
        job_id: the pool's name for it.
        prevhash: as in the header, 32 bytes.
        coinbase1, coinbase2: the coinbase transaction around the extranonces.
        branches: merkle branches, 32 bytes each.
        version, nbits, ntime: header fields; ntime in unix seconds.
        clean: earlier jobs are void.
        extranonce: in force for this job.
        difficulty: in force for this job.
        version_mask: bits of `version` that may be rolled; 0 is none.
        session: number of our connection; a job is worthless in any other.
    """

    job_id: str
    prevhash: bytes
    coinbase1: bytes
    coinbase2: bytes
    branches: tuple[bytes, ...]
    version: int
    nbits: int
    ntime: int
    clean: bool
    extranonce: Extranonce
    difficulty: float
    version_mask: int = 0
    session: int = 0

    @classmethod
    def from_notify(
        cls,
        params: list[Any],
        *,
        extranonce: Extranonce,
        difficulty: float,
        version_mask: int = 0,
        session: int = 0,
    ) -> "StratumJob":
        """Parse the nine parameters of mining.notify. Raises: JobFault."""
        if len(params) < 9:
            raise JobFault(f"notify has {len(params)} parameters instead of 9")
        job_id, prevhash, coinbase1, coinbase2, branches, version, nbits, ntime, clean = params[:9]
        if not isinstance(job_id, str) or not 0 < len(job_id) <= 64:
            raise JobFault("job id is not a text of 1 to 64 characters")
        if not isinstance(branches, list) or len(branches) > MAX_BRANCHES:
            raise JobFault(f"branches are not a list of at most {MAX_BRANCHES}")
        return cls(
            job_id=job_id,
            prevhash=swap_words(parse_exact(prevhash, "prevhash", 32)),
            coinbase1=parse_hex(coinbase1, "coinbase1", MAX_COINBASE_BYTES),
            coinbase2=parse_hex(coinbase2, "coinbase2", MAX_COINBASE_BYTES),
            branches=tuple(parse_exact(branch, "branch", 32) for branch in branches),
            version=int.from_bytes(parse_exact(version, "version", 4), "big"),
            nbits=int.from_bytes(parse_exact(nbits, "nbits", 4), "big"),
            ntime=int.from_bytes(parse_exact(ntime, "ntime", 4), "big"),
            clean=bool(clean),
            extranonce=extranonce,
            difficulty=difficulty,
            version_mask=version_mask,
            session=session,
        )

    def same_template(self, other: object) -> bool:
        """Whether equal extranonce2, time, version bits and nonce give one header in both."""
        if not isinstance(other, StratumJob):
            return False
        mine, theirs = (
            (job.prevhash, job.coinbase1, job.coinbase2, job.branches, job.version, job.nbits)
            for job in (self, other)
        )
        return mine == theirs and self.extranonce == other.extranonce

    def notify(self) -> list[Any]:
        """The parameters of mining.notify that announce this job."""
        return [
            self.job_id,
            swap_words(self.prevhash).hex(),
            self.coinbase1.hex(),
            self.coinbase2.hex(),
            [branch.hex() for branch in self.branches],
            f"{self.version:08x}",
            f"{self.nbits:08x}",
            f"{self.ntime:08x}",
            self.clean,
        ]

    @property
    def algorithm(self) -> str:
        """What is hashed."""
        return "sha256d"

    @property
    def tip(self) -> bytes:
        """What it stands on: with another one, it is worthless."""
        return self.prevhash

    @property
    def quick(self) -> bool:
        """Whether a share is checked in microseconds, and so beside everything else."""
        return True

    def valid(self, share: object) -> bool:
        """Whether a share of this job has the right form and really meets the target."""
        if not isinstance(share, Share):
            return False
        fits = len(share.extranonce2) == self.extranonce.extranonce2_size
        rolled = share.version_bits & ~self.version_mask
        in_range = 0 <= share.nonce < 1 << 32 and 0 <= share.ntime < 1 << 32
        work = MiningWork(self, share.extranonce2, share.ntime, share.version_bits)
        return fits and not rolled and in_range and work.is_share(share.nonce)

    def submission(self, share: object, user: str) -> list[str]:
        """The parameters of mining.submit for a share of this job."""
        assert isinstance(share, Share), "a share of another algorithm"
        return share.submit_params(user, with_version=bool(self.version_mask))

    def work(self, extranonce2: bytes) -> "MiningWork":
        """The work for one extranonce2, with the job's own time and version bits."""
        return MiningWork(self, extranonce2, self.ntime, self.version & self.version_mask)


@dataclass(frozen=True, slots=True)
class Share:
    """A solution as submitted. `nonce` is the value written little-endian into bytes 76 to 80.

    `version_bits` goes to the pool only where version rolling was agreed. `session` is the
    connection that the job came from.
    """

    job_id: str
    extranonce2: bytes
    ntime: int
    nonce: int
    version_bits: int = 0
    session: int = 0

    def submit_params(self, user: str, *, with_version: bool) -> list[str]:
        """The parameters of mining.submit."""
        numbers = [f"{self.ntime:08x}", f"{self.nonce:08x}"]
        rolled = [f"{self.version_bits:08x}"] if with_version else []
        return [user, self.job_id, self.extranonce2.hex(), *numbers, *rolled]


@dataclass(frozen=True, slots=True)
class MiningWork:
    """A job with one extranonce2: 2^32 nonces to search.

    `roll_mask` names the version bits of which a worker tries all values; its hits say which one.
    They are clear in `version_bits` and in the header.
    """

    job: StratumJob
    extranonce2: bytes
    ntime: int
    version_bits: int
    roll_mask: int = 0

    @property
    def difficulty(self) -> float:
        """Share difficulty."""
        return self.job.difficulty

    @property
    def target(self) -> int:
        """A header hash at or below this number is a share."""
        return target_of_difficulty(self.job.difficulty)

    @property
    def header76(self) -> bytes:
        """The header without its nonce."""
        job, mask = self.job, self.job.version_mask
        version = (job.version & ~mask) | (self.version_bits & mask)
        coinbase = job.coinbase1 + job.extranonce.extranonce1 + self.extranonce2 + job.coinbase2
        root = sha256d(coinbase)
        for branch in job.branches:
            root = sha256d(root + branch)
        return header76(version, job.prevhash, root, self.ntime, job.nbits)

    def kernel_work(self) -> Work:
        """The same for a hasher."""
        return Work(self.header76, self.target, roll_mask=self.roll_mask)

    def header(self, nonce: int, roll: int = 0) -> bytes:
        """The complete 80 bytes; `roll` is what a worker chose of `roll_mask`."""
        rolled = replace(self, version_bits=self.version_bits | roll) if roll else self
        return with_nonce(rolled.header76, nonce)

    def digest(self, nonce: int, roll: int = 0) -> bytes:
        """Double SHA-256 of the header by hashlib, whatever kernel found the nonce."""
        return sha256d(self.header(nonce, roll))

    def is_share(self, nonce: int, roll: int = 0) -> bool:
        """Whether this nonce meets the target."""
        return hash_value(self.digest(nonce, roll)) <= self.target and not roll & ~self.roll_mask

    def is_block(self, nonce: int, roll: int = 0) -> bool:
        """Whether it meets the network's own target, too."""
        return hash_value(self.digest(nonce, roll)) <= target_of_nbits(self.job.nbits)

    def share(self, nonce: int, roll: int = 0) -> Share:
        """What to submit for this nonce."""
        return Share(
            job_id=self.job.job_id,
            extranonce2=self.extranonce2,
            ntime=self.ntime,
            nonce=nonce,
            version_bits=self.version_bits | roll,
            session=self.job.session,
        )


def parse_difficulty(value: Any) -> float:
    """A difficulty as a pool or a client sends it; fractions are fine. Raises: JobFault."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JobFault("difficulty is not a number")
    if not LEAST_DIFFICULTY <= value <= MOST_DIFFICULTY:  # NaN is not; an integer may be endless
        raise JobFault(
            f"difficulty {brief(value)} is not within {LEAST_DIFFICULTY} to {MOST_DIFFICULTY}"
        )
    return float(value)


def parse_mask(value: Any) -> int:
    """A version mask, 8 hexadecimal digits. Raises: JobFault."""
    return int.from_bytes(parse_exact(value, "version mask", 4), "big")


def swap_words(data: bytes) -> bytes:
    """Reverse the bytes of each 32-bit word: how Stratum writes the previous hash."""
    return b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))


def parse_hex(value: Any, name: str, most: int) -> bytes:
    """Hexadecimal text of at most `most` bytes, without blanks. Raises: JobFault."""
    if not isinstance(value, str) or len(value) > 2 * most:
        raise JobFault(f"{name} is not hexadecimal text of at most {most} bytes")
    try:
        data = bytes.fromhex(value)
    except ValueError as fault:
        raise JobFault(f"{name} is not hexadecimal") from fault
    if 2 * len(data) != len(value):  # fromhex skips blanks
        raise JobFault(f"{name} is not hexadecimal")
    return data


def parse_exact(value: Any, name: str, size: int) -> bytes:
    """Hexadecimal text of just `size` bytes. Raises: JobFault."""
    data = parse_hex(value, name, size)
    if len(data) != size:
        raise JobFault(f"{name} has {len(data)} bytes instead of {size}")
    return data
