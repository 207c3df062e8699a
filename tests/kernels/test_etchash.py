"""Etchash: published vectors, an independent package, the CPU's search, the GPU's kernels.

Caches of whole epochs take a second and more, so most tests hash over a small one of a made-up
epoch.
"""

import ctypes
import hashlib
import random
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from tests.kernels import lockstep

from wattshift_kernels.algorithms import by_name
from wattshift_kernels.etchash import epochs, reference
from wattshift_kernels.etchash.epochs import Epoch, epoch_of
from wattshift_kernels.etchash.job import JOB, source
from wattshift_kernels.etchash.light import KEPT, Light, light
from wattshift_kernels.hasher import HasherFailed, Work
from wattshift_kernels.launches import Limits
from wattshift_kernels.native import CompilerMissing, library
from wattshift_kernels.selftest import failure, through

# Ethereum's first epoch, which is Ethereum Classic's too; test cases of chfast/ethash:
# header hash, nonce, mix hash, digest
FIRST_EPOCH = (
    (
        "2a8de2adf89af77358250bf908bf04ba94a6e8c3ba87775564a41d269a05e4ce",
        0x4242424242424242,
        "58f759ede17a706c93f13030328bcea40c1d1341fb26f2facd21ceb0dae57017",
        "dd47fd2d98db51078356852d7c4014e6a5d6c387c35f40e2875b74a256ed7906",
    ),
    (
        "100cbec5e5ef82991290d0d93d758f19082e71f234cf479192a8b94df6da6bfe",
        0x307692CF71B12F6D,
        "e55d02c555a7969361cf74a9ec6211d8c14e4517930a00442f171bdb1698d175",
        "ab9b13423cface72cbec8424221651bc2e384ef0f7a560e038fc68c8d8684829",
    ),
)

# A share that a pool of Ethereum Classic accepted in June 2026, from a public miner's tests; its
# seed 6c81497f... is that of 824 rounds.
SHARE = (
    "e3c03345c43176e9af64c85c6a9c7bace62f964aa6b467a43c732d9f442eee51",
    0xFF2B000015B0C4DC,
    "2352df3a7c7911c9bdafb65bf2665f30938faaee96259a88f18d88e4e6a7b577",
    "0000000011ba1869669c2433f9b264b8faf1b8c991ec175d64f0b934c63d78a6",
)
SHARE_HEIGHT = 824 * 30_000

SMALL = Epoch(first_height=77, seed_rounds=3, cache_rows=521, pages=1_009)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Epoch:
    """Every epoch, also the one that hits are verified by, is this small one or one like it, and
    its cache is made anew."""

    def few(height: int) -> Epoch:
        return Epoch(height // 100 * 100, height // 100, SMALL.cache_rows, SMALL.pages)

    monkeypatch.setattr(epochs, "epoch_of", few)
    monkeypatch.setattr(reference, "epoch_of", few)
    monkeypatch.setattr("wattshift_kernels.etchash.light._kept", OrderedDict())
    return few(0)


@pytest.fixture(scope="module")
def native() -> Any:
    try:
        return dict(by_name("etchash").makers)["native"]()
    except CompilerMissing as missing:
        pytest.skip(str(missing))


def work(header: bytes, nonce: int, target: int, height: int) -> Work:
    return Work(header + (nonce >> 32).to_bytes(4, "big"), target, "etchash", height)


@pytest.mark.parametrize(("header", "nonce", "mix", "digest"), FIRST_EPOCH)
def test_published_vectors(header: str, nonce: int, mix: str, digest: str) -> None:
    made = work(bytes.fromhex(header), nonce, 1, 2)
    algorithm = by_name("etchash")
    assert algorithm.digest(made, nonce & 0xFFFFFFFF, 0).hex() == digest
    assert algorithm.proof is not None
    assert algorithm.proof(made, nonce & 0xFFFFFFFF).hex() == mix


def test_keccak_agrees_with_an_independent_package() -> None:
    from wattshift_kernels.etchash import compiled

    ethash = pytest.importorskip("ethash", reason="the independent package is not installed")
    dice = random.Random(20)
    for words in (0, 1, 4, 5, 8):
        message = dice.randbytes(8 * words)
        for digest_words, independent in ((8, ethash.keccak_512), (4, ethash.keccak_256)):
            found = np.empty(digest_words, dtype=np.uint64)
            compiled.keccak(np.frombuffer(message, dtype=np.uint64).copy(), found)
            assert found.tobytes() == independent(message)


@pytest.mark.nightly
def test_reference_agrees_with_an_independent_package() -> None:
    """It takes the package some seconds to make its own cache."""
    ethash = pytest.importorskip("ethash", reason="the independent package is not installed")
    dice = random.Random(21)
    for _ in range(40):
        header, nonce = dice.randbytes(32), dice.randrange(2**64)
        digest, mix = ethash.hash(0, header, nonce)
        made = work(header, nonce, 1, 29_999)
        assert reference.digest(made, nonce & 0xFFFFFFFF) == digest
        assert reference.mix_hash(made, nonce & 0xFFFFFFFF) == mix


@pytest.mark.nightly
def test_a_share_of_today() -> None:
    """Its cache takes some seconds. That the seed goes on by the old epochs is in it."""
    header, nonce, mix, digest = SHARE
    made = work(bytes.fromhex(header), nonce, 1, SHARE_HEIGHT)
    assert reference.mix_hash(made, nonce & 0xFFFFFFFF).hex() == mix
    assert reference.digest(made, nonce & 0xFFFFFFFF).hex() == digest


def test_seeds_go_on_by_the_old_epochs() -> None:
    from wattshift_kernels.etchash import compiled

    seed = np.zeros(4, dtype=np.uint64)
    for _ in range(epoch_of(SHARE_HEIGHT + 59_999).seed_rounds):
        compiled.keccak(seed, seed)
    assert (
        seed.tobytes().hex() == "6c81497f04471e1f108bbef0c523cbd56e9c42f5bd589208601eeb88c1460cc6"
    )


@pytest.mark.nightly
def test_caches_are_those_that_were_published_with_ecip_1099() -> None:
    """First digits of SHA-256 of what its research made: 8 bytes of magic, then the cache.

    iquidus/ecip-1099-data: old epochs 4 and 8, and the new epoch with the seed of 8 and sizes of 4.
    """
    old = {number: epoch_of(30_000 * number) for number in (4, 8)}
    new = Epoch(0, 8, old[4].cache_rows, old[4].pages)
    magic = struct.pack("<II", 0xBADDCAFE, 0xFEE1DEAD)
    for epoch, digits in ((old[4], "72c3d6"), (old[8], "0f1c6d3"), (new, "4f3f0c")):
        found = hashlib.sha256(magic + Light(epoch).finish().words.tobytes()).hexdigest()
        assert found.startswith(digits)


@pytest.mark.parametrize(
    ("height", "first_height", "seed_rounds", "cache_bytes", "table_bytes"),
    [
        # Sizes of epochs 0, 4, 8, 389, 195, 196 and 412 as Ethereum's tables have them.
        (0, 0, 0, 16_776_896, 1_073_739_904),
        (29_999, 0, 0, 16_776_896, 1_073_739_904),
        (120_000, 120_000, 4, 17_301_056, 1_107_293_056),
        (240_000, 240_000, 8, 17_824_192, 1_140_849_536),
        (11_699_999, 11_670_000, 389, 67_763_776, 4_336_909_184),
        (11_700_000, 11_700_000, 390, 42_334_912, 2_709_518_464),
        (11_759_999, 11_700_000, 390, 42_334_912, 2_709_518_464),
        (11_760_000, 11_760_000, 392, 42_467_008, 2_717_907_328),
        (24_720_000, 24_720_000, 824, 70_778_816, 4_529_846_144),
    ],
)
def test_epochs(
    height: int, first_height: int, seed_rounds: int, cache_bytes: int, table_bytes: int
) -> None:
    epoch = epoch_of(height)
    assert (epoch.first_height, epoch.seed_rounds) == (first_height, seed_rounds)
    assert (epoch.cache_bytes, epoch.table_bytes) == (cache_bytes, table_bytes)
    assert epochs.table_bytes(height) == cache_bytes + table_bytes


def test_cpu_search_gives_every_known_answer(native: Any) -> None:
    assert failure(native) is None


def test_a_cache_is_the_same_in_steps_and_kept() -> None:
    at_once, in_steps = Light(SMALL).finish(), Light(SMALL)
    while not in_steps.ready:
        in_steps.advance(97)
    assert (at_once.words == in_steps.words).all()
    lights = [light(Epoch(first, first, 101, 103)) for first in range(KEPT + 1)]
    assert light(Epoch(KEPT, KEPT, 101, 103)) is lights[KEPT]
    assert light(Epoch(0, 0, 101, 103)) is not lights[0]


def test_cpu_search_finds_a_published_nonce(native: Any) -> None:
    header, nonce, _, digest = FIRST_EPOCH[1]
    light(epoch_of(2)).finish()
    low, value = nonce & 0xFFFFFFFF, int(digest, 16)
    for target, hits in ((value, 1), (value - 1, 0)):
        made = work(bytes.fromhex(header), nonce, target, 2)
        assert len(native.search(made, low, 1).hits) == hits


def test_cpu_search_makes_its_cache_in_steps(native: Any, small: Epoch) -> None:
    made = work(bytes(32), 0, 2**256 - 1, 5_000)
    found = native.search(made, 0, 10)
    assert (found.hashes, found.left) == (0, ((0, 10),))
    assert 0 < native.progress < 1
    found = through(native, made, (3, 10))
    assert [hit.nonce for hit in found.hits] == list(range(3, 13))
    assert native.progress == 1.0


def test_cpu_search_never_reads_a_cache_that_is_gone(native: Any, small: Epoch) -> None:
    first, second = (work(bytes(32), 0, 2**256 - 1, height) for height in (6_000, 6_100))
    through(native, first, (0, 4))
    before = light(epochs.epoch_of(first.height))  # held, so that its memory is nobody else's
    native.search(second, 0, 4)  # its cache is begun, and no more
    for number in range(KEPT):
        light(Epoch(number, number, 101, 103))
    through(native, first, (0, 4))
    now = light(epochs.epoch_of(first.height))
    assert now is not before
    assert native._job_of(first)["cache"] == now.words.ctypes.data


def test_cpu_search_agrees_with_the_reference(native: Any, small: Epoch) -> None:
    dice = random.Random(22)
    for height in (0, 100, 200):
        header, nonce = dice.randbytes(32), dice.randrange(2**64 - 100)
        made = work(header, nonce, 2**256 // 5, height)
        first = min(nonce & 0xFFFFFFFF, 2**32 - 61)
        wanted = [
            low
            for low in range(first, first + 61)
            if int.from_bytes(reference.digest(made, low), "big") <= made.target
        ]
        assert [hit.nonce for hit in through(native, made, (first, 61)).hits] == wanted
        assert 2 < len(wanted) < 40


SHIM = """
extern "C" void modulo(unsigned n, const unsigned* x, unsigned* out, int count) {
    const unsigned reciprocal = ~0u / n;
    for (int i = 0; i < count; ++i) out[i] = ws_modulo(x[i], n, reciprocal);
}
extern "C" int job_bytes() { return sizeof(WsJob); }
extern "C" int meets(const unsigned char* digest, const WsJob* job) {
    ws_u64 words[4];
    __builtin_memcpy(words, digest, 32);
    return ws_meets(words, job->target);
}
"""


@pytest.fixture(scope="module")
def arithmetic() -> ctypes.CDLL:
    try:
        header = source("search.cpp").partition("#define WS_LANES")[0]
        return library("etchash_test", header + SHIM, flags=("-O1",))
    except CompilerMissing as missing:
        pytest.skip(str(missing))


def test_the_struct_is_the_kernels(arithmetic: ctypes.CDLL) -> None:
    assert arithmetic.job_bytes() == JOB.itemsize


def test_moduli_are_exact_for_every_table(arithmetic: ctypes.CDLL) -> None:
    dice = np.random.default_rng(23)
    sizes = {epoch_of(60_000 * number) for number in range(0, 1000, 97)}
    for n in [rows for epoch in sizes for rows in (epoch.pages, epoch.cache_rows)]:
        x = dice.integers(0, 2**32, 500, dtype=np.uint32)
        edges = np.array([0, 1, n - 1, n, 2**32 - 1, 2**32 // n * n - 1], dtype=np.uint32)
        x = np.concatenate((x, edges, x // np.uint32(n) * np.uint32(n)))
        out = np.empty_like(x)
        places = (one.ctypes.data_as(ctypes.c_void_p) for one in (x, out))
        arithmetic.modulo(n, *places, x.size)
        assert (out == x % np.uint32(n)).all()


def test_a_digest_is_held_against_the_target_as_a_number(arithmetic: ctypes.CDLL) -> None:
    from wattshift_kernels.etchash.job import job_of

    dice = random.Random(24)
    for _ in range(300):
        target = dice.randrange(1, 2**256)
        value = target + dice.choice([-1, 0, 1, 2**200, -(2**100)])
        if 0 <= value < 2**256:
            job = job_of(work(bytes(32), 0, target, 0), 0, 0)
            place = job.ctypes.data_as(ctypes.c_void_p)
            assert bool(arithmetic.meets(value.to_bytes(32, "big"), place)) == (value <= target)


def hasher(monkeypatch: pytest.MonkeyPatch, which: int = 0, **sizes: Any) -> Any:
    from wattshift_kernels.etchash.cuda import VARIANTS, CudaHasher

    lockstep.put_in_standin(monkeypatch)
    return CudaHasher(variants=VARIANTS[which : which + 1], **sizes)


@pytest.mark.parametrize(("which", "blocks"), [(0, 100), (1, 1)])
def test_gpu_kernels_agree_with_the_reference(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, small: Epoch, which: int, blocks: int
) -> None:
    """Cache sent, table built by its kernel; then every nonce of a range is found and verified.

    Several blocks, of which the last is not full, and a block of several turns.
    """
    limits = Limits(blocks=blocks)
    made = hasher(monkeypatch, which, rows_per_slice=700, steps_at_once=800, limits=limits)
    job = work(bytes(range(32)), 0x0123456789ABCDEF, 2**256 - 1, 300)
    found = through(made, job, (9, 150))
    assert [hit.nonce for hit in found.hits] == list(range(9, 159))
    target = 2**256 // 7
    harder = Work(job.message, target, "etchash", 300)
    wanted = [hit.nonce for hit in found.hits if int.from_bytes(hit.digest, "big") <= target]
    assert [hit.nonce for hit in through(made, harder, (9, 150)).hits] == wanted
    made.close()
    assert not gpu.memory


def test_another_epoch_builds_in_place(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, small: Epoch
) -> None:
    made = hasher(monkeypatch, rows_per_slice=700, steps_at_once=800)
    for height in (400, 500):
        job, seen = work(bytes(32), 0, 2**256 - 1, height), [0.0]
        while seen[-1] < 1.0:
            found = made.search(job, 0, 3)
            assert (found.hashes, found.left) == (0, ((0, 3),))
            assert made.progress >= seen[-1]
            seen.append(made.progress)
        # Steps in three slices, the cache in one, rows of the table in three.
        assert len(seen) == 1 + 3 + 1 + 3
        assert len(made.search(job, 0, 3).hits) == 3
    size = small.table_bytes + small.cache_bytes
    assert sum(one.size == size for one in gpu.memory) == 1
    made.close()


def test_a_table_that_was_freed_is_built_from_the_cache_that_is_there(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, small: Epoch
) -> None:
    made = hasher(monkeypatch, rows_per_slice=700, steps_at_once=100)
    job, launches = work(bytes(32), 0, 2**256 - 1, 700), []
    for _ in range(2):
        made.free_table()
        launches.append(1)
        while not made.search(job, 0, 3).hits:
            launches[-1] += 1
    assert launches[1] == 1 + 1 + 3 + 1, "no step is taken again, not even an empty one"
    assert launches[0] > launches[1] + 10
    made.close()


def test_two_launches_in_flight_build_it_too(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, small: Epoch
) -> None:
    """The cache goes through one buffer, so one part of it is on its way at a time."""
    monkeypatch.setattr("wattshift_kernels.etchash.cuda.UPLOAD_ROWS", 100)
    made = hasher(monkeypatch, rows_per_slice=300, steps_at_once=500)
    job = work(bytes(32), 0, 2**256 // 3, 600)
    begun = [made.begin(job, 0, 40), made.begin(job, 0, 40)]
    for _ in range(60):
        found = begun.pop(0).result()
        if found.hashes:
            break
        begun.append(made.begin(job, *found.left[0]))
    wanted = [
        low for low in range(40) if int.from_bytes(reference.digest(job, low), "big") <= job.target
    ]
    assert [hit.nonce for hit in found.hits] == wanted
    begun.pop().result()
    made.close()


def test_the_ceiling_is_measured_by_copying(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, small: Epoch
) -> None:
    """The stand-in copies between its own memories in no time that means anything."""
    from wattshift_kernels.etchash import ceiling

    made = hasher(monkeypatch, rows_per_slice=4_000, steps_at_once=9_000)
    job = work(bytes(32), 0, 2**256 - 1, 700)
    through(made, job, (0, 1))
    runtime, held, copied = gpu.cupy.cuda.runtime, len(gpu.memory), []
    runtime.memcpyDeviceToDevice = 3

    def copy(to: int, at: int, size: int, kind: int, stream: int) -> None:
        assert (at, size, kind) == (made.table_address, small.table_bytes, 3)
        gpu.stream.put(lambda: bool(ctypes.memmove(to, at, size)))
        copied.append(size)

    monkeypatch.setattr(runtime, "memcpyAsync", copy)
    assert ceiling.limit_h_per_s(made, job) > 0
    assert len(copied) == ceiling.COPIES * (1 + ceiling.TIMES)
    assert len(gpu.memory) == held
    made.close()


def test_gpu_kernels_give_every_known_answer(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test as each process makes it: over a small table, with launches in flight,
    stopped."""
    made = hasher(monkeypatch)
    assert failure(made) is None
    made.close()


def test_a_table_that_does_not_fit_is_refused(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hasher(monkeypatch)
    with pytest.raises(HasherFailed, match=r"the table takes 1\.02 GiB"):
        made.begin(work(bytes(32), 0, 1, 0), 0, 40)
    made.close()
