"""The site meter against the sum of its devices: the meter is preferred, a quarrel is told."""

import math
import random

from wattshift_cluster.grid.meters.compare import Beside, Bounds, Compared, Seen, compare

BOUNDS = Bounds(share=0.1, least_w=500.0, after_s=60.0)
HALL = Beside(0.0, 1000.0)


def at(
    now_s: float, meter_w: float | None, devices_w: float | None, seen: Seen
) -> tuple[Seen, Compared]:
    return compare(BOUNDS, seen, meter_w, devices_w, HALL, now_s)


def test_the_meter_is_preferred_and_the_devices_stand_in_for_it() -> None:
    for meter_w, devices_w, watts_w, origin in (
        (9000.0, 8000.0, 9000.0, "meter"),
        (9000.0, None, 9000.0, "meter"),
        (9000.0, math.nan, 9000.0, "meter"),
        (None, 8000.0, 9000.0, "devices"),
        (math.nan, 8000.0, 9000.0, "devices"),
        (None, None, None, "unknown"),
    ):
        _, found = at(0.0, meter_w, devices_w, Seen())
        assert (found.watts_w, found.origin, found.disagree) == (watts_w, origin, False)


def test_a_quarrel_of_a_minute_is_told_with_both_figures_and_ends_likewise() -> None:
    seen = Seen()
    told = []
    for now_s in range(200):
        meter_w = 12_000.0 if now_s < 100 else 9500.0
        seen, found = at(float(now_s), meter_w, 9000.0, seen)
        told.append(found.disagree)
        if now_s == 60:
            assert found.text == (
                "the site meter says 12,000 W, the devices and what is known beside them 10,000 W"
            )
    assert told == [False] * 60 + [True] * 100 + [False] * 40


def test_what_is_known_beside_the_devices_and_small_differences_are_no_quarrel() -> None:
    for meter_w in (7200.0, 8000.0, 9900.0, 8500.0):
        seen = Seen()
        for now_s in range(200):
            seen, found = at(float(now_s), meter_w, 8000.0, seen)
            assert not found.disagree, meter_w
    seen = Seen()
    for now_s in range(200):
        seen, found = compare(BOUNDS, seen, -6000.0, 8000.0, Beside(-15_000.0, 0.0), float(now_s))
        assert not found.disagree, "solar"


def test_a_spell_of_agreement_or_of_the_unknown_starts_the_minute_anew() -> None:
    for between in (9000.0, None):
        seen = Seen()
        for now_s in range(119):
            meter_w = between if now_s == 59 else 15_000.0
            seen, found = at(float(now_s), meter_w, 9000.0, seen)
            assert not found.disagree


def test_against_somebody_who_looks_at_the_whole_record() -> None:
    rng = random.Random(5)
    for _ in range(40):
        seen, record, disagree = Seen(), [], False
        meter_w = 9000.0
        for now_s in range(0, 1200, 10):
            if rng.random() < 0.08:
                meter_w = rng.choice([9000.0, 14_000.0, 3000.0, math.nan])
            seen, found = at(float(now_s), meter_w, 9000.0, seen)
            off_w = max(9000.0 - meter_w, meter_w - 10_000.0, 0.0)
            near_w = min(max(meter_w, 9000.0), 10_000.0)
            apart = off_w > max(500.0, 0.1 * max(meter_w, near_w))
            record.append(None if math.isnan(meter_w) else apart)
            last = record[-7:]
            if len(last) == 7 and all(one is (not disagree) for one in last):
                disagree = not disagree
            assert found.disagree is disagree
