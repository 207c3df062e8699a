"""The stopwatch of `kernels-gpu` on the stand-in GPU: nothing that it counts is lost or doubled."""

from typing import Any

import pytest
from benchmarks import kernels_gpu_one as bench

from wattshift_kernels.algorithms import ALGORITHMS, by_name
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


FOUND: dict[str, Any] = {
    "h_per_s": 12e9, "watts": 600.0, "clock_mhz": None, "stop_ms_p50": 0.4, "stop_ms_p99": 0.9,
    "hits": 170, "expected_hits": 167.0, "hits_sigma": 0.2, "limit_h_per_s": None,
}  # fmt: skip
KEYS = (
    "gh_per_s", "plain_gh_per_s", "model_gh_per_s", "ratio_to_model", "watts", "j_per_gh",
    "stop_ms_p50", "stop_ms_p99", "hits", "expected_hits", "algorithms",
)  # fmt: skip


def test_its_keys_are_those_promised() -> None:
    from benchmarks import kernels_gpu

    found = kernels_gpu.figures(lambda *_asked: dict(FOUND), 60.0)
    assert set(KEYS) <= set(found)
    assert (found["gh_per_s"], found["j_per_gh"]) == (12.0, 50.0)
    assert (found["stop_ms_p99_worst"], found["hits_sigma_worst"]) == (0.9, 0.2)


@pytest.mark.parametrize(
    ("broken", "mask"), [("sha256d", True), ("sha256d", False), ("etchash", False)]
)
def test_what_fails_leaves_the_others_figures(broken: str, mask: bool) -> None:
    from benchmarks import kernels_gpu

    def child(name: str, _seconds_s: float, roll_mask: int, _target: int) -> dict[str, Any]:
        fails = name == broken and bool(roll_mask) == mask
        return {"failed": "it broke"} if fails else dict(FOUND)

    found: Any = kernels_gpu.figures(child, 60.0)
    assert found["algorithms"]["autolykos2"]["mh_per_s"] == 12_000.0
    assert found["stop_ms_p99_worst"] is None, "unknown is not good"
    rates = (found["gh_per_s"], found["plain_gh_per_s"])
    lost = {("sha256d", True): (None, 12.0), ("sha256d", False): (12.0, None)}
    assert rates == lost.get((broken, mask), (12.0, 12.0))


def test_a_child_without_time_left_is_not_begun() -> None:
    from benchmarks import kernels_gpu

    found = kernels_gpu._child("blake3", 8.0, 0, 1, 7.0)
    assert "not run" in found["failed"]


def test_a_kernel_that_finds_nothing_stands_out() -> None:
    for name in ALGORITHMS:
        target = bench.counting_target(name, 1e9)
        share = (target + 1) / 2**256 * bench.PASSING_CHECK.get(name, 1.0)
        expected = 1e9 * 4.0 * share
        assert expected**0.5 > 4, "none of so many is 4 sigma away"
