"""The worker's pace: launches below a millisecond, and a duty that is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.agent.pace import LEAST_COUNT, TARGET_NS, Pace


def simulated(pace: Pace, duty_pct: int, h_per_ns: float, *, oversleep_ns: int) -> float:
    """Share of two simulated seconds spent in launches, on a machine that sleeps too long."""
    now_ns, busy_ns = 10**9, 0
    end_ns = now_ns + 2 * 10**9
    while now_ns < end_ns:
        rest_s = pace.rest_s(now_ns)
        if rest_s > 0:
            now_ns += int(rest_s * 1e9) + oversleep_ns
            continue
        took_ns = int(pace.count / h_per_ns)
        count = pace.count
        now_ns += took_ns
        busy_ns += took_ns
        pace.launched(now_ns, took_ns, count, duty_pct)
    return busy_ns / (2 * 10**9)


@pytest.mark.parametrize("duty_pct", [1, 10, 50, 90, 100])
def test_the_duty_is_kept_although_sleeps_are_too_long(duty_pct: int) -> None:
    share = simulated(Pace(16_384), duty_pct, 0.025, oversleep_ns=100_000)
    assert share == pytest.approx(duty_pct / 100, rel=0.06)
    assert share <= duty_pct / 100 + 0.004


@given(h_per_ns=st.floats(0.001, 20.0), first=st.integers(1, 1 << 16))
def test_launches_come_to_the_right_length(h_per_ns: float, first: int) -> None:
    pace = Pace(first)
    simulated(pace, 100, h_per_ns, oversleep_ns=0)
    if pace.count > LEAST_COUNT:
        assert pace.count / h_per_ns == pytest.approx(TARGET_NS, rel=0.3)


def test_a_preempted_launch_shrinks_the_next_ones_only() -> None:
    pace, now_ns = Pace(16_384), 10**9
    pace.launched(now_ns, 50 * TARGET_NS, 16_384, 100)
    assert pace.count == 16_384 // 2
    for _ in range(4):
        count = pace.count
        pace.launched(now_ns, TARGET_NS * count // 16_384, count, 100)
    assert pace.count == pytest.approx(16_384, rel=0.01)


def test_a_cpus_duty_counts_what_surrounds_a_launch() -> None:
    rests_s = []
    for used_ns in (700_000, 900_000):
        pace, now_ns = Pace(1000), 10**9
        for _ in range(10):
            now_ns += round(pace.rest_s(now_ns) * 1e9) + 700_000
            pace.launched(now_ns, 700_000, 1, 50, used_ns=used_ns)
        rests_s.append(pace.rest_s(now_ns))
    assert rests_s == pytest.approx([0.0007, 0.0011], abs=1e-6)


def test_a_closed_gate_is_looked_at_often_only_when_it_matters() -> None:
    pace = Pace(1000)
    pace.launched(10**9, 700_000, 1000, 100)
    assert pace.closed_s(10**9 + 1, leased=True) <= 0.001
    assert pace.closed_s(2 * 10**9, leased=True) <= 0.005
    assert pace.closed_s(2 * 10**9, leased=False) <= 0.02
