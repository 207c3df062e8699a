"""Several hashers of one algorithm on this CPU: each proven, and the faster kept by real work.

Whether a compiler or numba makes the faster search depends on both and on the processor. It is
found out as on a GPU (see `autotune`), and from then on only the better one is loaded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wattshift_kernels.algorithms import Maker
from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.autotune import Kept, Tuner
from wattshift_kernels.hasher import Hasher, HasherFailed, SearchResult, Work
from wattshift_kernels.kernel import any_work
from wattshift_kernels.selftest import failure

KIND = "any work"
"""What is faster for one number of ways is so for the others."""


@dataclass(frozen=True, slots=True)
class _Rival:
    name: str
    hasher: Hasher
    serves: Callable[[Work], bool] = any_work


class Rivals(AtOnce):
    """The hasher that its launches find to be the fastest of several. Of one thread."""

    def __init__(
        self, rivals: Mapping[str, Hasher], kept: Kept, refused: Mapping[str, str]
    ) -> None:
        """Take hashers, by backend; all of them give every known answer.

        Args:
            refused: those that do not, or cannot be made, and why.
        """
        hashers = tuple(rivals.values())
        self.algorithm = hashers[0].algorithm
        self.launch_hashes = hashers[0].launch_hashes
        self.refused = refused
        candidates = [_Rival(name, hasher) for name, hasher in rivals.items()]
        self._tuner = Tuner(candidates, lambda _work: KIND, kept)

    @property
    def name(self) -> str:
        """See `Hasher`."""
        return self._tuner.last.hasher.name

    @property
    def backend(self) -> str:
        """See `Hasher`."""
        return self._tuner.last.hasher.backend

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`."""
        rival = self._tuner.pick(work)
        began_ns = time.thread_time_ns()
        found = rival.hasher.search(work, nonce_start, count)
        if found.hashes and not found.hits:  # to verify hits takes its own time
            self._tuner.took(work, rival, found.hashes, time.thread_time_ns() - began_ns)
        return found


def fastest(makers: Sequence[tuple[str, Maker]], kept: Kept) -> Hasher:
    """The faster of several hashers on the CPU.

    Args:
        makers: by backend, most promising first.
        kept: which it was before, or will be.

    Raises:
        HasherFailed: none of them is right here.
    """
    before = kept.read().get(KIND)
    for name, make in makers:
        if name == before:
            return make()
    rivals: dict[str, Hasher] = {}
    refused: dict[str, str] = {}
    for name, make in makers:
        try:
            hasher = make()
        except Exception as missing:  # no compiler, no package: all mean the same here
            refused[name] = f"not usable here: {missing}"
            continue
        wrong = failure(hasher)
        if wrong is None:
            rivals[name] = hasher
        else:
            refused[name] = wrong
    if not rivals:
        raise HasherFailed("; ".join(f"{name}: {why}" for name, why in refused.items()))
    return Rivals(rivals, kept, refused)
