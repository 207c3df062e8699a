"""Autolykos v2: published vectors, the CPU's search, and the GPU's kernels in lockstep."""

import ctypes
import random
from typing import Any

import numpy as np
import pytest
from tests.kernels import lockstep

from wattshift_kernels.algorithms import by_name
from wattshift_kernels.autolykos2 import reference
from wattshift_kernels.autolykos2.job import JOB, job_of, source
from wattshift_kernels.hasher import HasherFailed, Work
from wattshift_kernels.launches import Limits
from wattshift_kernels.native import CompilerMissing, library
from wattshift_kernels.selftest import failure, through

HEIGHT = 1_900_000
ROWS_FEW = 1_009
"""Of a table in a test: prime, so that a wrong modulus shows."""


def message(hexadecimal: str, nonce: int) -> bytes:
    return bytes.fromhex(hexadecimal) + nonce.to_bytes(8, "big")


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table, also the one that hits are verified by, has ROWS_FEW rows."""
    monkeypatch.setattr(reference, "rows", lambda height: ROWS_FEW)


@pytest.fixture(scope="module")
def native() -> Any:
    try:
        return dict(by_name("autolykos2").makers)["native"]()
    except CompilerMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("text", "nonce", "height", "hit"),
    [
        # Ergo's node, AutolykosPowSchemeSpec
        (
            "548c3e602a8f36f8f2738f5f643b02425038044d98543a51cabaa9785e7e864f",
            0x3105,
            614_400,
            "0002fcb113fe65e5754959872dfdbffea0489bf830beb4961ddc0e9e66a1412a",
        ),
        # Shares that a pool accepted, from the tests of a public pool's `calcN` and `Compute`
        (
            "8e26ba46cd2516cce5c0573dc92c6de8f1b7f110bee9aca4d196e5e0e391d029",
            0x062360E36E133E4D,
            771_223,
            "000000006b216892578fad42f928c9a19638a2abb667a5a8113311393dcca017",
        ),
        (
            "8e26ba46cd2516cce5c0573dc92c6de8f1b7f110bee9aca4d196e5e0e391d029",
            0x062360E385FFA5CE,
            771_223,
            "0000000005353a7890377419c1ddfdec0e185fa445886597a4ed69e376190aa1",
        ),
    ],
)
def test_published_vectors(text: str, nonce: int, height: int, hit: str) -> None:
    assert reference.hit(message(text, nonce), height, reference.rows(height)).hex() == hit


def test_a_published_vector_over_a_small_table() -> None:
    text = "fb4ea208049836e0b879b90da0ab9b2173cd84f5889b85668378081f95e0bbf6"
    hit = reference.hit(message(text, 42), 614_400, 1_024)
    assert hit.hex() == "2d9b2daa19cba01c595881ed4cc12eb24f3417d4b2e76f062ae1f355464deede"


@pytest.mark.parametrize(
    ("height", "rows"),
    [
        (0, 67_108_864),
        (614_399, 67_108_864),
        (614_400, 70_464_240),
        (665_599, 70_464_240),
        (665_600, 73_987_410),
        (788_400, 81_571_035),
        (1_051_200, 104_107_290),
        (4_198_400, 2_143_944_600),
        (41_984_000, 2_143_944_600),
    ],
)
def test_tables_grow_as_the_network_says(height: int, rows: int) -> None:
    assert reference.rows(height) == rows
    assert by_name("autolykos2").digest  # the record loads without numba, CuPy or a compiler


def test_a_table_takes_what_admission_is_told() -> None:
    from wattshift_kernels.autolykos2.algorithm import table_bytes

    assert table_bytes(HEIGHT) == 7_635_660_480
    assert table_bytes(10**7) == 68_606_227_200


def test_cpu_search_gives_every_known_answer(native: Any) -> None:
    assert failure(native) is None


def test_cpu_search_agrees_with_the_reference(native: Any) -> None:
    """Every digest of a range is seen: the target lets all through."""
    dice = random.Random(11)
    for height in (0, 700_000, HEIGHT, 5_000_000):
        work = Work(dice.randbytes(36), 2**256 - 1, "autolykos2", height)
        first = dice.randrange(2**32 - 40)
        found = native.search(work, first, 37)  # no multiple of its lanes
        assert [hit.nonce for hit in found.hits] == list(range(first, first + 37))
        assert all(hit.digest == reference.digest(work, hit.nonce) for hit in found.hits)


def test_a_tenth_of_all_nonces_is_found_and_no_other(native: Any) -> None:
    work = Work(bytes(range(36)), 2**256 // 10, "autolykos2", HEIGHT)
    wanted = [
        nonce
        for nonce in range(5, 305)
        if int.from_bytes(reference.digest(work, nonce), "big") <= work.target
    ]
    assert [hit.nonce for hit in native.search(work, 5, 300).hits] == wanted
    assert 10 < len(wanted) < 60


SHIM = """
extern "C" void row(unsigned height, unsigned number, unsigned long long* out) {
    ws_u64 digest[4];
    ws_row<ws_u64>(height, ws_swap32(number), digest);
    ws_row_integer(digest, out);
}
extern "C" void moduli(const WsJob* job, const unsigned long long* x, unsigned* out, int count) {
    for (int i = 0; i < count; ++i) {
        out[2 * i] = ws_row_of(*job, x[i]);
        out[2 * i + 1] = ws_row_of32(*job, (ws_u32)x[i]);
    }
}
extern "C" int job_bytes() { return sizeof(WsJob); }
"""


@pytest.fixture(scope="module")
def arithmetic() -> ctypes.CDLL:
    try:
        header = source("search.cpp").partition("#define WS_LANES")[0]
        return library("autolykos_test", header + SHIM, flags=("-O1",))
    except CompilerMissing as missing:
        pytest.skip(str(missing))


def test_the_struct_is_the_kernels(arithmetic: ctypes.CDLL) -> None:
    assert arithmetic.job_bytes() == JOB.itemsize


def test_rows_agree_with_hashlib(arithmetic: ctypes.CDLL) -> None:
    dice, row = random.Random(12), (ctypes.c_uint64 * 4)()
    for number in (0, 1, 255, 256, 2**32 - 1, *(dice.randrange(2**32) for _ in range(60))):
        height = dice.randrange(2**32)
        arithmetic.row(height, number, row)
        found = sum(word << 64 * i for i, word in enumerate(row))
        assert found == int.from_bytes(reference.row(height, number), "big")


def test_moduli_are_exact_for_every_table(arithmetic: ctypes.CDLL) -> None:
    dice = np.random.default_rng(13)
    for height in range(0, 4_300_000, 51_200):
        rows = reference.rows(height)
        x = dice.integers(0, 2**64, 500, dtype=np.uint64)
        edges = [0, 1, rows - 1, rows, rows + 1, 2**32 - 1, 2**64 - 1, 2**64 // rows * rows - 1]
        x = np.concatenate((x, np.array(edges, dtype=np.uint64), x[:50] // rows * rows))
        out = np.empty((x.size, 2), dtype=np.uint32)
        job = job_of(Work(bytes(36), 1, "autolykos2", height), 0)
        arithmetic.moduli(
            job.ctypes.data_as(ctypes.c_void_p), x.ctypes.data_as(ctypes.c_void_p),
            out.ctypes.data_as(ctypes.c_void_p), x.size,
        )  # fmt: skip
        assert (out[:, 0] == x % rows).all()
        assert (out[:, 1] == (x & 0xFFFFFFFF) % rows).all()


def hasher(monkeypatch: pytest.MonkeyPatch, rows_per_slice: int = 400, blocks: int = 100) -> Any:
    from wattshift_kernels.autolykos2.cuda import VARIANTS, CudaHasher
    from wattshift_kernels.kernel import Shape

    lockstep.put_in_standin(monkeypatch)
    small = Shape(threads=64, hashes_per_thread=1)
    return CudaHasher(
        variants=VARIANTS[:1], shape=small, rows_per_slice=rows_per_slice, limits=Limits(blocks)
    )


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("blocks", [100, 2])
def test_gpu_kernels_agree_with_the_reference(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    """The table is built by its kernel; then every nonce of a range is found and verified.

    Several blocks, of which the last is not full, and blocks of several turns.
    """
    made = hasher(monkeypatch, blocks=blocks)
    work = Work(bytes(range(36)), 2**256 - 1, "autolykos2", HEIGHT)
    found = through(made, work, (7, 150))
    assert [hit.nonce for hit in found.hits] == list(range(7, 157))
    table = next(one for one in gpu.memory if one.size == 32 * ROWS_FEW)
    stored = np.ctypeslib.as_array((ctypes.c_uint64 * (4 * ROWS_FEW)).from_address(table.address))
    for number in (0, 1, 399, 400, ROWS_FEW - 1):
        row = sum(int(word) << 64 * i for i, word in enumerate(stored[4 * number : 4 * number + 4]))
        assert row == int.from_bytes(reference.row(HEIGHT, number), "big")
    harder = Work(work.message, 2**256 // 9, "autolykos2", HEIGHT)
    wanted = [hit.nonce for hit in found.hits if int.from_bytes(hit.digest, "big") <= 2**256 // 9]
    assert [hit.nonce for hit in through(made, harder, (7, 150)).hits] == wanted
    made.close()


@pytest.mark.usefixtures("few_rows")
def test_another_height_builds_in_place(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hasher(monkeypatch)
    works = [Work(bytes(36), 2**256 - 1, "autolykos2", height) for height in (8, 9)]
    assert made.progress == 1.0  # nothing was asked of it yet
    seen = []
    for work in works:
        for _ in range(3):
            found = made.search(work, 0, 40)
            assert (found.hashes, found.left) == (0, ((0, 40),))
            seen.append(made.progress)
        assert len(made.search(work, 0, 40).hits) == 40
    assert seen[:3] == seen[3:] == [400 / ROWS_FEW, 800 / ROWS_FEW, 1.0]
    assert sum(one.size == 32 * ROWS_FEW for one in gpu.memory) == 1
    made.close()
    assert not gpu.memory


@pytest.mark.usefixtures("few_rows")
def test_a_stopped_slice_is_built_again(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hasher(monkeypatch, rows_per_slice=ROWS_FEW)
    work = Work(bytes(36), 2**256 - 1, "autolykos2", HEIGHT)
    begun = made.begin(work, 0, 40)
    gpu.run_blocks(1)
    made.stop()
    assert begun.result().left == ((0, 40),)
    assert made.progress == 0.0
    made.resume()
    assert len(through(made, work, (0, 40)).hits) == 40
    made.close()


@pytest.mark.usefixtures("few_rows")
def test_the_ceiling_is_measured_on_the_table(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in it means nothing, but every read lies in the table: else this would crash."""
    from wattshift_kernels.autolykos2 import ceiling

    monkeypatch.setattr(ceiling, "BLOCKS_PER_SM", 1)
    monkeypatch.setattr(ceiling, "TIMES", 1)
    made = hasher(monkeypatch, rows_per_slice=ROWS_FEW)
    work = Work(bytes(36), 2**256 - 1, "autolykos2", HEIGHT)
    through(made, work, (0, 1))
    held = len(gpu.memory)
    assert ceiling.limit_h_per_s(made, work) > 0
    assert len(gpu.memory) == held
    assert gpu.cupy.cuda.runtime.limits == {5: 32}  # sectors are fetched alone
    made.close()


def test_gpu_kernels_give_every_known_answer(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test as each process makes it: over a small table, with launches in flight,
    stopped."""
    made = hasher(monkeypatch)
    assert failure(made) is None
    assert gpu.memory_bytes > made.memory_bytes > 32 * reference.TRIAL_ROWS
    made.close()


def test_a_table_that_does_not_fit_is_refused(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hasher(monkeypatch)
    with pytest.raises(HasherFailed, match=r"the table takes 7\.11 GiB"):
        made.begin(Work(bytes(36), 1, "autolykos2", HEIGHT), 0, 40)
    made.close()
