"""A meter's own counter holds in place of its samples, where it can be believed, nowhere else."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wattshift_cluster.config.settlement import Settlement
from wattshift_cluster.controller.evidence_words import Batches
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.settle.bodies import SITE, MeterBatch
from wattshift_cluster.settle.collect import Steps
from wattshift_cluster.settle.counter import Counter, counted
from wattshift_cluster.settle.intervals import Doubts, Flag, Metered, Samples, metered
from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.report import report
from wattshift_cluster.settle.settle import Facts, settle
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.signals.words import GridEvent

HOUR_S = 3600.0
AT_S = np.arange(0.0, HOUR_S + 1.0, 5.0)
EVERY: Floats = np.arange(0.0, HOUR_S, 300.0)
DRAW_W = 36_000.0
"""10 Wh each second."""


def counter(share: float = 1.0, step_wh: float = 1.0, begin_wh: float = 5e5) -> Counter:
    energy_wh = begin_wh + DRAW_W * share * AT_S / HOUR_S
    return Counter(AT_S, np.floor(energy_wh / step_wh + 1e-9) * step_wh)


def samples(told: Counter, watts_w: Floats | None = None) -> Samples:
    noise_w = np.where(np.arange(len(AT_S)) % 2, 1.0, -1.0)
    drawn_w = DRAW_W + noise_w if watts_w is None else watts_w
    zeros = np.zeros(len(AT_S))
    return Samples(AT_S, drawn_w, zeros, zeros.astype(np.int64), told)


def found(told: Samples, doubts: Doubts | None = None) -> Metered:
    return metered(told, EVERY, EVERY + 300.0, doubts or Doubts())


def test_it_holds_in_place_of_the_samples_and_a_disagreement_is_told() -> None:
    agreed = found(samples(counter(1.004)))
    assert agreed.mean_w == pytest.approx(np.full(12, 1.004 * DRAW_W), rel=1e-3)
    assert set(agreed.flags) == {frozenset({Flag.COUNTER})}
    apart = found(samples(counter(1.03)))
    assert apart.mean_w == pytest.approx(np.full(12, 1.03 * DRAW_W), rel=1e-3)
    assert set(apart.flags) == {frozenset({Flag.COUNTER, Flag.APART})}
    assert apart.apart == pytest.approx(np.full(12, 0.03 / 1.03), rel=0.02)


def test_it_covers_time_that_no_sample_does() -> None:
    watts_w = np.full(len(AT_S), DRAW_W)
    watts_w[::2] += 1.0
    watts_w[(AT_S > 310.0) & (AT_S < 580.0)] = math.nan
    told = samples(counter(), watts_w)
    one = found(told)
    assert one.mean_w[1] == pytest.approx(DRAW_W, rel=1e-3)
    assert one.flags[1] == {Flag.COUNTER, Flag.GAPS}
    without = found(replace(told, counter=Counter()))
    assert math.isnan(without.mean_w[1])
    assert without.flags[1] == {Flag.UNKNOWN}


def test_a_jump_is_not_believed_where_no_sample_tells_of_it() -> None:
    watts_w = np.full(len(AT_S), DRAW_W)
    watts_w[::2] += 1.0
    watts_w[(AT_S > 310.0) & (AT_S < 580.0)] = math.nan
    one = found(samples(jumped(), watts_w))
    assert math.isnan(one.mean_w[1])
    assert one.flags[1] == {Flag.UNKNOWN}


def set_anew() -> Counter:
    told = counter()
    return Counter(told.at_s, np.where(AT_S > 450.0, told.energy_wh - 4e5, told.energy_wh))


def jumped() -> Counter:
    told = counter()
    return Counter(told.at_s, np.where(AT_S > 450.0, told.energy_wh + 4e5, told.energy_wh))


def missing_edge() -> Counter:
    told = counter()
    kept = (AT_S < 520.0) | (AT_S > 680.0)
    return Counter(told.at_s[kept], told.energy_wh[kept])


@pytest.mark.parametrize(
    ("told", "doubts", "lost"),
    [
        (set_anew(), Doubts(), {1}),
        (jumped(), Doubts(most_w=50e3), {1}),
        (jumped(), Doubts(), {1}),  # far from the samples: not the same meter
        (missing_edge(), Doubts(), {1, 2}),
        (counter(step_wh=1000.0), Doubts(), set(range(12))),  # too coarse for 3 kWh
        (counter(1.5), Doubts(), set(range(12))),  # another scale
        (counter(), Doubts(generates=True), set(range(12))),  # it counts imports alone
        (Counter(AT_S[:1], np.array([1.0])), Doubts(), set(range(12))),
    ],
    ids=["anew", "beyond", "jump", "edge", "coarse", "scale", "exports", "one"],
)
def test_where_it_cannot_be_believed_the_samples_hold(
    told: Counter, doubts: Doubts, lost: set[int]
) -> None:
    one = found(samples(told), doubts)
    by_samples = {i for i, flags in enumerate(one.flags) if Flag.COUNTER not in flags}
    assert by_samples == lost
    assert one.mean_w == pytest.approx(np.full(12, DRAW_W), rel=2e-3)


def test_a_coarse_counter_serves_long_intervals() -> None:
    hour = counted(
        counter(step_wh=100.0), np.array([0.0]), np.array([HOUR_S]), np.array([DRAW_W]),
        gap_most_s=60.0, most_w=math.inf,
    )  # fmt: skip
    assert hour.believed.all()


def test_a_settlement_says_that_they_do_not_agree() -> None:
    told = samples(counter(1.03))
    terms = Settlement.model_validate(
        {"programs": [{"name": "dr", "method": "fsl", "fsl": "50kW", "price": 100}]}
    )
    one = GridEvent("e", "vtn", "dr", 600.0, 600.0, 1500.0)
    facts = Facts(terms, told, Steps(np.empty(0), np.empty(0)), (one,), HOUR_S)
    settled = settle(one, terms.programs[0], facts)
    assert [row.quality for row in settled.rows] == ["measured+apart+counter"] * 3
    words = "in 3 intervals the meter's counter and its samples do not agree: they are up to 2.9%"
    assert any(note.startswith(words) for note in settled.notes)
    assert settled.rows[0].metered_kw == pytest.approx(1.03 * DRAW_W / 1e3, rel=1e-3)


def test_from_the_meter_to_the_report(logged: Callable[..., Path], noon_s: float) -> None:
    batches, lines = Batches(), []
    for second in range(0, 1201, 2):
        now_s = noon_s + second
        told = MeterReading(1000.0 + second % 3, now_s - 0.5, 0.5, "measured", energy_wh=77.0
                            + 1.02 * 1001.0 * second / HOUR_S)  # fmt: skip
        batches.add(SITE, told, now_s, 0.0)
        if second % 10 == 0:
            (batch,) = batches.taken()
            assert len(batch.counter) <= 2
            body = json.loads(json.dumps(batch.body()))
            assert MeterBatch.of(body).counter == list(batch.counter)
            lines.append((Kind.METER, body, now_s))
    folder = logged(lines, now_s=noon_s + 1300.0)
    found = report(folder, noon_s + 300.0, noon_s + 900.0)
    assert found.statements.metered_kwh == pytest.approx(1.02 * 1.001 / 6.0, rel=1e-3)
    plain = MeterBatch(SITE, "measured", 0.0, [(noon_s, 1.0)]).body()
    assert "counter" not in plain, "a meter without one costs no byte"
    assert MeterBatch.of(plain).counter == []
