"""From what meters taught to what is told: never below what was seen, never beyond belief."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint
from wattshift_cluster.fleet.learn import MEMORY, Learnt, Tally
from wattshift_cluster.fleet.learnt_file import Kept, LearntDamaged, LearntFolder
from wattshift_cluster.fleet.study import MOST_TRACE, Sample, Settled, Study, Tempo
from wattshift_cluster.fleet.taught import news, scale, taught, time_s, upper_w

KNOWN = AsicIdentity(
    address="10.0.0.9",
    model="Antminer S21",
    firmware="test 1",
    mac="02:00:00:00:00:01",
    algorithm="sha256d",
    nameplate_w=3500.0,
    tolerance=0.05,
    safe_w=30.0,
    power_on_w=3500.0,
    continuous=False,
    points=(
        AsicPoint(SLEEP, 30.0, 0.0, 20.0),
        AsicPoint("low", 2000.0, 120e12, 300.0),
        AsicPoint("normal", 3500.0, 200e12, 300.0),
    ),
)
WATTS = st.floats(1.0, 20_000.0)


def told(learnt: Learnt, mode: str, known: AsicIdentity = KNOWN) -> AsicPoint:
    return next(point for point in taught(known, learnt).points if point.mode == mode)


def seen(
    mode: str, *watts_w: float, error_w: float = 2.0, h_per_s: float | None = 200e12
) -> Learnt:
    learnt = Learnt()
    for one_w in watts_w:
        learnt = learnt.with_point(mode, one_w, error_w, h_per_s)
    return learnt


def test_nothing_learnt_changes_nothing() -> None:
    assert taught(KNOWN, Learnt()) is KNOWN


def test_a_meter_lowers_a_nameplate_with_room_above_the_mean() -> None:
    one, many = seen("normal", 3200.0), seen("normal", *[3200.0] * 36)
    assert told(one, "normal").watts_w == pytest.approx(3200.0 * 1.06)
    assert told(many, "normal").watts_w == pytest.approx(3200.0 * 1.01)
    assert taught(KNOWN, many).nameplate_w == KNOWN.nameplate_w, "the unknown counts as before"


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([SLEEP, "low", "normal", "strange"]),
        st.lists(WATTS, min_size=1, max_size=6),
        max_size=4,
    ),
    st.lists(st.floats(0.5, 2.0), max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_whatever_was_learnt_is_told_within_safe_bounds(
    watts: dict[str, list[float]], ratios: list[float], rated: bool, continuous: bool
) -> None:
    learnt, known = Learnt(), replace(KNOWN, continuous=continuous)
    for mode, values in watts.items():
        for value in values:
            learnt = learnt.with_point(mode, value, 1.0, 100e12 if rated else None)
    for ratio in ratios:
        learnt = learnt.with_claim(1000.0, 1000.0 * ratio)
    out = taught(known, learnt)
    over = scale(learnt, lowers=not continuous)
    draws = [point.watts_w for point in out.points]
    assert all(low < high for low, high in itertools.pairwise(draws)), "a site refuses the rest"
    assert out.nameplate_w >= max(draws[-1], known.nameplate_w)
    assert out.points[0].watts_w >= known.points[0].watts_w, "standby is never lowered"
    assert [point.mode for point in out.points] == [point.mode for point in known.points]
    for own, point in zip(known.points[1:], out.points[1:], strict=True):
        tally = learnt.points.get(own.mode, Tally())
        assert point.watts_w >= 0.5 * own.watts_w * over
        assert point.hashrate_h_per_s <= own.hashrate_h_per_s
        if point.watts_w < own.watts_w * over * (1.0 - 1e-9):
            assert not continuous
            assert rated, "a lower figure holds only for the hashrate it was seen at"
            assert point.watts_w >= tally.most, "and is never below what a meter showed"


def test_what_cannot_be_true_of_such_a_machine_is_not_believed() -> None:
    assert told(seen("normal", 900.0), "normal").watts_w == 3500.0
    assert told(seen("normal", 9000.0), "normal").watts_w == 3500.0
    limited = replace(KNOWN, continuous=True)
    assert told(seen("normal", 3200.0), "normal", limited).watts_w == 3500.0, "it holds any watts"
    assert told(seen("normal", 3200.0, h_per_s=None), "normal").watts_w == 3500.0
    assert told(seen("normal", 3800.0, h_per_s=None), "normal").watts_w == 3800.0


def test_a_machine_that_is_what_it_says_is_left_alone() -> None:
    learnt = seen("normal", 3480.0, 3520.0, 3500.0)
    assert not news(KNOWN, taught(KNOWN, learnt)), "its tolerance is room enough"


def test_the_highest_settled_draw_ever_seen_is_the_least_that_is_told() -> None:
    learnt = seen("normal", 3450.0, *[3100.0] * 300)
    assert learnt.points["normal"].n == MEMORY
    assert learnt.points["normal"].mean == pytest.approx(3100.0, abs=15.0), "the old ones fade"
    assert told(learnt, "normal").watts_w >= 3450.0
    assert upper_w(learnt.points["normal"]) >= 3450.0


def test_a_firmware_that_says_too_little_is_corrected_and_one_that_says_too_much_later() -> None:
    def claims(ratio: float, n: int) -> Learnt:
        learnt = Learnt()
        for _ in range(n):
            learnt = learnt.with_claim(3000.0, 3000.0 * ratio)
        return learnt

    assert scale(claims(1.08, 2), lowers=True) == 1.0
    assert scale(claims(1.08, 3), lowers=True) >= 1.08
    assert taught(KNOWN, claims(1.08, 3)).nameplate_w >= 1.08 * 3500.0
    assert scale(claims(1.0, 3), lowers=True) == 1.0, "and one that is right is left alone"
    assert scale(claims(0.9, 5), lowers=True) == 1.0
    assert 0.9 < scale(claims(0.9, 12), lowers=True) < 0.92
    assert scale(claims(0.9, 12), lowers=False) == 1.0, "its limit would be asked too high"


def test_a_firmware_s_own_word_lowers_only_with_a_meter_behind_it() -> None:
    learnt = Learnt()
    for _ in range(9):
        learnt = learnt.with_word("normal", 3000.0, 2.0, 200e12)
    assert told(learnt, "normal").watts_w == 3500.0
    for _ in range(3):
        learnt = learnt.with_claim(3000.0, 3150.0)
    assert 3150.0 * 1.02 < told(learnt, "normal").watts_w < 3500.0
    metered = learnt.with_point("normal", 3140.0, 2.0, 200e12)
    assert told(metered, "normal").watts_w == pytest.approx(3140.0 * 1.06), "its own figure first"


def test_times_only_lengthen_until_they_were_seen_often() -> None:
    assert time_s(Tally().add(12.0), 300.0) == 300.0
    assert time_s(Tally().add(400.0), 300.0) > 400.0
    often = Tally().add(60.0).add(62.0).add(61.0)
    assert 75.0 <= time_s(often, 300.0) < 100.0
    assert time_s(often, 1000.0) == 250.0, "not below a quarter of the driver's own"
    assert time_s(Tally().add(1e9), 300.0) == 3600.0
    slow = Learnt().with_times(down_s=1800.0, up_s=1800.0)
    assert told(slow, "normal").transition_s > 1800.0
    assert told(slow, SLEEP).transition_s == 80.0, "a sleep in doubt is not waited for so long"


def test_news_is_what_others_must_hear_of() -> None:
    base = taught(KNOWN, seen("normal", *[3200.0] * 36))
    assert not news(base, taught(KNOWN, seen("normal", *[3210.0] * 36)))
    assert news(base, taught(KNOWN, seen("normal", *[3300.0] * 36)))
    assert news(base, KNOWN)
    assert news(base, replace(base, firmware="test 2"))
    slower = Learnt().with_time("normal", 900.0)
    assert news(KNOWN, taught(KNOWN, slower))


@settings(max_examples=40, deadline=None)
@given(st.lists(WATTS, min_size=1, max_size=40), st.lists(WATTS, min_size=1, max_size=40))
def test_two_records_make_the_same_tally_as_one(ours: list[float], theirs: list[float]) -> None:
    def tally(values: list[float]) -> Tally:
        out = Tally()
        for value in values:
            out = out.add(value, 3.0)
        return out

    both, whole = tally(ours).plus(tally(theirs)), tally([*ours, *theirs])
    assert both.n == whole.n
    assert both.mean == pytest.approx(whole.mean)
    assert both.error == pytest.approx(whole.error, rel=1e-6, abs=1e-6)
    assert both.most == whole.most
    assert both.plus(Tally()) == both


# What polls alone show

TEMPO = Tempo(window_s=12.0, samples=12, again_s=100.0)


def walk(
    study: Study, draws: list[float], from_s: float, above_w: float = 0.0, **more: float
) -> list[Settled]:
    """Polls once a second; what holds still above so many watts, or below its negative, counts."""
    found = []
    for i, watts_w in enumerate(draws):
        one = study.add(Sample(from_s + i, watts_w, metered=True, **more))
        if one is not None and (
            one.draw.watts_w > above_w if above_w >= 0 else one.draw.watts_w < -above_w
        ):
            found.append(one)
            study.done(from_s + i)
    return found


def ramp(length: int, over: int, from_w: float, to_w: float, seed: int = 1) -> list[float]:
    noise = np.random.default_rng(seed).normal(0.0, 8.0, length)
    share = np.clip(np.arange(length) / over, 0.0, 1.0)
    return [float(one) for one in from_w + (to_w - from_w) * share + noise]


def test_a_wake_shows_its_time_and_its_draw_and_then_a_level_now_and_then() -> None:
    study = Study(TEMPO)
    walk(study, [30.0] * 5, 0.0)
    study.begin("normal", 5.0, woke=True)
    (first, *rest) = walk(study, ramp(300, 40, 30.0, 3300.0), 5.5, 3000.0, h_per_s=200e12)
    assert (first.mode, first.woke, first.metered) == ("normal", True, True)
    assert first.draw.watts_w == pytest.approx(3300.0, abs=15.0)
    assert first.took_s == pytest.approx(39.0, abs=4.0)
    assert first.h_per_s == 200e12
    assert 1 <= len(rest) <= 3, "not with every poll"
    assert all(one.took_s is None for one in rest), "one transition has one time"


def test_a_machine_that_stands_still_before_it_boots_is_not_settled() -> None:
    study = Study(TEMPO)
    walk(study, [30.0], 0.0)
    study.begin("normal", 1.0, woke=True)
    assert walk(study, [30.0] * 60, 2.0, 3000.0) == []
    (found,) = walk(study, ramp(90, 20, 30.0, 3300.0), 62.0, 3000.0)
    assert found.took_s == pytest.approx(80.0, abs=4.0), "the wait before it belongs to it"


def test_the_same_command_again_goes_on_from_the_first() -> None:
    study = Study(TEMPO)
    walk(study, [3300.0], 0.0)
    study.begin(SLEEP, 1.0, woke=False)
    assert walk(study, ramp(20, 40, 3300.0, 30.0), 2.0, -100.0) == []
    study.begin(SLEEP, 21.0, woke=False)
    (found,) = walk(study, ramp(60, 20, 1700.0, 30.0), 22.0, -100.0)
    assert found.took_s is not None
    assert found.took_s > 35.0


def test_a_transition_that_takes_an_hour_stays_small() -> None:
    study = Study(replace(TEMPO, longest_s=10_000.0))
    walk(study, [30.0], 0.0)
    study.begin("normal", 1.0, woke=True)
    assert walk(study, [30.0 + i for i in range(3600)], 2.0, 3625.0) == []
    assert len(study._trace_s) <= MOST_TRACE
    (found,) = walk(study, [3630.0] * 60, 3602.0, 3625.0)
    assert found.took_s == pytest.approx(3450.0, rel=0.06), "within 5 % of its step"


def test_a_command_that_changed_nothing_took_no_time() -> None:
    study = Study(TEMPO)
    walk(study, [3300.0], 0.0)
    study.begin("normal", 1.0, woke=False)
    (found,) = walk(study, ramp(40, 1, 3300.0, 3300.0), 2.0)
    assert found.took_s is None


def test_a_ramp_is_no_level() -> None:
    study = Study(TEMPO)
    walk(study, [30.0], 0.0)
    study.begin("normal", 1.0, woke=True)
    assert walk(study, ramp(120, 120, 500.0, 3300.0), 2.0) == []


def test_what_was_given_up_and_what_is_not_ours_has_no_time() -> None:
    study = Study(replace(TEMPO, longest_s=20.0))
    walk(study, [30.0], 0.0)
    study.begin("normal", 1.0, woke=True)
    assert all(one.took_s is None for one in walk(study, ramp(120, 60, 30.0, 3300.0), 2.0, 3000.0))
    study.forget()
    assert walk(study, [3300.0] * 60, 200.0) == []


# On disk


def kept(learnt: Learnt | None = None) -> Kept:
    return Kept.of(KNOWN, learnt or seen("normal", 3210.0).with_time("normal", 80.0))


def test_what_was_learnt_is_read_back(tmp_path: Path) -> None:
    folder = LearntFolder(tmp_path)
    assert folder.load("rig.1") is None
    folder.save("rig.1", kept())
    assert LearntFolder(tmp_path).load("rig.1") == kept()
    assert kept().changed(KNOWN) is None


@pytest.mark.parametrize("key", ["model", "firmware", "mac"])
def test_another_machine_or_firmware_is_told_apart(key: str) -> None:
    why = kept().changed(replace(KNOWN, **{key: "another"}))
    assert why is not None
    assert key in why
    assert "another" in why


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("3210.0", "2210.0"),
        lambda text: text.replace("02:00", "02:01"),
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 20_000,
        lambda text: "{}",
        lambda text: " " * 70_000,
        lambda text: text.replace('"n": 1', '"n": true'),
    ],
)
def test_a_damaged_file_never_becomes_other_watts(change: object, tmp_path: Path) -> None:
    folder = LearntFolder(tmp_path)
    folder.save("rig", kept())
    whole = folder.path("rig").read_text()
    assert callable(change)
    folder.path("rig").write_text(change(whole))
    with pytest.raises(LearntDamaged, match="is not used") as caught:
        folder.load("rig")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", 10**9),
        ("n", -1),
        ("mean", math.inf),
        ("mean", -5.0),
        ("mean", 10**400),
        ("most", 100.0),
        ("most", None),
        ("m2", -1.0),
    ],
)
def test_figures_that_no_observations_could_have_made_are_refused(key: str, value: object) -> None:
    raw = json.loads(json.dumps(seen("normal", 3210.0).to_dict()))
    raw["points"]["normal"][key] = value
    with pytest.raises((ValueError, OverflowError)):
        Learnt.from_dict(raw)
