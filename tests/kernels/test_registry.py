"""Run-time choice: a wrong variant is refused, the next best is taken, and the report says so."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from wattshift_kernels.hasher import Hasher, HasherFailed, Hit, Launch, SearchResult, Work, rolled
from wattshift_kernels.registry import NoHasher, choose
from wattshift_kernels.selftest import failure
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


class RollsNothing(ReferenceHasher):
    """Tries the version as it is and no other."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        hits = super().search(replace(work, roll_mask=0), nonce_start, count).hits
        return SearchResult(hits, count * work.ways)


class CountsNonces(ReferenceHasher):
    """Forgets that each nonce is hashed with several versions."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        return SearchResult(super().search(work, nonce_start, count).hits, count)


class NamesNoVersion(ReferenceHasher):
    """Finds every hit and says nothing of its version."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        result = super().search(work, nonce_start, count)
        return SearchResult(tuple(replace(hit, roll=0) for hit in result.hits), result.hashes)


class Raises(ReferenceHasher):
    """Fails while it searches."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        raise RuntimeError("launch failed")


class RunsOn(ReferenceHasher):
    """Does not obey a stop."""

    def stop(self) -> None:
        pass


class StandsStill(ReferenceHasher):
    """Never goes on after a stop, however it is launched."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        if self._stopped:
            return SearchResult((), 0, ((nonce_start, count),))
        return super().search(work, nonce_start, count)

    def resume(self) -> None:
        pass


class MixesUp(ReferenceHasher):
    """With several launches in flight, each answers what the last one was asked."""

    depth = 2

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        self.last = super().begin(work, nonce_start, count)
        return SimpleNamespace(count=count, result=lambda: self.last.result())


class MixesUpMade(MixesUp):
    """Only where hits are frequent."""

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        if work.target < 2**224:
            return ReferenceHasher().begin(work, nonce_start, count)
        return super().begin(work, nonce_start, count)


class LosesAWay(ReferenceHasher):
    """Of sixteen versions, and only where hits are so rare that no made-up work has one."""

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        found = super().search(work, nonce_start, count)
        if work.ways < 16 or work.target >= 2**224:
            return found
        lost = rolled(work.roll_mask)[9]
        return replace(found, hits=tuple(hit for hit in found.hits if hit.roll != lost))


WRONG = {
    Misses: "hits where",
    Overcounts: "counted",
    Invents: "did not find",
    RollsNothing: "did not find",
    CountsNonces: "counted",
    NamesNoVersion: "did not find",
    Raises: "launch failed",
    RunsOn: "after it was stopped",
    StandsStill: "go on",
    MixesUp: "beside another launch",
    MixesUpMade: "in flight",
    LosesAWay: "block 840000, way 9",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_variant_is_refused_and_reported(wrong: type[ReferenceHasher]) -> None:
    chosen = choose(makers=(("fast", wrong), ("reference", ReferenceHasher)))
    assert chosen.hasher.backend == "reference"
    assert chosen.report[0].backend == "fast"
    assert WRONG[wrong] in (chosen.report[0].refused or "")
    assert chosen.report[1].refused is None


@pytest.mark.parametrize("together", [True, False])
def test_a_refused_variant_leaves_nothing_in_the_next_ones_way(together: bool) -> None:
    unread: list[Work] = []

    class Together(ReferenceHasher):
        """Invents a nonce where two launches are in flight, and where it is stopped."""

        depth = 2

        def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
            unread.append(work)
            found = ReferenceHasher().begin(work, nonce_start, count)

            def result() -> SearchResult:
                beside = len(unread) > 1
                unread.remove(work)
                if self._stopped or (beside and together):
                    raise KernelWrong("together", 7)
                return found.result()

            return SimpleNamespace(count=count, result=result)

    hasher = Together()
    assert "KernelWrong" in (failure(hasher) or "")
    assert not unread
    assert not hasher._stopped


def test_a_refused_variant_gives_the_device_back() -> None:
    closed = []

    class Holds(Misses):
        def close(self) -> None:
            closed.append(self)
            raise HasherFailed("and that fails, too")

    choose(makers=(("fast", Holds), ("reference", ReferenceHasher)))
    assert len(closed) == 1


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


def test_a_preference_never_climbs_to_a_faster_device() -> None:
    makers = (("gpu", ReferenceHasher), ("cpu", Misses), ("slow", ReferenceHasher))
    assert [tried.backend for tried in choose("cpu", makers).report] == ["cpu", "slow"]


def test_a_hasher_is_made_once_per_process() -> None:
    assert choose("numba").hasher is choose("numba").hasher


def test_a_fault_below_the_top_word_is_none_for_a_kernel_that_looks_no_further() -> None:
    reference = ReferenceHasher()
    digest = reference.search(Work(bytes(76), 2**256 - 1), 0, 1).hits[0].digest
    just_missed = Work(bytes(76), int.from_bytes(digest, "little") - 1)
    assert confirmed("top", just_missed, [(0, 0)], top_word_only=True) == ()
    with pytest.raises(KernelWrong):
        confirmed("exact", just_missed, [(0, 0)])
    with pytest.raises(KernelWrong):
        confirmed("top", Work(bytes(76), 1), [(0, 0)], top_word_only=True)


def test_nothing_heavy_is_imported_before_a_hasher_is_made() -> None:
    code = (
        "import sys, wattshift_kernels.registry, wattshift_kernels.sha256d.cuda;"
        "print([name for name in ('numba', 'llvmlite', 'cupy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_hit_reported_twice_is_not_counted_twice() -> None:
    work = Work(bytes(76), 2**252, roll_mask=0x2000)
    hits = ReferenceHasher().search(work, 0, 200).hits
    found = [(hit.nonce, hit.roll) for hit in hits]
    assert confirmed("right", work, found) == hits
    with pytest.raises(KernelWrong):
        confirmed("stutters", work, [*found, found[0]])


def test_a_version_that_was_not_ours_to_roll_is_no_hit() -> None:
    easy = Work(bytes(76), 2**256 - 1, roll_mask=0x2000)
    plain, hit = ReferenceHasher().search(easy, 0, 1).hits
    assert hit.roll == 0x2000
    assert verified(easy, hit)
    assert not verified(easy, replace(plain, roll=0x4000)), "though its hash is a header's"
    assert not verified(replace(easy, roll_mask=0), hit)


@pytest.mark.parametrize("mask", [0x1F, 1 << 32, -1])
def test_a_mask_is_of_at_most_four_of_the_versions_bits(mask: int) -> None:
    with pytest.raises(ValueError, match="roll mask"):
        Work(bytes(76), 1, roll_mask=mask)


def test_values_of_a_mask_are_numbered_as_units_of_work_are() -> None:
    mask = 0x2001_4000
    assert rolled(0) == (0,)
    assert rolled(mask) == tuple(_spread(number, mask) for number in range(8))


def _spread(number: int, mask: int) -> int:
    """Bit i of the number where the mask has its bit i."""
    bits = [bit for bit in range(32) if mask >> bit & 1]
    return sum(1 << bits[i] for i in range(len(bits)) if number >> i & 1)


def test_no_other_algorithm_has_versions_and_none_is_unknown() -> None:
    with pytest.raises(ValueError, match="no version bits"):
        Work(bytes(36), 1, "etchash", roll_mask=1)
    with pytest.raises(ValueError, match="'scrypt' is not one of sha256d, autolykos2"):
        choose(algorithm="scrypt")
    with pytest.raises(ValueError, match="36 bytes"):
        Work(bytes(76), 1, "etchash")
    with pytest.raises(ValueError, match="height"):
        Work(bytes(36), 1, "etchash", height=-1)


def test_no_reported_nonce_is_believed_unchecked() -> None:
    work = Work(bytes(76), 2**252)
    hit = ReferenceHasher().search(work, 0, 200).hits[0]
    assert verified(work, hit)
    assert not verified(work, Hit(hit.nonce + 1, hit.digest))
    with pytest.raises(KernelWrong):
        confirmed("broken", work, [(hit.nonce, 0), (hit.nonce + 1, 0)])
