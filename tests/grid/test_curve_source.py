"""A curve asked for now and then: what is said, when it is stale, who is left alone how long."""

import asyncio
import json
import math
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.grid.curves.readers import CurveFailed, FileReader, HttpReader
from wattshift_cluster.grid.curves.rows import Shape
from wattshift_cluster.grid.curves.source import BACKOFF_MOST_S, CurveSource, Kind
from wattshift_cluster.grid.curves.steps import value_at
from wattshift_cluster.grid.market.prices import Money, price_of

feeds: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("curve_rig.py"))))
NOON_S = feeds.NOON_S

HOUR_S = 3600.0
read = Money().read


def body(*prices: float | None, starts_s: float = NOON_S, issued: float | None = None) -> str:
    rows = [
        {"time": starts_s + n * HOUR_S, "end": starts_s + (n + 1) * HOUR_S, "value": price}
        for n, price in enumerate(prices)
    ]
    return json.dumps({"prices": rows} | ({} if issued is None else {"issued": issued}))


def test_a_server_is_heard_and_what_it_takes_back_is_gone() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/day", body(40.0, -12.5, 60.0))
            clock = feeds.Clock()
            reader = HttpReader(f"{rig.url}/day?key=secret", Shape(rows="prices"), read)
            source = CurveSource("day", Kind.PRICE, reader, poll_s=600, clock_s=clock)
            assert source.fault(NOON_S) == "never read"
            assert await source.refresh() == 600
            steps = source.steps(NOON_S)
            assert [value_at(steps, NOON_S + at * HOUR_S) for at in (0, 1, 2)] == [40, -12.5, 60]
            assert price_of(steps, NOON_S + 60, "day").age_s == 60
            rig.answer("/day", body(40.0, None))
            await source.refresh()
            steps = source.steps(NOON_S)
            assert math.isnan(value_at(steps, NOON_S + HOUR_S))
            # The server spoke of two hours; the third is as it was told before.
            assert value_at(steps, NOON_S + 2 * HOUR_S) == 60
            gone = price_of(steps, NOON_S + HOUR_S, "day")
            assert (gone.usd_per_mwh, gone.fault) == (None, "a gap in the series")
            for status in (500, 404):
                rig.answer("/day", "", status)
                await source.refresh()
            assert "HTTP status 404" in (source.fault(NOON_S) or "")
            assert "secret" not in (source.fault(NOON_S) or "")
            assert source.steps(NOON_S) == steps
            await reader.close()

    asyncio.run(run())


def test_what_is_told_grows_stale_to_the_second_and_is_said() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/f", body(40.0, 41.0, 42.0, 43.0, issued=NOON_S - 600))
            clock = feeds.Clock(sleeps=3)
            reader = HttpReader(f"{rig.url}/f", Shape(rows="prices"), read)
            source = CurveSource(
                "f", Kind.CARBON, reader, poll_s=7200, stale_after_s=3600,
                clock_s=clock, pause=clock.pause,
            )  # fmt: skip
            heard = await feeds.said_by(source)
        assert [one.carbon_g_per_kwh is None for one in heard[:2]] == [False, True]
        assert heard[0].fault is None
        assert heard[1].fault == "stale"
        assert heard[0].prices_usd_per_mwh is None
        assert clock.slept[0] == pytest.approx(3000, abs=0.01)
        assert clock.slept[1] == pytest.approx(4200, abs=0.01)

    asyncio.run(run())


def test_a_source_that_fails_is_asked_less_and_less_often() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            reader = HttpReader(f"{rig.url}/none", Shape(), read)
            source = CurveSource("x", Kind.PRICE, reader, poll_s=300)
            waits = [await source.refresh() for _ in range(8)]
            assert 225 <= waits[0] <= 300
            assert 450 <= waits[1] <= 600
            assert all(wait <= BACKOFF_MOST_S for wait in waits)
            assert waits[-1] >= 0.75 * BACKOFF_MOST_S
            rig.answer("/none", "", 429, Retry_After="1800")
            assert await source.refresh() >= 1800
            rig.answer("/none", "", 429, Retry_After="999999")
            assert await source.refresh() == BACKOFF_MOST_S
            rig.answer("/none", json.dumps([{"time": 5, "value": 1}]))
            assert await source.refresh() == 300
            rig.answer("/none", "x" * (5 * 1024 * 1024))
            await source.refresh()
            assert "larger than" in (source.fault(10) or "")
            await reader.close()

    asyncio.run(run())


def test_a_file_is_followed_and_a_broken_edit_takes_nothing_back(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "p.csv"
        file.write_text(f"time,value\n{NOON_S:.0f},40\n{NOON_S + HOUR_S:.0f},41\n")
        clock = feeds.Clock()
        source = CurveSource(
            "p", Kind.PRICE, FileReader(file, Shape(), read), stale_after_s=60, clock_s=clock
        )
        await source.refresh()
        assert value_at(source.steps(NOON_S), NOON_S) == 40
        file.write_text("time,value\nnoon,4\n")
        clock.now_s += 3000
        await source.refresh()
        # A file that names no issue is not stale: its own times say how long it holds.
        assert value_at(source.steps(clock.now_s), clock.now_s) == 40
        assert "p.csv:2" in (source.fault(clock.now_s) or "")
        file.write_text(f"time,value\n{NOON_S:.0f},39.5\n")
        await source.refresh()
        assert value_at(source.steps(clock.now_s), clock.now_s) == 39.5
        assert math.isnan(value_at(source.steps(clock.now_s), NOON_S + HOUR_S))
        assert source.fault(clock.now_s) is None

    asyncio.run(run())


def test_only_news_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "p.csv"
        file.write_text(f"issued,time,value\n5,{NOON_S:.0f},40\n{NOON_S + 10:.0f},{NOON_S:.0f},7\n")
        clock = feeds.Clock(sleeps=30)
        source = CurveSource(
            "p", Kind.PRICE, FileReader(file, Shape(), read), poll_s=1, clock_s=clock,
            pause=clock.pause,
        )  # fmt: skip
        heard = await feeds.said_by(source)
        assert [value_at(one.prices_usd_per_mwh, NOON_S) for one in heard] == [40, 7]

    asyncio.run(run())


def test_a_forecast_from_the_future_tells_of_a_wrong_clock() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer("/f", body(40.0, issued=NOON_S + 7200))
            reader = HttpReader(f"{rig.url}/f", Shape(rows="prices"), read)
            clock = feeds.Clock()
            source = CurveSource("f", Kind.PRICE, reader, clock_s=clock, pause=clock.pause)
            (heard,) = await feeds.said_by(source)
        assert heard.prices_usd_per_mwh is not None
        assert heard.prices_usd_per_mwh.told_s == NOON_S
        assert "a clock is wrong" in heard.notes[0]

    asyncio.run(run())


def test_a_server_may_answer_with_a_csv() -> None:
    async def run() -> None:
        with feeds.serving() as rig:
            rig.answer(
                "/p.csv", f"# of today\ntime,hub,value\n{NOON_S:.0f},A,5\n{NOON_S:.0f},B,6\n"
            )
            shape = Shape(where={"hub": "B"}, last_s=900)
            reader = HttpReader(f"{rig.url}/p.csv", shape, read, is_csv=True)
            told = await reader.read(NOON_S)
            assert told.steps is not None
            assert (told.steps.values, told.steps.ends_s) == ((6.0,), NOON_S + 900)
            rig.answer("/p.csv", "<html>")
            with pytest.raises(CurveFailed, match="column missing"):
                await reader.read(NOON_S)
            await reader.close()

    asyncio.run(run())
