"""What a plan is made from: the past that is kept, curves, caps, promises, peaks, batch jobs."""

import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller.plan import demands
from wattshift_cluster.controller.plan.curves import Grid, foreseen, means
from wattshift_cluster.controller.plan.history import SLOT_S, SLOTS_KEPT, Past, PlanHistory
from wattshift_cluster.grid.said import Steps
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.signals.words import Cap, GridEvent, Override, Target, Work

T0_S = 1_900_022_400.0
HOUR_S = 3600.0
GRID = Grid(T0_S, 900.0, 96)
NONE = Past(np.zeros(0), np.zeros(0))
OPEN_W = np.full(GRID.count, 1e7)


def past(days: float, value: Any) -> Past:
    """Quarters of an hour up to T0_S; `value` of the hour of the day."""
    times_s = np.asarray(T0_S + np.arange(-round(days * 96), 0) * 900.0, dtype=np.float64)
    return Past(times_s, np.array([value(t / HOUR_S % 24.0) for t in times_s]))


def hourly(values: Iterable[float], starts_s: float = T0_S) -> Steps:
    listed = tuple(values)
    times = tuple(starts_s + i * HOUR_S for i in range(len(listed)))
    return Steps(times, listed, starts_s + len(listed) * HOUR_S, T0_S)


def test_the_past_is_kept_by_the_quarter_and_outlives_a_restart(tmp_path: Path) -> None:
    history = PlanHistory(("a", "b"), tmp_path / "h.json")
    for minute in range(46):
        history.sampled({"a": float(minute), "b": None}, T0_S + 60.0 * minute)
    found = history.past("a")
    assert found.times_s.tolist() == [T0_S, T0_S + 900.0, T0_S + 1800.0, T0_S + 2700.0]
    assert found.values.tolist() == pytest.approx([7.0, 22.0, 37.0, 45.0])
    assert len(history.past("b").values) == 0
    history.save(history.kept())
    again = PlanHistory(("a", "c"), tmp_path / "h.json")
    assert again.past("a").values.tolist() == pytest.approx([7.0, 22.0, 37.0])
    assert math.isnan(again.past("c").last)


def test_time_without_a_sample_is_unknown(tmp_path: Path) -> None:
    history = PlanHistory(("a",))
    history.sampled({"a": 1.0}, T0_S)
    history.sampled({"a": 1.0}, T0_S + 600.0)  # further apart than anybody samples
    history.sampled({"a": math.nan}, T0_S + 660.0)
    history.sampled({"a": 5.0}, T0_S + 720.0)
    history.sampled({"a": 5.0}, T0_S + 1000.0)
    assert history.past("a").values.tolist() == [1.0, 5.0], "what is known of each so far"
    for at_s in range(1800, 2800, 60):
        history.sampled({"a": 7.0}, T0_S + at_s)
    assert history.past("a").values.tolist() == [7.0, 7.0], "a minute of a quarter is no mean of it"


def test_old_days_are_dropped_and_a_broken_file_is_none(tmp_path: Path) -> None:
    history = PlanHistory(("a",), tmp_path / "h.json")
    for slot in range(SLOTS_KEPT + 5):
        for at_s in range(0, 900, 100):
            history.sampled({"a": 1.0}, T0_S + slot * SLOT_S + at_s)
    assert len(history.past("a").values) <= SLOTS_KEPT + 1
    for text in ("", "[]", '{"version": 1}', '{"version": 9, "slot_s": 900, "series": {}}', "{"):
        (tmp_path / "h.json").write_text(text)
        assert len(PlanHistory(("a",), tmp_path / "h.json").past("a").values) == 0


def test_what_is_published_stands_as_it_is() -> None:
    found = foreseen("the price", hourly([10.0 * i for i in range(24)]), NONE, GRID)
    assert found is not None
    assert found.published.all()
    assert found.words == ""
    assert found.band.mid[:5].tolist() == [0.0, 0.0, 0.0, 0.0, 10.0]
    assert found.band.low is found.band.high


def test_a_mean_with_a_part_that_is_not_known_is_not_known() -> None:
    curve = Steps(
        (T0_S - 450.0, T0_S + 450.0, T0_S + 1000.0), (10.0, 30.0, math.nan), T0_S + 9e9, 0
    )
    found = means(curve, GRID)
    assert found[0] == pytest.approx(20.0)
    assert np.isnan(found[1:]).all()
    late = means(hourly([5.0], T0_S + 100.0), GRID)
    assert np.isnan(late[[0, 4]]).all()
    assert late[1:4].tolist() == pytest.approx([5.0] * 3)


def test_where_a_curve_ends_the_past_goes_on() -> None:
    usual = past(14.0, lambda hour: 20.0 + hour)
    found = foreseen("the price", hourly([21.0] * 6), usual, GRID)
    assert found is not None
    assert (
        found.words == "the price beyond what is published is foreseen by time of day from the past"
    )
    assert found.published.sum() == 24
    assert found.band.mid[95] == pytest.approx(43.75, rel=0.15)
    assert (found.band.high[24:] >= found.band.mid[24:]).all()
    short = foreseen("the price", hourly([21.0] * 6), NONE, GRID)
    assert short is not None
    assert short.words.endswith("is foreseen from its last value, widely")
    assert short.band.mid[95] == pytest.approx(21.0)
    assert short.band.high[95] - short.band.low[95] > 10.0
    assert foreseen("the price", None, NONE, GRID) is None


def told(folder: Path, *events: ev.Event, more: str = "") -> Any:
    made = rig.controller(folder, rig.HandClock(T0_S), more)
    made.inbox.put(list(events))
    return rig.turned(made)


def test_an_interval_holds_the_lowest_cap_that_it_meets(tmp_path: Path) -> None:
    caps = (
        Cap("night", "utility", 4e6, T0_S + 1200.0, T0_S + 7200.0, name="night cap"),
        Cap("dip", "utility", 2e6, T0_S + 3600.0, T0_S + 3700.0),
        Cap("rumour", "peaks", 1e6, T0_S, T0_S + 9000.0, confidence=0.1),
        Cap("over", "utility", 1.0, None, T0_S - 1.0),
        Cap("wide", "utility", 9e6, T0_S, T0_S + 3600.0),
    )
    override = Override("utility", "dip", 3e6, T0_S + 9e3, "me", "it is wrong")
    target = Target("aim", "utility", 5e6, T0_S + 10_800.0, T0_S + 11_700.0)
    mining = Target("sun", "solar", 1.0, work=Work.MINING)
    made = told(
        tmp_path,
        ev.SignalChanged("utility", caps, targets=(target, mining)),
        ev.SignalChanged("operator", overrides=(override,)),
    )
    found = demands.caps_ahead(made.state, GRID, T0_S)
    margin = 1.0 - demands.margin_share(made.state)
    kept = (found.cap_w / margin)[:14].tolist()
    assert kept == pytest.approx(
        [9e6, *[4e6] * 3, 3e6, *[4e6] * 3, *[10e6] * 4, 5e6 / margin, 10e6]
    )
    assert [(one.interval, one.text) for one in found.remarks][:3] == [
        (0, "cap 9 MW: utility wide"),
        (1, "cap 4 MW: night cap"),
        (4, "cap 3 MW: utility dip"),
    ]
    assert (8, "no cap but the connection's") in [(r.interval, r.text) for r in found.remarks]


TERMS = """
[market.currencies]
GBP = 1.25
[[settlement.programs]]
name = "DFS"
method = "high_5_of_10"
price = 400
currency = "GBP"
[[settlement.programs]]
name = "ERS"
method = "fsl"
price = 100
fsl = "1MW"
"""


def event(event_id: str, program: str, commitment_w: float = math.nan, **more: Any) -> GridEvent:
    span = {"starts_s": T0_S + 3600.0, "ends_s": T0_S + 7200.0, **more}
    return GridEvent(event_id, "utility", program, T0_S - 60.0, commitment_w=commitment_w, **span)


def test_promises_have_their_limit_and_their_pay(tmp_path: Path) -> None:
    events = (
        event("1", "DFS", 2e6, name="DFS evening"),
        event("2", "ERS"),
        event("3", "drill", 1e6),
        event("4", "unknown program", 1e6, ends_s=None),
        event("5", "DFS", 1e6, cancelled_s=T0_S - 1.0),
        event("1", "DFS", 2e6, starts_s=T0_S + 9000.0, ends_s=T0_S + 9900.0),
    )
    made = told(tmp_path, ev.SignalChanged("utility", events=events), more=TERMS)
    found, remarks = demands.commitments(
        made.state, made.config, {"utility/1": [7e6, 0.0, 0.0]}, 6e6, GRID, T0_S, OPEN_W
    )
    by_name = {one.name: one for one in found}
    assert set(by_name) == {"utility/1", "utility/1 (2)", "utility/2", "utility/4"}
    first = by_name["utility/1"]
    assert (first.limit_w, first.reduction_w, first.usd_per_mwh) == (5e6, 2e6, 500.0)
    assert by_name["utility/2"].limit_w == 1e6, "the firm service level"
    assert by_name["utility/2"].reduction_w == 5e6
    assert by_name["utility/4"].ends_s == GRID.ends_s
    assert by_name["utility/4"].usd_per_mwh == 0.0, "nobody agreed on a pay"
    assert remarks[0].interval == 4
    assert remarks[0].text == "event: DFS evening"
    unknown, _ = demands.commitments(made.state, made.config, {}, math.nan, GRID, T0_S, OPEN_W)
    assert {one.name for one in unknown} == set(), "without a baseline there is no limit"


def test_an_event_that_a_cap_enforces_is_firm(tmp_path: Path) -> None:
    made = told(tmp_path, ev.SignalChanged("utility", events=(event("1", "DFS", 2e6),)), more=TERMS)
    for lowest_w, over, firm in ((4e6, 4, True), (4e6, 3, False), (4.1e6, 4, False)):
        cap_w = OPEN_W.copy()
        cap_w[4 : 4 + over] = lowest_w
        (one,), _ = demands.commitments(made.state, made.config, {}, 6e6, GRID, T0_S, cap_w)
        assert (one.firm, one.limit_w) == (firm, 4e6)


def test_peaks_have_their_chance_by_interval() -> None:
    def source(interval_s: float, ahead: Any) -> Any:
        return SimpleNamespace(name="4cp", interval_s=interval_s, ahead=ahead)

    fine = source(300.0, (T0_S + np.array([0.0, 300.0, 900.0]), np.array([0.1, 0.2, 0.5])))
    (peak,) = demands.coincident([fine], 60.0, GRID)
    assert peak.usd_per_w == pytest.approx(0.06)
    assert peak.chance is not None
    assert peak.chance[:3].tolist() == pytest.approx([0.3, 0.5, 0.0])
    wide = source(3600.0, (np.array([T0_S - 1800.0]), np.array([0.8])))
    (peak,) = demands.coincident([wide], 60.0, GRID)
    assert peak.chance is not None
    assert peak.chance[:3].tolist() == pytest.approx([0.2, 0.2, 0.0]), "of the hour that is left"
    assert demands.coincident([source(900.0, None)], 60.0, GRID) == []
    assert demands.coincident([wide], 0.0, GRID) == []


def test_a_month_s_demand_is_laid_on_what_is_left_of_it() -> None:
    (early,) = demands.demand_charge(12.0, 4e6, T0_S + 10 * 86_400.0, GRID, T0_S)
    assert early.usd_per_w == pytest.approx(0.0012)
    assert early.so_far_w == 4e6
    (last,) = demands.demand_charge(12.0, math.nan, T0_S + 3600.0, GRID, T0_S)
    assert last.usd_per_w == pytest.approx(0.012)
    assert last.so_far_w == 0.0
    assert demands.demand_charge(0.0, 4e6, T0_S, GRID, T0_S) == []


def batch(name: str, **more: Any) -> Job:
    given: dict[str, Any] = {
        "unit_w": 1000.0,
        "max_units": 4,
        "value_usd_per_h": 2.0,
        "total": 100,
        "done": 40,
    }
    given |= {"state": JobState.RUNNING, **more}
    return Job(name, JobKind.BATCH, name, {}, T0_S, **given)


def test_batch_jobs_bring_what_they_still_need() -> None:
    jobs = [
        batch("open"),
        batch("due", deadline_s=T0_S + 7200.0),
        batch("held", held=True),
        batch("done", state=JobState.COMPLETED),
        batch("new"),
    ]
    each_s = {"open": 60.0, "due": 360.0}
    found, notes = demands.batches(jobs, each_s, T0_S)
    assert [one.name for one in found] == ["due", "open"], "the most urgent first"
    due, left = found
    assert (due.left_wh, due.value_usd, due.deadline_s) == (6000.0, 12.0, 7200.0)
    assert (due.most_w, due.fewest_w) == (4000.0, 1000.0)
    assert left.left_wh == 1000.0
    assert math.isinf(left.deadline_s)
    assert notes == ["new is not planned: how fast it goes is not known yet"]
    many = [batch(f"j{i}") for i in range(demands.BATCHES_MOST + 3)]
    found, notes = demands.batches(many, {one.id: 1.0 for one in many}, T0_S)
    assert len(found) == demands.BATCHES_MOST
    assert notes == ["3 batch jobs of a long queue are planned later"]


def test_the_pace_of_a_job_is_of_its_units() -> None:
    assert demands.pace(batch("a", rate_per_s=2.0, units=4)) == 2.0
    assert demands.pace(batch("a", rate_per_s=2.0, units=4, by_node={"n": 1, "m": 2})) == 1.5
    assert demands.pace(batch("a", rate_per_s=None, units=4)) is None
    assert demands.pace(batch("a", rate_per_s=2.0, units=0)) is None
