"""Headers, targets and difficulty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_kernels import header

GENESIS = bytes.fromhex(
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "29ab5f49ffff001d1dac2b7c"
)


def test_genesis_hash() -> None:
    digest = header.sha256d(GENESIS)
    assert digest[::-1].hex() == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert header.hash_value(digest) <= header.target_of_nbits(0x1D00FFFF)


def test_header76_rebuilds_genesis() -> None:
    root = GENESIS[36:68]
    head = header.header76(1, bytes(32), root, 0x495FAB29, 0x1D00FFFF)
    assert header.with_nonce(head, 0x7C2BAC1D) == GENESIS


@pytest.mark.parametrize("wrong", [{"version": 2**32}, {"prev_hash": b"x"}, {"ntime": -1}])
def test_header76_refuses_what_does_not_fit(wrong: dict[str, object]) -> None:
    fields: dict[str, object] = {
        "version": 1,
        "prev_hash": bytes(32),
        "merkle_root": bytes(32),
        "ntime": 0,
        "nbits": 0,
    }
    with pytest.raises(ValueError, match="32"):
        header.header76(**{**fields, **wrong})  # type: ignore[arg-type]


@given(st.floats(min_value=1e-12, max_value=1e15))
def test_target_and_difficulty_are_inverse(difficulty: float) -> None:
    target = header.target_of_difficulty(difficulty)
    assert 0 < target <= header.MAX_TARGET
    if target < header.MAX_TARGET:
        assert header.difficulty_of_target(target) == pytest.approx(difficulty, rel=1e-9)


@given(st.floats(min_value=1e-9, max_value=1e9), st.floats(min_value=1.01, max_value=100))
def test_a_higher_difficulty_has_a_lower_target(difficulty: float, factor: float) -> None:
    easy = header.target_of_difficulty(difficulty)
    assert header.target_of_difficulty(difficulty * factor) < easy


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_difficulties(wrong: float) -> None:
    with pytest.raises(ValueError, match="difficulty"):
        header.target_of_difficulty(wrong)


def test_nbits() -> None:
    assert header.target_of_nbits(0x1D00FFFF) == header.DIFFICULTY_1_TARGET
    assert header.target_of_nbits(0x03123456) == 0x123456
    assert header.target_of_nbits(0x01120000) == 0x12
