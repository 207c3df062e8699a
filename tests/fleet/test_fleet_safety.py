"""What protects the hardware: rests, staggered wakes, heat. Clocks are numbers here."""

from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.fleet.safety import (
    COOL_BY_C,
    HEAT_REST_S,
    HEAT_STEP_S,
    WINDOW_S,
    Heat,
    Rest,
    WakeQueue,
    too_hot,
)

POINTS_W = (30.0, 1000.0, 2000.0, 3000.0)


def test_a_machine_rests_after_a_sleep() -> None:
    rest = Rest(600.0, 0.0)
    assert rest.wake_s(1000.0, None, 1100.0) == 1600.0
    assert rest.wake_s(1000.0, 900.0, 1700.0) <= 1700.0
    assert rest.wake_s(None, None, 1000.0) == 1600.0, "a sleep nobody saw begin counts from now"
    assert Rest(0.0, 0.0).wake_s(None, None, 1000.0) <= 1000.0


def test_a_clock_that_was_set_back_keeps_nobody_asleep_for_years() -> None:
    assert Rest(600.0, 600.0).wake_s(9e9, 9e9, 1000.0) <= 1000.0 + 1200.0


def test_who_slept_before_its_time_rests_longer() -> None:
    rest = Rest(600.0, 300.0)
    assert rest.wake_s(1010.0, 1000.0, 1020.0) == 1900.0
    assert rest.wake_s(2000.0, 1000.0, 2020.0) == 2600.0, "it had been awake for long enough"


@given(
    st.lists(
        st.tuples(st.floats(10, 5000), st.floats(0, 1), st.floats(0, 20)), min_size=1, max_size=60
    ),
    st.integers(1, 10),
    st.floats(1000, 20_000),
    st.integers(0, 2**32),
)
def test_no_window_holds_more_machines_or_watts_than_allowed(rows, most, most_w, seed) -> None:
    queue, now_s, granted = WakeQueue(most, most_w, seed), 0.0, []
    watts = {f"m{i}": watts_w for i, (watts_w, _, _) in enumerate(rows)}
    waiting = list(enumerate(rows))
    while len(granted) < len(rows):
        while waiting and waiting[0][1][2] <= now_s:
            at, (watts_w, value, _) = waiting.pop(0)
            queue.ask(f"m{at}", watts_w, value, now_s)
        granted += [(now_s, name) for name in queue.grants(now_s)]
        now_s += 1.0
        assert now_s < 60 * WINDOW_S + 100, "everybody's turn comes"
    for at_s, name in granted:
        window = [n for t, n in granted if at_s - WINDOW_S < t <= at_s]
        assert len(window) <= most
        assert sum(watts[n] for n in window) <= most_w or window == [name]


def test_the_most_valuable_wakes_first_and_equals_in_their_order() -> None:
    queue = WakeQueue(1, None, seed=1)
    for name, value in (("late", 1.0), ("best", 2.0), ("last", 1.0)):
        queue.ask(name, 3000.0, value, 0.0)
    queue.ask("late", 3000.0, 1.0, 5.0)  # asking again moves nobody
    assert queue.ahead_of("last") == 2
    order, now_s = [], 0.0
    while len(order) < 3:
        order += queue.grants(now_s)
        now_s += 1.0
    assert order == ["best", "late", "last"]


def test_who_no_longer_wants_to_wake_holds_nobody_up() -> None:
    queue = WakeQueue(None, None, seed=1)
    queue.ask("a", 1.0, 2.0, 0.0)
    queue.ask("b", 1.0, 1.0, 0.0)
    queue.withdraw("a")
    assert queue.grants(0.0) == ("b",)
    assert queue.grants(1.0) == ()


def test_agents_share_no_rhythm_and_a_seed_repeats_its_own() -> None:
    def times(seed: int) -> list[int]:
        queue, found = WakeQueue(10, None, seed), []
        for i in range(20):
            queue.ask(f"m{i}", 1.0, 0.0, 0.0)
        for tenth in range(1500):
            found += [tenth] * len(queue.grants(tenth / 10))
        return found

    assert times(1) == times(1)
    assert times(1) != times(2)
    assert len({times(seed)[0] for seed in range(20)}) > 5, "the phase differs, too"
    assert len(set(times(1))) == 20, "they do not come in a burst"


def test_a_hot_board_forbids_a_wake_and_an_unknown_one_does_not() -> None:
    assert "85 °C" in (too_hot(86.0, 85.0) or "")
    assert too_hot(84.0, 85.0) is None
    assert too_hot(None, 85.0) is None
    assert too_hot(200.0, None) is None


def test_a_hot_machine_steps_down_and_comes_up_once_it_has_cooled() -> None:
    heat = Heat().felt(91.0, 90.0, POINTS_W, 3000.0, 0.0)
    assert heat.cap_w == 2000.0
    assert heat.felt(95.0, 90.0, POINTS_W, 2000.0, HEAT_STEP_S - 1) == heat, "not so fast"
    lower = heat.felt(95.0, 90.0, POINTS_W, 2000.0, HEAT_STEP_S)
    assert lower.cap_w == 1000.0
    warm = lower.felt(90.0 - COOL_BY_C + 1, 90.0, POINTS_W, 1000.0, 2 * HEAT_STEP_S)
    assert warm == lower, "it would swing about its limit"
    up = lower.felt(90.0 - COOL_BY_C, 90.0, POINTS_W, 1000.0, 2 * HEAT_STEP_S)
    assert up.cap_w == 2000.0
    assert up.felt(70.0, 90.0, POINTS_W, 2000.0, 3 * HEAT_STEP_S).cap_w is None


def test_the_hottest_ends_asleep_and_one_that_tells_nothing_there_may_come_back() -> None:
    heat, now_s = Heat(), 0.0
    for _ in range(5):
        heat, now_s = heat.felt(120.0, 90.0, POINTS_W, 3000.0, now_s), now_s + HEAT_STEP_S
    assert heat.cap_w == 30.0
    assert heat.felt(None, 90.0, POINTS_W, 30.0, heat.stepped_s + HEAT_STEP_S) == heat
    rested = heat.felt(None, 90.0, POINTS_W, 30.0, heat.stepped_s + HEAT_REST_S)
    assert rested.cap_w == 1000.0
    assert Heat(2000.0, 0.0).felt(None, 90.0, POINTS_W, 2000.0, 1e6).cap_w == 2000.0


def test_without_a_limit_heat_is_the_firmwares_matter() -> None:
    assert Heat().felt(200.0, None, POINTS_W, 3000.0, 0.0) == Heat()
