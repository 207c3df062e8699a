"""The stopwatch of `kernels-gpu` on the stand-in GPU: nothing that it counts is lost or doubled."""

from typing import Any

import pytest
from benchmarks import kernels_gpu_one as bench

from wattshift_kernels.algorithms import by_name
from wattshift_kernels.kernel import Shape
from wattshift_kernels.sha256d.cuda import CudaHasher
from wattshift_kernels.sha256d.variants import by_name as variant

TARGET, MASK = 2**250, 0x6000


class Counter:
    """A card that draws 100 J between two looks, at a steady clock."""

    spent_j = 0.0

    def joules_j(self) -> float:
        self.spent_j += 100.0
        return self.spent_j

    def clock_hz(self) -> float:
        return 1.5e9


@pytest.fixture
def hasher(gpu: Any) -> CudaHasher:
    return CudaHasher(variants=(variant("loop-whole"),), shape=Shape(16, 8), hashes_per_sm=2_000)


def test_a_drive_counts_what_its_launches_did(hasher: CudaHasher) -> None:
    run = bench.drive(hasher, bench.works(by_name("sha256d"), TARGET, MASK), 0.3, Counter())  # type: ignore[arg-type]
    assert run.hashes > 0
    expected = run.hashes * TARGET / 2**256
    assert abs(run.hits - expected) < 6 * expected**0.5 + 1
    assert run.joules_j == 100.0
    assert run.watts_w == pytest.approx(100.0 / run.seconds_s)
    assert set(run.clocks_hz) == {1.5e9}
    hasher.resume()  # it would not, with anything in flight


def test_stops_are_timed_with_everything_in_flight(
    hasher: CudaHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "STOPS", 5)
    took = bench.stops(hasher, bench.works(by_name("sha256d"), 1, MASK))
    assert len(took) == 5
    assert took == sorted(took)
    assert not hasher.stopped


def test_works_are_of_the_algorithm_and_differ() -> None:
    for name, height in bench.HEIGHTS.items():
        first, second = (next(bench.works(by_name(name), 7)) for _ in range(2))
        assert (first.algorithm, first.height, first.target) == (name, height, 7)
        assert first == second
    source = bench.works(by_name("sha256d"), 7)
    assert next(source).message != next(source).message


def test_without_a_gpu_it_says_so() -> None:
    from benchmarks import kernels_gpu
    from benchmarks.cannot import CannotRunHere
    from benchmarks.rig import gpus

    if gpus():
        pytest.skip("there is a GPU here")
    with pytest.raises(CannotRunHere, match="no GPU"):
        kernels_gpu.run()
