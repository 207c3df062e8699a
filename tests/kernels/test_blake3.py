"""Alephium's BLAKE3: the reference against the package and real hashes, the rest against both."""

import ctypes
import random
from typing import Any

import pytest

from wattshift_kernels.algorithms import by_name
from wattshift_kernels.blake3.algorithm import ALGORITHM, VECTORS, value
from wattshift_kernels.blake3.cpu import CpuHasher
from wattshift_kernels.blake3.cuda import PLACEMENTS, CudaHasher, Placement
from wattshift_kernels.blake3.job import job_of
from wattshift_kernels.blake3.reference import blake3, chain, chain_of, header, twice
from wattshift_kernels.blake3.source import source
from wattshift_kernels.hasher import HasherFailed, Work
from wattshift_kernels.kernel import Shape
from wattshift_kernels.native import CompilerMissing, library
from wattshift_kernels.registry import choose
from wattshift_kernels.selftest import failure

WORKS = 75
NONCES = 30
"""Of each: 2,250 hashes."""

SIZES = (22, 23, 50, 61, 62, 63, 126, 300, 324, 900, 1021, 1022)
"""Of messages: the shortest, around the ends of blocks, Alephium's own, and the longest."""

SHAPE = Shape(threads=32, hashes_per_thread=2)
"""Blocks small enough that a short search has several."""

STANDALONE = """
static int adds = 1, turns = 0;
#define WS_FMA_ADDS adds
#define WS_FMA_TURNS turns
%s
extern "C" void place(int all_adds, int count) { adds = all_adds, turns = count; }
extern "C" void hash_range(const WsJob* job, ws_u32 start, ws_u32 count, ws_u32* out) {
    for (ws_u32 n = 0; n < count; ++n) ws_hash(*job, start + n, out + 8 * n);
}
extern "C" int meets(const WsJob* job, const ws_u32* hash) { return ws_meets(hash, *job); }
"""


@pytest.fixture(scope="module")
def device() -> ctypes.CDLL:
    """The device's arithmetic as plain C++, its placement a variable."""
    try:
        text = STANDALONE % source().partition('extern "C"')[0]
        return library("blake3_test", text, flags=("-O1",))
    except CompilerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def package() -> Any:
    """An implementation that is not ours."""
    return pytest.importorskip("blake3", reason="the package blake3 is not installed").blake3


def on_device(device: ctypes.CDLL, work: Work, start: int, count: int) -> list[bytes]:
    out = (ctypes.c_uint32 * (8 * count))()
    device.hash_range(job_of(work).tobytes(), start, count, out)
    return [bytes(out)[32 * i : 32 * i + 32] for i in range(count)]


def work_of(dice: random.Random, size: int = 324, target: int = 1) -> Work:
    groups = bytes([dice.randrange(4), dice.randrange(4)])
    return Work(dice.randbytes(size - 2) + groups, target, "blake3")


def test_the_reference_agrees_with_the_package(package: Any) -> None:
    dice = random.Random(1)
    for size in (0, 1, 63, 64, 65, 127, 128, 129, 326, 1023, 1024):
        message = dice.randbytes(size)
        assert blake3(message) == package(message).digest()
    with pytest.raises(ValueError, match="chunk"):
        blake3(bytes(1025))


@pytest.mark.parametrize(("name", "message", "nonce", "wanted"), VECTORS)
def test_published_hashes(
    device: ctypes.CDLL, name: str, message: str, nonce: int, wanted: str
) -> None:
    work = Work(bytes.fromhex(message), 1, "blake3")
    assert twice(header(work.message, nonce)).hex() == wanted
    assert on_device(device, work, nonce, 1)[0].hex() == wanted
    assert chain_of(bytes.fromhex(wanted)) == chain(work.message)


def test_device_code_agrees_with_the_package(device: ctypes.CDLL, package: Any) -> None:
    dice = random.Random(2)
    for i in range(WORKS):
        work, start = work_of(dice, SIZES[i % len(SIZES)]), dice.randrange(2**32 - NONCES)
        device.place(i % 2, i % 9)
        for k, found in enumerate(on_device(device, work, start, NONCES)):
            inner = package(header(work.message, start + k)).digest()
            assert found == package(inner).digest()


def test_device_comparison_is_that_of_integers_on_the_right_chain(device: ctypes.CDLL) -> None:
    dice = random.Random(3)
    for _ in range(1000):
        final = dice.randbytes(32)
        target = value(final) + dice.choice([-1, 0, 1, 2**200, -(2**100)])
        if not 0 < target < 2**256:
            continue
        work = work_of(dice, target=target)
        if dice.random() < 0.5:  # else it is of another chain, mostly
            groups = bytes(divmod(chain_of(final), 4))
            work = Work(work.message[:-2] + groups, target, "blake3")
        words = (ctypes.c_uint32 * 8).from_buffer_copy(final)
        good = value(final) <= target and chain_of(final) == chain(work.message)
        assert bool(device.meets(job_of(work).tobytes(), words)) == good


@pytest.mark.parametrize("size", [22, 64, 324])
def test_the_search_over_vectors_finds_what_the_device_code_finds(
    device: ctypes.CDLL, size: int
) -> None:
    work = work_of(random.Random(size), size, 2**254)
    start, count = 2**32 - 2051, 2051
    hashes = on_device(device, work, start, count)
    wanted = [
        start + i
        for i, final in enumerate(hashes)
        if value(final) <= work.target and chain_of(final) == chain(work.message)
    ]
    found = CpuHasher().search(work, start, count)
    assert [hit.nonce for hit in found.hits] == wanted
    assert found.hashes == count
    assert len(wanted) > 10


def test_the_search_over_vectors_tries_no_nonce_beyond_its_range() -> None:
    hasher, work = CpuHasher(), work_of(random.Random(4), target=2**256 - 1)
    hits = {hit.nonce for hit in hasher.search(work, 0, 100).hits}
    for count in range(1, 50):
        found = {hit.nonce for hit in hasher.search(work, 0, count).hits}
        assert found == {nonce for nonce in hits if nonce < count}


def test_a_hash_on_another_chain_is_no_hit() -> None:
    known = by_name("blake3").known()[0]
    nonce = known.hits[0][0]
    assert ALGORITHM.check is not None
    assert ALGORITHM.check(known.work, nonce)
    other = Work(known.work.message[:-1] + b"\2", known.work.target, "blake3")
    assert not ALGORITHM.check(other, nonce)
    assert CpuHasher().search(other, *known.nonces).hits == ()


@pytest.mark.parametrize(
    ("message", "why"),
    [(bytes(21), "bytes"), (bytes(1023), "bytes"), (bytes(322) + b"\4\0", "groups")],
)
def test_messages_of_no_block_are_refused(message: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        job_of(Work(message, 1, "blake3"))


def test_the_cpu_gives_every_known_answer() -> None:
    chosen = choose("native", algorithm="blake3")
    assert [(tried.backend, tried.refused) for tried in chosen.report] == [("native", None)]


def test_a_launch_gives_every_known_answer(gpu: Any) -> None:
    hasher = CudaHasher(shape=SHAPE, hashes_per_sm=300)
    assert failure(hasher) is None
    assert hasher.refused == {}, "every placement was tested by itself"
    assert gpu.launches > 5 * len(PLACEMENTS)
    hasher.close()


def test_a_placement_that_does_not_compile_is_left_out(gpu: Any) -> None:
    bad = Placement("bad", adds=True, turns="nonsense")  # type: ignore[arg-type]
    hasher = CudaHasher(placements=(bad, PLACEMENTS[0]), shape=SHAPE, hashes_per_sm=300)
    assert "nonsense" in hasher.refused["blake3-cuda-bad"]
    assert hasher.name == "blake3-cuda-even"
    hasher.close()
    with pytest.raises(HasherFailed, match="no variant compiles"):
        CudaHasher(placements=(bad,), shape=SHAPE)
    assert not gpu.memory


def test_the_device_compares_whole_hashes(gpu: Any) -> None:
    known = by_name("blake3").known()[0]
    hasher = CudaHasher(placements=PLACEMENTS[:1], shape=SHAPE, hashes_per_sm=300)
    for target, hits in ((known.work.target, 1), (known.work.target - 1, 0)):
        work = Work(known.work.message, target, "blake3")
        assert len(hasher.search(work, *known.nonces).hits) == hits
    hasher.close()


@pytest.mark.gpu
def test_gpu_gives_every_known_answer() -> None:
    from wattshift_kernels.gpu import GpuMissing

    try:
        hasher = CudaHasher()
    except GpuMissing as missing:
        pytest.skip(str(missing))
    assert failure(hasher) is None
