"""What one launch in flight on a GPU has for its own, and how much of it there is."""

from dataclasses import dataclass

import numpy as np

from wattshift_kernels.gpu import Gpu

WORD_BYTES = 4
HIT_WORDS = 2
"""Of a hit in the ring: the nonce, and the way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one launch can hold, with the reason.

    Attributes:
        blocks: each has a byte in the result; 0.7 ms of any card known are fewer.
        ring: hits that can be kept; a share target hits far less often.
    """

    blocks: int = 16_384
    ring: int = 1024


class Slot:
    """The ring, the hit count, and a byte per block.

    The kernel writes them in device memory, since atomics over the bus are slow. A copy queued
    behind it brings them here, so that reading one launch never waits for the next.
    """

    def __init__(self, gpu: Gpu, limits: Limits) -> None:
        """Take its memory, there and here."""
        words_before = HIT_WORDS * limits.ring
        self.hits_offset = WORD_BYTES * words_before
        self.ran_offset = self.hits_offset + WORD_BYTES
        size = self.ran_offset + limits.blocks
        self.address = gpu.take(size)
        self.block = gpu.host(size)
        self.began = gpu.cupy.cuda.Event()
        self.ended = gpu.cupy.cuda.Event(block=True)  # a waiting thread must not burn a CPU
        words = np.frombuffer(self.block.bytes, dtype=np.uint32, count=words_before + 1)
        self.ring, self.hits = words[:-1].reshape(-1, HIT_WORDS), words[-1:]
        self.ran = np.frombuffer(self.block.bytes, dtype=np.uint8, offset=self.ran_offset)
