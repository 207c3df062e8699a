"""Extranonce2 values of one session: handed out in ranges that never overlap within a job.

Two workers that hash the same job must differ in extranonce2, otherwise they find the same shares
and the pool refuses the second one as a duplicate. A new job has another merkle root, so every
value may be used again for it.
"""


class Extranonce2Exhausted(Exception):
    """Every value was handed out for this job; wait for the next job or change ntime."""


class Extranonce2Space:
    """The values 0 … 256**size - 1, handed out once per job.

    The position runs on over jobs, so that a value still in use for the last job is the last one to
    come up again.
    """

    def __init__(self, size: int) -> None:
        """Args: size: bytes of an extranonce2, as the pool said; 0 leaves a single value."""
        if not 0 <= size <= 16:
            raise ValueError(f"extranonce2 size must be 0 to 16 bytes, not {size}")
        self.size = size
        self._total = 1 << (8 * size)
        self._position = 0
        self._left = self._total

    def new_job(self) -> None:
        """All values are free again."""
        self._left = self._total

    def take(self, count: int = 1) -> range:
        """The next range of at most `count` values; shorter where the space or the job ends.

        Raises:
            Extranonce2Exhausted: none is left for this job.
        """
        if count < 1:
            raise ValueError("take at least one value")
        if not self._left:
            raise Extranonce2Exhausted(f"all {self._total} values of this job are used")
        count = min(count, self._left, self._total - self._position)
        first = self._position
        self._position = (first + count) % self._total
        self._left -= count
        return range(first, first + count)

    def encode(self, value: int) -> bytes:
        """A value as it goes into the coinbase (big-endian, `size` bytes)."""
        return value.to_bytes(self.size, "big")
