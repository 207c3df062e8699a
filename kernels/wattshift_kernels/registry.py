"""Which hasher runs here: the fastest that exists and gives every known answer.

A variant that fails its self-test is refused, the next best is taken, and the report says so.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from wattshift_kernels.algorithms import Maker, by_name
from wattshift_kernels.hasher import Hasher, HasherFailed
from wattshift_kernels.selftest import failure


@dataclass(frozen=True, slots=True)
class Tried:
    """One variant that was looked at: why it was refused, or None if it was taken.

    `backend` is its backend's name, and for one of several kernels there "backend/kernel".
    """

    backend: str
    refused: str | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The hasher to use, and what was tried on the way to it."""

    hasher: Hasher
    report: tuple[Tried, ...]


class NoHasher(Exception):
    """Nothing here hashes correctly; `report` says why for each variant."""

    def __init__(self, report: Sequence[Tried]) -> None:
        super().__init__("; ".join(f"{t.backend}: {t.refused}" for t in report))
        self.report = tuple(report)


_lock = threading.Lock()
_chosen: dict[tuple[str, str | None], Chosen] = {}


def choose(
    preferred: str | None = None,
    makers: Sequence[tuple[str, Maker]] | None = None,
    algorithm: str = "sha256d",
) -> Chosen:
    """The fastest hasher that passes its self-test; made and tested once per process.

    Nothing is left to compile afterwards, so this is also the warm-up.

    Args:
        preferred: backend to begin with; slower ones follow, faster ones do not. So "numba" never
            ends up on a GPU.
        makers: variants to choose from, fastest first; by default those of the algorithm.
        algorithm: what is hashed.

    Raises:
        NoHasher: every variant is missing or wrong.
        ValueError: there is no such algorithm, or `preferred` is not one of its variants.
    """
    if makers is not None:
        return _first_right(preferred, makers)
    known = by_name(algorithm).makers
    with _lock:
        if (algorithm, preferred) not in _chosen:
            _chosen[algorithm, preferred] = _first_right(preferred, known)
        return _chosen[algorithm, preferred]


def _give_back(hasher: Hasher) -> None:
    """A refused variant must not keep a device's memory."""
    with suppress(HasherFailed):  # perhaps that is why it was refused
        hasher.close()


def _first_right(preferred: str | None, makers: Sequence[tuple[str, Maker]]) -> Chosen:
    names = [name for name, _ in makers]
    if preferred is not None and preferred not in names:
        raise ValueError(f"backend {preferred!r} is not one of {', '.join(names)}")
    report: list[Tried] = []
    for name, make in makers[names.index(preferred) if preferred else 0 :]:
        try:
            hasher = make()
        except Exception as missing:  # no driver, no compiler, no package: all mean the same here
            report.append(Tried(name, f"not usable here: {missing}"))
            continue
        report += (Tried(f"{name}/{kernel}", why) for kernel, why in hasher.refused.items())
        refused = failure(hasher)
        report.append(Tried(name, refused))
        if refused is None:
            return Chosen(hasher, tuple(report))
        _give_back(hasher)
    raise NoHasher(report)
