"""The lease ledger row by row, and the words in which moves are explained."""

from dataclasses import replace

import numpy as np
import pytest

from wattshift_scheduler import leases
from wattshift_scheduler.decisions import Input, Moves
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint

TREE = FeederTree.of([Feeder("main", None, 1e6)])
ROWS = tuple(
    OperatingPoint(mode, w, h, 5.0) for mode, w, h in [("sleep", 100.0, 0.0), ("top", 1000.0, 9.0)]
)
FLEET = Fleet.of(
    [
        Device("asic", "asic", "a", "main", ROWS, 1000.0, 0.1),
        Device("gate", "cpu", "a", "main", ROWS, 1000.0, 0.0, True, True, 7.0),
    ],
    TREE,
)
BOTH = np.array([0, 1])


def _seen(at_s: float, watts_w: float, **change: object) -> Telemetry:
    seen = replace(Telemetry.unknown(2), at_s=np.full(2, at_s), watts_w=np.full(2, watts_w))
    return replace(seen, **change)


def _granted(ledger: Ledger, point: int, watts_w: float, now_s: float) -> Ledger:
    return leases.granted(
        ledger,
        BOTH,
        BOTH[(ledger.point != point) | (ledger.lease_w != watts_w)],
        np.full(2, point),
        np.full(2, watts_w),
        raised=BOTH,
        gates=BOTH[1:],
        until_s=np.full(2, now_s + 15.0),
        now_s=now_s,
    )


def _answered(ledger: Ledger, now_s: float, behind: int = 0) -> Ledger:
    yes = np.ones(2, dtype=np.bool_)
    return leases.answered(ledger, BOTH, ledger.sequence - behind, yes, now_s)


def _ceilings(ledger: Ledger, seen: Telemetry, now_s: float) -> list[float]:
    return [float(w) for w in leases.ceilings(FLEET, ledger, seen, now_s, 5.0)]


def test_what_nobody_knows_counts_at_nameplate_plus_tolerance() -> None:
    assert _ceilings(Ledger.empty(FLEET), Telemetry.unknown(2), 0.0) == pytest.approx([1100, 1000])


def test_a_lower_lease_lowers_a_gate_by_its_agents_word_and_an_asic_only_by_its_watts() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    assert _ceilings(ledger, _seen(0.5, 900.0), 1.0) == pytest.approx([1100, 110])
    seen = _seen(2.0, 105.0)
    ledger = leases.confirm(FLEET, ledger, seen, 2.0, 5.0)
    assert _ceilings(ledger, seen, 2.0) == pytest.approx([110, 110])


def test_an_answer_to_an_older_lease_proves_nothing() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0, behind=1)
    assert not ledger.acked.any()
    assert _ceilings(ledger, Telemetry.unknown(2), 1.0) == pytest.approx([1100, 1000])


def test_a_late_answer_to_a_raise_does_not_lower_the_ceiling_of_the_cut_that_followed() -> None:
    raised = _granted(_answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0), 1, 1000.0, 2.0)
    lowered = _granted(raised, 0, 110.0, 3.0)
    late = _answered(lowered, 4.0, behind=1)
    assert _ceilings(late, Telemetry.unknown(2), 4.0)[1] == 1000.0
    # Without its guard any answer would count as one to the newest lease.
    unguarded = _answered(lowered, 4.0)
    assert _ceilings(unguarded, Telemetry.unknown(2), 4.0)[1] == 110.0


def test_a_gate_falls_to_its_safe_point_when_its_lease_ends_and_an_asic_does_not() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 1, 1000.0, 0.0), 1.0)
    assert _ceilings(ledger, Telemetry.unknown(2), 14.9)[1] == 1000.0
    assert _ceilings(ledger, Telemetry.unknown(2), 15.1) == pytest.approx([1100, 7])


def test_after_a_reboot_a_taken_lease_ends_like_any_other() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 1, 1000.0, 0.0), 1.0)
    ledger = leases.forgotten(ledger, FLEET, BOTH)
    assert ledger.held_until_s[1] == np.inf
    assert ledger.sequence.tolist() == [1, 1]
    ledger = _answered(_granted(ledger, 1, 500.0, 20.0), 21.0)
    assert _ceilings(ledger, Telemetry.unknown(2), 36.0)[1] == 7.0


def test_watts_above_the_bound_stay_believed_when_readings_stop() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    ledger = leases.confirm(FLEET, ledger, _seen(2.0, 105.0), 2.0, 5.0)
    wild = _seen(3.0, 800.0)
    ledger = leases.confirm(FLEET, ledger, wild, 3.0, 5.0)
    assert _ceilings(ledger, wild, 3.0)[0] == 800.0
    assert _ceilings(ledger, wild, 60.0)[0] == 800.0
    assert not ledger.confirmed[0]


@pytest.mark.parametrize("unknown", ["nan", "failed", "foreign", "early", "old"])
def test_no_ceiling_falls_on_what_is_not_known(unknown: str) -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    yes = np.ones(2, dtype=np.bool_)
    seen = {
        "nan": _seen(2.0, np.nan),
        "failed": _seen(2.0, 50.0, failed=yes),
        "foreign": _seen(2.0, 50.0, foreign=yes),
        "early": _seen(0.9, 50.0),
        "old": _seen(2.0, 50.0),
    }[unknown]
    ledger = leases.confirm(FLEET, ledger, seen, 20.0 if unknown == "old" else 2.0, 5.0)
    assert ledger.bound_w[0] == pytest.approx(1100.0)


@pytest.mark.parametrize(("limit_w", "bound_w"), [(121.0, 110.0), (122.0, 1100.0), (900.0, 1100.0)])
def test_no_ceiling_falls_below_a_limit_that_still_allows_more(
    limit_w: float, bound_w: float
) -> None:
    """What draws little now may draw up to its enforced limit with no further command (I1)."""
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    seen = _seen(2.0, 50.0, limit_w=np.full(2, limit_w))
    ledger = leases.confirm(FLEET, ledger, seen, 2.0, 5.0)
    assert ledger.bound_w[0] == pytest.approx(bound_w)
    assert ledger.confirmed[0] == (bound_w == 110.0)


def test_without_a_sensor_hashrate_confirms_after_the_settling_time() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    for now_s, bound_w in ((4.0, 1100.0), (6.0, 110.0)):
        seen = _seen(now_s, np.nan, hashrate_h_per_s=np.zeros(2))
        assert leases.confirm(FLEET, ledger, seen, now_s, 5.0).bound_w[0] == pytest.approx(bound_w)


def test_a_device_that_disobeys_is_overdue_and_one_that_has_time_is_not() -> None:
    ledger = _answered(_granted(Ledger.empty(FLEET), 0, 110.0, 0.0), 1.0)
    assert not leases.overdue(FLEET, ledger, 9.0, 1.5).any()
    assert leases.overdue(FLEET, ledger, 10.0, 1.5).tolist() == [True, True]


def test_a_found_lease_is_taken_over_but_bounds_nothing_yet() -> None:
    found = leases.adopted(
        Ledger.empty(FLEET), BOTH, np.array([1, -1]), np.array([900.0, np.nan]), 3.0
    )
    assert found.point.tolist() == [1, -1]
    assert found.lease_w[0] == 900.0
    assert not found.acked.any()
    assert _ceilings(found, Telemetry.unknown(2), 3.0) == pytest.approx([1100, 1000])


def test_a_device_with_new_points_keeps_its_bound_and_forgets_its_grant() -> None:
    ledger = _granted(Ledger.empty(FLEET), 1, 1000.0, 0.0)
    changed = replace(FLEET.devices[0], points=ROWS[:1])
    fleet = Fleet.of([FLEET.devices[1], changed], TREE)
    moved = leases.realigned(ledger, FLEET, fleet)
    assert moved.point.tolist() == [1, -1]
    assert moved.bound_w.tolist() == pytest.approx([1000, 1100])
    assert moved.sequence.tolist() == [1, 1]


def test_an_answer_to_a_grant_that_was_forgotten_with_its_points_bounds_nothing_anew() -> None:
    """It may be under way while the gate's agent offers other points: no bound is NaN."""
    ledger = _granted(Ledger.empty(FLEET), 1, 1000.0, 0.0)
    gate = replace(FLEET.devices[1], points=ROWS[:1])
    fleet = Fleet.of([FLEET.devices[0], gate], TREE)
    moved = leases.realigned(ledger, FLEET, fleet)
    late = _answered(moved, 1.0)
    assert late.acked.tolist() == [True, False]
    ceilings = leases.ceilings(fleet, late, Telemetry.unknown(2), 1.0, 5.0)
    assert ceilings.tolist() == pytest.approx([1100.0, 1000.0])


INPUTS: dict[str, Input] = {
    "cap_w": 7000.0, "cap_origin": "schedule", "price_usd_per_mwh": 60.0,
    "marginal_usd_per_mwh": 52.0, "binding": "main",
}  # fmt: skip


def _row(from_w: float, to_w: float, next_value: float, **change: Input) -> tuple[str, str]:
    moves = Moves(
        5.0,
        ("rig",),
        ("190MHz",),
        np.array([from_w]),
        np.array([to_w]),
        np.array([next_value]),
        {**INPUTS, **change},
    )
    (row,) = moves.rows()
    assert row.inputs["to_w"] == to_w
    return row.action, row.reason


@pytest.mark.parametrize(
    ("from_w", "to_w", "next_value", "change", "action", "said"),
    [
        (np.nan, 30.0, 90.0, {}, "lease", "no lease to 30 W (190MHz)"),
        (2898.0, 823.0, 41.0, {}, "shed", "worth 41.0 USD/MWh, not more than energy at 60.0"),
        (2898.0, 823.0, 80.0, {}, "shed", "marginal watt 52.0 USD/MWh; main binds under cap 7,000"),
        (823.0, 2898.0, np.nan, {}, "restore", "it runs at its top under cap 7,000 W (schedule)"),
        (823.0, 30.0, 80.0, {"marginal_usd_per_mwh": None}, "shed", "none is running"),
        (823.0, 30.0, 80.0, {"binding": ""}, "shed", "nothing binds"),
    ],
)
def test_a_move_says_what_and_why(
    from_w: float,
    to_w: float,
    next_value: float,
    change: dict[str, Input],
    action: str,
    said: str,
) -> None:
    got, reason = _row(from_w, to_w, next_value, **change)
    assert got == action
    assert said in reason
