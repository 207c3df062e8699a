"""Drills: when they are, what they say, that they never meet a real event, and how they went."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.utility import Drill
from wattshift_cluster.grid.drills import results as drill_results
from wattshift_cluster.grid.drills.results import Result, ResultsFile, Samples, scored
from wattshift_cluster.grid.drills.source import DrillSource, planned
from wattshift_cluster.grid.said import Said
from wattshift_scheduler.signals.words import CapKind


def unix_s(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


MONDAY_S = unix_s("2026-11-30T00:00")


def drill(**more: Any) -> Drill:
    given = {"name": "weekly", "days": ("mon", "tue"), "at": "10:00", "duration": "10m"}
    depth = {} if "shed" in more else {"limit": "5kW"}
    return Drill(**(given | depth | more))


class Rig:
    """A source of drills without its task, with a clock and a real event that a test sets."""

    def __init__(self, folder: Path, *drills: Drill, now_s: float = MONDAY_S) -> None:
        self.now_s = now_s
        self.real = ""
        self.asked: list[tuple[float, float]] = []
        self.source = DrillSource(drills, folder, self.real_event, clock_s=lambda: self.now_s)

    def real_event(self, starts_s: float, ends_s: float) -> str:
        self.asked.append((starts_s, ends_s))
        return self.real

    def at(self, seconds_s: float, watts_w: float | None = None) -> tuple[list[Result], Said]:
        self.now_s = MONDAY_S + seconds_s
        if watts_w is not None:
            self.source.sample(watts_w, self.now_s)
        return self.source.turn(), self.source._said()


TEN_S = 10 * 3600.0


@pytest.mark.parametrize(
    ("zone", "now", "starts"),
    [
        ("UTC", "2026-11-30T09:00", "2026-11-30T10:00"),
        ("UTC", "2026-11-30T10:09", "2026-11-30T10:00"),
        ("UTC", "2026-11-30T10:10", "2026-12-01T10:00"),
        ("UTC", "2026-12-01T10:10", "2026-12-07T10:00"),
        ("America/Chicago", "2026-11-30T15:00", "2026-11-30T16:00"),
        # Over the change to winter time the drill stays at its clock time.
        ("Europe/Berlin", "2026-10-20T09:00", "2026-10-26T09:00"),
        ("Pacific/Auckland", "2026-11-29T20:00", "2026-11-29T21:00"),
    ],
)
def test_when_a_drill_is(zone: str, now: str, starts: str) -> None:
    assert planned(drill(zone=zone), unix_s(now)).starts_s == unix_s(starts)


@pytest.mark.parametrize(
    ("day", "starts"),
    [
        # 02:30 is skipped in the spring, and there twice in the autumn: the first one counts.
        ("2026-03-29T00:00", "2026-03-29T01:30"),
        ("2026-10-25T00:00", "2026-10-25T00:30"),
    ],
)
def test_a_clock_time_that_is_skipped_or_there_twice(day: str, starts: str) -> None:
    one = drill(days=("sun",), at="02:30", zone="Europe/Berlin")
    assert planned(one, unix_s(day)).starts_s == unix_s(starts)


def test_a_drill_is_told_held_and_scored(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill(notice="1h"))
    _, said = rig.at(TEN_S - 3601)
    assert said.events == ()
    _, said = rig.at(TEN_S - 3600)
    (event,) = said.events
    assert (event.program, event.source, event.starts_s) == ("drill", "drills", MONDAY_S + TEN_S)
    assert event.commitment_w != event.commitment_w, "a drill commits to nothing"
    assert said.caps == ()
    rig.at(TEN_S - 1, 9000)
    _, said = rig.at(TEN_S, 9000)
    (cap,) = said.caps
    assert (cap.limit_w, cap.origin, cap.kind) == (5000, "drill", CapKind.OPERATOR)
    assert cap.ends_s == MONDAY_S + TEN_S + 600
    for second, watts_w in ((1, 8000.0), (2, 6000.0), (3, 4900.0), (4, 5100.0), (5, 4000.0)):
        assert rig.at(TEN_S + second, watts_w)[0] == []
    (result,), said = rig.at(TEN_S + 600)
    assert said.caps == ()
    assert said.events == ()
    assert (result.to_cap_s, result.deepest_w, result.overshoot_max_w) == (3.0, 4000.0, 100.0)
    assert (result.above_s, result.unknown_s, result.why) == (4.0, 0.0, "")
    assert rig.source.results == (result,)


def test_an_unannounced_drill_is_told_when_it_begins(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill())
    assert rig.at(TEN_S - 1)[1].events == ()
    _, said = rig.at(TEN_S)
    assert said.events[0].notified_s == said.events[0].starts_s


@pytest.mark.parametrize("moment_s", [TEN_S - 1800, TEN_S])
def test_no_drill_begins_beside_a_real_event(tmp_path: Path, moment_s: float) -> None:
    rig = Rig(tmp_path, drill(notice="1h"))
    rig.at(TEN_S - 3600)
    rig.real = "event e1"
    (result,), said = rig.at(moment_s)
    assert result.why == "not run beside event e1"
    assert rig.asked[-1] == (MONDAY_S + TEN_S, MONDAY_S + TEN_S + 600)
    assert said.caps == ()
    assert said.events[0].cancelled_s == MONDAY_S + moment_s
    assert "event e1" in said.notes[0]
    rig.real = ""
    assert rig.at(TEN_S + 10)[1].caps == (), "it does not begin late"
    assert rig.at(TEN_S + 86_400)[1].caps != (), "the next one does"


def test_a_real_event_ends_a_drill_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill())
    rig.at(TEN_S, 9000)
    rig.real = "event e1"
    (result,), said = rig.at(TEN_S + 60, 4000)
    assert said.caps == ()
    assert result.why == "called off for event e1"
    assert result.ends_s == MONDAY_S + TEN_S + 60
    assert said.events[0].cancelled_s == MONDAY_S + TEN_S + 60
    rig.real = ""
    assert rig.at(TEN_S + 61)[1].caps == ()
    assert rig.at(TEN_S + 700)[1].events == (), "what is over is not told for ever"


def test_two_drills_at_once_are_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill(), drill(name="other", at="10:05"))
    rig.at(TEN_S)
    (result,), said = rig.at(TEN_S + 300)
    assert result.id.startswith("other-")
    assert len(said.caps) == 1


def test_a_shed_is_taken_off_what_is_drawn(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill(shed="2kW"))
    rig.at(TEN_S - 2, 8900)
    rig.at(TEN_S - 1, 9100)
    _, said = rig.at(TEN_S)
    assert said.caps[0].limit_w == 7000
    _, said = rig.at(TEN_S + 1, 7000)
    assert said.caps[0].limit_w == 7000, "the draw has fallen, the cap has not"


def test_without_a_fresh_draw_there_is_no_shed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill(shed="2kW"))
    rig.at(TEN_S - 6, 9000)
    (result,), said = rig.at(TEN_S)
    assert "unknown" in result.why
    assert said.caps == ()


def test_a_restart_goes_on_with_a_drill_and_begins_none_anew(tmp_path: Path) -> None:
    rig = Rig(tmp_path, drill(), now_s=MONDAY_S + TEN_S + 30)
    assert rig.at(TEN_S + 30)[1].caps[0].limit_w == 5000
    shed = Rig(tmp_path, drill(shed="2kW"), now_s=MONDAY_S + TEN_S + 30)
    shed.source.sample(7000, MONDAY_S + TEN_S + 29)
    (result,), said = shed.at(TEN_S + 30)
    assert said.caps == (), "what was drawn at its start is not known"
    assert "started after" in result.why
    asyncio.run(shed.source._keep([result]))
    again = Rig(tmp_path, drill(), now_s=MONDAY_S + TEN_S + 40)
    assert again.source.results == (result,)
    assert again.at(TEN_S + 40)[1].caps == (), "called off stays called off"


def test_results_are_few_and_a_damaged_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ResultsFile(tmp_path / "drills.json")
    file.write([Result(str(n), 0.0, 1.0) for n in range(drill_results.RESULTS_MOST + 5)])
    results, fault = file.read()
    assert (len(results), results[0].id, fault) == (drill_results.RESULTS_MOST, "5", None)
    file.path.write_text("{")
    assert file.read() == ((), "drills.json cannot be read: damaged")
    monkeypatch.setattr(drill_results, "SAMPLES_MOST", 100)
    samples = Samples()
    for n in range(1000):
        samples.add(float(n), 1.0)
    assert 90 <= len(samples.between(0, 1e9)[0]) <= 100


def test_a_drill_without_samples_has_no_figures() -> None:
    result = scored("x", 0.0, 10.0, 5.0, Samples(), "")
    assert (result.to_cap_s, result.deepest_w, result.unknown_s) == (None, None, 10.0)
    samples = Samples()
    samples.add(4.0, 9.0)
    samples.add(4.0, 1.0)  # no later than the last: dropped
    samples.add(6.0, None)
    samples.add(8.0, 9.0)
    result = scored("x", 0.0, 10.0, 5.0, samples, "")
    assert (result.to_cap_s, result.above_s, result.unknown_s) == (None, 4.0, 6.0)
    assert result.overshoot_max_w is None


def test_it_speaks_when_a_drill_begins_and_keeps_its_result(tmp_path: Path) -> None:
    now = [MONDAY_S + TEN_S - 0.05]
    said: list[Said] = []
    source = DrillSource([drill()], tmp_path, lambda _s, _e: "", clock_s=lambda: now[0])

    async def until(count: int) -> None:
        for _ in range(1000):
            if len(said) >= count:
                return
            await asyncio.sleep(0.005)

    async def test() -> None:
        task = asyncio.create_task(source.run(said.append))
        await until(1)
        now[0] = MONDAY_S + TEN_S + 599.95
        await until(2)
        now[0] = MONDAY_S + TEN_S + 600
        await until(3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(test())
    assert [len(one.caps) for one in said] == [0, 1, 0]
    assert len(ResultsFile(tmp_path / "drills.json").read()[0]) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"at": "24:00"}, "00:00 to 23:59"),
        ({"at": "9:00"}, "14:30"),
        ({"limit": None}, "either a limit or a shed"),
        ({"shed": "1kW", "limit": "1kW"}, "either a limit or a shed"),
        ({"zone": "Mars/Olympus"}, "unknown time zone"),
        ({"days": ()}, "at least 1"),
    ],
)
def test_a_drill_that_is_wrong_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        drill(**more)
