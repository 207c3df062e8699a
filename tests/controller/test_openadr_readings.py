"""What a utility is told of the site: means of the past, baselines that stay, offers."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller.history import GAP_S, MINUTES_KEPT, History
from wattshift_cluster.controller.openadr_readings import Baselines, SiteReadings
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.openadr.readings import UNKNOWN, OperatingState, Quality, Reading
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap, Target, Work

NOW_S: float = rig.NOW_S
"""A whole minute."""


def test_a_mean_is_of_what_was_sampled_and_says_how_much_of_it() -> None:
    drawn = History()
    for second in range(121):
        drawn.sampled(1000.0 + second, NOW_S + second)
    found = drawn.span(NOW_S, NOW_S + 120)
    assert found.mean_w == pytest.approx(1060.0)
    assert (found.peak_w, found.known_share) == (1120.0, pytest.approx(1.0))
    half = drawn.span(NOW_S + 60, NOW_S + 180)
    assert (half.mean_w, half.known_share) == (pytest.approx(1090.0), pytest.approx(0.5))
    assert math.isnan(drawn.span(NOW_S + 600, NOW_S + 660).mean_w), "unknown is not zero"


def test_gaps_failures_and_samples_out_of_turn_count_nothing() -> None:
    drawn = History()
    for at_s in (0.0, 1.0, 2.0, 2.0, 1.5):
        drawn.sampled(500.0, NOW_S + at_s)
    drawn.sampled(None, NOW_S + 3)
    drawn.sampled(500.0, NOW_S + 4)
    drawn.sampled(500.0, NOW_S + 4 + GAP_S + 1)
    assert drawn.span(NOW_S, NOW_S + 60).known_share == pytest.approx(2 / 60)
    for minute in range(2 * MINUTES_KEPT):
        drawn.sampled(1.0, NOW_S + 60 * minute + 59)
        drawn.sampled(1.0, NOW_S + 60 * minute + 60)
    assert len(drawn._minutes) <= MINUTES_KEPT


class Stage:
    """A controller that has metered some minutes of 6 kW."""

    def __init__(self, folder: Path, minutes: int = 16) -> None:
        self.folder, self.clock = folder, rig.HandClock(NOW_S - 60 * minutes)
        self.start()
        for _ in range(60 * minutes // 4):
            self.clock.at_s += 4
            self.c.inbox.put([ev.MeterRead(6000.0, self.clock.at_s)])
            self.c._remember(self.c.inbox.take(), self.clock.at_s)
        rig.turned(self.c)

    def start(self) -> None:
        self.c: Controller = rig.controller(self.folder, self.clock)
        self.baselines = Baselines(self.c, "utility")
        self.read = SiteReadings(self.c, {"miners": Work.MINING}, self.baselines)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.c.journal.close()


def test_the_past_is_told_as_well_as_it_is_known(stage: Stage) -> None:
    read = stage.read
    assert read.mean_w(None, NOW_S - 300, NOW_S) == Reading(pytest.approx(6000.0), Quality.OK)
    assert read.peak_w(None, NOW_S - 300, NOW_S) == Reading(6000.0, Quality.OK)
    cut = read.mean_w(None, NOW_S - 290, NOW_S - 10)
    assert cut == Reading(pytest.approx(6000.0), Quality.ESTIMATED), "a minute that is cut"
    assert read.mean_w(None, NOW_S - 300, NOW_S + 1) == UNKNOWN, "it is not over"
    assert read.mean_w(None, NOW_S - 7200, NOW_S - 3600) == UNKNOWN
    assert read.mean_w("miners", NOW_S - 300, NOW_S).watts_w == 0.0, "no device mines"
    assert read.mean_w("others", NOW_S - 300, NOW_S) == UNKNOWN


def test_a_baseline_stays_whatever_is_drawn_and_restarted(stage: Stage) -> None:
    starts_s, ends_s = NOW_S + 600, NOW_S + 1200
    assert stage.baselines.of("e", starts_s, ends_s) == pytest.approx(6000.0)
    for _ in range(300):
        stage.clock.at_s += 2
        stage.c.drawn[Work.ALL].sampled(9000.0, stage.clock.at_s)
    assert stage.baselines.of("e", starts_s, ends_s) == pytest.approx(6000.0)
    assert stage.baselines.of("later", starts_s, None) > 6500.0
    stage.c.journal.close()
    stage.start()
    assert stage.baselines.of("e", starts_s, ends_s) == pytest.approx(6000.0)
    assert stage.baselines.of("new", starts_s, ends_s) is None, "nothing is known of it now"
    told = stage.read.baseline_w(None, starts_s, ends_s)
    assert told == Reading(pytest.approx(6000.0), Quality.ESTIMATED)
    assert stage.read.baseline_w("miners", starts_s, ends_s) == UNKNOWN
    assert stage.read.baseline_w(None, NOW_S - 600, NOW_S) == UNKNOWN, "no event lies there"


def test_what_is_foreseen_is_no_more_than_known_caps(stage: Stage) -> None:
    read = stage.read
    assert read.forecast_w(None, NOW_S, NOW_S + 300).watts_w == pytest.approx(6000.0)
    cap = Cap("c", "utility", 2000.0, NOW_S + 100, NOW_S + 200)
    stage.c.inbox.put([ev.SignalChanged("utility", (cap,))])
    rig.turned(stage.c)
    assert read.forecast_w(None, NOW_S, NOW_S + 300) == Reading(2000.0, Quality.ESTIMATED)
    assert read.forecast_w(None, NOW_S + 200, NOW_S + 300).watts_w == pytest.approx(6000.0)
    assert read.forecast_w(None, NOW_S + 7200, NOW_S + 7500) == UNKNOWN


def test_the_set_point_the_state_and_the_offer_are_those_of_the_core(stage: Stage) -> None:
    read = stage.read
    assert (read.setpoint_w(None).watts_w, read.state(None)) == (10e6, OperatingState.IDLE_NORMAL)
    target = Target("t", "utility", 4000.0)
    stage.c.inbox.put([ev.SignalChanged("utility", targets=(target,))])
    rig.turned(stage.c)
    assert read.setpoint_w(None).watts_w == 4000.0
    assert read.state(None) is OperatingState.IDLE_CURTAILED
    # Nothing mines, so nothing can be shed; the share that is sure of it is unknown.
    assert read.shed_available_w(None, NOW_S, NOW_S + 60) == Reading(0.0, Quality.ESTIMATED)
    assert read.shed_available_w(None, NOW_S - 60, NOW_S) == UNKNOWN
