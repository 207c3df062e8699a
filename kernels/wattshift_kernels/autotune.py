"""Which of several right kernels is fastest on this card: found out by real work, and kept.

No launch is spent on measuring. The first launches of ordinary work take the candidates in turn,
each behind the gate like any other; when each has had enough of them the one with the least time
per hash stays. So a card's first second of hashing is a little slower than the rest, and that once:
the outcome is kept per model of card, driver and candidates.
"""

import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Choice, Kernel, Only
from wattshift_kernels.launches import Launcher
from wattshift_kernels.native import CacheUnsafe, private_folder
from wattshift_kernels.selftest import failure

LAUNCHES_EACH = 24
"""Of a candidate, in turn with the others, so that a clock that drifts touches all alike."""

LEAST_NS = 200_000
"""Shorter launches say more about launching than about hashing."""

TUNING_MOST_NS = 2_000_000_000
"""Of device time; what has been measured by then decides."""

FILE_MOST_BYTES = 64 * 1024
FILES_MOST = 64
"""Kept at once; the oldest go first. Each new version of a kernel or driver makes another."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The file with what was found out before: kind of work to the fastest kernel's name.

    Attributes:
        path: None where nothing can be kept; then each process finds out for itself.
    """

    path: Path | None

    @classmethod
    def of(cls, algorithm: str, *depends_on: str) -> "Kept":
        """For an algorithm and all that the outcome depends on: card, driver, candidates."""
        key = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()[:32]
        try:
            return cls(private_folder("tuned") / f"{algorithm}-{key}.json")
        except (OSError, CacheUnsafe):
            return cls(None)

    def read(self) -> dict[str, str]:
        """What is there; empty when nothing is or it cannot be read."""
        if self.path is None:
            return {}
        with suppress(OSError, ValueError):
            with open(self.path, "rb") as file:
                found = json.loads(file.read(FILE_MOST_BYTES))
            if isinstance(found, dict):
                return {str(kind): str(name) for kind, name in found.items()}
        return {}

    def write(self, winners: Mapping[str, str]) -> None:
        """Keep it, the whole file or none of it. What cannot be kept is found out again."""
        if self.path is None:
            return
        with suppress(OSError):
            fd, raw = tempfile.mkstemp(prefix=".", dir=self.path.parent)
            try:
                with open(fd, "w") as file:
                    json.dump(dict(winners), file)
                os.replace(raw, self.path)
            except OSError:
                os.unlink(raw)
                raise
            by_age = sorted(self.path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime)
            for old in by_age[: max(0, len(by_age) - FILES_MOST)]:
                old.unlink(missing_ok=True)


class Candidate(Protocol):
    """What competes: a `Kernel`, or a whole hasher under a name."""

    @property
    def name(self) -> str:
        """For people and the file."""
        ...

    @property
    def serves(self) -> Callable[[Work], bool]:
        """Whether it finds every hit of a work."""
        ...


C = TypeVar("C", bound=Candidate)


class Tuner(Generic[C]):
    """Of kernels, a `Choice`. Candidates of one kind of work compete with each other only.

    Attributes:
        last: the candidate that is ahead, as far as is known.
    """

    def __init__(
        self,
        candidates: Sequence[C],
        kind_of: Callable[[Work], str],
        kept: Kept,
        *,
        launches_each: int = LAUNCHES_EACH,
    ) -> None:
        """Take kernels that passed their self-test, most promising first.

        Args:
            kind_of: a name for what makes candidates differ in rank; works of one kind are served
                by the same of them.
            kept: where the outcome is, or will be.
        """
        assert candidates
        self._candidates = tuple(candidates)
        self._kind_of = kind_of
        self._kept = kept
        self._launches_each = launches_each
        self._winners: dict[str, C] = {}
        self._contests: dict[str, _Contest[C]] = {}
        self._spent_ns = 0
        by_name = {kernel.name: kernel for kernel in candidates}
        for kind, name in kept.read().items():
            if name in by_name:
                self._winners[kind] = by_name[name]
        self.last = candidates[0]

    @property
    def name(self) -> str:
        """See `Choice`."""
        return self.last.name

    @property
    def winners(self) -> dict[str, str]:
        """The fastest kernel of each kind of work that is settled."""
        return {kind: kernel.name for kind, kernel in self._winners.items()}

    def pick(self, work: Work) -> C:
        """See `Choice`: the winner, or while there is none the candidate whose turn it is."""
        kind = self._kind_of(work)
        winner = self._winners.get(kind)
        if winner is not None and winner.serves(work):
            self.last = winner
            return winner
        contest = self._contests.get(kind)
        if contest is None:
            able = [kernel for kernel in self._candidates if kernel.serves(work)]
            assert able, f"no kernel serves {kind}"
            contest = self._contests[kind] = _Contest(able)
        kernel = contest.next()
        if len(contest.able) == 1:
            self._winners[kind] = self.last = kernel  # nothing to find out, nothing to keep
        return kernel

    def took(self, work: Work, kernel: C, hashes: int, took_ns: int) -> None:
        """See `Choice`."""
        kind = self._kind_of(work)
        contest = self._contests.get(kind)
        if contest is None or kind in self._winners:
            return
        self._spent_ns += took_ns
        if took_ns >= LEAST_NS:
            contest.add(kernel, took_ns / hashes)
        if contest.over(self._launches_each) or self._spent_ns > TUNING_MOST_NS:
            self._winners[kind] = self.last = contest.best()
            del self._contests[kind]
            self._kept.write(self.winners)


def tuned(
    launcher: Launcher,
    kernels: Sequence[Kernel],
    depends_on: Iterable[str],
    kind_of: Callable[[Work], str] = lambda work: work.algorithm,
) -> Choice:
    """The choice among those kernels that give every known answer on this GPU.

    A wrong one goes to the launcher's `refused`, with the reason. Where all are wrong, or there is
    one only, that is left to whoever tests the hasher as a whole.

    Args:
        kernels: most promising first.
        depends_on: the texts that they were compiled from.
        kind_of: see `Tuner`.
    """
    if len(kernels) == 1:
        return Only(kernels[0])
    right = []
    for kernel in kernels:
        launcher.choice = Only(kernel)
        wrong = failure(launcher, kernel.serves)
        if wrong is None:
            right.append(kernel)
        else:
            launcher.refused[kernel.name] = wrong
    if not right:
        return Only(kernels[0])
    kept = Kept.of(launcher.algorithm, launcher.gpu.model, *depends_on)
    return Tuner(right, kind_of, kept)


class _Contest(Generic[C]):
    """Candidates that take turns, and what each took per hash, ns."""

    def __init__(self, able: Sequence[C]) -> None:
        self.able = tuple(able)
        self._turn = 0
        self._took: dict[str, list[float]] = {kernel.name: [] for kernel in able}

    def next(self) -> C:
        kernel = self.able[self._turn % len(self.able)]
        self._turn += 1
        return kernel

    def add(self, kernel: C, ns_per_hash: float) -> None:
        self._took[kernel.name].append(ns_per_hash)

    def over(self, launches_each: int) -> bool:
        # The first of each brings its code and its job to the device.
        return all(len(took) > launches_each for took in self._took.values())

    def best(self) -> C:
        """Least median; the most promising of those that nothing is known of when all are such."""

        def median_ns(kernel: C) -> float:
            took = self._took[kernel.name][1:]
            return statistics.median(took) if took else float("inf")

        return min(self.able, key=median_ns)
