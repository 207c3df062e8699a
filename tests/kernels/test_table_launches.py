"""A table that is built by launches: a made-up one, in the real launcher on the stand-in GPU."""

from typing import Any

import pytest
from tests.kernels import made_up

from wattshift_kernels.hasher import HasherFailed
from wattshift_kernels.kernel import Builder, Spot
from wattshift_kernels.selftest import through
from wattshift_kernels.tables import FREE_MARGIN_BYTES, Plan, Slice, Stage

launcher, work = made_up.launcher, made_up.work
ROWS, SLICE = made_up.ROWS, made_up.SLICE


def found(result: Any) -> list[int]:
    return [hit.nonce for hit in result.hits]


def test_launches_build_first_and_then_hash(gpu: Any) -> None:
    hasher = launcher()
    before_bytes = hasher.memory_bytes
    seen = []
    for _ in range(4):
        result = hasher.search(work(7), 5, 800)
        assert (result.hits, result.hashes, result.left) == ((), 0, ((5, 800),))
        seen.append(hasher.progress)
    assert seen == pytest.approx([0.3, 0.6, 0.9, 1.0])
    assert hasher.memory_bytes == before_bytes + 8 * ROWS
    result = hasher.search(work(7), 5, 800)
    assert (result.hashes, found(result)) == (800, list(range(5, 805)))


def test_two_slices_are_in_flight_and_the_first_hashes_wait_for_both(gpu: Any) -> None:
    hasher = launcher()
    for _ in range(2):
        hasher.search(work(7), 0, 10)
    flight = [hasher.begin(work(7), 0, 10), hasher.begin(work(7), 0, 10)]
    assert flight[0].result().hashes == 0
    waiting = hasher.begin(work(7), 0, 10)
    assert hasher.progress < 1.0
    assert [one.result().hashes for one in (flight[1], waiting)] == [0, 0]
    assert gpu.launches == 4, "what waited for the last slice launched nothing"
    assert hasher.search(work(7), 0, 10).hashes == 10


@pytest.mark.parametrize("ran", [0, 1, 2])
def test_a_slice_that_a_stop_cut_short_is_built_again(gpu: Any, ran: int) -> None:
    hasher = launcher()
    launch = hasher.begin(work(7), 0, 10)
    gpu.run_blocks(ran)
    hasher.stop()
    assert launch.result().left == ((0, 10),)
    assert hasher.progress == 0.0
    blocks = gpu.blocks
    assert hasher.search(work(7), 0, 10).hashes == 0
    assert (gpu.blocks, hasher.progress) == (blocks, 0.0), "nothing is begun while it is stopped"
    hasher.resume()
    assert found(through(hasher, work(7), (0, 1000))) == list(range(1000))


def test_another_height_is_built_in_place_behind_what_still_reads_the_old(gpu: Any) -> None:
    hasher = launcher()
    through(hasher, work(7), (0, 1))
    memory_bytes = hasher.memory_bytes
    old = hasher.begin(work(7), 0, 1000)
    new = hasher.begin(work(8), 0, 1000)
    assert hasher.progress == 0.0
    assert found(old.result()) == list(range(1000))
    assert new.result().hashes == 0
    assert found(through(hasher, work(8), (0, 1000))) == list(range(1000))
    assert hasher.memory_bytes == memory_bytes


def test_what_is_built_on_the_host_takes_its_turn(gpu: Any) -> None:
    host: list[tuple[int, int]] = []

    def wrap(build: Builder) -> Builder:
        def both(piece: Slice, spot: Spot) -> int:
            if piece.stage == 1:
                return build(piece, spot)
            host.append((piece.first, piece.count))
            return 0

        return both

    stages = (Stage(10, 5, ordered=True), Stage(ROWS, SLICE))
    hasher = launcher(lambda height: Plan(height, 8 * ROWS, stages), wrap)
    launch = hasher.begin(work(7), 0, 10)
    launch.result()
    assert launch.took_ns > 0, "the time it held the loop up is booked"
    assert found(through(hasher, work(7), (0, 1000))) == list(range(1000))
    assert host == [(0, 5), (5, 5)]


def test_a_table_without_room_fails_before_anything_is_queued(gpu: Any) -> None:
    hasher = launcher()
    gpu.memory_bytes = FREE_MARGIN_BYTES + 100
    with pytest.raises(HasherFailed, match="of the device's memory"):
        hasher.begin(work(7), 0, 10)
    gpu.memory_bytes = FREE_MARGIN_BYTES + (1 << 20)
    assert through(hasher, work(7), (0, 10)).hashes == 10, "both slots are still there"


def test_closing_frees_the_table_too(gpu: Any) -> None:
    hasher = launcher()
    through(hasher, work(7), (0, 1))
    hasher.begin(work(8), 0, 10)
    hasher.close()
    assert gpu.memory == []
    assert hasher.memory_bytes == 0
