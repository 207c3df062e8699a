"""Markets through foreign libraries: the thread, its deadline, and what their frames become.

gridstatus and entsoe-py are not installed with the tests: stand-ins of the same calls answer with
real frames of pandas. Where they are installed they themselves ask a server of ours.
"""

import asyncio
import math
import os
import threading
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from tests.grid import curve_rig as rig_of

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.readers import CurveFailed
from wattshift_cluster.grid.curves.steps import value_at
from wattshift_cluster.grid.market import published as market
from wattshift_cluster.grid.market.prices import Money
from wattshift_cluster.grid.market.published import EntsoePrices, GridstatusPrices, Wanted
from wattshift_cluster.grid.market.thread import MarketThread

NOON_S = rig_of.NOON_S
serving = rig_of.serving

HOUR_S = 3600.0
read = Money().read


def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("k3y\n")
    return file


def test_without_the_extra_it_is_named() -> None:
    with pytest.raises(ConfigInvalid, match=r"pip install 'wattshift\[market\]'"):
        market.library("no_such_library_of_prices")


def test_a_question_that_hangs_is_given_up_and_nothing_more_is_asked() -> None:
    async def run() -> None:
        thread, release = MarketThread(), threading.Event()

        def hang() -> int:
            release.wait(30)
            return 1

        with pytest.raises(CurveFailed, match="no answer within"):
            await thread.call(hang, 0.05)
        with pytest.raises(CurveFailed, match="still hangs"):
            await thread.call(lambda: 2, 5)
        release.set()
        for _ in range(500):
            try:
                assert await thread.call(lambda: 3, 5) == 3
                break
            except CurveFailed:
                await asyncio.sleep(0.01)
        else:
            pytest.fail("the thread was never free again")
        with pytest.raises(KeyError):
            await thread.call(lambda: os.environ["WATTSHIFT_NO_SUCH_NAME"], 5)
        names = [one for one in threading.enumerate() if one.name == "market" and one.daemon]
        assert names

    asyncio.run(run())


class Iso:
    """As gridstatus 0.37 has its operators: local times, one row for each place and interval."""

    default_timezone = "US/Central"
    asked: ClassVar[list[tuple[str, str]]] = []

    def frame(self, date: str, column: str) -> pd.DataFrame:
        day = "2026-09-01" if date == "today" else date
        starts = pd.date_range(day, periods=3, freq="h", tz=self.default_timezone)
        rows = [
            {"Time": at, "Interval Start": at, "Interval End": at + pd.Timedelta(hours=1),
             "Market": "DAY_AHEAD_HOURLY", "Location": place, column: price}
            for place, first in (("HB_SOUTH", -3.5), ("HB_WEST", 900.0))
            for at, price in zip(starts, (first, math.nan, first + 1), strict=True)
        ]  # fmt: skip
        return pd.DataFrame(rows)


class Ercot(Iso):
    def get_spp(self, date: str, end: object = None, market: str = "", locations: Any = "ALL",
                location_type: str = "ALL", verbose: bool = False) -> pd.DataFrame:  # fmt: skip
        self.asked.append((date, market))
        assert locations == ["HB_SOUTH"]
        if date == "2026-09-02":
            raise RuntimeError("not published")
        return self.frame(date, "SPP")

    def get_lmp(self, date: str, end: object = None) -> None:
        raise AssertionError("of another market")


class NYISO(Iso):
    def get_lmp(self, date: str, end: object = None, market: str = "", locations: Any = None,
                location_type: object = None, verbose: bool = False) -> pd.DataFrame:  # fmt: skip
        return self.frame(date, "LMP")


class SPP(Iso):
    def get_lmp_day_ahead_hourly(self, date: str, end: object = None) -> pd.DataFrame:
        return self.frame(date, "LMP")


def stand_in(monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    real = market.library
    module = types.SimpleNamespace(**names)
    monkeypatch.setattr(market, "library", lambda name: real(name) if name == "pandas" else module)


def test_a_day_of_ercot_with_a_gap_and_tomorrow_not_yet_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        Iso.asked.clear()
        wanted = Wanted("Ercot", "DAY_AHEAD_HOURLY", "HB_SOUTH")
        told = await GridstatusPrices(wanted, MarketThread(), read).read(NOON_S)
        midnight_s = datetime(2026, 9, 1, 5, tzinfo=UTC).timestamp()
        assert [value_at(told.steps, midnight_s + at * HOUR_S) for at in (0, 2)] == [-3.5, -2.5]
        assert math.isnan(value_at(told.steps, midnight_s + HOUR_S))
        assert told.steps is not None
        assert told.steps.ends_s == midnight_s + 3 * HOUR_S
        assert told.notes == ("tomorrow: gridstatus Ercot: RuntimeError: not published",)
        assert Iso.asked == [("today", "DAY_AHEAD_HOURLY"), ("2026-09-02", "DAY_AHEAD_HOURLY")]

    stand_in(monkeypatch, Ercot=Ercot)
    asyncio.run(run())


@pytest.mark.parametrize("iso", [NYISO, SPP])
def test_other_operators_are_asked_in_their_own_way(
    monkeypatch: pytest.MonkeyPatch, iso: type[Iso]
) -> None:
    async def run() -> None:
        wanted = Wanted(iso.__name__, "DAY_AHEAD_HOURLY", "HB_WEST")
        told = await GridstatusPrices(wanted, MarketThread(), read).read(NOON_S)
        assert told.steps is not None
        assert [one for one in told.steps.values if one == one] == [900.0, 901.0] * 2
        nowhere = Wanted(iso.__name__, "DAY_AHEAD_HOURLY", "nowhere")
        with pytest.raises(CurveFailed, match="no prices of 'nowhere'"):
            await GridstatusPrices(nowhere, MarketThread(), read).read(NOON_S)
        with pytest.raises(ConfigInvalid, match="no market operator 'None'"):
            GridstatusPrices(Wanted("None", "", ""), MarketThread(), read)

    stand_in(monkeypatch, **{iso.__name__: iso})
    asyncio.run(run())


def test_quarters_of_entsoe_and_what_a_failure_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Client:
        def __init__(self, api_key: str, session: object = None, retry_count: int = 3,
                     retry_delay: int = 10, proxies: object = None,
                     timeout: int | None = None) -> None:  # fmt: skip
            assert (api_key, retry_count, timeout) == ("k3y", 1, 120)

        def query_day_ahead_prices(self, country_code: str, start: pd.Timestamp,
                                   end: pd.Timestamp) -> pd.Series:  # fmt: skip
            if country_code != "DE_LU":
                raise RuntimeError("401 for url …?securityToken=k3y&documentType=A44")
            assert (end - start).days == 3
            at = pd.date_range("2026-09-01T12:00", periods=12, freq="15min", tz="Europe/Berlin")
            prices = pd.Series([80.0 + n for n in range(12)], index=at)
            prices.iloc[2] = math.nan
            return prices.drop(at[4:10])

    async def run() -> None:
        thread, key = MarketThread(), key_file(tmp_path)
        euros = Money("EUR", usd_per={"EUR": 1.1}).read
        told = await EntsoePrices("DE_LU", key, thread, euros).read(NOON_S)
        begins_s = datetime(2026, 9, 1, 10, tzinfo=UTC).timestamp()
        prices = [value_at(told.steps, begins_s + n * 900) for n in range(12)]
        assert prices[:2] == pytest.approx([88.0, 89.1])
        assert [n for n, price in enumerate(prices) if math.isnan(price)] == [2, *range(4, 10)]
        assert told.notes == ()
        with pytest.raises(CurveFailed, match="401 for url") as caught:
            await EntsoePrices("FR", key, thread, euros).read(NOON_S)
        assert "k3y" not in str(caught.value)

    stand_in(monkeypatch, EntsoePandasClient=Client)
    asyncio.run(run())


POINTS = "".join(
    f"<Point><position>{n}</position><price.amount>{40 + n}.5</price.amount></Point>"
    for n in (1, 2, 4)
)
DOCUMENT = f"""<?xml version="1.0" encoding="utf-8"?>
<Publication_MarketDocument><TimeSeries><mRID>1</mRID>
<classificationSequence_AttributeInstanceComponent.position>1</classificationSequence_AttributeInstanceComponent.position>
<currency_Unit.name>EUR</currency_Unit.name><price_Measure_Unit.name>MWH</price_Measure_Unit.name>
<curveType>A03</curveType><Period><timeInterval><start>2026-09-01T12:00Z</start>
<end>2026-09-01T16:00Z</end></timeInterval><resolution>PT60M</resolution>{POINTS}</Period>
</TimeSeries></Publication_MarketDocument>"""


def test_entsoe_py_itself_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("entsoe", reason="entsoe-py is not installed: it is of the extra market")
    entsoe = market.library("entsoe.entsoe")

    async def run() -> None:
        with serving() as rig:
            rig.answer("/api", DOCUMENT)
            monkeypatch.setattr(entsoe, "URL", f"{rig.url}/api")
            reader = EntsoePrices("DE_LU", key_file(tmp_path), MarketThread(), read)
            told = await reader.read(NOON_S)
            assert [value_at(told.steps, NOON_S + n * HOUR_S) for n in range(4)] == [
                41.5, 42.5, 42.5, 44.5,
            ]  # fmt: skip
            assert "securityToken=k3y" in rig.asked[0][0]

    asyncio.run(run())


def test_gridstatus_itself_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "gridstatus", reason="gridstatus is not installed: it is of the extra market"
    )
    nyiso = market.library("gridstatus.nyiso")
    today = pd.Timestamp.now(tz="America/New_York").normalize()
    columns = "Time Stamp,Name,PTID,LBMP ($/MWHr),Marginal Cost Losses ($/MWHr),"
    columns += "Marginal Cost Congestion ($/MWHr)"

    async def run() -> None:
        with serving() as rig:
            for ahead in (0, 1):
                day = today + pd.DateOffset(days=ahead)
                rows = [
                    f"{day:%m/%d/%Y} {hour:02}:00,{place},1,{first + hour},0,0"
                    for hour in range(3, 24)
                    for place, first in (("N.Y.C.", 40.0 + 100 * ahead), ("WEST", -9.0))
                ]
                path = f"/DAM_LBMP_ZONE/CSV/{day:%Y/%m/%d}/damlbmp_zone-{day:%Y%m%d}.csv"
                rig.answer(path, "\n".join([columns, *rows]))
            monkeypatch.setattr(nyiso, "OASIS_POSTINGS_URL", rig.url)
            wanted = Wanted("NYISO", "DAY_AHEAD_HOURLY", "N.Y.C.")
            told = await GridstatusPrices(wanted, MarketThread(), read).read(
                (today + pd.DateOffset(hours=12)).timestamp()
            )
            for ahead, hour, price in ((0, 5, 45.0), (1, 23, 163.0)):
                at = today + pd.DateOffset(days=ahead, hours=hour)
                assert value_at(told.steps, at.timestamp()) == price
            early = today + pd.DateOffset(days=1, hours=1)
            assert math.isnan(value_at(told.steps, early.timestamp()))
            assert told.notes == ()

    asyncio.run(run())
