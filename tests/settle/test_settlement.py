"""Events settled against numbers worked by hand: a small synthetic day, and a measured one."""

import csv
import math
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from wattshift_cluster.config.settlement import SettledProgram, Settlement
from wattshift_cluster.settle.collect import Steps
from wattshift_cluster.settle.intervals import Samples, sample_hash
from wattshift_cluster.settle.settle import Facts, Settled, settle
from wattshift_scheduler.signals import notice
from wattshift_scheduler.signals.words import GridEvent

HOUR_S = 3600.0
DAY_S = 86_400.0
NO_PLAN = Steps(np.empty(0), np.empty(0))


def program(**keys: object) -> SettledProgram:
    return SettledProgram.model_validate(
        {"name": "dr", "method": "before_after", "price": 100, "commitment": "40kW", **keys}
    )


def sampled(draw: Callable[[float], float], from_s: float, to_s: float, step_s: float) -> Samples:
    at_s = np.arange(from_s, to_s + step_s / 2, step_s)
    watts_w = np.array([draw(at) for at in at_s])
    ones = np.ones(len(at_s))
    return Samples(at_s, watts_w, 0.25 * ones, np.zeros(len(at_s), dtype=np.int64))


def facts(samples: Samples, terms: Settlement, *events: GridEvent, plan: Steps = NO_PLAN) -> Facts:
    end_s = float(samples.at_s[-1])
    return Facts(terms, samples, plan, events, end_s)


def drawn(noon_s: float) -> Callable[[float], float]:
    """100 kW; from noon for an hour 70 kW, then 50 kW for half an hour; and a watt up and down."""

    def watts(at_s: float) -> float:
        noise_w = 1.0 if at_s % 2 else -1.0
        if not noon_s < at_s <= noon_s + 1.5 * HOUR_S:
            return 100e3 + noise_w
        return (70e3 if at_s <= noon_s + HOUR_S else 50e3) + noise_w

    return watts


def event(noon_s: float, **keys: object) -> GridEvent:
    plain = GridEvent("e1", "vtn", "dr", noon_s - HOUR_S, noon_s, noon_s + 1.5 * HOUR_S)
    return replace(plain, **keys)  # type: ignore[arg-type]


def settled(noon_s: float, one: GridEvent, terms: Settlement, plan: Steps = NO_PLAN) -> Settled:
    # One sample a second: a step is blurred over one second of 300 by the straight line.
    samples = sampled(drawn(noon_s), noon_s - 2 * HOUR_S, noon_s + 2 * HOUR_S, 1.0)
    agreed = terms.program(one.program)
    assert agreed is not None
    return settle(one, agreed, facts(samples, terms, one, plan=plan))


def test_a_day_with_exact_numbers(noon_s: float) -> None:
    found = settled(noon_s, event(noon_s), Settlement(resource="yard", programs=(program(),)))
    # 12 intervals of 30 kW: 30/40 = 75 %, 30 kW x 5/60 h x 0.100 USD/kWh = 0.25 USD each.
    # 6 intervals of 50 kW: 125 %, paid up to 40 kW: 40 x 5/60 x 0.100 = 0.3333 USD each.
    # In all 12 x 2.5 + 6 x 4.16667 = 55 kWh of 18 x 40/12 = 60 kWh; 3 + 2 = 5 USD.
    assert [row.reduction_kw for row in found.rows] == pytest.approx(
        [30.0] * 12 + [50.0] * 6, rel=2e-3
    )
    assert [row.payment for row in found.rows] == pytest.approx([0.25] * 12 + [1 / 3] * 6, rel=2e-3)
    assert found.reduction_kwh == pytest.approx(55.0, rel=1e-3)
    assert found.committed_kwh == pytest.approx(60.0)
    assert found.performance == pytest.approx(55 / 60, rel=1e-3)
    assert found.payment == pytest.approx(5.0, rel=1e-3)
    assert not found.void
    first = found.rows[0]
    assert first.baseline_kw == pytest.approx(100.0, rel=1e-6)
    assert (first.committed_kw, first.currency) == (40.0, "USD")
    assert (first.resource_id, first.clock_offset_s, first.quality) == ("yard", 0.25, "measured")
    at_s = noon_s + np.arange(300.0)
    draw = drawn(noon_s)
    raw = sample_hash(at_s, np.array([draw(at) for at in at_s]))
    assert first.samples_sha256 == raw, "anybody with the raw samples can make it again"


def test_the_factor_of_dfs(noon_s: float) -> None:
    terms = Settlement(programs=(program(rule="dfs", interval="30m", window="30m"),))
    found = settled(noon_s, event(noon_s), terms)
    # 75 % twice: K = 0.75, 40 kW x 0.5 h x 0.1 x 0.75 = 1.50 USD; 125 %: K = 1.2, 2.40 USD.
    assert [row.payment for row in found.rows] == pytest.approx([1.5, 1.5, 2.4], rel=1e-3)


def test_a_firm_service_level(noon_s: float) -> None:
    terms = Settlement(programs=(program(method="fsl", fsl="80kW"),))
    found = settled(noon_s, event(noon_s), terms)
    # 80 - 70 = 10 kW for 1 h and 30 kW for half an hour: 25 kWh, 2.50 USD.
    assert found.reduction_kwh == pytest.approx(25.0, rel=2e-3)
    assert found.payment == pytest.approx(2.5, rel=2e-3)


def test_intervals_are_cut_where_an_event_begins_and_is_called_off(noon_s: float) -> None:
    one = event(noon_s, starts_s=noon_s + 120, cancelled_s=noon_s + 700)
    found = settled(noon_s, one, Settlement(programs=(program(lead="5m"),)))
    spans = [(row.interval_start_s - noon_s, row.interval_end_s - noon_s) for row in found.rows]
    assert spans == [(120, 300), (300, 600), (600, 700)]
    assert found.reduction_kwh == pytest.approx(30 * 580 / 3600)
    assert "called off midway" in found.notes


@pytest.mark.parametrize(("plan_kw", "void"), [(100.0, False), (98.1, False), (97.9, True)])
def test_a_raise_after_the_notice_voids_an_event(noon_s: float, plan_kw: float, void: bool) -> None:
    plan = Steps(np.array([noon_s - 2 * HOUR_S]), np.array([plan_kw * 1e3]))
    found = settled(noon_s, event(noon_s), Settlement(programs=(program(),)), plan)
    # 98.1 kW and 2 % are 100.06 kW, just above what was drawn; 97.9 kW and 2 % are 99.86 kW.
    assert bool(found.void) is void
    assert (found.payment == 0.0) is void
    assert all(row.quality.endswith("+void") is void for row in found.rows)


def test_a_raise_is_judged_by_the_words_that_mining_is_held_to(
    noon_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Steps(np.array([noon_s - 2 * HOUR_S]), np.array([80e3]))
    terms = Settlement(programs=(program(),))
    assert settled(noon_s, event(noon_s), terms, plan).void
    monkeypatch.setattr(notice, "TOLERANCE_SHARE", 0.3)
    assert not settled(noon_s, event(noon_s), terms, plan).void


def test_without_a_plan_the_meter_before_the_notice_counts(noon_s: float) -> None:
    def raised(at_s: float) -> float:
        return 90e3 if at_s < noon_s - HOUR_S else 100e3

    samples = sampled(raised, noon_s - 2 * HOUR_S, noon_s + 2 * HOUR_S, 1.0)
    terms = Settlement(programs=(program(),))
    found = settle(event(noon_s), terms.programs[0], facts(samples, terms, event(noon_s)))
    assert "metered mean before the notice" in found.void
    allowed = Settlement(programs=(program(void_above="9kW"),))
    found = settle(event(noon_s), allowed.programs[0], facts(samples, allowed, event(noon_s)))
    assert not found.void


def test_what_is_not_known_is_not_paid_and_not_zero(noon_s: float) -> None:
    samples = sampled(drawn(noon_s), noon_s - 2 * HOUR_S, noon_s + 2 * HOUR_S, 1.0)
    watts_w = samples.watts_w.copy()
    watts_w[(samples.at_s > noon_s + 300) & (samples.at_s < noon_s + 550)] = math.nan
    terms = Settlement(programs=(program(),))
    gone = replace(samples, watts_w=watts_w)
    found = settle(event(noon_s), terms.programs[0], facts(gone, terms, event(noon_s)))
    row = found.rows[1]
    assert math.isnan(row.metered_kw)
    assert math.isnan(row.payment)
    assert row.quality == "measured+unknown"
    assert math.isnan(found.performance)
    assert found.payment == pytest.approx(4.75, rel=1e-3)
    why = "in 1 the meter is not known for up to 83% of the time, more than 20%"
    assert f"1 intervals are unknown and not paid: {why}" in found.notes


def test_ten_days_are_compared_on_the_clock_of_the_program_over_a_change_of_it() -> None:
    """The clock in Chicago went back on 2026-11-01; the event is 14:00 there on Wednesday 11-11."""
    terms = Settlement(
        zone="America/Chicago",
        programs=(program(method="high_10_of_10", interval="30m", commitment="10kW"),),
    )
    noon = datetime.fromisoformat("2026-11-11T14:00:00-06:00").timestamp()

    def draw(at_s: float) -> float:
        # 100 kW from 14:00 to 16:00 there and 60 kW else; before 11-01 that is an hour earlier.
        back_s = 5 * HOUR_S if at_s < 1_793_516_400 else 6 * HOUR_S
        hour = ((at_s - back_s) % DAY_S) / HOUR_S
        shed = noon <= at_s < noon + 2 * HOUR_S
        return 80e3 if shed else (100e3 if 14 <= hour < 16 else 60e3)

    samples = sampled(draw, noon - 30 * DAY_S, noon + 3 * HOUR_S, 60.0)
    one = GridEvent("e", "vtn", "dr", noon - 600, noon, noon + 2 * HOUR_S)
    found = settle(one, terms.programs[0], facts(samples, terms, one))
    # A straight line over a minute at each end of the two hours moves the first mean by 1/60.
    assert [row.baseline_kw for row in found.rows] == pytest.approx([100.0] * 4, rel=0.01)
    assert [row.reduction_kw for row in found.rows] == pytest.approx([20.0] * 4, rel=0.05)
    assert found.rows[0].adjustment == pytest.approx(1.0)
    days = next(note for note in found.notes if note.startswith("days "))
    assert days.count("2026-") == 10
    assert "2026-11-07" not in days, "a Saturday is not compared with a Wednesday"
    assert any("within 20%" in note for note in found.notes)


def emerald() -> Samples:
    """Emerald's field test in Phoenix, 2025-05-04: mean site power of each minute."""
    folder = os.environ.get("WATTSHIFT_DATA")
    path = Path(folder or ".") / "reference" / "emerald_phoenix_2025" / "SRP_total_power.csv"
    if not folder or not path.is_file():
        pytest.skip("the traces of Emerald are not in WATTSHIFT_DATA")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    at_s = np.array([datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows])
    watts_w = np.array([float(row["total"]) for row in rows])
    return Samples(at_s, watts_w, np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64))


@pytest.mark.parametrize(
    ("rule", "commitment", "performance", "payment"),
    [("linear", "28kW", 1.028705, 10.018736), ("dfs", "23kW", 1.252336, 9.917131)],
)
def test_the_day_of_emerald(rule: str, commitment: str, performance: float, payment: float) -> None:
    """Worked by hand from the file; P(hh:mm) is its row of that minute in W, local time.

    Event 16:30 to 19:30, 36 intervals of 5 min; the site began to go down at 16:09, so the quarter
    of an hour before it ends 30 min before the event.
    Baseline: (P(15:45)/2 + P(15:46) + ... + P(15:59) + P(16:00)/2) / 15 = 92,676.34 W.
    First: (65,749.8/2 + 65,592.9 + 65,477.0 + 65,694.5 + 65,694.0 + 65,693.3/2) / 5 = 65,635.97 W,
    92,676.34 - 65,635.97 = 27,040.37 W reduced, of 28 kW 96.573 %; of 23 kW 117.567 %.
    Last: (63,544.0/2 + 63,581.7 + 63,968.0 + 63,107.4 + 63,797.1 + 63,189.0/2) / 5 = 63,564.13 W,
    29,112.22 W reduced.
    Sum of the 36 reductions / 12 = 86.41118 kWh: of 84 kWh (28 kW) 102.8705 %, of 69 kWh (23 kW)
    125.2336 %.
    linear, 28 kW, 120 USD/MWh: the sum of min(reduction, 28 kW) / 12 = 83.48947 kWh, 10.018736 USD.
    dfs, 23 kW, 120 USD/MWh: 23 kW / 12 x 0.12 x the sum of min(reduction / 23 kW, 1.2) = 9.917131.
    """
    begin_s = datetime.fromisoformat("2025-05-04T16:30:00-07:00").timestamp()
    one = GridEvent("srp", "vtn", "dr", begin_s - 2700, begin_s, begin_s + 3 * HOUR_S)
    terms = Settlement(
        zone="America/Phoenix",
        meter_gap=61,
        programs=(program(rule=rule, commitment=commitment, price=120, lead="30m"),),
    )
    found = settle(one, terms.programs[0], facts(emerald(), terms, one))
    assert len(found.rows) == 36
    assert not found.void
    assert found.rows[0].baseline_kw == pytest.approx(92.67634, rel=1e-3)
    assert found.rows[0].metered_kw == pytest.approx(65.63597, rel=1e-3)
    assert found.rows[0].reduction_kw == pytest.approx(27.04037, rel=1e-3)
    assert found.rows[35].reduction_kw == pytest.approx(29.11222, rel=1e-3)
    assert found.reduction_kwh == pytest.approx(86.41118, rel=1e-3)
    assert found.performance == pytest.approx(performance, rel=1e-3)
    assert found.payment == pytest.approx(payment, rel=1e-3)
