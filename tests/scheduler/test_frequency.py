"""When load is shed for the grid's frequency, when it is not, and how it comes back."""

import importlib
import os
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.frequency.response import Phase, Response, Sample, respond
from wattshift_scheduler.frequency.terms import Sensor, Terms, claims

stories: Any = importlib.import_module("benchmarks.signals_frequency")

TERMS = Terms(
    nominal_hz=60.0,
    dead_band_hz=0.1,
    full_at_hz=0.5,
    emergency_hz=59.3,
    hold_s=5.0,
    delay_s=20.0,
    return_s=40.0,
    dice=0.4,
)
STEP_S = 0.05


class Rig:
    """A response, fed at 20 Hz with a little noise: a real sensor never says the same twice."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.terms = terms
        self.now = Response()
        self.t_s = 100.0
        self.shares: list[float] = []
        self._noise = random.Random(1)

    def feed(self, hz: float, for_s: float, v_pu: float | None = 1.0) -> Response:
        for _ in range(round(for_s / STEP_S)):
            self.one(hz + self._noise.uniform(-1e-4, 1e-4), v_pu)
        return self.now

    def one(self, hz: float, v_pu: float | None = 1.0) -> Response:
        self.t_s += STEP_S
        self.now = respond(self.terms, self.now, self.t_s, Sample(self.t_s, hz, v_pu))
        self.shares.append(self.now.share)
        return self.now

    def silence(self, for_s: float) -> Response:
        for _ in range(round(for_s / STEP_S)):
            self.t_s += STEP_S
            self.now = respond(self.terms, self.now, self.t_s)
            self.shares.append(self.now.share)
        return self.now


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    assert rig.feed(60.0, 1.0).phase is Phase.READY
    return rig


@pytest.mark.parametrize(("hz", "share"), [(59.905, 0.0), (59.8, 0.25), (59.7, 0.5), (59.45, 1.0)])
def test_the_droop_is_in_proportion_between_dead_band_and_full(
    rig: Rig, hz: float, share: float
) -> None:
    assert rig.feed(hz, 1.0).share == pytest.approx(share, abs=0.001)


def test_only_what_lasts_for_the_cycles_counts(rig: Rig) -> None:
    assert rig.one(59.5).share == 0.0
    assert rig.one(60.0).share == 0.0, "one reading is no event"
    rig.feed(60.0, 0.2)
    first = [rig.one(59.5).share for _ in range(3)]
    assert first == [0.0, pytest.approx(1.0), pytest.approx(1.0)], "3 cycles of 60 Hz are 50 ms"
    patient = Rig(replace(TERMS, persist_cycles=12))
    patient.feed(60.0, 1.0)
    assert [patient.one(59.5).share for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, pytest.approx(1.0)]


def test_cycles_that_were_not_seen_do_not_count() -> None:
    """The sensor has just begun, or is back: what was before the first reading is not known."""
    rig = Rig(replace(TERMS, persist_cycles=12))
    assert [rig.one(59.4 + 1e-4 * at).share for at in range(5)] == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_a_share_follows_the_mildest_reading_of_the_cycles(rig: Rig) -> None:
    rig.one(59.8)
    assert rig.one(58.0).share == pytest.approx(0.25, abs=0.001)
    assert not rig.now.latched, "nor does one deep reading latch"


def test_no_rate_of_change_asks_for_anything(rig: Rig) -> None:
    """2 Hz/s is far beyond any rate-of-change relay, but the level is not left."""
    for _ in range(3):
        for hz in (60.09, 60.0, 59.91, 60.0):
            assert rig.one(hz).share == 0.0
    assert rig.now.sheds == 0


def test_what_is_within_the_sensor_s_doubt_is_not_below() -> None:
    rig = Rig(replace(TERMS, accuracy_hz=0.02))
    rig.feed(60.0, 1.0)
    assert rig.feed(59.885, 1.0).share == 0.0
    assert rig.feed(59.78, 1.0).share == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("v_pu", [1.051, 1.2, 0.899, 0.5, None, float("nan")])
def test_a_wrong_or_unknown_voltage_forbids_a_shed(rig: Rig, v_pu: float | None) -> None:
    assert rig.feed(59.2, 2.0, v_pu).share == 0.0
    assert "pu" in rig.now.reason or "voltage" in rig.now.reason
    assert rig.feed(59.2, 0.2).share == 1.0, "it was the voltage that forbade it"


def test_an_owner_s_word_lets_it_go_on_without_a_voltage() -> None:
    rig = Rig(replace(TERMS, needs_voltage=False))
    rig.feed(60.0, 1.0, None)
    assert rig.feed(59.5, 1.0, None).share == pytest.approx(1.0)


def test_a_shed_grows_at_once_and_never_while_the_voltage_is_wrong(rig: Rig) -> None:
    rig.feed(59.8, 1.0)
    assert rig.feed(59.6, 1.0, 0.85).share == pytest.approx(0.25, abs=0.001)
    assert rig.feed(60.0, 60.0, 0.85).share == pytest.approx(0.25, abs=0.001), (
        "nor is any given back"
    )
    assert rig.feed(59.6, 0.2).share == pytest.approx(0.75, abs=0.001)


def test_high_voltage_gives_back_and_that_was_it_until_the_frequency_is_back(rig: Rig) -> None:
    rig.feed(59.6, 1.0)
    assert rig.now.share == pytest.approx(0.75, abs=0.001)
    rig.feed(59.6, 70.0, 1.08)
    assert (rig.now.share, rig.now.spent) == (0.0, True)
    assert rig.feed(59.6, 5.0).share == 0.0, "shed again it would raise the voltage again"
    assert "gave back" in rig.now.reason
    rig.feed(60.0, 0.5)
    assert rig.feed(59.6, 0.2).share == pytest.approx(0.75, abs=0.001)


def test_the_emergency_level_latches_until_the_frequency_is_back(rig: Rig) -> None:
    assert rig.feed(59.25, 0.2).phase is Phase.LATCHED
    assert rig.feed(59.88, 60.0).share == 1.0, "out of the depth is not back"
    waiting = rig.feed(59.95, 1.0)
    assert (waiting.phase, waiting.share) == (Phase.WAITING, 1.0)
    assert "the return begins in" in waiting.reason
    rig.feed(59.95, 25.0)
    assert rig.now.phase is Phase.RETURNING
    assert 0.0 < rig.now.share < 1.0
    assert rig.feed(59.95, 45.0).phase is Phase.READY
    assert not rig.now.latched


def test_the_return_waits_and_is_a_ramp(rig: Rig) -> None:
    rig.feed(59.5, 1.0)
    before = len(rig.shares)
    rig.feed(60.0, 80.0)
    falling = [at for at, share in enumerate(rig.shares[before:]) if share < 1.0]
    waited_s = falling[0] * STEP_S
    assert 5.0 <= waited_s <= 25.2
    steps = [a - b for a, b in zip(rig.shares[before:], rig.shares[before + 1 :], strict=False)]
    assert max(steps) <= STEP_S / 40.0 + 1e-9, "40 s for all of it"
    assert rig.now.share == 0.0


def test_the_delays_of_two_sites_differ_and_a_site_s_own_is_known() -> None:
    def delay_s(dice: float) -> float:
        rig = Rig(replace(TERMS, dice=dice))
        rig.feed(60.0, 1.0)
        rig.feed(59.5, 1.0)
        rig.feed(60.0, 0.2)
        assert rig.now.back_at_s is not None
        return rig.now.back_at_s - rig.t_s

    delays = [delay_s(at / 8) for at in range(8)]
    assert delays[3] == delay_s(3 / 8)
    assert max(delays) - min(delays) > 15.0


def test_it_does_not_return_while_less_is_not_clearly_asked_for(rig: Rig) -> None:
    """Around the level that asked for it a frequency swings without end; the share does not."""
    rig.feed(59.8, 1.0)
    for _ in range(60):
        rig.feed(59.81, 0.5)
        rig.feed(59.805, 0.5)
    assert set(rig.shares[-1000:]) == {rig.now.share}


def test_a_new_dip_breaks_off_the_return(rig: Rig) -> None:
    rig.feed(59.5, 1.0)
    rig.feed(60.0, 30.0)
    assert rig.now.phase is Phase.RETURNING
    part = rig.now.share
    assert part < 0.99
    assert rig.feed(59.45, 0.2).share == 1.0
    assert (rig.now.phase, rig.now.sheds) == (Phase.SHED, 1)


def test_a_silent_sensor_asks_for_nothing_new_and_what_is_shed_returns(rig: Rig) -> None:
    rig.one(59.5)
    assert rig.silence(10.0).share == 0.0
    assert rig.now.phase is Phase.BLIND
    assert "no reading for" in rig.now.reason
    rig.feed(59.25, 1.0)
    assert rig.silence(1.0).phase is Phase.LATCHED, "a second of silence is not yet blindness"
    assert rig.silence(2.0).phase is Phase.WAITING
    assert "no reading for" in rig.now.reason
    assert (rig.silence(70.0).share, rig.now.phase) == (0.0, Phase.BLIND)


def test_a_frozen_sensor_has_stopped_measuring() -> None:
    rig = Rig(replace(TERMS, frozen_s=10.0))
    rig.feed(60.0, 1.0)
    for _ in range(250):
        rig.one(59.7)
    assert "and nothing else for" in rig.now.reason
    assert rig.now.phase is Phase.WAITING
    assert rig.feed(59.7, 1.0).phase is Phase.SHED, "one that moves again is believed again"


def test_readings_too_far_apart_are_no_row(rig: Rig) -> None:
    for _ in range(20):
        rig.t_s += 0.5
        assert rig.one(59.5).share == 0.0


@pytest.mark.parametrize("hz", [float("nan"), float("inf"), 0.0, 40.0, -60.0, 71.7])
def test_what_is_no_frequency_is_no_reading(rig: Rig, hz: float) -> None:
    assert rig.feed(hz, 1.0).share == 0.0
    assert rig.now.phase is Phase.BLIND
    rig.feed(59.8, 1.0)
    assert rig.one(hz).share == pytest.approx(0.25, abs=0.001), "and one of them ends no shed"


def test_a_sample_that_is_not_newer_changes_nothing(rig: Rig) -> None:
    before = rig.now
    for t_s in (rig.t_s, rig.t_s - 5.0):
        rig.now = respond(TERMS, rig.now, rig.t_s, Sample(t_s, 58.0, 1.0))
    assert (rig.now.window, rig.now.share) == (before.window, 0.0)


def test_without_supply_nothing_is_shed_and_nothing_returns(rig: Rig) -> None:
    assert rig.feed(58.0, 5.0, 0.02).share == 0.0
    rig.feed(59.5, 1.0)
    assert rig.feed(58.0, 300.0, 0.02).share == pytest.approx(1.0)
    assert "no supply" in rig.now.reason
    rig.feed(60.0, 1.0)
    assert rig.now.phase is Phase.WAITING, "with the supply back, it returns as ever"


def island(terms: Terms, for_s: float) -> list[float]:
    """The site is a fifth of a small system: what it sheds is what brings the frequency back.

    Swing equation with 4 s of inertia, load damping 1, and a governor of 5 % droop behind 8 s. A
    fifth of generation is lost, so no frequency is steady at which the site has everything back.
    """
    rig, hz, governor = Rig(terms), 60.0, 0.0
    for at in range(int(for_s / STEP_S)):
        lost = 0.2 if at * STEP_S > 5.0 else 0.0
        deviation = (hz - 60.0) / 60.0
        governor += (-deviation / 0.05 - governor) * STEP_S / 8.0
        surplus = -lost + governor + 0.2 * rig.now.share - deviation
        hz += surplus * 60.0 / (2 * 4.0) * STEP_S
        rig.one(hz + rig._noise.uniform(-1e-4, 1e-4))
    return rig.shares


def test_a_small_island_comes_to_rest() -> None:
    shares = island(replace(TERMS, hold_s=10.0), 240.0)
    last = shares[-int(60 / STEP_S) :]
    assert 0.1 < last[-1] < 0.9
    assert max(last) - min(last) < 0.005
    assert stories.swings(shares) <= 8
    hasty = replace(TERMS, hysteresis_hz=0.0, hold_s=0.0, delay_s=0.0, return_s=1.0)
    assert stories.swings(island(hasty, 60.0)) > 50, "it is the hysteresis and the wait that do it"


readings = st.tuples(
    st.floats(57.0, 61.0), st.one_of(st.none(), st.floats(0.5, 1.3)), st.floats(0.01, 0.5)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(readings, min_size=1, max_size=40))
def test_a_share_grows_only_under_readings_that_allow_it(
    rows: Iterable[tuple[float, float | None, float]],
) -> None:
    """Whatever comes, it lies within 0 to 1, and grows only when all of the last cycles said so."""
    now, t_s, seen = Response(), 0.0, list[Sample]()
    for hz, v_pu, pause_s in rows:
        t_s += pause_s
        seen.append(Sample(t_s, hz, v_pu))
        before, now = now, respond(TERMS, now, t_s, seen[-1])
        assert 0.0 <= now.share <= 1.0
        if now.share <= before.share:
            continue
        first = next((one for one in reversed(seen) if one.t_s <= t_s - TERMS.persist_s), None)
        assert first is not None, "the cycles were seen in full"
        for one in seen[seen.index(first) :]:
            assert one.hz < TERMS.edge_hz
            assert one.v_pu is not None
            assert 0.9 <= one.v_pu <= 1.05


def test_a_sensor_s_class_limits_what_is_claimed() -> None:
    good = claims(TERMS, Sensor(0.005, 0.05, 30.0))
    assert good.serves
    assert good.answers_s == pytest.approx(0.05 + 3 / 30.0)
    slow = claims(TERMS, Sensor(0.005, 0.05, 2.0))
    assert not slow.serves
    assert any("of 5 needed" in word for word in slow.words)
    coarse = claims(TERMS, Sensor(0.06, 0.05, 30.0))
    assert not coarse.serves
    assert all("no protective relay" in one.words[0] for one in (good, slow, coarse))


def data() -> Path:
    folder = os.environ.get("WATTSHIFT_DATA")
    if not folder or not (Path(folder) / stories.GMLC).exists():
        pytest.skip("the traces of the grid are not in WATTSHIFT_DATA")
    return Path(folder)


def test_the_simulated_event_is_answered_within_200_ms_and_without_a_cycle() -> None:
    """It holds two dips, at 21 s and at 64 s: the share may rise for each, and never between."""
    terms = stories.TERMS
    story = stories.replay(stories.gmlc(data()), terms, stories.SENSOR)
    assert {one.level_hz for one in story.crossings} == {terms.edge_hz, 59.85}
    for one in story.crossings:
        assert one.answered_s is not None
        assert one.answered_s <= 0.2
    assert story.sheds <= 2
    assert story.swings <= 1
    assert story.response_ms_max == max(one.answered_s * 1e3 for one in story.crossings)
    assert story.most_share == 1.0


def test_in_iberia_nothing_was_to_be_shed() -> None:
    """Voltage rose before the frequency fell; by when it had fallen, there was no supply."""
    trace = stories.iberia(data())
    story = stories.replay(trace, stories.IBERIA_TERMS, stories.IBERIA_SENSOR)
    assert (story.sheds, story.most_share) == (0, 0.0)
    told = [one.reason for one in story.moments]
    assert any("less load would raise it further" in reason for reason in told)
    assert "no supply" in told[-1]
    assert "of 5 needed" in story.text(), "and nothing is claimed for a sensor of 2 s"


def test_in_iberia_it_was_the_voltage_rule_whatever_the_nominal() -> None:
    lawless = replace(stories.IBERIA_TERMS, high_pu=9.0)
    last_minutes = [one for one in stories.iberia(data()) if 5400.0 < one.t_s < 5700.0]
    for nominal_v in (stories.IBERIA_NOMINAL_V, 26_558.0, 27_100.0):
        factor = stories.IBERIA_NOMINAL_V / nominal_v
        trace = [replace(one, v_pu=one.v_pu * factor) for one in last_minutes]
        for terms, sheds in ((stories.IBERIA_TERMS, 0), (lawless, 1)):
            assert stories.replay(trace, terms, stories.IBERIA_SENSOR).sheds == sheds
