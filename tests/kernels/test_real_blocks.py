"""Blocks of the main chain, from genesis to the fourth halving: facts that nobody here made up."""

import pytest

from wattshift_kernels import header
from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.registry import choose
from wattshift_kernels.sha256d.reference import ReferenceHasher

# height: version, previous block and Merkle root as explorers print them, time, bits, nonce, hash
BLOCKS = {
    1: (
        1,
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "0e3e2357e806b6cdb1f70b54c3a3a17b6714ee1f0e68bebb44a74b1efd512098",
        1_231_469_665,
        0x1D00FFFF,
        2_573_394_689,
        "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048",
    ),
    170: (
        1,
        "000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55",
        "7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff",
        1_231_731_025,
        0x1D00FFFF,
        1_889_418_792,
        "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee",
    ),
    100_000: (
        1,
        "000000000002d01c1fccc21636b607dfd930d31d01c3a62104612a1719011250",
        "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766",
        1_293_623_863,
        0x1B04864C,
        274_148_111,
        "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506",
    ),
    700_000: (
        1_073_733_636,
        "0000000000000000000aa3ce000eb559f4143be419108134e0ce71042fc636eb",
        "1f8d213c864bfe9fb0098cecc3165cce407de88413741b0300d56ea0f4ec9c65",
        1_631_333_672,
        0x170F48E4,
        2_881_644_503,
        "0000000000000000000590fc0f3eba193a278534220b2b37e9849e1a770ca959",
    ),
    840_000: (
        710_926_336,
        "0000000000000000000172014ba58d66455762add0512355ad651207918494ab",
        "031b417c3a1828ddf3d6527fc210daafcc9218e81f98257f88d4d43bd7a5894f",
        1_713_571_767,
        0x17034219,
        3_932_395_645,
        "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5",
    ),
}


@pytest.mark.parametrize("height", BLOCKS)
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_the_nonce_of_a_real_block_is_found(height: int, backend: str) -> None:
    version, previous, root, ntime, nbits, nonce, block_hash = BLOCKS[height]
    head = header.header76(
        version, bytes.fromhex(previous)[::-1], bytes.fromhex(root)[::-1], ntime, nbits
    )
    hasher: Hasher = choose(backend).hasher
    assert hasher.backend == backend
    result = hasher.search(Work(head, header.target_of_nbits(nbits)), nonce - 777, 1_500)
    assert [hit.nonce for hit in result.hits] == [nonce]
    assert result.hits[0].digest[::-1].hex() == block_hash
    assert result.hashes == 1_500


def test_a_nonce_at_either_end_of_the_range_counts() -> None:
    work = Work(bytes(76), 2**254)
    numba = choose("numba").hasher
    for start, count in [(0, 1), (0, 17), (2**32 - 1, 1), (2**32 - 35, 35)]:
        assert numba.search(work, start, count) == ReferenceHasher().search(work, start, count)
