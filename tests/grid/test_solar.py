"""Mining after the sun: never more import than allowed, hysteresis, least times, unknowns."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.config.utility import Solar
from wattshift_cluster.grid.said import Said
from wattshift_cluster.grid.solar import Follower, Moment, SolarSource
from wattshift_scheduler.signals.words import Work

TERMS = Solar(floor=1000, hysteresis=500, min_on=300, min_off=600, import_bound=200)


def at(follower: Follower, surplus_w: float, now_s: float, mining_w: float | None = None) -> float:
    """Decide at a net import that leaves `surplus_w` for mining; what mines is as decided."""
    mines_w = follower.mining_w if mining_w is None else mining_w
    return follower.decide(mines_w - surplus_w, mines_w, now_s)


def test_it_begins_above_the_floor_rises_in_steps_and_falls_at_once() -> None:
    sun = Follower(TERMS)
    assert at(sun, 1499, 0) == 0
    assert at(sun, 1500, 1) == 1500
    assert at(sun, 1999, 2) == 1500, "within the hysteresis"
    assert at(sun, 2000, 3) == 2000
    assert at(sun, 1990, 4) == 1990, "down at once"
    assert at(sun, 1000, 5) == 1000, "the floor itself is enough to stay on"


def test_it_stays_on_for_a_while_but_not_by_importing_more_than_is_allowed() -> None:
    sun = Follower(TERMS)
    at(sun, 2000, 0)
    assert at(sun, 800, 10) == 1000, "200 W of import keep it on"
    assert at(sun, 799, 20) == 0, "201 W do not"
    sun = Follower(TERMS)
    at(sun, 2000, 0)
    assert at(sun, 900, 299) == 1000
    assert at(sun, 900, 300) == 0, "its least time is over"


def test_it_stays_off_for_a_while() -> None:
    sun = Follower(TERMS)
    at(sun, 2000, 0)
    assert at(sun, 0, 10) == 0
    assert at(sun, 5000, 609) == 0
    assert at(sun, 5000, 610) == 5000


def test_some_export_is_kept() -> None:
    sun = Follower(TERMS.model_copy(update={"export_kept_w": 300.0}))
    assert at(sun, 2000, 0) == 1700


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_unknown_is_no_surplus(unknown: float | None) -> None:
    sun = Follower(TERMS)
    at(sun, 2000, 0)
    assert sun.decide(unknown, 2000.0, 1) == 0
    sun = Follower(TERMS)
    at(sun, 2000, 0)
    assert sun.decide(-500.0, unknown, 1) == 0


def test_a_draw_of_mining_that_lags_counts_as_no_sun() -> None:
    sun = Follower(TERMS)
    at(sun, 5000, 0)
    at(sun, 2000, 1)
    # The miners obeyed, the net import shows it (nothing flows), their own sensor does not yet.
    assert sun.decide(0.0, 5000.0, 2) == 2000


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0, 20_000),  # what other work draws
            st.floats(0, 20_000),  # what the sun gives
            st.floats(1, 400),  # time until the next reading
        ),
        min_size=1,
        max_size=60,
    ),
    bound_w=st.sampled_from([0.0, 200.0, 3000.0]),
    floor_w=st.sampled_from([0.0, 1000.0, 4000.0]),
    hysteresis_w=st.sampled_from([0.0, 500.0]),
    kept_w=st.sampled_from([0.0, 300.0]),
)
@settings(max_examples=100, deadline=None)
def test_after_one_period_no_more_is_imported_for_mining_than_allowed(
    steps: list[tuple[float, float, float]],
    bound_w: float,
    floor_w: float,
    hysteresis_w: float,
    kept_w: float,
) -> None:
    sun = Follower(
        Solar(
            floor=floor_w, hysteresis=hysteresis_w, import_bound=bound_w, export_kept=kept_w,
            min_on=300, min_off=60,
        )
    )  # fmt: skip
    now_s, mining_w = 0.0, 0.0
    for others_w, sun_w, pause_s in steps:
        net_w = others_w + mining_w - sun_w
        mining_w = sun.decide(net_w, mining_w, now_s)
        # One period later the miners have followed; other work and the sun are as they were read.
        assert mining_w == 0 or others_w + mining_w - sun_w <= bound_w + 1e-6
        now_s += pause_s


def moment(
    age_s: float, net_w: float | None, site_w: float | None, mining_w: float | None
) -> Moment:
    return Moment(1000.0 - age_s, net_w, site_w, mining_w)


@pytest.mark.parametrize(
    ("seen", "watts_w", "fault"),
    [
        (moment(1, -2000, 5000, 0), 7000, None),
        (moment(1, -1000, 5000, 3000), 0, None),
        (None, 0, "no reading"),
        (moment(11, -2000, 5000, 0), 0, "stale"),
        (moment(-11, -2000, 5000, 0), 0, "stale"),
        (moment(math.nan, -2000, 5000, 0), 0, "stale"),
        (moment(1, None, 5000, 0), 0, "unknown"),
        (moment(1, -2000, math.nan, 0), 0, "unknown"),
        (moment(1, -2000, 5000, None), 0, "unknown"),
    ],
)
def test_the_target_leaves_other_work_its_watts(
    seen: Moment | None, watts_w: float, fault: str | None
) -> None:
    source = SolarSource(TERMS, lambda: seen, clock_s=lambda: 1000.0, steady_s=lambda: 50.0)
    said = source.once()
    (target,) = said.targets
    assert (target.watts_w, target.work, target.origin) == (watts_w, Work.MINING, "solar")
    assert (said.fault is None) == (fault is None)
    assert fault is None or fault in (said.fault or "")


def test_it_says_only_what_is_new() -> None:
    said: list[Said] = []
    now = [moment(0, -2000, 5000, 0)]
    terms = Solar(floor=1000, hysteresis=500, period=0.2)
    source = SolarSource(terms, lambda: now[0], clock_s=lambda: 1000.0, steady_s=lambda: 50.0)

    async def test() -> None:
        task = asyncio.create_task(source.run(said.append))
        for _ in range(1000):
            await asyncio.sleep(0.005)
            if said:
                break
        now[0] = moment(0, 0, 7000, 2000)
        await asyncio.sleep(0.25)
        assert len(said) == 1
        now[0] = moment(0, 900, 7000, 2000)
        for _ in range(1000):
            await asyncio.sleep(0.005)
            if len(said) > 1:
                break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(test())
    assert [one.targets[0].watts_w for one in said] == [7000, 6100]
