"""Who works on which part of the pool's extranonce2.

The pool gives us extranonce1 and the size of extranonce2. Each miner gets extranonce1 followed by a
prefix of its own, and what is left of extranonce2. A prefix is a number that a connection keeps
for life, whatever the pool changes; it is given to another only when every job that its last
holder was told is void. So no two miners ever share work.
"""

from collections import deque

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.mining.job import Extranonce

LEAST_LEFT_BYTES = 2
"""What a miner must keep of extranonce2: cgminer and its many heirs refuse less."""

ROOM = 2
"""Prefixes for each session that is allowed: those of miners that left wait for their jobs' end."""


class TooFewBytes(WattshiftError):
    """The pool leaves too few bytes of extranonce2 to be shared by so many miners."""


class NoPrefixLeft(Exception):
    """All are in use, or wait until the jobs of those who left are void."""


def prefix_bytes(sessions: int) -> int:
    """Bytes that name this many sessions, with room for those that left."""
    return max(1, ((sessions * ROOM - 1).bit_length() + 7) // 8)


def split(upstream: Extranonce, taken: int) -> int:
    """Bytes of extranonce2 left to each miner when `taken` of them are ours.

    Raises:
        TooFewBytes: fewer than LEAST_LEFT_BYTES.
    """
    left = upstream.extranonce2_size - taken
    if left < LEAST_LEFT_BYTES:
        raise TooFewBytes(
            f"the pool leaves {upstream.extranonce2_size} bytes of extranonce2; this many sessions "
            f"need {taken} of them and each miner {LEAST_LEFT_BYTES}: allow fewer sessions"
        )
    return left


class Prefixes:
    """Hands out prefixes and takes them back."""

    def __init__(self, sessions: int) -> None:
        """Args: sessions: how many may be connected at one time."""
        self.size = prefix_bytes(sessions)
        self._total = 1 << (8 * self.size)
        self._unused = 0
        self._free: deque[int] = deque()
        self._waiting: deque[tuple[int, int]] = deque()

    def take(self) -> bytes:
        """A prefix that nobody works under. Raises: NoPrefixLeft."""
        if self._unused < self._total:
            number = self._unused
            self._unused += 1
        elif self._free:
            number = self._free.popleft()
        else:
            raise NoPrefixLeft(f"all {self._total} prefixes are in use or wait for their jobs' end")
        return number.to_bytes(self.size, "big")

    def give_back(self, prefix: bytes, last_job: int | None) -> None:
        """Its session has ended.

        Args:
            prefix: from `take`.
            last_job: number of the newest job that it can have been told; None: of none.
        """
        number = int.from_bytes(prefix, "big")
        if last_job is None:
            self._free.append(number)
        else:
            self._waiting.append((last_job, number))

    def void_before(self, job: int) -> None:
        """Jobs with a lower number than this can no longer be submitted for."""
        while self._waiting and self._waiting[0][0] < job:
            self._free.append(self._waiting.popleft()[1])
