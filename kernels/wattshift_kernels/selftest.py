"""Known answers that every variant must give before its first use.

Published blocks and vectors prove the arithmetic; a random range at a very low difficulty, held
against the algorithm's own digest hash by hash, proves that no hit is lost, none is invented, and
the hash count is true. Launches in flight together must not mix their answers, and a stop must be
obeyed: inference relies on it.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from wattshift_kernels.algorithms import Algorithm, Known, by_name
from wattshift_kernels.hasher import Hasher, Hit, Launch, Range, SearchResult, Work, rolled
from wattshift_kernels.kernel import any_work
from wattshift_kernels.verify import KernelWrong, hit_of

TABLE_S = 60.0
"""A table that is not ready by then never will be: the largest known takes a GPU a few seconds."""

EXPECTED_KEPT = 64
"""Outcomes of the reference: every variant of an algorithm is asked the same."""


def failure(hasher: Hasher, serves: Callable[[Work], bool] = any_work) -> str | None:
    """What a hasher gets wrong, or None if it gives every known answer.

    Args:
        serves: the works that it is asked for; by default any of its algorithm.
    """
    try:
        algorithm = by_name(hasher.algorithm)
        answers = [one for one in algorithm.known() if serves(one.work)]
        trials = _trials(algorithm, serves)
        return (
            _known(hasher, answers)
            or _known_in_flight(hasher, answers)
            or _ranges(hasher, trials[: algorithm.trials], algorithm.trial_nonces)
            or _flight(hasher, trials, algorithm.trial_nonces)
            or _stop(hasher, trials, algorithm.trial_nonces)
        )
    except Exception as fault:  # a variant may fail in any way; none of them may stop the others
        return f"it raised {type(fault).__name__}: {fault}"


def through(hasher: Hasher, work: Work, nonces: Range) -> SearchResult:
    """Search to the end, building the table first where there is one.

    Raises:
        RuntimeError: the table was not ready within TABLE_S.
    """
    give_up_s = time.monotonic() + TABLE_S
    while True:
        found = hasher.search(work, *nonces)
        if found.hashes or not found.left or hasher.progress >= 1.0:
            break
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"its table was not ready within {TABLE_S:g} s")
    # The launch that built the last slice of a table hashed nothing either.
    return found if found.hashes or not found.left else hasher.search(work, *nonces)


def _trials(algorithm: Algorithm, serves: Callable[[Work], bool]) -> list[Work]:
    if algorithm.trial is None:
        return []
    works = map(algorithm.trial, range(2 * algorithm.trials))
    return [work for work in works if serves(work)]


def _known(hasher: Hasher, answers: Sequence[Known]) -> str | None:
    if not answers:
        return "there is no known answer for what it is asked for"
    for known in answers:
        result = through(hasher, known.work, known.nonces)
        if _places(result) != known.hits:
            return f"it did not find the nonce of {known.name}"
        wanted = known.nonces[1] * known.work.ways
        if result.hashes != wanted:
            return f"it counted {result.hashes} hashes of {wanted}"
    return None


def _known_in_flight(hasher: Hasher, answers: Sequence[Known]) -> str | None:
    """A kernel that looks for rare hits alone has none in made-up works to mix up."""
    if hasher.depth == 1:
        return None
    for first in range(0, len(answers) - hasher.depth + 1, hasher.depth):
        batch = answers[first : first + hasher.depth]
        flight = [hasher.begin(known.work, *known.nonces) for known in batch]
        for known, found in zip(batch, _read(flight), strict=True):
            if _places(found) != known.hits:
                return f"beside another launch it did not find the nonce of {known.name}"
    return None


def _places(found: SearchResult) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((hit.nonce, hit.roll) for hit in found.hits))


def _target(work: Work) -> int:
    return work.target


def _read(flight: Sequence[Launch]) -> list[SearchResult]:
    """All results: a launch that nobody read would be in the next variant's way."""
    found, wrong = [], []
    for launch in flight:
        try:
            found.append(launch.result())
        except KernelWrong as fault:
            wrong.append(fault)
    if wrong:
        raise wrong[0]
    return found


@lru_cache(EXPECTED_KEPT)
def _expected(work: Work, nonces: Range) -> frozenset[Hit]:
    found = (
        hit_of(work, nonce, roll)
        for nonce in range(nonces[0], sum(nonces))
        for roll in rolled(work.roll_mask)
    )
    return frozenset(hit for hit in found if hit is not None)


def _ranges(hasher: Hasher, works: Sequence[Work], hashes: int) -> str | None:
    for work in works:
        count = hashes // work.ways
        nonces = (2**32 - count, count)
        wanted = _expected(work, nonces)
        found = through(hasher, work, nonces)
        if len(found.hits) != len(wanted) or set(found.hits) != wanted:
            return f"it found {len(found.hits)} hits where the reference finds {len(wanted)}"
        if found.hashes != count * work.ways:
            return f"it counted {found.hashes} hashes of {count * work.ways}"
    return None


def _flight(hasher: Hasher, works: Sequence[Work], hashes: int) -> str | None:
    """Different work in every launch of a full flight, and work with hits if there is any.

    All read one table, which is ready.
    """
    if len(works) < hasher.depth:
        return None
    asked = [
        (work, (1000 * i, hashes // work.ways // (2 + i)))
        for i, work in enumerate(sorted(works, key=_target)[-hasher.depth :])
    ]
    through(hasher, *asked[0])
    flight = [hasher.begin(work, *nonces) for work, nonces in asked]
    for found, (work, nonces) in zip(_read(flight), asked, strict=True):
        if (
            frozenset(found.hits) != _expected(work, nonces)
            or found.hashes != nonces[1] * work.ways
        ):
            return f"with {hasher.depth} launches in flight one gave a wrong answer"
    return None


def _stop(hasher: Hasher, works: Sequence[Work], hashes: int) -> str | None:
    if not works:
        return None
    work, nonces = works[0], (5, hashes)
    hasher.stop()
    try:
        found = hasher.begin(work, *nonces).result()
    finally:
        hasher.resume()
    if found.hashes or found.hits or found.left != (nonces,):
        return f"it tried {found.hashes} hashes after it was stopped"
    if through(hasher, work, nonces).hashes != nonces[1] * work.ways:
        return "it did not go on after a stop"
    return None
