"""Headers from Stratum messages, against real Bitcoin blocks; extranonce ranges never overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.mining.extranonce import Extranonce2Exhausted, Extranonce2Space
from wattshift_cluster.mining.job import Extranonce, JobFault, StratumJob, parse_difficulty
from wattshift_cluster.mining.pool.settings import NBITS
from wattshift_cluster.mining.pool.template import TemplateSource

GENESIS_COINBASE = bytes.fromhex(
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d"
    "0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66"
    "207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe55"
    "48271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba"
    "0b8d578a4c702b6bf11d5fac00000000"
)
BLOCK_170_COINBASE = bytes.fromhex(
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0704ffff001d"
    "0102ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e5f3407e052"
    "d64ac625da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac00000000"
)
BLOCK_170_SECOND_TX = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"
BLOCK_169_HASH = "000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55"


def stratum_prevhash(displayed: str) -> str:
    """A block hash as a pool writes it: header order, the bytes of each word swapped."""
    header_order = bytes.fromhex(displayed)[::-1]
    return b"".join(header_order[i : i + 4][::-1] for i in range(0, 32, 4)).hex()


def job_of(coinbase: bytes, prevhash: str, branches: list[str], ntime: str) -> StratumJob:
    """A real block as a pool would have sent it: bytes 42 to 46 play the extranonces."""
    params = [
        "real", stratum_prevhash(prevhash), coinbase[:42].hex(), coinbase[46:].hex(), branches,
        "00000001", "1d00ffff", ntime, True,
    ]  # fmt: skip
    extranonce = Extranonce(coinbase[42:44], 2)
    return StratumJob.from_notify(params, extranonce=extranonce, difficulty=1.0)


def test_the_genesis_block_is_a_share_of_difficulty_one() -> None:
    work = job_of(GENESIS_COINBASE, "00" * 32, [], "495fab29").work(GENESIS_COINBASE[44:46])
    digest = work.digest(2083236893)[::-1].hex()
    assert digest == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert work.is_share(2083236893)
    assert not work.is_share(2083236892)


def test_block_170_with_a_branch_and_a_previous_hash() -> None:
    """The first block with a payment: its Merkle tree has one branch."""
    branch = bytes.fromhex(BLOCK_170_SECOND_TX)[::-1].hex()
    job = job_of(BLOCK_170_COINBASE, BLOCK_169_HASH, [branch], "496ab951")
    digest = job.work(BLOCK_170_COINBASE[44:46]).digest(1889418792)[::-1].hex()
    assert digest == "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee"


def test_a_template_survives_the_wire() -> None:
    template = TemplateSource(seed=4, extranonce_bytes=8, nbits=NBITS).next(
        1_800_000_000, clean=True
    )
    extranonce = Extranonce(b"\x00\x00\x00\x07", 4)
    job = template.job("a", extranonce=extranonce, difficulty=0.25, mask=0x6000, clean=True)
    again = StratumJob.from_notify(
        job.notify(), extranonce=extranonce, difficulty=0.25, version_mask=0x6000
    )
    assert again == job


def test_the_same_seed_gives_the_same_templates() -> None:
    first, second, other = (TemplateSource(seed, 8, NBITS) for seed in (1, 1, 2))
    for clean in (True, False, True):
        template = first.next(1_800_000_000, clean=clean)
        assert template == second.next(1_800_000_000, clean=clean)
        assert template != other.next(1_800_000_000, clean=clean)


def test_the_coinbase_pays_nobody() -> None:
    """One output, zero satoshi, OP_RETURN."""
    template = TemplateSource(seed=4, extranonce_bytes=8, nbits=NBITS).next(
        1_800_000_000, clean=True
    )
    tail = template.coinbase2
    assert tail[:5] == b"\xff\xff\xff\xff\x01"
    assert tail[5:13] == bytes(8)
    assert tail[14:15] == b"\x6a"
    assert b"pays nobody" in tail
    assert len(tail) == 4 + 1 + 8 + 1 + tail[13] + 4


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, ""), (0, 5), (1, "00"), (1, "zz" * 32), (2, None), (4, "x"), (4, ["00"]),
        (4, ["00" * 32] * 33), (5, "1"), (6, "1d00ff"), (7, 1700000000), (2, "0 0 "),
    ],
)  # fmt: skip
def test_a_malformed_notify_is_refused(index: int, value: object) -> None:
    params: list[object] = [
        "j", "00" * 32, "01", "02", [], "20000000", "1d00ffff", "65000000", True
    ]  # fmt: skip
    params[index] = value
    with pytest.raises(JobFault):
        StratumJob.from_notify(params, extranonce=Extranonce(b"\x01", 4), difficulty=1.0)


@pytest.mark.parametrize(
    "value", [0, -1, None, True, "1", float("nan"), float("inf"), 1e30, 10**400]
)
def test_an_impossible_difficulty_is_refused(value: object) -> None:
    with pytest.raises(JobFault):
        parse_difficulty(value)


@pytest.mark.parametrize("size", [-1, 17, 10**400, -(10**400), 1.5, True, "4", None, [4]])
def test_an_impossible_extranonce2_size_is_refused(size: object) -> None:
    with pytest.raises(JobFault) as fault:
        Extranonce.parse("aabb", size)
    assert len(str(fault.value)) < 100


@pytest.mark.parametrize("first", ["a", "zz", "aa ", "aa" * 33, None, 5, b"aa", ["aa"]])
def test_an_impossible_extranonce1_is_refused(first: object) -> None:
    with pytest.raises(JobFault):
        Extranonce.parse(first, 4)


@given(
    st.integers(0, 3),
    st.lists(st.one_of(st.integers(1, 5000), st.just("job")), max_size=60),
)
def test_extranonce2_ranges_of_a_job_never_overlap(size: int, asks: list[int | str]) -> None:
    """Whatever is asked in whatever order; and a job hands out its whole space before refusing."""
    space = Extranonce2Space(size)
    handed: set[int] = set()
    for ask in asks:
        if isinstance(ask, str):
            space.new_job()
            handed = set()
            continue
        try:
            taken = space.take(ask)
        except Extranonce2Exhausted:
            assert len(handed) == 256**size
            continue
        assert 1 <= len(taken) <= ask
        assert handed.isdisjoint(taken)
        assert all(len(space.encode(value)) == size for value in (taken[0], taken[-1]))
        handed.update(taken)
