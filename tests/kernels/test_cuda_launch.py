"""The launches without a GPU: SHA-256d's source as C++ and the host code around it, end to end.

A stand-in for CuPy runs the real kernel block by block. What it cannot show is CuPy and the GPU
themselves; the tests marked gpu do.
"""

import time
from typing import Any

import pytest

from wattshift_kernels import selftest
from wattshift_kernels.gpu import GpuMissing
from wattshift_kernels.hasher import HasherFailed, Work
from wattshift_kernels.kernel import Shape
from wattshift_kernels.launches import Limits
from wattshift_kernels.sha256d import cuda
from wattshift_kernels.sha256d.reference import ReferenceHasher
from wattshift_kernels.sha256d.variants import by_name

WHOLE = (by_name("loop-whole"),)
"""One variant that serves every work; it compares the whole target."""

TILE = 32
WORKS = [Work(bytes([i]) * 76, 2**251) for i in range(4)]


def small(threads: int = 16, hashes_per_thread: int = 2, **limits: int) -> cuda.CudaHasher:
    """A hasher of blocks that a test can count."""
    shape = Shape(threads, hashes_per_thread)
    return cuda.CudaHasher(variants=WHOLE, shape=shape, limits=Limits(**limits))


def nonces(result: Any) -> set[int]:
    return {hit.nonce for hit in result.hits}


def test_the_launch_gives_every_known_answer(gpu: Any) -> None:
    assert selftest.failure(cuda.CudaHasher(variants=WHOLE)) is None


def test_two_in_flight_do_not_mix_their_answers(gpu: Any) -> None:
    hasher = small(ring=64)
    first = hasher.begin(WORKS[0], 0, 1000)
    second = hasher.begin(WORKS[1], 70_000, 900)
    assert (first.done(), second.done()) == (False, False), "nothing ran yet"
    while not first.done():
        gpu.step(1)
    assert not second.done()
    result, blocks = first.result(), gpu.blocks
    assert gpu.blocks == blocks == 32, "reading the first did not wait for the second"
    assert result == ReferenceHasher().search(WORKS[0], 0, 1000)
    third = hasher.begin(WORKS[2], 5, 10)
    assert second.result() == ReferenceHasher().search(WORKS[1], 70_000, 900)
    assert third.result() == ReferenceHasher().search(WORKS[2], 5, 10)
    assert min(launch.took_ns for launch in (first, second, third)) > 0


def test_a_launch_of_more_hits_than_can_be_counted_is_refused(gpu: Any) -> None:
    hasher = small(ring=64)
    rolling = Work(bytes(76), 2**256 - 1, roll_mask=0x1E000)
    with pytest.raises(ValueError, match="more than one launch counts"):
        hasher.begin(rolling, 0, 2**28)
    assert gpu.launches == 0
    for _ in range(2):
        assert len(hasher.search(rolling, 0, 5).hits) == 80, "its slot is free"


def test_a_third_launch_in_flight_is_a_mistake(gpu: Any) -> None:
    hasher = small(ring=64)
    for work in WORKS[:2]:
        hasher.begin(work, 0, 10)
    with pytest.raises(AssertionError, match="in flight"):
        hasher.begin(WORKS[2], 0, 10)


@pytest.mark.parametrize("ran", [0, 1, 7, 31])
def test_after_a_stop_queued_blocks_try_nothing_and_what_they_left_is_exact(
    gpu: Any, ran: int
) -> None:
    hasher = small(ring=64)
    count = 32 * TILE - 3
    running, queued = hasher.begin(WORKS[0], 100, count), hasher.begin(WORKS[1], 5, 500)
    gpu.run_blocks(ran)
    hasher.stop()
    result, none = running.result(), queued.result()
    assert result.hashes == ran * TILE
    assert result.left == ((100 + ran * TILE, count - ran * TILE),)
    assert nonces(result) == nonces(ReferenceHasher().search(WORKS[0], 100, ran * TILE))
    assert (none.hits, none.hashes, none.left) == ((), 0, ((5, 500),))
    hasher.resume()
    rest = [hasher.search(WORKS[0], *nonce_range) for nonce_range in result.left]
    whole = ReferenceHasher().search(WORKS[0], 100, count)
    assert sum(one.hashes for one in rest) + result.hashes == count
    assert nonces(result).isdisjoint(*map(nonces, rest))
    assert nonces(result).union(*map(nonces, rest)) == nonces(whole)


def test_blocks_that_ran_out_of_order_leave_several_ranges(gpu: Any) -> None:
    hasher = small(ring=64)
    launch = hasher.begin(WORKS[0], 0, 10 * TILE)
    gpu.step(2)
    for stopped in (1, 0, 0, 1, 1, 0):
        gpu.run_blocks(1)
        hasher._stop.bytes[0] = stopped  # as if other blocks had met the word first
    result = launch.result()
    assert result.left == ((TILE, TILE), (4 * TILE, 2 * TILE))
    assert result.hashes == 7 * TILE


def test_a_stop_is_ended_only_when_nothing_queued_would_go_on(gpu: Any) -> None:
    hasher = small(ring=64)
    launch = hasher.begin(WORKS[0], 0, 1000)
    hasher.stop()
    with pytest.raises(AssertionError, match="in flight"):
        hasher.resume()
    launch.result()
    hasher.resume()


def test_more_hits_than_the_ring_holds_are_searched_again(gpu: Any) -> None:
    hasher = small(32, 1, ring=16)
    work = Work(bytes(76), 2**254)
    full, next_one = hasher.begin(work, 9, 1_000), hasher.begin(WORKS[1], 0, 500)
    assert full.result() == ReferenceHasher().search(work, 9, 1_000)
    assert next_one.result() == ReferenceHasher().search(WORKS[1], 0, 500)
    assert gpu.launches > 16


def test_a_stop_during_an_overflow_loses_nothing(gpu: Any) -> None:
    hasher = small(32, 1, ring=16)
    launch = hasher.begin(Work(bytes(76), 2**254), 9, 1_000)
    gpu.run_blocks(20)
    hasher.stop()
    result = launch.result()
    assert result.hashes + sum(count for _, count in result.left) == 1_000
    assert (result.hits, result.hashes) == ((), 0), "what was found did not fit; it is tried again"


def test_a_launch_too_large_for_its_blocks_takes_larger_tiles(gpu: Any) -> None:
    hasher = small(8, 1, blocks=5)
    assert hasher.search(WORKS[0], 3, 101) == ReferenceHasher().search(WORKS[0], 3, 101)
    assert gpu.blocks == 5


def test_an_empty_range_is_no_hash(gpu: Any) -> None:
    result = small(ring=64).search(WORKS[0], 5, 0)
    assert (result.hits, result.hashes, result.left) == ((), 0, ())


def test_the_stream_has_the_lowest_priority_that_the_driver_names(gpu: Any) -> None:
    assert small().gpu.priority == 0
    gpu.driver.cuCtxGetStreamPriorityRange = lambda *_: 201
    with pytest.raises(GpuMissing, match="201"):
        small()


def test_closing_frees_every_byte_and_ends_the_context(gpu: Any) -> None:
    hasher = small(ring=64)
    assert hasher.memory_bytes == 2 * (4 * 129 + Limits().blocks)
    hasher.begin(WORKS[0], 0, 100_000)
    hasher.close()
    assert gpu.memory == []
    assert gpu.ended
    assert gpu.launches == 1
    hasher.close()
    hasher.stop()  # touches no memory that is gone


def test_a_lost_device_is_said_in_one_way(gpu: Any) -> None:
    hasher = small(ring=64)
    launch = hasher.begin(WORKS[0], 0, 100)
    gpu.lost = True
    for attempt in (launch.done, launch.result, lambda: hasher.begin(WORKS[1], 0, 100)):
        with pytest.raises(HasherFailed, match="cudaErrorIllegalAddress"):
            attempt()


def test_a_missing_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("wattshift_kernels.gpu.ctypes.CDLL", absent)
    with pytest.raises(GpuMissing, match="no NVIDIA driver"):
        cuda.CudaHasher()


@pytest.mark.gpu
def test_a_real_gpu_keeps_two_in_flight_and_obeys_the_stop_word() -> None:
    try:
        hasher = cuda.CudaHasher()
    except GpuMissing as missing:
        pytest.skip(str(missing))
    work, count = Work(bytes(76), 1), hasher.launch_hashes
    assert selftest.failure(hasher) is None
    assert hasher.gpu.stream.priority == hasher.gpu.priority
    long, queued = hasher.begin(work, 0, 200 * count), hasher.begin(work, 0, count)
    time.sleep(0.002)
    hasher.stop()
    results = [long.result(), queued.result()]
    assert 0 < results[0].hashes < 200 * count, "its resident blocks ended, its queued ones did not"
    assert results[1].hashes == 0
    hasher.resume()
    assert hasher.search(work, 0, count).hashes == count
    hasher.close()
