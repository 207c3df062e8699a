"""The learnt power model: what it promises before, while and after it learns, and on disk."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel
from wattshift_cluster.agent.power.store import load, save

IDLE_W, TOP_W, LIMIT_W = 80.0, 560.0, 700.0
LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
readings = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 900), st.floats(0, 1e6)), max_size=25
)


def fresh() -> PowerModel:
    return PowerModel.prior(IDLE_W, TOP_W, LIMIT_W)


def drawn_w(intensity: float, inference: float) -> float:
    """A device that bends, and whose inference and mining share its time."""
    bent_w = 90 + 500 * intensity - 60 * intensity**2
    return bent_w + 200 * inference - 120 * intensity * inference


def taught(
    model: PowerModel, levels: tuple[float, ...], *, rounds: int = 30, noise_w: float = 5.0
) -> PowerModel:
    rng = random.Random(3)
    for turn in range(rounds):
        for intensity in levels:
            for inference in (0.0, 0.0, 0.5, 1.0):
                noisy_w = drawn_w(intensity, inference) + rng.gauss(0, noise_w)
                model.observe(intensity, inference, noisy_w, at_s=float(turn))
    return model


@settings(max_examples=60, deadline=None)
@given(seen=readings, inference=st.floats(0, 1), limit_w=st.floats(150, 1000))
def test_more_mining_never_draws_less_whatever_was_seen(
    seen: list[tuple[float, float, float, float]], inference: float, limit_w: float
) -> None:
    model = fresh()
    for intensity, busy, watts_w, at_s in seen:
        model.observe(intensity, busy, watts_w, at_s=at_s)
    levels = [model.estimate(k / 40, inference, limit_w) for k in range(41)]
    for lower, upper in pairwise(levels):
        assert lower.mean_w <= upper.mean_w
        assert lower.low_w <= upper.low_w
        assert lower.high_w <= upper.high_w
    assert all(0 <= x.low_w <= x.mean_w <= x.high_w <= limit_w for x in levels)


@settings(max_examples=60, deadline=None)
@given(seen=readings, watts_w=st.floats(0, 1200), inference=st.floats(0, 1))
def test_a_lease_is_never_exceeded_by_the_upper_bound_and_is_used_fully(
    seen: list[tuple[float, float, float, float]], watts_w: float, inference: float
) -> None:
    model = fresh()
    for intensity, busy, drew_w, at_s in seen:
        model.observe(intensity, busy, drew_w, at_s=at_s)
    allowed = model.intensity_for(watts_w, inference)
    bound_w = min(watts_w, MINING_SHARE * LIMIT_W)
    if allowed > 0:
        assert model.estimate(allowed, inference).high_w <= bound_w + 1e-6
    if 0 < allowed < 0.98:
        assert model.estimate(allowed + 0.02, inference).high_w > bound_w - 1e-6


def test_the_nameplate_alone_gives_wide_bars_and_a_useful_intensity() -> None:
    model = fresh()
    assert not model.known
    assert model.estimate(0.0).mean_w == pytest.approx(IDLE_W)
    full = model.estimate(1.0)
    assert full.mean_w == pytest.approx(TOP_W)
    assert full.low_w < 0.5 * TOP_W
    assert 0.5 < model.intensity_for(TOP_W) < 0.8
    assert 0.1 < model.intensity_for((IDLE_W + TOP_W) / 2) < 0.5
    assert model.intensity_for(IDLE_W / 2) == 0.0


def test_it_learns_the_curve_and_its_bars_hold_new_readings() -> None:
    model, rng = taught(fresh(), LEVELS), random.Random(9)
    assert model.known
    inside = tries = 0
    for intensity in (0.05, 0.2, 0.4, 0.6, 0.9):
        for inference in (0.0, 0.5, 1.0):
            estimate = model.estimate(intensity, inference)
            assert estimate.mean_w == pytest.approx(drawn_w(intensity, inference), abs=4)
            assert estimate.high_w - estimate.low_w < 40
            for _ in range(40):
                reading_w = drawn_w(intensity, inference) + rng.gauss(0, 5)
                inside += estimate.low_w <= reading_w <= estimate.high_w
                tries += 1
    assert 0.9 <= inside / tries <= 0.995


@pytest.mark.parametrize("bend_w", [-150.0, 0.0, 100.0])
def test_where_nothing_was_seen_the_bars_stay_wide_and_hold_the_truth(bend_w: float) -> None:
    model, rng = fresh(), random.Random(5)
    for _ in range(200):
        intensity = rng.choice((0.0, 0.1, 0.2))
        true_w = 80 + 420 * intensity + bend_w * intensity**2
        model.observe(intensity, 0.0, true_w + rng.gauss(0, 4))
    assert not model.known
    near, far = model.estimate(0.1), model.estimate(1.0, limit_w=2000.0)
    assert far.high_w - far.low_w > 5 * (near.high_w - near.low_w)
    assert far.low_w < 500 + bend_w < far.high_w
    beside = model.estimate(0.1, 1.0)
    assert beside.high_w - beside.low_w > 200, "inference was never seen"


def test_the_limit_cuts_the_draw_off_and_teaches_no_lower_curve() -> None:
    model = taught(fresh(), LEVELS)
    for _ in range(100):
        model.observe(1.0, 0.0, 299.0, limit_w=300.0)
    assert model.estimate(1.0, limit_w=300.0).high_w == 300.0
    assert model.estimate(1.0).mean_w == pytest.approx(drawn_w(1.0, 0.0), abs=5)


def test_mining_leaves_a_fifth_of_the_limit_alone() -> None:
    model = taught(fresh(), LEVELS)
    assert model.top().high_w <= MINING_SHARE * LIMIT_W
    assert model.top(400.0).high_w <= MINING_SHARE * 400.0
    allowed = model.intensity_for(10_000.0, limit_w=400.0)
    assert model.estimate(allowed).high_w == pytest.approx(MINING_SHARE * 400.0)
    unlimited = PowerModel.prior(1.0, 50.0, None)
    assert unlimited.intensity_for(10_000.0) == 1.0, "a CPU has no limit to run into"


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_outliers_hardly_move_it(share: float) -> None:
    model, rng = fresh(), random.Random(11)
    for _ in range(600):
        intensity = rng.choice(LEVELS)
        spike_w = 350.0 if rng.random() < share else 0.0
        model.observe(intensity, 0.0, drawn_w(intensity, 0.0) + spike_w + rng.gauss(0, 4))
    for intensity in LEVELS:
        estimate = model.estimate(intensity)
        assert estimate.mean_w == pytest.approx(drawn_w(intensity, 0.0), abs=8)


def test_unknown_and_impossible_readings_are_ignored() -> None:
    model = taught(fresh(), LEVELS, rounds=3)
    before = model.as_dict()
    for watts_w in (math.nan, math.inf, -1.0, 1e5):
        model.observe(0.5, 0.0, watts_w)
    model.observe(math.nan, 0.0, 300.0)
    assert model.as_dict() == before
    assert model.intensity_for(math.nan) == 0.0


def test_hours_at_one_intensity_forget_no_other_and_a_change_is_learnt() -> None:
    model, rng = taught(fresh(), LEVELS), random.Random(13)
    for k in range(1500):
        model.observe(0.5, 0.0, drawn_w(0.5, 0.0) + rng.gauss(0, 5), at_s=float(k))
    assert model.estimate(1.0).mean_w == pytest.approx(drawn_w(1.0, 0.0), abs=8)
    for k in range(1000):
        intensity = rng.choice(LEVELS)
        reading_w = drawn_w(intensity, 0.0) * 1.15 + rng.gauss(0, 5)
        model.observe(intensity, 0.0, reading_w, at_s=1500.0 + k)
    assert model.estimate(0.5).mean_w == pytest.approx(1.15 * drawn_w(0.5, 0.0), rel=0.04)


def test_the_version_grows_on_a_real_change_only() -> None:
    model = taught(fresh(), LEVELS)
    learnt = model.version
    assert 1 <= learnt <= 20
    rng = random.Random(17)
    for k in range(1000):
        intensity = rng.choice(LEVELS)
        model.observe(intensity, 0.0, drawn_w(intensity, 0.0) + rng.gauss(0, 5), at_s=float(k))
    assert model.version == learnt
    for _ in range(300):
        intensity = rng.choice(LEVELS)
        model.observe(intensity, 0.0, drawn_w(intensity, 0.0) * 1.2 + rng.gauss(0, 5), at_s=1e3)
    assert model.version > learnt


def test_a_shift_within_the_noise_is_a_new_version_too() -> None:
    model, rng = taught(fresh(), LEVELS, noise_w=15.0), random.Random(19)
    learnt, wide = model.version, model.estimate(0.5)
    for _ in range(600):
        intensity = rng.choice(LEVELS)
        model.observe(intensity, 0.0, drawn_w(intensity, 0.0) * 1.05 + rng.gauss(0, 15), at_s=1e3)
    shifted = model.estimate(0.5)
    assert shifted.high_w - shifted.low_w < 1.9 * (wide.high_w - wide.low_w)
    assert model.version > learnt


def test_what_was_learnt_survives_the_disk(tmp_path: Path) -> None:
    model, path = taught(fresh(), LEVELS), tmp_path / "learnt" / "GPU-1.json"
    save(path, model)
    back = load(path, fresh())
    assert back.as_dict() == model.as_dict()
    assert back.version == model.version
    for intensity in LEVELS:
        expected = model.estimate(intensity, 0.3)
        assert back.estimate(intensity, 0.3).high_w == pytest.approx(expected.high_w)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff", b'{"format": 1}', b"1" * 100_000, b"[" * 60_000]
)
def test_a_damaged_file_means_the_prior(tmp_path: Path, text: bytes) -> None:
    path, prior = tmp_path / "GPU-1.json", fresh()
    assert load(path, prior) is prior
    path.write_bytes(text)
    assert load(path, prior) is prior


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"idle_w": "80"},
        {"idle_w": 600.0},
        {"top_w": math.nan},
        {"limit_w": 10.0},
        {"noise_w": 0.0},
        {"version": -1},
        {"version": True},
        {"cells": None},
        {"cells": [[1.0, 0.5, 0.0, 300.0]]},
        {"cells": [[1.0, 1.5, 0.0, 300.0, 0.0]]},
        {"cells": [[-1.0, 0.5, 0.0, 300.0, 0.0]]},
        {"cells": [[1.0, 0.5, 0.0, math.inf, 0.0]]},
        {"cells": [[1.0, 0.5, 0.0, -5.0, 0.0]]},
        {"cells": [[1.0, 0.5, 0.0, 300.0, 0.0]] * 127},
    ],
    ids=str,
)
def test_a_file_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    fields = json.loads(json.dumps(taught(fresh(), LEVELS, rounds=2).as_dict()))
    assert PowerModel.from_dict(fields).known
    with pytest.raises(ValueError, match=r"\w"):
        PowerModel.from_dict({**fields, **change})


def test_a_nameplate_that_contradicts_itself_is_refused() -> None:
    for idle_w, top_w, limit_w in (
        (80, 80, 700),
        (-1, 50, 700),
        (80, 560, 70),
        (80, math.nan, 700),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            PowerModel.prior(idle_w, top_w, limit_w)


def test_what_was_learnt_is_counted_so_that_it_can_be_saved() -> None:
    model = taught(fresh(), LEVELS)
    version, lessons = model.version, model.lessons
    model.observe(0.5, 0.0, drawn_w(0.5, 0.0))  # just as expected: the version stays
    model.observe(0.5, 0.0, float("nan"))
    assert (model.version, model.lessons) == (version, lessons + 1)
