"""Peaks and the demand charge as sources: calendars, what is kept, and what faults never do."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from wattshift_cluster.grid.curves.readers import FileReader, HttpReader
from wattshift_cluster.grid.curves.rows import Shape
from wattshift_cluster.grid.peaks.coincident import PeakSource, PeakTerms, in_watts
from wattshift_cluster.grid.peaks.demand_charge import DemandSource, DemandTerms
from wattshift_cluster.grid.peaks.kept_highest import PERIODS_MOST, KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Said
from wattshift_scheduler.signals.peaks import Duty
from wattshift_scheduler.signals.words import CapKind

feeds: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("curve_rig.py"))))
NOON_S = feeds.NOON_S

CHICAGO = ZoneInfo("America/Chicago")
HOUR_S = 3600.0
SEPTEMBER = 2026 * 12 + 8


def local_s(*when: int) -> float:
    return datetime(*when, tzinfo=CHICAGO).timestamp()  # type: ignore[misc,arg-type]


def test_a_season_knows_its_months_hours_and_short_days() -> None:
    season = Season(frozenset({6, 7, 8, 9}), CHICAGO, (13, 19), working_days=True)
    assert season.counts(local_s(2026, 9, 1, 13))
    assert not season.counts(local_s(2026, 9, 1, 19))
    assert not season.counts(local_s(2026, 9, 5, 14))  # a Saturday
    assert not season.counts(local_s(2026, 10, 1, 14))
    assert season.period(local_s(2026, 9, 30, 23)) == SEPTEMBER
    assert season.period(local_s(2026, 10, 1)) == SEPTEMBER + 1
    spans = list(season.spans(local_s(2026, 9, 4, 15), local_s(2026, 9, 9)))
    assert spans == [
        (local_s(2026, 9, 4, 15), local_s(2026, 9, 4, 19)),
        (local_s(2026, 9, 7, 13), local_s(2026, 9, 7, 19)),
        (local_s(2026, 9, 8, 13), local_s(2026, 9, 8, 19)),
    ]
    whole = Season(zone=CHICAGO)
    begins_s, ends_s = whole.period_starts_s(NOON_S), whole.period_ends_s(NOON_S)
    assert list(whole.spans(begins_s, ends_s)) == [(begins_s, ends_s)]
    # March has a day of 23 hours, November one of 25.
    for month, hours in ((3, -1), (11, 1)):
        at_s = local_s(2026, month, 20)
        days = 31 if month == 3 else 30
        length_s = whole.period_ends_s(at_s) - whole.period_starts_s(at_s)
        assert length_s == (days * 24 + hours) * HOUR_S
    assert whole.period_ends_s(local_s(2026, 12, 31, 23)) == local_s(2027, 1, 1)


def test_the_highest_outlives_a_restart_and_a_broken_file_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state" / "highest.json"
    kept = KeptHighest(file)
    assert kept.raise_to(5, 10.0)
    assert not kept.raise_to(5, 9.0)
    assert not kept.raise_to(5, float("nan"))
    assert KeptHighest(file).of(5) == 10.0
    for period in range(6, 40):
        kept.raise_to(period, 1.0)
    assert len(KeptHighest(file).all()) == PERIODS_MOST
    for broken in ("", "{", "[]", '{"version": 2}', '{"version": 1, "highest_w": {"a": 1}}'):
        file.write_text(broken)
        assert KeptHighest(file).all() == {}
    file.write_text('{"version": 1, "highest_w": {"5": NaN, "6": -1, "7": 3}}')
    assert KeptHighest(file).all() == {7: 3.0}


def forecast(peak_gw: float, start_s: float = NOON_S - 12 * HOUR_S) -> str:
    rows = [
        {"time": start_s + hour * HOUR_S, "mw": 1e3 * (peak_gw - abs(hour - 17))}
        for hour in range(24)
    ]
    return json.dumps({"load": rows, "issued": NOON_S - 600})


SHAPE = Shape(value="mw", rows="load")
TERMS = PeakTerms(Duty("4cp", 2e5, 900.0), Season(), poll_s=900.0)


def test_a_hot_day_caps_its_evening_and_a_mild_one_nothing() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/forecast", forecast(75))
            rig.answer("/actual", json.dumps({"load": [{"time": NOON_S - 7 * HOUR_S, "mw": 7e4}]}))
            reader, actual = (
                HttpReader(f"{rig.url}/{name}", SHAPE, in_watts(1e6))
                for name in ("forecast", "actual")
            )
            clock = feeds.Clock()
            kept = KeptHighest(None)
            source = PeakSource(TERMS, reader, actual, kept, clock_s=clock, pause=clock.pause)
            (hot,) = await feeds.said_by(source)
            assert hot.fault is None
            assert hot.notes == ()
            assert kept.of(SEPTEMBER) == 7e10
            (cap,) = hot.caps
            assert cap.starts_s is not None
            assert NOON_S + 4 * HOUR_S < cap.starts_s < NOON_S + 5.5 * HOUR_S
            assert cap.confidence > 0.85
            assert (cap.kind, cap.window_s, cap.limit_w) == (CapKind.INTERVAL, 900.0, 2e5)
            kept.raise_to(SEPTEMBER, 8.5e10)
            again = HttpReader(f"{rig.url}/forecast", SHAPE, in_watts(1e6))
            mild = await PeakSource(TERMS, again, None, kept, clock_s=clock).refresh()
            assert (mild.caps, mild.fault) == ((), None)
            await again.close()

    asyncio.run(run())


def test_a_forecast_that_fails_or_is_old_takes_no_cap_back() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/f", forecast(75))
            reader = HttpReader(f"{rig.url}/f", SHAPE, in_watts(1e6))
            clock = feeds.Clock()
            source = PeakSource(TERMS, reader, None, KeptHighest(None), clock_s=clock)
            first = await source.refresh()
            assert first.caps
            assert "not known" in first.notes[0]
            rig.answer("/f", "", 500)
            clock.now_s += 3 * HOUR_S
            second = await source.refresh()
            assert second.caps == first.caps
            assert "HTTP status 500" in (second.fault or "")
            assert second.heard_s == first.heard_s
            rig.answer("/f", forecast(40))
            clock.now_s += 12 * HOUR_S
            third = await source.refresh()
            assert third.fault == "the forecast is 15 h old"
            assert third.caps == ()  # only because their intervals are over
            await reader.close()

    asyncio.run(run())


def test_a_load_that_nobody_can_believe_hides_no_peak() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/f", forecast(75))
            rig.answer("/a", json.dumps({"load": [{"time": NOON_S - HOUR_S, "mw": 7e5}]}))
            reader, actual = (
                HttpReader(f"{rig.url}/{name}", SHAPE, in_watts(1e6)) for name in ("f", "a")
            )
            source = PeakSource(TERMS, reader, actual, KeptHighest(None), clock_s=feeds.Clock())
            said = await source.refresh()
            assert said.caps
            assert "far above any forecast" in said.notes[0]
            await reader.close()
            await actual.close()

    asyncio.run(run())


def test_a_load_file_is_enough(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "load.csv"
        rows = [f"{NOON_S + hour * HOUR_S:.0f},{60 + hour}" for hour in range(6)]
        file.write_text("time,value\n" + "\n".join(rows))
        reader = FileReader(file, Shape(), in_watts(1e9))
        kept = KeptHighest(None)
        kept.raise_to(SEPTEMBER, 6e10)
        said = await PeakSource(TERMS, reader, None, kept, clock_s=feeds.Clock()).refresh()
        assert said.caps[-1].ends_s == NOON_S + 6 * HOUR_S

    asyncio.run(run())


DEMAND = DemandTerms("demand", Season(zone=CHICAGO), 900.0, 4e5, 1e6)


def test_the_month_s_highest_is_the_cap_and_the_next_month_begins_as_planned(
    tmp_path: Path,
) -> None:
    file = tmp_path / "highest.json"
    clock = feeds.Clock()
    source = DemandSource(DEMAND, KeptHighest(file), clock_s=clock)
    month, following = source.caps(NOON_S)
    assert (month.limit_w, following.limit_w) == (4e5, 4e5)
    assert (month.ends_s, following.starts_s) == (local_s(2026, 10, 1), local_s(2026, 10, 1))
    assert (month.confidence, month.window_s, month.kind) == (1.0, 900.0, CapKind.INTERVAL)
    for n in range(61 * 2):
        source.sample(6e5, NOON_S + n * 15)
    month, following = source.caps(NOON_S)
    assert [month.limit_w, following.limit_w] == pytest.approx([6e5, 4e5])
    again = DemandSource(DEMAND, KeptHighest(file), clock_s=clock)
    assert again.caps(NOON_S)[0].limit_w == pytest.approx(6e5)
    later_s = local_s(2026, 10, 2)
    assert [cap.limit_w for cap in again.caps(later_s)] == [4e5, 4e5]


def test_a_new_highest_is_said_at_once_and_a_meter_that_jumps_is_not_believed() -> None:
    async def run() -> None:
        clock = feeds.Clock()
        source = DemandSource(DEMAND, KeptHighest(None), clock_s=clock)
        heard: list[Said] = []
        task = asyncio.create_task(source.run(heard.append))
        await asyncio.sleep(0)
        for n in range(61):
            source.sample(5e7, NOON_S + n * 15)
        await asyncio.sleep(0)
        assert len(heard) == 1
        for n in range(61, 122):
            source.sample(5e5, NOON_S + n * 15)
        for _ in range(100):
            await asyncio.sleep(0.002)
            if len(heard) > 1:
                break
        task.cancel()
        assert [one.caps[0].limit_w for one in heard] == [4e5, pytest.approx(5e5)]

    asyncio.run(run())


def test_demand_that_counts_by_day_is_capped_by_day() -> None:
    season = Season(zone=UTC, hours=(12, 18), working_days=True)
    source = DemandSource(
        DemandTerms("d", season, 1800.0, 4e5, 1e6), KeptHighest(None), clock_s=feeds.Clock()
    )
    caps = source.caps(NOON_S)
    assert (caps[0].starts_s, caps[0].ends_s) == (NOON_S, NOON_S + 6 * HOUR_S)
    assert len(caps) == 22 + 22
    for n in range(241):
        source.sample(9e5, NOON_S - 5 * HOUR_S + n * 15)
    assert source.caps(NOON_S)[0].limit_w == 4e5
