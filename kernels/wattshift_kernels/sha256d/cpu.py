"""SHA-256d on the CPU: ranges of nonces through the compiled vectors of `lanes`.

Measured on one core of an AVX-512 server: 29 MH/s, at least 23 times hashlib; a search of one
nonce takes 4 us, so the caller may look at its gate as often as it likes.
"""

import numpy as np

from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.hasher import SearchResult, Work, check_range, rolled
from wattshift_kernels.sha256d.lanes import LANES, compiled
from wattshift_kernels.sha256d.midstate import Words, midstates, tail, target_words
from wattshift_kernels.verify import confirmed

FOUND_MAX = 1024
"""Candidates of one pass over the range; a fuller pass goes on where it stopped."""


class NumbaHasher(AtOnce):
    """SHA-256d on one CPU core. Threads may share it; the GIL is free while it searches."""

    algorithm = "sha256d"
    name = f"sha256d-numba-x{LANES}"
    backend = "numba"
    launch_hashes = 16_384

    def __init__(self) -> None:
        """Load the compiled search, or compile it. Raises ImportError without numba."""
        self._search = compiled()
        self._prepared: tuple[Work, Words, Words] | None = None

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        states, common = self._words(work)
        most = min(FOUND_MAX, (count + LANES) * work.ways)
        found = np.empty((most, 2), dtype=np.uint32)
        values = rolled(work.roll_mask)
        candidates: list[tuple[int, int]] = []
        tried = 0
        while tried < count:
            hits, tried = self._search(states, common, nonce_start, tried, count, found)
            candidates += ((nonce, values[way]) for nonce, way in found[:hits].tolist())
        good = confirmed(self.name, work, sorted(candidates), top_word_only=True)
        return SearchResult(good, tried * work.ways)

    def _words(self, work: Work) -> tuple[Words, Words]:
        """The words of a work, kept from one launch to the next."""
        prepared = self._prepared
        if prepared is None or prepared[0] is not work:
            common = np.concatenate((tail(work), target_words(work)[:1]))
            prepared = self._prepared = (work, midstates(work), common)
        return prepared[1:]
