"""The worker's pace: launches below a millisecond, and a duty that is kept."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.agent.launches import POLL_S
from wattshift_cluster.agent.pace import CREDIT_NS, TARGET_NS, Charge, Pace

SPAN_NS = 3 * 10**9
TURN_NS = 30_000
"""A turn of the worker's loop."""

QUEUE_NS = 15_000
"""From the call that launches to the device's begin."""


class Device:
    """A modelled device: launches run one after the other, the host sleeps too long."""

    def __init__(self, pace: Pace, depth: int, h_per_ns: float, oversleep_ns: int) -> None:
        self.pace, self.depth, self.h_per_ns = pace, depth, h_per_ns
        self.dice, self.oversleep_ns = random.Random(7), oversleep_ns
        self.now_ns = self.free_ns = 10**9
        self.busy_ns = 0
        self.aloft: deque[tuple[Charge, int, int]] = deque()  # with its end and what it took

    def run(self, duty_pct: int, span_ns: int = SPAN_NS) -> float:
        """The worker's loop for a while; share of the time that the device was hashing."""
        until_ns, busy_ns = self.now_ns + span_ns, self.busy_ns
        while self.now_ns < until_ns:
            self.now_ns += TURN_NS
            while self.aloft and self.aloft[0][1] <= self.now_ns:
                charge, _, took_ns = self.aloft.popleft()
                self.pace.ended(charge, self.now_ns, took_ns, charge.count)
            rest_s = self.pace.rest_s(self.now_ns)
            if rest_s > 0 or len(self.aloft) == self.depth:
                self.sleep(min(rest_s or POLL_S, POLL_S) if self.aloft else rest_s)
                continue
            took_ns = int(self.pace.count / self.h_per_ns)
            charge = self.pace.begun(self.now_ns, self.pace.count, duty_pct)
            self.free_ns = max(self.now_ns + QUEUE_NS, self.free_ns) + took_ns
            self.busy_ns += took_ns
            self.aloft.append((charge, self.free_ns, took_ns))
            if self.depth == 1:
                self.now_ns = self.free_ns  # a CPU computes in the loop itself
        return (self.busy_ns - busy_ns) / span_ns

    def sleep(self, rest_s: float) -> None:
        self.now_ns += int(rest_s * 1e9) + self.dice.randrange(self.oversleep_ns + 1)


@pytest.mark.parametrize("duty_pct", [1, 2, 10, 33, 50, 77, 90, 97, 99, 100])
@pytest.mark.parametrize("oversleep_ns", [50_000, 400_000])
def test_two_in_flight_keep_the_duty_to_a_percentage_point(
    duty_pct: int, oversleep_ns: int
) -> None:
    device = Device(Pace(1 << 20), 2, 6.0, oversleep_ns)
    device.run(duty_pct, SPAN_NS // 3)  # the size of a launch is being learnt
    assert device.run(duty_pct) == pytest.approx(duty_pct / 100, abs=0.01)


@pytest.mark.parametrize("duty_pct", [1, 10, 50, 90])
def test_the_duty_is_kept_although_sleeps_are_too_long(duty_pct: int) -> None:
    device = Device(Pace(16_384), 1, 0.025, oversleep_ns=200_000)
    assert device.run(duty_pct) == pytest.approx(duty_pct / 100, abs=0.01)


def test_one_in_flight_cannot_fill_a_device_and_two_can() -> None:
    shares = []
    for depth in (1, 2):
        device = Device(Pace(1 << 20), depth, 6.0, oversleep_ns=100_000)
        device.run(100, SPAN_NS // 3)
        shares.append(device.run(100))
    assert shares[0] < 0.96
    assert shares[1] > 0.99


def test_a_new_duty_is_kept_from_one_launch_to_the_next() -> None:
    device = Device(Pace(1 << 20), 2, 6.0, oversleep_ns=100_000)
    device.run(60, SPAN_NS // 3)
    for duty_pct in (20, 90, 5, 61):
        device.run(duty_pct, 2 * CREDIT_NS)
        assert device.run(duty_pct, 10**9) == pytest.approx(duty_pct / 100, abs=0.015)


@settings(max_examples=40, deadline=None)
@given(
    h_per_ns=st.floats(0.001, 20.0), first=st.integers(1, 1 << 16), depth=st.sampled_from([1, 2])
)
def test_launches_come_to_the_right_length(h_per_ns: float, first: int, depth: int) -> None:
    pace = Pace(first)
    Device(pace, depth, h_per_ns, oversleep_ns=0).run(100, SPAN_NS // 10)
    assert pace.count / h_per_ns == pytest.approx(TARGET_NS, rel=0.3)


def booked(pace: Pace, now_ns: int, took_ns: int, *, tried: float = 1.0, used_ns: int = 0) -> None:
    charge = pace.begun(now_ns, pace.count, 50)
    hashes = round(charge.count * tried)
    pace.ended(charge, now_ns + took_ns, took_ns, hashes, used_ns=used_ns)


@pytest.mark.parametrize("ways", [1, 2, 16])
def test_a_launch_of_several_ways_takes_as_long_as_one_of_one(ways: int) -> None:
    pace, now_ns = Pace(64), 10**9
    for _ in range(100):
        count = pace.nonces(ways) * ways
        charge = pace.begun(now_ns, count, 100)
        pace.ended(charge, now_ns, count * 50, count)
    assert pace.nonces(ways) * ways * 50 == pytest.approx(TARGET_NS, rel=0.3)


def test_slices_of_a_table_are_charged_and_say_nothing_about_the_size() -> None:
    pace, now_ns = Pace(16_384), 10**9
    before_s = pace.rest_s(now_ns)
    for _ in range(20):
        booked(pace, now_ns, TARGET_NS, tried=0.0)
    assert pace.count == 16_384
    assert pace.rest_s(now_ns) > before_s


def test_the_last_nonces_of_a_range_do_not_make_launches_longer() -> None:
    pace, now_ns = Pace(16_384), 10**9
    for _ in range(50):
        pace.ended(pace.begun(now_ns, 10, 100), now_ns, 1000, 10)
    assert pace.count == 16_384


def test_a_preempted_launch_shrinks_the_next_ones_only() -> None:
    pace, now_ns = Pace(16_384), 10**9
    booked(pace, now_ns, 50 * TARGET_NS)
    assert pace.count == 16_384 // 2
    for _ in range(4):
        booked(pace, now_ns, TARGET_NS * pace.count // 16_384)
    assert pace.count == pytest.approx(16_384, rel=0.01)


def test_a_stopped_launch_owes_only_what_it_took_and_says_nothing_about_the_size() -> None:
    rests_s = []
    for took_ns in (0, 100_000):
        pace, now_ns = Pace(16_384), 10**9
        booked(pace, now_ns, TARGET_NS)  # spends the credit of a fresh start
        booked(pace, now_ns, TARGET_NS)
        booked(pace, now_ns, TARGET_NS)
        booked(pace, now_ns, took_ns, tried=0.7)
        assert pace.count == 16_384
        rests_s.append(pace.rest_s(now_ns))
    assert rests_s[1] - rests_s[0] == pytest.approx(0.0002)


def test_a_cpus_duty_counts_what_surrounds_a_launch() -> None:
    rests_s = []
    for used_ns in (700_000, 900_000):
        pace, now_ns = Pace(1000), 10**9
        for _ in range(10):
            now_ns += round(pace.rest_s(now_ns) * 1e9)
            booked(pace, now_ns, 700_000, tried=0.5, used_ns=used_ns)
            now_ns += 700_000
        rests_s.append(pace.rest_s(now_ns))
    assert rests_s == pytest.approx([0.0007, 0.0011], abs=1e-6)


def test_a_closed_gate_is_looked_at_often_only_when_it_matters() -> None:
    pace = Pace(1000)
    booked(pace, 10**9, 700_000)
    ended_ns = 10**9 + 700_000
    assert pace.closed_s(ended_ns + 1, leased=True) <= 0.001
    assert pace.closed_s(2 * ended_ns, leased=True) <= 0.005
    assert pace.closed_s(2 * ended_ns, leased=False) <= 0.02
