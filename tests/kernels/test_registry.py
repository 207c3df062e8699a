"""Run-time choice: a wrong variant is refused, the next best is taken, and the report says so."""

import pytest

from wattshift_kernels.hasher import Hasher, Hit, SearchResult, Work
from wattshift_kernels.registry import NoHasher, choose
from wattshift_kernels.sha256d.reference import ReferenceHasher
from wattshift_kernels.verify import KernelWrong, confirmed, verified


class Misses(ReferenceHasher):
    """Loses every second hit."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        result = super().search(work, nonce_start, count)
        return SearchResult(result.hits[::2], result.hashes)


class Overcounts(ReferenceHasher):
    """Says it tried more than it did."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        result = super().search(work, nonce_start, count)
        return SearchResult(result.hits, result.hashes + 1)


class Invents(ReferenceHasher):
    """Reports nonces that are none."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        return SearchResult((*super().search(work, nonce_start, count).hits, Hit(1, b"")), count)


class Raises(ReferenceHasher):
    """Fails while it searches."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        raise RuntimeError("launch failed")


@pytest.mark.parametrize("wrong", [Misses, Overcounts, Invents, Raises])
def test_a_wrong_variant_is_refused_and_reported(wrong: type[ReferenceHasher]) -> None:
    chosen = choose(makers=(("fast", wrong), ("reference", ReferenceHasher)))
    assert chosen.hasher.backend == "reference"
    assert chosen.report[0].backend == "fast"
    assert chosen.report[0].refused
    assert chosen.report[1].refused is None


def test_a_missing_variant_is_reported() -> None:
    def missing() -> Hasher:
        raise ImportError("no such package")

    chosen = choose(makers=(("absent", missing), ("reference", ReferenceHasher)))
    assert "no such package" in (chosen.report[0].refused or "")


def test_nothing_right_is_an_error_that_says_why() -> None:
    with pytest.raises(NoHasher, match="only"):
        choose(makers=(("only", Misses),))


def test_preference_and_its_typo() -> None:
    assert choose("reference").hasher.backend == "reference"
    with pytest.raises(ValueError, match="cudda"):
        choose("cudda")


def test_no_reported_nonce_is_believed_unchecked() -> None:
    work = Work(bytes(76), 2**252)
    hit = ReferenceHasher().search(work, 0, 200).hits[0]
    assert verified(work, hit)
    assert not verified(work, Hit(hit.nonce + 1, hit.digest))
    with pytest.raises(KernelWrong):
        confirmed("broken", work, [hit.nonce, hit.nonce + 1])
