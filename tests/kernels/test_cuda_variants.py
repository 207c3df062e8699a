"""SHA-256d's variants in one launcher: wrong ones refused, the fastest kept, versions rolled."""

from pathlib import Path
from typing import Any

import pytest

from wattshift_kernels import autotune, registry, selftest
from wattshift_kernels.autotune import Kept
from wattshift_kernels.hasher import HasherFailed, Hit, Work, rolled
from wattshift_kernels.kernel import Shape
from wattshift_kernels.launches import Limits
from wattshift_kernels.sha256d import cuda
from wattshift_kernels.sha256d.reference import ReferenceHasher
from wattshift_kernels.sha256d.source import source
from wattshift_kernels.sha256d.variants import Variant, by_name

WHOLE, TOP = by_name("loop-whole"), by_name("loop-top")
SHAPE = Shape(threads=16, hashes_per_thread=4)
ROLLED = Work(bytes(range(76)), 2**250, roll_mask=0x2001_4000)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out about the stand-in is kept apart; what is compiled stays where it is."""
    monkeypatch.setattr(Kept, "of", lambda *_: Kept(tmp_path / "kept.json"))


SILENT = "#define atomicAdd(at, more) 0u\n"
"""Before a source: no hit is ever counted."""

NO_SOURCE = "#error there is nothing to compile\n"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What stands before a variant's source."""
    faults: dict[str, str] = {}
    monkeypatch.setattr(cuda, "source", lambda one: faults.get(one.name, "") + source(one))
    return faults


def made(*variants: Variant) -> cuda.CudaHasher:
    return cuda.CudaHasher(variants=variants, shape=SHAPE, limits=Limits(ring=256))


def test_a_wrong_variant_is_refused_and_the_next_is_taken(gpu: Any, broken: Any) -> None:
    broken["loop-top"] = SILENT
    chosen = registry.choose(makers=(("cuda", lambda: made(TOP, WHOLE)),))
    assert chosen.hasher.name == "sha256d-cuda-loop-whole"
    wrong, right = chosen.report
    assert wrong.backend == "cuda/sha256d-cuda-loop-top"
    assert "hits" in (wrong.refused or "") or "nonce" in (wrong.refused or "")
    assert (right.backend, right.refused) == ("cuda", None)
    found = chosen.hasher.search(ROLLED, 0, 300)
    assert found == ReferenceHasher().search(ROLLED, 0, 300)


def test_a_variant_that_does_not_compile_is_refused(gpu: Any, broken: Any) -> None:
    broken["loop-top"] = NO_SOURCE
    hasher = made(TOP, WHOLE)
    assert list(hasher.refused) == ["sha256d-cuda-loop-top"]
    assert "does not compile" in hasher.refused["sha256d-cuda-loop-top"]
    assert selftest.failure(hasher) is None


def test_where_all_are_wrong_there_is_no_hasher(gpu: Any, broken: Any) -> None:
    broken["loop-top"] = broken["loop-whole"] = SILENT
    with pytest.raises(registry.NoHasher, match="cuda/sha256d-cuda-loop-whole"):
        registry.choose(makers=(("cuda", lambda: made(TOP, WHOLE)),))
    assert gpu.memory == [], "the device is given back"
    broken["loop-whole"] = NO_SOURCE
    with pytest.raises(HasherFailed, match="no variant compiles"):
        made(WHOLE)


def test_ordinary_launches_find_the_fastest_and_it_is_kept(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "LEAST_NS", 0)
    hasher = made(TOP, WHOLE)
    first = {hasher.choice.pick(ROLLED).name for _ in range(2)}
    assert first == {"sha256d-cuda-loop-top", "sha256d-cuda-loop-whole"}
    hits: list[Hit] = []
    hashes = 0
    for start in range(0, 60 * 16, 16):
        found = hasher.search(ROLLED, start, 16)
        hits, hashes = [*hits, *found.hits], hashes + found.hashes
    assert isinstance(hasher.choice, autotune.Tuner)
    assert "8 ways, low" in hasher.choice.winners
    wanted = ReferenceHasher().search(ROLLED, 0, 60 * 16)
    assert (hits, hashes) == (list(wanted.hits), wanted.hashes), "no hash was wasted or lost"
    again = made(TOP, WHOLE)
    assert isinstance(again.choice, autotune.Tuner)
    assert again.choice.winners["8 ways, low"] == hasher.choice.winners["8 ways, low"]
    assert again.choice.pick(ROLLED).name == again.choice.winners["8 ways, low"]


def test_hits_carry_the_version_and_hashes_count_every_way(gpu: Any) -> None:
    hasher = made(WHOLE)
    launch = hasher.begin(ROLLED, 7, 200)
    gpu.run_blocks(3)
    hasher.stop()
    found = launch.result()
    tile = SHAPE.tile(200, ROLLED.ways, Limits().blocks)
    assert (tile, found.hashes, found.left) == (16, 3 * 16 * 8, ((7 + 48, 200 - 48),))
    hasher.resume()
    rest = hasher.search(ROLLED, 7 + 48, 200 - 48)
    wanted = ReferenceHasher().search(ROLLED, 7, 200)
    assert (found.hits + rest.hits, found.hashes + rest.hashes) == (wanted.hits, wanted.hashes)
    assert {hit.roll for hit in wanted.hits} > {0}
    assert {hit.roll for hit in wanted.hits} <= set(rolled(ROLLED.roll_mask))
