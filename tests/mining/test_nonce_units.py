"""Units of coins whose header is finished: no nonce twice, whatever the pool leaves to us of it."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.mining.job import JobFault
from wattshift_cluster.mining.jobs import JobBook
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_cluster.mining.splitting import MOST_PIECES, WorkExhausted, WorkSplitter, WorkUnit


def job(prefix: bytes, *, name: str = "j", target: int = 1, clean: bool = False) -> NonceJob:
    return NonceJob(
        algorithm="etchash", job_id=name, before=b"h" * 32, after=b"", nonce_bytes=8,
        prefix=prefix, target=target, submission_of=lambda *_: [], clean=clean,
    )  # fmt: skip


def nonces(unit: WorkUnit) -> tuple[int, int]:
    """The whole nonces of a unit, as numbers: first, and one past the last."""
    high = int.from_bytes(unit.kernel.message[32:], "big") << 32
    first, count = unit.nonces
    return high + first, high + first + count


@given(
    prefix=st.binary(max_size=7),
    workers=st.integers(1, 200),
    count=st.integers(1, 150),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_no_nonce_is_handed_out_twice_and_all_stay_behind_the_pools_part(
    prefix: bytes, workers: int, count: int, seed: int
) -> None:
    splitter, mine = WorkSplitter(workers, rng=random.Random(seed)), job(prefix)
    taken = []
    for n in range(count):
        # Told again with another name and target, it is the same thing to hash.
        try:
            taken.append(nonces(splitter.take(job(prefix, name=str(n % 3), target=1 + n % 2))))
        except WorkExhausted:
            break
    taken.sort()
    assert all(one[1] <= other[0] for one, other in pairwise(taken))
    for first, end in taken:
        assert first < end
        for nonce in (first, end - 1):
            assert nonce.to_bytes(8, "big").startswith(prefix)
    if len(taken) < count:  # exhausted: then everything was handed out
        assert sum(end - first for first, end in taken) == 256 ** (8 - len(prefix))
    with pytest.raises(JobFault, match="no byte"):
        job(mine.prefix.ljust(8, b"x"))


def test_few_high_parts_are_split_among_workers_and_many_are_not() -> None:
    assert WorkSplitter(3).take(job(b"ab")).nonces == (0, 1 << 32)
    assert WorkSplitter(3).take(job(b"abcd")).nonces == (0, 1 << 30)
    assert WorkSplitter(10_000).take(job(b"abcd")).nonces == (0, (1 << 32) // MOST_PIECES)
    assert WorkSplitter(1).take(job(b"abcde")).nonces == (ord("e") << 24, 1 << 24)


def test_two_agents_with_the_same_prefix_begin_elsewhere() -> None:
    """A pool that gives no extranonce gives everybody the same nonces."""
    starts = {nonces(WorkSplitter().take(job(b"")))[0] for _ in range(5)}
    assert len(starts) == 5


def test_a_unit_names_the_nonce_that_was_hashed() -> None:
    unit = WorkSplitter(rng=random.Random(1)).take(job(b"\x01\x02"))
    share = unit.work.share(0xDEADBEEF)
    assert share.nonce == unit.kernel.message[32:] + bytes.fromhex("deadbeef")  # type: ignore[union-attr]


def test_a_clean_job_voids_those_before_it_and_others_do_not() -> None:
    book = JobBook()
    first, second = job(b"", name="1"), job(b"", name="2")
    book.take(first)
    book.take(second)
    shares = [WorkSplitter().take(one).work.share(0) for one in (first, second)]
    assert [book.find(one) for one in shares] == [first, second]
    third = job(b"", name="3", clean=True)
    book.take(third)
    assert [book.find(one) for one in shares] == [None, None]
