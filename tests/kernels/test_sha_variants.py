"""Every variant of the SHA-256d kernel, its device source compiled as C++, against hashlib.

The multiply-add forms really multiply and add here. Nothing is compared through rare hits: the text
of each variant is made to keep the words that it compares.
"""

import ctypes
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from wattshift_kernels import header
from wattshift_kernels.hasher import Work, rolled
from wattshift_kernels.header import sha256d, with_nonce, with_version
from wattshift_kernels.sha256d.precompute import JOB, job_of
from wattshift_kernels.sha256d.source import rounds, source
from wattshift_kernels.sha256d.variants import (
    FIRST,
    VARIANTS,
    WAYS_MOST,
    ZERO_WORD_TARGET,
    Variant,
    by_name,
    ordered,
)

HEADERS = 132
"""Each with 16 versions: 2,112 pairs."""

ROLL_MASK = 0x0012_6000
IV_7 = "0x5be0cd19u"
FLAGS = ("-O0", "-w", "-shared", "-fPIC")
PER_LIBRARY = 3
"""Variants of one compiler run; the runs go side by side."""

BEFORE = """
#define __grid_constant__
#define WS_DEVICE static  // called, since what is inlined takes long to compile
#define WS_KEEP(way, i, value) kept[(way) / sizeof(WsWay) * 8 + (i)] = (value)
static unsigned kept[16 * 8];
"""
EACH = """
namespace v%(n)d {
%(rounds)s
}
extern "C" void run%(n)d(const WsJob* jobs, const unsigned* nonces, unsigned count, unsigned* words,
                         unsigned* found, unsigned* back) {
    for (unsigned i = 0; i < count; ++i) {
        ws_w n = ws_swap(nonces[i]);
        found[i] = v%(n)d::ws_try(jobs[i], n);
        back[i] = ws_swap(n);
        for (unsigned j = 0; j < 16 * 8; ++j) words[16 * 8 * i + j] = kept[j];
    }
}
"""
Run = Callable[..., None]


def text(name: str) -> str:
    return (resources.files("wattshift_kernels.sha256d") / name).read_text()


def keeping(variant: Variant) -> str:
    """The rounds, made to keep what they compare."""
    if variant.compare == "all":
        new, count = re.subn(
            r"(found = .*\()(ws_meets\(digest)",
            r"for (int i = 0; i < 8; ++i) WS_KEEP(at, i, digest[i]); \1\2",
            rounds(variant),
        )
    else:
        new, count = re.subn(
            r"(found = .*WS_WHERE\((?:ws_swap\()?(t\d+)\b)",
            rf"WS_KEEP(at, 7, \2 + {IV_7}); \1",
            rounds(variant),
        )
    assert count == 1
    return new


def built(folder: Path, compiler: str, number: int, variants: Sequence[Variant]) -> ctypes.CDLL:
    parts = [BEFORE, text("sha256d.cuh").replace("#pragma once", "")]
    parts += [EACH % {"n": n, "rounds": keeping(one)} for n, one in enumerate(variants)]
    cpp, library = folder / f"{number}.cpp", folder / f"{number}.so"
    cpp.write_text("\n".join(parts))
    command: list[str | Path] = [compiler, *FLAGS, cpp, "-o", library]
    subprocess.run(command, check=True, timeout=100)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("no g++ here: the CUDA source cannot be compiled as C++")
    return found


@pytest.fixture(scope="module")
def runs(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each variant's function, by its name."""
    folder = tmp_path_factory.mktemp("variants")
    groups = [VARIANTS[i : i + PER_LIBRARY] for i in range(0, len(VARIANTS), PER_LIBRARY)]
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(lambda at: built(folder, compiler, at, groups[at]), range(len(groups)))
        )
    return {
        variant.name: getattr(library, f"run{n}")
        for library, group in zip(made, groups, strict=True)
        for n, variant in enumerate(group)
    }


class Case:
    """Works with a nonce each, and what hashlib says of all their versions."""

    def __init__(self, works: Sequence[Work], nonces: Sequence[int]) -> None:
        self.jobs = np.concatenate([job_of(work) for work in works])
        self.nonces = np.array(nonces, dtype=np.uint32)
        self.digests = np.zeros((len(works), WAYS_MOST, 8), dtype=np.uint32)
        self.hits = np.zeros(len(works), dtype=np.uint32)
        for i, (work, nonce) in enumerate(zip(works, nonces, strict=True)):
            for way, roll in enumerate(rolled(work.roll_mask)):
                head = with_version(work.message, work.roll_mask, roll)
                digest = sha256d(with_nonce(head, nonce))
                self.digests[i, way] = struct.unpack(">8I", digest)
                if header.hash_value(digest) <= work.target:
                    self.hits[i] |= 1 << way

    def one_way(self, way: int) -> "Case":
        """The same with one of the versions alone."""
        new = object.__new__(Case)
        new.jobs, new.nonces = self.jobs.copy(), self.nonces
        new.jobs["ways"] = 1
        new.jobs["way"][:, 0] = self.jobs["way"][:, way]
        new.digests = np.roll(self.digests, -way, axis=1)
        new.hits = (self.hits >> np.uint32(way)) & np.uint32(1)
        return new

    def holds(self, run: Run, variant: Variant) -> None:
        count, ways = len(self.nonces), int(self.jobs["ways"][0])
        words = np.zeros((count, WAYS_MOST, 8), dtype=np.uint32)
        found, back = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype=np.uint32)
        at = [a.ctypes.data_as(ctypes.c_void_p) for a in (self.jobs, self.nonces)]
        run(*at, count, *(a.ctypes.data_as(ctypes.c_void_p) for a in (words, found, back)))
        compared = slice(None) if variant.compare == "all" else slice(7, 8)
        assert (words[:, :ways, compared] == self.digests[:, :ways, compared]).all()
        assert (back == self.nonces).all()
        if variant.compare != "zero":
            assert (found == self.hits).all()
        else:
            assert (
                found == sum((self.digests[:, way, 7] == 0) << way for way in range(ways))
            ).all()


@pytest.fixture(scope="module")
def random_case() -> Case:
    dice = random.Random(2026)
    works = [Work(dice.randbytes(76), 2**255, roll_mask=ROLL_MASK) for _ in range(HEADERS)]
    return Case(works, [dice.randrange(2**32) for _ in works])


def block(version: int, previous: str, root: str, ntime: int, nbits: int, roll_mask: int) -> Work:
    """A block's work that has lost the version bits of `roll_mask`."""
    head = header.header76(
        version & ~roll_mask, bytes.fromhex(previous)[::-1], bytes.fromhex(root)[::-1], ntime, nbits
    )
    return Work(head, header.target_of_nbits(nbits), roll_mask=roll_mask)


@pytest.fixture(scope="module")
def block_case() -> Case:
    """Genesis and block 840,000, which its finder rolled: its hash is found at its own way only."""
    works = [
        block(
            1, "00" * 32, "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
            1_231_006_505, 0x1D00FFFF, 0xF000_0000,
        ),
        block(
            710_926_336,
            "0000000000000000000172014ba58d66455762add0512355ad651207918494ab",
            "031b417c3a1828ddf3d6527fc210daafcc9218e81f98257f88d4d43bd7a5894f",
            1_713_571_767, 0x17034219, 0x0A60_0000,
        ),
    ]  # fmt: skip
    case = Case(works, [2_083_236_893, 3_932_395_645])
    assert [hits.bit_count() for hits in case.hits.tolist()] == [1, 1]
    assert case.hits[0] == 1
    assert case.hits[1] > 1
    return case


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_gives_the_hashes_of_hashlib(
    variant: Variant, runs: dict[str, Run], random_case: Case, block_case: Case
) -> None:
    run = runs[variant.name]
    if variant.loop:
        random_case.holds(run, variant)
        block_case.holds(run, variant)
        return
    for way in range(WAYS_MOST):
        random_case.one_way(way).holds(run, variant)
        block_case.one_way(way).holds(run, variant)


def test_a_whole_target_is_held_to_its_last_bit(runs: dict[str, Run], random_case: Case) -> None:
    """With the target exactly at a digest's value it is a hit, one below it is none."""
    run, case = runs["loop-whole"], random_case.one_way(0)
    for below in (0, 1):
        for job, digest in zip(case.jobs, case.digests[:, 0], strict=True):
            value = header.hash_value(struct.pack(">8I", *digest.tolist())) - below
            job["target"] = struct.unpack(">8I", value.to_bytes(32, "big"))
        case.hits[:] = 1 - below
        case.holds(run, by_name("loop-whole"))


RING_MOST = 400
LAUNCH = """
#include <cstddef>
#define __launch_bounds__(...)
#define __grid_constant__
#define WS_DEVICE static
#define __global__
#define __shared__ static
static struct { unsigned x; } blockDim, blockIdx, threadIdx;
static void __syncthreads() {}
static unsigned atomicAdd(unsigned* at, unsigned more) { return (*at += more) - more; }
%s
extern "C" void launch(const WsJob* job, unsigned start, unsigned long long count, unsigned tile,
                       const unsigned* stop, unsigned* ring, unsigned ring_size, unsigned* hits,
                       unsigned char* ran, unsigned blocks, unsigned threads) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            ws_search(*job, start, count, tile, stop, ring, ring_size, hits, ran);
}
"""


def test_a_launch_tries_each_nonce_of_each_version_once(compiler: str, tmp_path: Path) -> None:
    (tmp_path / "launch.cpp").write_text(LAUNCH % source(by_name("loop-whole")))
    library = tmp_path / "launch.so"
    command: list[str | Path] = [compiler, *FLAGS, tmp_path / "launch.cpp", "-o", library]
    subprocess.run(command, check=True, timeout=100)
    launch = ctypes.CDLL(str(library)).launch
    # Everything hits. The last tile is a part of one, and the range goes up to the last nonce.
    work = Work(bytes(range(76)), 2**256 - 1, roll_mask=0x3000_0000)
    count, tile, threads = 75, 20, 8
    start = 2**32 - count

    def launched(stop: int, ring_size: int) -> tuple[list[tuple[int, int]], int, list[int]]:
        ring, ran = (ctypes.c_uint32 * (2 * RING_MOST))(), (ctypes.c_ubyte * 4)()
        hits, word = ctypes.c_uint32(), ctypes.c_uint32(stop)
        launch(
            job_of(work).ctypes.data_as(ctypes.c_void_p), start, ctypes.c_ulonglong(count), tile,
            ctypes.byref(word), ring, ring_size, ctypes.byref(hits), ran, 4, threads,
        )  # fmt: skip
        kept = ring[: 2 * min(hits.value, ring_size)]
        assert not any(ring[2 * ring_size :])
        return list(zip(kept[::2], kept[1::2], strict=True)), hits.value, list(ran)

    found, hits, ran = launched(0, RING_MOST)
    expected = [(start + i, way) for i in range(count) for way in range(4)]
    assert (sorted(found), hits, ran) == (expected, 4 * count, [1, 1, 1, 1])
    found, hits, ran = launched(0, 16)
    assert (len(found), hits, len(set(found))) == (16, 4 * count, 16)
    assert launched(1, 16) == ([], 0, [0, 0, 0, 0])


def test_the_job_is_laid_out_as_the_device_reads_it(compiler: str, tmp_path: Path) -> None:
    names = [name for name in JOB.names or () if name != "early"]
    lines = "\n".join(f'    std::printf("%zu\\n", offsetof(WsJob, {name}));' for name in names)
    program = tmp_path / "layout"
    (tmp_path / "layout.cpp").write_text(
        f"#include <cstddef>\n#include <cstdio>\n{BEFORE.splitlines()[1]}\n"
        f"{text('sha256d.cuh').replace('#pragma once', '')}\nint main() {{\n{lines}\n"
        '    std::printf("%zu\\n", sizeof(WsJob));\n}\n'
    )
    subprocess.run([compiler, tmp_path / "layout.cpp", "-o", program], check=True, timeout=60)
    told = subprocess.run([program], capture_output=True, text=True, check=True, timeout=10)
    offsets = [JOB.fields[name][1] for name in names] if JOB.fields else []
    assert list(map(int, told.stdout.split())) == [*offsets, JOB.itemsize]


def test_the_table_serves_every_work_on_every_card() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert all(variant.reason for variant in VARIANTS)
    for capability in (*FIRST, 75, 87, 103, 121, 130):
        order = ordered(capability)
        assert len(set(order)) == len(order)
        for ways in (1, 2, WAYS_MOST):
            for target in (1, ZERO_WORD_TARGET - 1, ZERO_WORD_TARGET, 2**256 - 1):
                assert any(variant.serves(ways, target) for variant in order)
    assert ordered(103) == ordered(100)
    with pytest.raises(ValueError, match="loop-level"):
        by_name("none")


def test_a_variant_refuses_what_it_would_miss() -> None:
    assert not by_name("loop-level").serves(1, ZERO_WORD_TARGET)
    assert not by_name("one-level").serves(2, 1)
    assert by_name("loop-top").serves(WAYS_MOST, 2**256 - 1)
    assert [by_name("loop-level").nonces_per_thread(ways) for ways in (1, 8, 16)] == [8, 1, 1]
