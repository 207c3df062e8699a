"""Prices of the markets through the extra `market`: gridstatus (North America), entsoe-py (Europe).

Both ask synchronously, gridstatus without a deadline of its own, so they run in a `MarketThread`.
What they answer with is read row by row; the control path itself knows no pandas.

Calls as of gridstatus 0.37 (`get_lmp`, for ERCOT `get_spp`; columns Interval Start, Interval End,
Location, LMP or SPP, in USD/MWh) and entsoe-py 0.8 (`EntsoePandasClient.query_day_ahead_prices`, a
series by time; the currency is that of the bidding zone, mostly EUR, and is not told).
"""

import asyncio
import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.readers import CurveFailed, Told
from wattshift_cluster.grid.curves.rows import ReadValue
from wattshift_cluster.grid.curves.steps import MOST_STEPS, Span, laid
from wattshift_cluster.grid.market.carbon import secret_of
from wattshift_cluster.grid.market.thread import MarketThread

EXTRA = "pip install 'wattshift[market]', and gridstatus as docs/prices.md says"

DEADLINE_S = 120.0
"""Of one question; gridstatus downloads whole days, some of them in many files."""

DAY_S = 86_400.0

PLACES = ("Location", "Location Id", "Location Name", "Location Short Name")
"""Columns that name a place; PJM has no `Location`, and asks for the number of a node."""


def library(name: str) -> Any:
    """A library of the extra. Raises: ConfigInvalid, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as fault:
        told = f"prices through {name} need the extra market: {EXTRA} ({fault})"
        raise ConfigInvalid([told]) from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which price of which market.

    Attributes:
        iso: class of gridstatus, such as CAISO or Ercot.
        market: such as DAY_AHEAD_HOURLY or REAL_TIME_15_MIN.
        location: name of the node, hub or zone.
    """

    iso: str
    market: str
    location: str


class GridstatusPrices:
    """Prices of one location in a market of North America."""

    local = False

    def __init__(
        self,
        wanted: Wanted,
        thread: MarketThread,
        read: ReadValue,
        *,
        key_file: Path | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Nothing is asked yet.

        Args:
            read: a price in the market's own unit to USD/MWh.
            key_file: of the API key that PJM asks for.
            deadline_s: of one day's prices, s.

        Raises:
            ConfigInvalid: the extra is not installed, or it has no such market.
        """
        self._library, self._pandas = library("gridstatus"), library("pandas")
        self._wanted, self._thread, self._value = wanted, thread, read
        self._key_file, self._deadline_s = key_file, deadline_s
        if not isinstance(getattr(self._library, wanted.iso, None), type):
            raise ConfigInvalid([f"gridstatus knows no market operator {wanted.iso!r}"])

    async def read(self, now_s: float) -> Told:
        """See Reader. A day ahead that is not out yet is no fault."""
        ahead = self._wanted.market.startswith("DAY_AHEAD")
        today = await self._day(now_s, "today")
        rows, notes = list(today), []
        if ahead:
            try:
                rows += await self._day(now_s + DAY_S, None)
            except CurveFailed as failed:
                notes.append(f"tomorrow: {failed}")
        found = [_span(row, self._value) for row in rows[:MOST_STEPS]]
        done = laid([one for one in found if one is not None], now_s)
        if done.steps is None:
            raise CurveFailed(f"{self._named}: no prices of {self._wanted.location!r}")
        return Told(done.steps, (*notes, *done.notes))

    @property
    def _named(self) -> str:
        return f"gridstatus {self._wanted.iso}"

    async def _day(self, at_s: float, date: str | None) -> list[dict[str, Any]]:
        key = None
        if self._key_file is not None:
            key = await asyncio.to_thread(secret_of, self._key_file)
        try:
            return await self._thread.call(
                lambda: self._ask(at_s, date, key), deadline_s=self._deadline_s
            )
        except CurveFailed as failed:
            raise CurveFailed(f"{self._named}: {failed}") from None
        except Exception as failed:
            raise CurveFailed(f"{self._named}: {_shown(failed, key)}") from None

    def _ask(self, at_s: float, date: str | None, key: str | None) -> list[dict[str, Any]]:
        wanted = self._wanted
        kind = getattr(self._library, wanted.iso)
        iso = kind() if key is None else kind(api_key=key)
        if date is None:
            day = self._pandas.Timestamp(at_s, unit="s", tz=iso.default_timezone)
            date = day.strftime("%Y-%m-%d")
        with warnings.catch_warnings():
            # Its methods of all locations are the successors of these, and far too heavy here.
            warnings.simplefilter("ignore")
            if hasattr(iso, "get_spp"):
                frame = iso.get_spp(date, market=wanted.market, locations=[wanted.location])
            elif hasattr(iso, "get_lmp"):
                frame = iso.get_lmp(date, market=wanted.market, locations=[wanted.location])
            else:
                frame = getattr(iso, f"get_lmp_{wanted.market.lower()}")(date)
        columns = [name for name in PLACES if name in frame.columns]
        mine = frame[columns].astype(str).eq(wanted.location).any(axis=1)
        return list(frame[mine].to_dict("records"))

    async def close(self) -> None:
        """See Reader; the thread is everybody's."""


def _span(row: dict[str, Any], read: ReadValue) -> Span | None:
    try:
        starts_s = row["Interval Start"].timestamp()
        ends_s = row["Interval End"].timestamp()
    except (KeyError, AttributeError, ValueError):
        return None
    return Span(starts_s, ends_s, _value(row.get("SPP", row.get("LMP")), read))


def _value(value: Any, read: ReadValue) -> float:
    # float() first: what a frame holds is a number of numpy's.
    try:
        return read(float(value))
    except (TypeError, ValueError):
        return math.nan


class EntsoePrices:
    """Day-ahead prices of one bidding zone of Europe."""

    local = False

    def __init__(
        self,
        zone: str,
        key_file: Path,
        thread: MarketThread,
        read: ReadValue,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Nothing is asked yet.

        Args:
            zone: code of entsoe-py, such as DE_LU.
            key_file: of the token of ENTSO-E's transparency platform.
            read: a price in the zone's currency to USD/MWh.
            deadline_s: of one question, s.

        Raises:
            ConfigInvalid: the extra is not installed.
        """
        self._library, self._pandas = library("entsoe"), library("pandas")
        self._zone, self._key_file, self._thread = zone, key_file, thread
        self._value, self._deadline_s = read, deadline_s

    async def read(self, now_s: float) -> Told:
        """See Reader."""
        key = await asyncio.to_thread(secret_of, self._key_file)
        try:
            items = await self._thread.call(lambda: self._ask(now_s, key), self._deadline_s)
        except CurveFailed as failed:
            raise CurveFailed(f"entsoe {self._zone}: {failed}") from None
        except Exception as failed:
            raise CurveFailed(f"entsoe {self._zone}: {_shown(failed, key)}") from None
        done = laid(_spans(items[:MOST_STEPS], self._value), now_s)
        if done.steps is None:
            raise CurveFailed(f"entsoe {self._zone}: no prices")
        return Told(done.steps, done.notes)

    def _ask(self, now_s: float, key: str) -> list[tuple[Any, Any]]:
        client = self._library.EntsoePandasClient(
            api_key=key, retry_count=1, timeout=math.ceil(self._deadline_s)
        )
        now = datetime.fromtimestamp(now_s, UTC)
        starts, ends = (self._pandas.Timestamp(now + timedelta(days=days)) for days in (-1, 2))
        with warnings.catch_warnings():
            # It reads XML as HTML and says so at each page.
            warnings.simplefilter("ignore")
            series = client.query_day_ahead_prices(self._zone, start=starts, end=ends)
        return list(series.items())

    async def close(self) -> None:
        """See Reader; the thread is everybody's."""


HOUR_S = 3600.0
"""The longest that a day-ahead price holds; most of Europe trades quarters of an hour."""


def _spans(items: Sequence[tuple[Any, Any]], read: ReadValue) -> list[Span]:
    """Spans of a series that names only beginnings: a longer pause than an hour is a gap."""
    starts = [at.timestamp() for at, _ in items]
    pauses_s = [after - before for before, after in pairwise(starts) if after > before]
    least_s = min([HOUR_S, *pauses_s])
    ends = [
        after if after - before <= HOUR_S else before + least_s
        for before, after in pairwise(starts)
    ]
    ends += [at_s + least_s for at_s in starts[-1:]]
    values = [_value(value, read) for _, value in items]
    return [Span(*one) for one in zip(starts, ends, values, strict=True)]


def _shown(failed: Exception, key: str | None) -> str:
    """What a library raised, without the key that its URLs hold."""
    text = f"{type(failed).__name__}: {failed}"
    return (text.replace(key, "(hidden)") if key else text)[:300]
