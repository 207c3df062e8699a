"""The CPU search against hashlib, and the range rules that every hasher keeps."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.native import CompilerMissing
from wattshift_kernels.sha256d.cpu import FOUND_MAX, NumbaHasher
from wattshift_kernels.sha256d.lanes import LANES
from wattshift_kernels.sha256d.reference import ReferenceHasher
from wattshift_kernels.sha256d.vectors import VectorHasher

HEADERS = 400
MASKS = (0, 0, 0x2000, 0x6000_0000, 0x0001_E000)


@pytest.fixture(scope="module", params=[NumbaHasher, VectorHasher])
def hasher(request: pytest.FixtureRequest) -> Hasher:
    try:
        made: Hasher = request.param()
    except CompilerMissing as missing:
        pytest.skip(str(missing))
    return made


def test_random_headers_agree_with_hashlib(hasher: Hasher) -> None:
    dice = random.Random(20261123)
    reference = ReferenceHasher()
    hits = 0
    for _ in range(HEADERS):
        target = 2 ** dice.randrange(250, 256)
        work = Work(dice.randbytes(76), target, roll_mask=dice.choice(MASKS))
        start, count = dice.randrange(2**32 - 40), dice.randrange(1, 40)
        wanted = reference.search(work, start, count)
        assert hasher.search(work, start, count) == wanted
        hits += len(wanted.hits)
        assert wanted.hashes == count * work.ways
    assert hits > HEADERS, "the targets must be low enough that the comparison sees many hits"


def test_the_whole_target_counts_not_only_its_top_word(hasher: Hasher) -> None:
    """A target between two hashes that share their top word separates them."""
    work = Work(bytes(76), 2**256 - 1)
    values = sorted(
        int.from_bytes(hit.digest, "little") for hit in ReferenceHasher().search(work, 0, 50).hits
    )
    for value in values:
        exact = hasher.search(Work(bytes(76), value), 0, 50)
        below = hasher.search(Work(bytes(76), value - 1), 0, 50)
        assert len(exact.hits) == len(below.hits) + 1


def test_more_hits_than_the_buffer_holds(hasher: Hasher) -> None:
    count = 3 * FOUND_MAX + LANES // 2 + 1
    result = hasher.search(Work(bytes(76), 2**256 - 1), 7, count)
    assert [hit.nonce for hit in result.hits] == list(range(7, 7 + count))
    assert result.hashes == count


@pytest.mark.parametrize("make", [NumbaHasher, ReferenceHasher])
@pytest.mark.parametrize(("start", "count"), [(2**32 - 1, 2), (-1, 1), (0, -1), (2**32, 1)])
def test_a_range_outside_the_nonce_is_refused(make: type[Hasher], start: int, count: int) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        make().search(Work(bytes(76), 1), start, count)


def test_a_compiled_search_refuses_it_too(hasher: Hasher) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        hasher.search(Work(bytes(76), 1), 2**32 - 1, 2)


def test_an_empty_range_is_no_hash(hasher: Hasher) -> None:
    result = hasher.search(Work(bytes(76), 1), 5, 0)
    assert (result.hits, result.hashes) == ((), 0)


@pytest.mark.parametrize(("head", "target"), [(bytes(75), 1), (bytes(76), 0), (bytes(76), 2**256)])
def test_impossible_work_is_refused(head: bytes, target: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|target"):
        Work(head, target)


def test_threads_may_share_a_hasher(hasher: Hasher) -> None:
    works = [Work(bytes([i]) * 76, 2**248) for i in range(4)]
    alone = [hasher.search(work, 0, 50_000) for work in works]
    with ThreadPoolExecutor(4) as threads:
        again = threads.map(lambda work: hasher.search(work, 0, 50_000), works * 5)
        assert list(again) == alone * 5


@pytest.mark.nightly
@pytest.mark.parametrize(("only_cache", "comes_up"), [("False", True), ("True", False)])
def test_it_compiles_where_no_cache_can_be_written(only_cache: str, comes_up: bool) -> None:
    """A container may be read-only everywhere. The second case shows that numba alone gives up."""
    code = (
        "from numba import njit; from wattshift_kernels.sha256d import cpu, lanes;"
        f"njit(cache=True)(lanes._search) if {only_cache} else cpu.NumbaHasher()"
    )
    nowhere = {
        "NUMBA_CACHE_DIR": "/dev/null/nowhere",
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode == 0) == comes_up, done.stderr
