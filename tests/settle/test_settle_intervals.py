"""Metered energy of intervals: against a naive oracle, and every fault of a meter flagged."""

import math

import numpy as np
import pytest

from wattshift_cluster.settle.intervals import Doubts, Flag, Metered, Samples, edges, metered


def samples(at_s: list[float], watts_w: list[float], quality: int = 0) -> Samples:
    ones = np.ones(len(at_s), dtype=np.int64)
    offset_s = np.full(len(at_s), math.nan)
    return Samples(np.array(at_s, float), np.array(watts_w, float), offset_s, quality * ones)


def whole(found: Samples, end_s: float, doubts: Doubts | None = None) -> Metered:
    return metered(found, np.array([0.0]), np.array([end_s]), doubts or Doubts())


def naive(
    at_s: list[float], watts_w: list[float], begin_s: float, end_s: float, doubts: Doubts
) -> tuple[float, float]:
    """Joules and known seconds by adding up thin slices."""
    joules, known_s, step_s = 0.0, 0.0, 0.01
    for n in range(round((end_s - begin_s) / step_s)):
        t = begin_s + (n + 0.5) * step_s
        for i in range(len(at_s) - 1):
            if at_s[i] <= t < at_s[i + 1]:
                a, b = watts_w[i], watts_w[i + 1]
                b = a if doubts.hold else b
                if at_s[i + 1] - at_s[i] > doubts.gap_most_s or math.isnan(a + b):
                    break
                share = (t - at_s[i]) / (at_s[i + 1] - at_s[i])
                joules += (a + (b - a) * share) * step_s
                known_s += step_s
                break
    return joules, known_s


@pytest.mark.parametrize("hold", [False, True])
def test_energy_is_that_of_a_naive_sum(hold: bool) -> None:
    rng = np.random.default_rng(3)
    doubts = Doubts(gap_most_s=3.0, hold=hold)
    for _ in range(8):
        at_s = np.cumsum(rng.uniform(0.2, 3.3, 14)).tolist()
        watts_w = rng.uniform(0, 1000, 14).tolist()
        watts_w[int(rng.integers(14))] = math.nan
        begin_s, end_s = 4.0, 16.0
        found = metered(samples(at_s, watts_w), np.array([begin_s]), np.array([end_s]), doubts)
        joules, known_s = naive(at_s, watts_w, begin_s, end_s, doubts)
        assert found.unknown_share[0] == pytest.approx(1 - known_s / (end_s - begin_s), abs=3e-3)
        if found.unknown_share[0] <= 0.2:
            assert found.mean_w[0] == pytest.approx(joules / known_s, rel=3e-3)
        else:
            assert math.isnan(found.mean_w[0])


def test_edges_lie_on_the_clock_and_are_cut_at_both_ends() -> None:
    starts_s, ends_s = edges(130.0, 700.0, 300.0)
    assert starts_s.tolist() == [130.0, 300.0, 600.0]
    assert ends_s.tolist() == [300.0, 600.0, 700.0]
    assert edges(700.0, 700.0, 300.0)[0].size == 0


def test_an_hour_of_a_kilowatt_is_a_kilowatt_hour() -> None:
    found = whole(samples(list(range(0, 3601, 10)), [1000.0 + n % 2 for n in range(361)]), 3600.0)
    assert found.energy_wh[0] == pytest.approx(1000.5, abs=1e-6)
    assert found.flags[0] == frozenset()


def test_no_samples_are_unknown_and_not_zero() -> None:
    for found in (samples([], []), samples([5.0], [10.0])):
        one = whole(found, 60.0)
        assert math.isnan(one.mean_w[0])
        assert one.flags[0] == {Flag.UNKNOWN}


AT_S = [float(n) for n in range(601)]
STEADY_W = [1000.0 + n % 7 for n in range(601)]


def changed(**rows: float) -> Samples:
    watts_w = list(STEADY_W)
    for row, value in rows.items():
        watts_w[int(row[1:])] = value
    return samples(AT_S, watts_w)


@pytest.mark.parametrize(
    ("found", "doubts", "flags"),
    [
        (samples(AT_S, STEADY_W), Doubts(), set()),
        (samples(AT_S, STEADY_W, 1), Doubts(), {Flag.EMULATED}),
        (samples(AT_S, STEADY_W, 2), Doubts(), {Flag.MODELLED}),
        (samples(AT_S, STEADY_W[:300] + [1000.0] * 301), Doubts(), {Flag.FROZEN}),
        (samples(AT_S, [math.nan] * 30 + STEADY_W[30:]), Doubts(), {Flag.GAPS}),
        (samples(AT_S[:200] + AT_S[240:], STEADY_W[:561]), Doubts(gap_most_s=30), {Flag.GAPS}),
        (samples(AT_S, [-w for w in STEADY_W]), Doubts(), {Flag.SIGN, Flag.UNKNOWN}),
        (samples(AT_S, [-w for w in STEADY_W]), Doubts(generates=True), set()),
        (changed(r50=9e9), Doubts(most_w=2e3), {Flag.BEYOND}),
        (changed(r50=9e9), Doubts(most_w=2e3, jump_w=500), {Flag.BEYOND, Flag.JUMP}),
        (changed(r50=1400.0), Doubts(jump_w=300), {Flag.JUMP}),
        (samples([*AT_S[:300], *AT_S[299:]], [*STEADY_W, 1000.0]), Doubts(), {Flag.CLOCK}),
    ],
)
def test_a_fault_of_the_meter_is_flagged(found: Samples, doubts: Doubts, flags: set[Flag]) -> None:
    one = whole(found, 600.0, doubts)
    assert one.flags[0] == flags
    if Flag.BEYOND in flags:
        assert one.mean_w[0] < 1010, "a sample that cannot be is not believed"
    later = metered(found, np.array([700.0]), np.array([800.0]), doubts)
    assert later.flags[0] == {Flag.UNKNOWN}, "a fault is told where it is"


def test_the_largest_clock_offset_of_an_interval_is_kept() -> None:
    plain = samples(AT_S, STEADY_W)
    offset_s = np.full(601, 0.1)
    offset_s[400] = -2.5
    moved = Samples(plain.at_s, plain.watts_w, offset_s, plain.quality)
    found = metered(moved, np.array([0.0, 300.0]), np.array([300.0, 600.0]), Doubts())
    assert found.offset_s.tolist() == [0.1, -2.5]
