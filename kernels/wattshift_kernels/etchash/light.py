"""The cache of an epoch, from which every row of its table can be made: built in steps, then kept.

Making one takes a CPU core one to five seconds, in order from the first step to the last. Whoever
must not wait so long, such as a worker behind its gate, takes steps of a millisecond; whoever needs
an answer now takes all that are left.
"""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from wattshift_kernels.etchash import compiled
from wattshift_kernels.etchash.epochs import ROW_BYTES, Epoch

KEPT = 2
"""Caches at once, about 80 MB each: an epoch's, and while it changes also the one before."""

ROUNDS = 4
"""Steps per row: one to fill it, and three to change it."""

STEPS_AT_ONCE = 1_000
"""About a millisecond on one core."""


class Light:
    """One epoch's cache. Several threads may share it.

    Attributes:
        epoch: whose.
        steps: that make it.
        words: (rows, 16) of 32 bits, little-endian; of use when it is ready.
    """

    def __init__(self, epoch: Epoch) -> None:
        """Take the memory, and the first row from the seed."""
        self.epoch = epoch
        self.steps = ROUNDS * epoch.cache_rows
        self._rows = np.zeros((epoch.cache_rows, ROW_BYTES // 8), dtype=np.uint64)
        self.words: np.ndarray[Any, np.dtype[np.uint32]] = self._rows.view(np.uint32)
        self._taken = 0
        self._one_at_a_time = threading.Lock()
        seed = np.zeros(4, dtype=np.uint64)
        for _ in range(epoch.seed_rounds):
            compiled.keccak(seed, seed)
        compiled.keccak(seed, self._rows[0])

    @property
    def ready(self) -> bool:
        """Whether no step is left."""
        return self._taken == self.steps

    @property
    def taken(self) -> int:
        """Steps that were taken."""
        return self._taken

    def advance(self, steps: int = STEPS_AT_ONCE) -> None:
        """Take some steps, or those that are left. The GIL is free meanwhile."""
        with self._one_at_a_time:
            count = min(steps, self.steps - self._taken)
            compiled.advance(self._rows, self._taken, count)
            self._taken += count

    def finish(self) -> "Light":
        """Take all steps that are left; itself."""
        while not self.ready:
            self.advance(self.steps)
        return self


_kept: OrderedDict[Epoch, Light] = OrderedDict()
_keeping = threading.Lock()


def light(epoch: Epoch) -> Light:
    """The cache of an epoch, ready or not: one for all who ask, and KEPT of them."""
    with _keeping:
        found = _kept.get(epoch)
        if found is None:
            found = _kept[epoch] = Light(epoch)
        _kept.move_to_end(epoch)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
        return found
