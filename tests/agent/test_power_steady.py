"""Steady draw on a modelled device: sensor lag, a mean over a second, noise, and a wrong model."""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel
from wattshift_cluster.agent.power.steady import HOLD_UNKNOWN_S, SteadyDraw, SteadySettings

IDLE_W, SPAN_W, LIMIT_W = 100.0, 500.0, 700.0
INFERENCE_W = 220.0
STEP_S, CONTROL_STEPS = 0.02, 5
LAG_S, WINDOW_S = 0.1, 1.0
HOLD = SteadySettings(target_w=400.0, ramp_w_per_s=100.0)


@dataclass(slots=True)
class Seen:
    """One turn of the controller, and the true draw then, W."""

    at_s: float
    true_w: float
    mean_w: float
    idle_pct: int
    busy_pct: int


def learnt(
    *, gain: float = 1.0, inference_w: float = INFERENCE_W, noise_w: float = 1.0
) -> PowerModel:
    """A model taught well, by a device whose percent of mining draws `gain` times the plant's."""
    model, rng = PowerModel.prior(IDLE_W, IDLE_W + SPAN_W, LIMIT_W), random.Random(1)
    for _ in range(8):
        for duty, busy in ((0, 0), (0.25, 0), (0.5, 0), (0.9, 0), (0, 1), (0.4, 1), (0.2, 0.5)):
            watts_w = IDLE_W + gain * SPAN_W * duty + inference_w * busy
            model.observe(duty, busy, watts_w + rng.gauss(0, noise_w))
    assert model.known
    return model


class Plant:
    """A GPU under a gate, its power sensor, and the controller in its loop."""

    def __init__(self, steady: SteadyDraw, *, gain: float = 1.0, noise_w: float = 2.0) -> None:
        self.steady, self.gain, self.noise_w = steady, gain, noise_w
        self.rng = random.Random(7)
        self.now_s, self.shown_w = 50.0, IDLE_W
        self.idle_pct = self.busy_pct = 0
        depth = round(WINDOW_S / STEP_S)
        self.window: deque[tuple[float, bool, float]] = deque(maxlen=depth)
        self.true: deque[float] = deque(maxlen=depth)

    def run(
        self,
        seconds: float,
        busy: Callable[[float], bool] = lambda now_s: False,
        *,
        blind: bool | float = False,
        works: bool = True,
        **update: float,
    ) -> list[Seen]:
        """Simulate; what the controller saw and did at each turn."""
        seen = []
        for turn in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            is_busy = busy(self.now_s)
            duty = (self.busy_pct if is_busy else self.idle_pct) / 100 * works
            true_w = IDLE_W + self.gain * SPAN_W * duty + INFERENCE_W * is_busy
            true_w = min(true_w, LIMIT_W)
            self.true.append(true_w)
            self.shown_w += STEP_S / LAG_S * (true_w - self.shown_w)
            self.window.append((self.shown_w, is_busy, duty))
            if turn % CONTROL_STEPS == 0:
                seen.append(self._control(true_w, blind, update))
        return seen

    def _control(self, true_w: float, blind: bool | float, update: dict[str, float]) -> Seen:
        watts_w, busy, duty = (sum(c) / len(self.window) for c in zip(*self.window, strict=True))
        reading_w: float | None = watts_w + self.rng.gauss(0, self.noise_w)
        if blind:
            reading_w = None if blind is True else blind
        chosen = self.steady.update(self.now_s, reading_w, busy, duty, LIMIT_W, **update)  # type: ignore[arg-type]
        self.idle_pct, self.busy_pct = chosen.idle_pct, chosen.busy_pct
        mean_w = sum(self.true) / len(self.true)
        return Seen(self.now_s, true_w, mean_w, chosen.idle_pct, chosen.busy_pct)


def bursts(period_s: float) -> Callable[[float], bool]:
    return lambda now_s: now_s % period_s < period_s / 2


@settings(max_examples=12, deadline=None)
@given(gain=st.floats(0.5, 1.5), period_s=st.sampled_from([0.0, 0.7, 3.0, 11.0]))
def test_it_converges_and_stays_although_the_model_is_wrong(gain: float, period_s: float) -> None:
    hold = replace(HOLD, target_w=335.0)  # the weakest of these devices reaches 350 W
    plant = Plant(SteadyDraw(hold, learnt()), gain=gain)
    busy = bursts(period_s) if period_s else lambda now_s: False
    plant.run(60, busy)
    first, second = plant.run(25, busy), plant.run(25, busy)
    # Means over a second cannot tell the two states apart when both fit into it.
    share = 0.08 if 0 < period_s < WINDOW_S else 0.05
    for seen in (first, second):
        assert max(abs(one.mean_w - hold.target_w) for one in seen) < share * hold.target_w
    swings = [max(x.mean_w for x in seen) - min(x.mean_w for x in seen) for seen in (first, second)]
    # Whole percents: a mean may lie on one side of a step for a while, and then move over it.
    step_w = gain * SPAN_W / 100
    allowed_w = swings[0] + max(0.02 * hold.target_w, 1.5 * step_w)
    assert swings[1] <= allowed_w, "an oscillation must not grow"


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_between_two_percents_it_rests(gain: float) -> None:
    plant = Plant(SteadyDraw(replace(HOLD, target_w=402.0), learnt()), gain=gain, noise_w=0.3)
    plant.run(60)
    assert len({one.idle_pct for one in plant.run(60)}) == 1


@given(ramp_w_per_s=st.floats(10.0, 300.0), start=st.sampled_from(["known", "prior"]))
@settings(max_examples=8, deadline=None)
def test_the_ramp_is_kept_both_ways(ramp_w_per_s: float, start: str) -> None:
    model = learnt() if start == "known" else PowerModel.prior(IDLE_W, IDLE_W + SPAN_W, LIMIT_W)
    steady = SteadyDraw(replace(HOLD, ramp_w_per_s=ramp_w_per_s), model)
    plant = Plant(steady, noise_w=1.0)
    seen = plant.run(15)
    steady.settings = replace(steady.settings, target_w=200.0)
    seen += plant.run(15)
    apart = round(1 / (STEP_S * CONTROL_STEPS))
    steps_w = [abs(b.true_w - a.true_w) for a, b in zip(seen, seen[apart:], strict=False)]
    one_percent_w = SPAN_W / 100
    assert max(steps_w) <= 1.05 * ramp_w_per_s + 2.2 * one_percent_w
    assert max(steps_w) >= min(0.5 * ramp_w_per_s, 50.0), "it did move"


def test_a_right_model_leads_it_there_without_overshoot() -> None:
    plant = Plant(SteadyDraw(replace(HOLD, ramp_w_per_s=1000.0), learnt()), noise_w=0.5)
    assert max(one.mean_w for one in plant.run(20)) < 1.02 * HOLD.target_w


def test_a_correction_keeps_the_ramp_too() -> None:
    ramp_w_per_s = 10.0
    hold = SteadySettings(target_w=320.0, ramp_w_per_s=ramp_w_per_s)
    plant = Plant(SteadyDraw(hold, learnt(inference_w=20.0)))
    plant.run(40)
    seen = plant.run(25, lambda now_s: True)[2:]
    later = seen[round(1 / (STEP_S * CONTROL_STEPS)) :]
    steps_w = [abs(b.true_w - a.true_w) for a, b in zip(seen, later, strict=False)]
    assert max(steps_w) <= ramp_w_per_s + 2.2 * SPAN_W / 100
    assert seen[-1].mean_w == pytest.approx(hold.target_w, rel=0.05)


def test_above_what_mining_may_reach_no_ramp_slows_the_cut() -> None:
    hold = SteadySettings(target_w=500.0, ramp_w_per_s=10.0)
    plant = Plant(SteadyDraw(hold, learnt(inference_w=20.0)))
    plant.run(60)
    seen = plant.run(8, lambda now_s: True)
    assert seen[5].true_w > MINING_SHARE * LIMIT_W
    assert seen[-1].mean_w <= MINING_SHARE * LIMIT_W * 1.01


def test_noise_is_not_chased() -> None:
    plant = Plant(SteadyDraw(HOLD, learnt()), noise_w=20.0)
    plant.run(30)
    pcts = [one.idle_pct for one in plant.run(60)]
    assert sum(a != b for a, b in pairwise(pcts)) < 28, "of 600 turns"


def test_inference_alone_above_the_target_stops_mining_and_winds_nothing_up() -> None:
    plant = Plant(SteadyDraw(replace(HOLD, target_w=250.0), learnt()))
    plant.run(30, bursts(1.0))
    seen = plant.run(60, lambda now_s: True)
    assert seen[-1].busy_pct == 0
    plant.steady.settings = replace(HOLD, target_w=450.0)
    after = plant.run(8, lambda now_s: True)[-1]
    assert after.true_w == pytest.approx(450.0, abs=20.0)


@given(cap_pct=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_it_never_exceeds_the_leases_intensity(cap_pct: int) -> None:
    plant = Plant(SteadyDraw(replace(HOLD, least_pct=10), learnt()), gain=0.5)
    plant.run(3)
    seen = plant.run(10, bursts(2.0), most_pct=cap_pct)
    seen += plant.run(1, bursts(2.0), blind=True, most_pct=cap_pct // 2)
    assert seen[-1].idle_pct <= cap_pct // 2
    assert max(max(one.idle_pct, one.busy_pct) for one in seen) <= cap_pct


@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_the_enforced_limit_keeps_its_room(gain: float) -> None:
    plant = Plant(SteadyDraw(replace(HOLD, target_w=690.0), learnt()), gain=gain)
    plant.run(30, bursts(4.0))
    worst_w = max(one.mean_w for one in plant.run(30, bursts(4.0)))
    assert worst_w <= MINING_SHARE * LIMIT_W * 1.03


@pytest.mark.parametrize("unknown", [True, math.nan])
def test_unknown_power_is_held_by_the_upper_bound_and_then_stops_it(unknown: bool | float) -> None:
    model = learnt(noise_w=15.0)
    plant = Plant(SteadyDraw(replace(HOLD, least_pct=60), model))
    before = plant.run(30)[-1]
    blind = plant.run(HOLD_UNKNOWN_S + 1, blind=unknown)
    start_s = blind[0].at_s - STEP_S * CONTROL_STEPS
    held = [one for one in blind if one.at_s - start_s < HOLD_UNKNOWN_S - 0.1]
    stopped = [one for one in blind if one.at_s - start_s > HOLD_UNKNOWN_S + 0.1]
    assert 0 < held[-1].idle_pct < before.idle_pct
    high_w = model.estimate(held[-1].idle_pct / 100, limit_w=LIMIT_W).high_w
    assert high_w <= HOLD.target_w
    assert {one.idle_pct for one in stopped} == {0}
    again = plant.run(20)
    assert again[-1].true_w == pytest.approx(HOLD.target_w, rel=0.05)


def test_after_a_time_without_a_lease_it_ramps_up_again() -> None:
    plant = Plant(SteadyDraw(HOLD, learnt()))
    plant.run(20)
    plant.now_s += 5.0
    plant.shown_w = IDLE_W
    plant.window.clear()
    plant.idle_pct = plant.busy_pct = 0
    assert max(one.idle_pct for one in plant.run(0.5)) < 20


@pytest.mark.parametrize("reading_w", [None, math.nan])
def test_without_any_reading_nothing_is_mined(reading_w: float | None) -> None:
    steady = SteadyDraw(HOLD, learnt())
    chosen = [steady.update(k / 10, reading_w, 0.0, 0.0, LIMIT_W) for k in range(50)]
    assert {(one.idle_pct, one.busy_pct) for one in chosen} == {(0, 0)}


def test_no_work_winds_nothing_up() -> None:
    plant = Plant(SteadyDraw(HOLD, learnt()))
    plant.run(30)
    plant.run(30, works=False)
    assert max(one.mean_w for one in plant.run(10)) < HOLD.target_w * 1.08


def test_joules_of_hashing_are_what_it_adds() -> None:
    steady = SteadyDraw(HOLD, learnt())
    plant = Plant(steady)
    plant.run(20, bursts(4.0))
    before_j = steady.joules_hashing
    seen = plant.run(40, bursts(4.0))
    added_w = sum(one.true_w for one in seen) / len(seen) - IDLE_W - INFERENCE_W / 2
    assert steady.joules_hashing - before_j == pytest.approx(40 * added_w, rel=0.05)


def test_a_model_that_learns_on_does_not_shake_the_draw() -> None:
    model = PowerModel.prior(IDLE_W, IDLE_W + SPAN_W, LIMIT_W)
    plant = Plant(SteadyDraw(HOLD, model))
    seen = []
    for _ in range(90):
        seen += plant.run(1.0, bursts(5.0))
        shown_w, busy, duty = (sum(c) / len(plant.window) for c in zip(*plant.window, strict=True))
        model.observe(duty, busy, shown_w, LIMIT_W, plant.now_s)
    assert max(one.mean_w for one in seen) < 1.1 * HOLD.target_w
    assert seen[-1].mean_w == pytest.approx(HOLD.target_w, rel=0.05)
    jumps_pct = [abs(b.idle_pct - a.idle_pct) for a, b in pairwise(seen)]
    assert max(jumps_pct) <= 4, "the ramp is 2 % per turn, whatever was learnt in between"
