"""Which leases an agent takes: the rules, and that an epoch survives a restart."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.agent.leases import (
    Lease,
    LeaseBook,
    LeaseMalformed,
    Terms,
    Verdict,
    judge,
)
from wattshift_cluster.wire.epochs import EpochDamaged, EpochFile

NOW_S = 1000.0
CONTINUOUS = Terms({"idle": 3.0, "hash": 100.0}, most_w=100.0, continuous=True)
STEPS = Terms({"sleep": 30.0, "low": 1000.0, "high": 2000.0}, most_w=2100.0)
HELD = Lease("gpu0", epoch=5, sequence=7, mode="hash", watts_w=50.0, valid_until_boot_s=1010.0)


def asked(**changes: object) -> Lease:
    return replace(HELD, **changes)  # type: ignore[arg-type]


def decide(lease: Lease, held: Lease | None = HELD, terms: Terms | None = CONTINUOUS) -> Verdict:
    return judge(lease, held, terms, 5, NOW_S)


def test_a_newer_lease_replaces_the_held_one() -> None:
    newer = asked(sequence=8, watts_w=80.0)
    assert decide(newer) == Verdict(True, None, newer)
    takeover = asked(epoch=6, sequence=1, watts_w=90.0)
    assert decide(takeover) == Verdict(True, None, takeover)


def test_the_same_lease_twice_is_taken_twice() -> None:
    assert decide(HELD) == Verdict(True, None, HELD)


@pytest.mark.parametrize("older", [{"epoch": 4, "sequence": 99}, {"sequence": 6}])
def test_an_older_controller_may_not_raise(older: dict[str, int]) -> None:
    verdict = decide(asked(**older, watts_w=50.1))
    assert not verdict.accepted
    assert verdict.reason == "older than epoch 5 sequence 7"
    assert verdict.lease == HELD


@pytest.mark.parametrize("older", [{"epoch": 4, "sequence": 99}, {"sequence": 6}])
def test_an_older_controller_may_lower_but_renews_nothing(older: dict[str, int]) -> None:
    verdict = decide(asked(**older, watts_w=20.0, valid_until_boot_s=1200.0))
    assert verdict.accepted
    assert verdict.lease == replace(HELD, watts_w=20.0), "fence and end are the held lease's"
    shorter = decide(asked(**older, watts_w=20.0, valid_until_boot_s=1002.0))
    assert shorter.lease is not None
    assert shorter.lease.valid_until_boot_s == 1002.0


def test_at_the_safe_point_an_old_epoch_cannot_start_anything() -> None:
    assert not decide(asked(epoch=4), held=None).accepted
    assert decide(asked(epoch=5, sequence=1), held=None).accepted


@pytest.mark.parametrize(
    ("lease", "terms", "reason"),
    [
        (asked(), None, "unknown device"),
        (asked(mode="turbo"), CONTINUOUS, "unknown mode"),
        (asked(watts_w=101.0), CONTINUOUS, "more than the device's"),
        (asked(mode="high", watts_w=1500.0), STEPS, "draws 2000 W"),
        (asked(), replace(CONTINUOUS, closed="no consent"), "no consent"),
        (asked(valid_until_boot_s=1000.0), CONTINUOUS, "expired"),
        (asked(valid_until_boot_s=1301.0), CONTINUOUS, "longest"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    lease: Lease, terms: Terms | None, reason: str
) -> None:
    verdict = decide(replace(lease, sequence=8), terms=terms)
    assert not verdict.accepted
    assert verdict.lease == HELD
    assert reason in (verdict.reason or "")


def test_the_least_mode_is_open_to_every_device() -> None:
    idle = asked(sequence=8, mode="idle", watts_w=0.0)
    assert decide(idle, terms=replace(CONTINUOUS, closed="no consent")).accepted


leases = st.builds(
    Lease,
    device=st.just("gpu0"),
    epoch=st.integers(0, 9),
    sequence=st.integers(0, 9),
    mode=st.sampled_from(["idle", "hash", "turbo"]),
    watts_w=st.floats(0, 120),
    valid_until_boot_s=st.floats(900, 1400),
)


@given(lease=leases, held=st.none() | leases, highest=st.integers(0, 9))
def test_nothing_older_raises_and_nothing_is_extended_by_it(
    lease: Lease, held: Lease | None, highest: int
) -> None:
    if held is not None and (held.epoch > highest or held.valid_until_boot_s <= NOW_S):
        held = None
    verdict = judge(lease, held, CONTINUOUS, highest, NOW_S)
    if not verdict.accepted:
        assert verdict.lease == held
        return
    assert verdict.lease is not None
    assert NOW_S < verdict.lease.valid_until_boot_s <= NOW_S + 300
    if lease.epoch < highest:
        assert held is not None
        assert verdict.lease.watts_w <= held.watts_w
        assert verdict.lease.rank == held.rank
        assert verdict.lease.valid_until_boot_s <= held.valid_until_boot_s


def test_the_book_forgets_what_has_ended() -> None:
    book = LeaseBook()
    book.take(HELD)
    assert book.held("gpu0", 1009.9) == HELD
    assert book.held("gpu0", 1010.0) is None
    assert book.next_expiry_s() == 1010.0
    assert book.expire(1009.9) == ()
    assert book.expire(1010.0) == (HELD,)
    assert book.expire(1010.0) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": True},
        {"epoch": -1},
        {"epoch": 2**63},
        {"sequence": 1.0},
        {"watts_w": "5"},
        {"watts_w": -1},
        {"watts_w": 10**400},
        {"valid_until_boot_s": None},
        {"device": ""},
        {"mode": "x" * 201},
    ],
)
def test_a_malformed_lease_is_not_read(change: dict[str, object]) -> None:
    fields = {**HELD.wire(), "device": "gpu0"}
    assert Lease.parse(fields) == HELD
    with pytest.raises(LeaseMalformed):
        Lease.parse({**fields, **change})


def test_the_epoch_survives_and_never_falls(tmp_path: Path) -> None:
    file = EpochFile(tmp_path / "state")
    assert file.highest == 0
    file.raise_to(7)
    file.raise_to(3)
    assert EpochFile(tmp_path / "state").highest == 7


@pytest.mark.parametrize("text", ["", "{}", '{"epoch": "7"}', '{"epoch": -1}', "[7]"])
def test_a_damaged_epoch_is_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / "epoch.json").write_text(text)
    with pytest.raises(EpochDamaged, match="damaged"):
        EpochFile(tmp_path)
