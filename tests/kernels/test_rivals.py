"""The CPU's hashers against each other: each proven, the faster kept, and then it alone loaded."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wattshift_kernels import autotune
from wattshift_kernels.autotune import Kept
from wattshift_kernels.hasher import Hasher, HasherFailed, SearchResult, Work
from wattshift_kernels.registry import choose
from wattshift_kernels.rivals import KIND, fastest
from wattshift_kernels.sha256d.reference import ReferenceHasher

WORK = Work(bytes(range(76)), 2**250)


class Slow(ReferenceHasher):
    """Takes longer."""

    name = "slow"

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        until_ns = time.thread_time_ns() + 200_000
        while time.thread_time_ns() < until_ns:
            pass
        return super().search(work, nonce_start, count)


class Wrong(ReferenceHasher):
    """Loses hits."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        return SearchResult((), super().search(work, nonce_start, count).hashes)


def missing() -> Hasher:
    raise ImportError("no such package")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept.json")


def test_real_work_finds_the_faster_and_it_is_kept(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "LEAST_NS", 0)
    made: list[str] = []

    def maker(name: str, kind: Callable[[], Hasher]) -> tuple[str, Callable[[], Hasher]]:
        return name, lambda: made.append(name) or kind()  # type: ignore[func-returns-value]

    makers = (maker("slow", Slow), maker("quick", ReferenceHasher))
    hasher = fastest(makers, kept)
    found = [hasher.search(WORK, 10 * i, 10) for i in range(60)]
    whole = ReferenceHasher().search(WORK, 0, 600)
    assert tuple(hit for one in found for hit in one.hits) == whole.hits
    assert kept.read() == {KIND: "quick"}
    assert hasher.name == "sha256d-reference"
    made.clear()
    assert isinstance(fastest(makers, kept), ReferenceHasher)
    assert made == ["quick"]


def test_a_wrong_one_is_refused_and_a_missing_one_said(kept: Kept) -> None:
    makers = (("wrong", Wrong), ("absent", missing), ("right", ReferenceHasher))
    chosen = choose(makers=(("cpu", lambda: fastest(makers, kept)),))
    assert chosen.hasher.search(WORK, 0, 200) == ReferenceHasher().search(WORK, 0, 200)
    said = {one.backend: one.refused for one in chosen.report}
    assert "hits" in (said["cpu/wrong"] or "") or "nonce" in (said["cpu/wrong"] or "")
    assert "no such package" in (said["cpu/absent"] or "")
    assert said["cpu"] is None


def test_without_a_right_one_there_is_none(kept: Kept) -> None:
    with pytest.raises(HasherFailed, match=r"wrong: .*; absent: not usable here"):
        fastest((("wrong", Wrong), ("absent", missing)), kept)


def test_the_one_kept_is_proven_again_before_it_is_used(kept: Kept) -> None:
    """The registry tests whatever comes out; a library that went wrong is not trusted for life."""
    kept.write({KIND: "wrong"})
    makers = (("cpu", lambda: fastest((("wrong", Wrong),), kept)), ("reference", ReferenceHasher))
    chosen = choose(makers=makers)
    assert chosen.report[0].refused is not None
    assert chosen.hasher.backend == "reference"
