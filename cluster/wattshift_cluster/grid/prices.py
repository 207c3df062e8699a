"""Energy prices: a step series in a file, an HTTP feed, a fixed price, or the first that knows.

A price is known only while it is valid. Negative prices are normal; a price outside SANE is taken
for a broken feed. An unknown price is None: the planner must then not assume cheap energy.
"""

import bisect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2

from wattshift_cluster.config.quantities import parse_usd_per_mwh
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_cluster.grid.rows import Faults, read_csv, unix_s
from wattshift_cluster.grid.watched import WatchedFile

SANE_USD_PER_MWH = (-5_000.0, 30_000.0)
"""Wider than any market's floor and cap (Europe about -500, Australia about 20,300 AUD/MWh)."""

DEFAULT_HOLD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Price:
    """A price at one moment.

    Attributes:
        usd_per_mwh: USD/MWh; None is unknown.
        age_s: how long ago this price began or was observed, s; None if there never was one.
        source: file or URL it came from.
        fault: why it is unknown, or what is wrong with a newer version.
    """

    usd_per_mwh: float | None
    age_s: float | None
    source: str
    fault: str | None = None


class PriceFeed(Protocol):
    """Anything that knows prices."""

    def at(self, now_s: float) -> Price:
        """The price at `now_s`, unix time, s. Quick; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class PriceSteps:
    """Each price holds from its time to the next one's; the last for `hold_s`."""

    times_s: tuple[float, ...]
    prices_usd_per_mwh: tuple[float, ...]
    hold_s: float


class FilePrices:
    """A CSV `time,usd_per_mwh` that follows its own changes.

    The last price holds for `hold_s`; by default as long as the interval before it.
    """

    def __init__(self, path: Path, *, hold_s: float | None = None) -> None:
        """Read `path`. Raises: ConfigInvalid, each fault with file:line."""
        self._file = WatchedFile(path, lambda text, file: parse_prices(text, file, hold_s))

    @property
    def fault(self) -> ConfigInvalid | None:
        """Why the newest version of the file is not in force; None when it is."""
        return self._file.fault

    def steps(self) -> PriceSteps:
        """The whole series, for planning ahead."""
        return self._file.read()

    def at(self, now_s: float) -> Price:
        """See PriceFeed."""
        steps, source = self._file.read(), str(self._file.path)
        fault = str(self.fault) if self.fault else None
        index = bisect.bisect_right(steps.times_s, now_s) - 1
        if index < 0:
            return Price(None, None, source, fault or "the series begins later")
        age_s = now_s - steps.times_s[index]
        if index == len(steps.times_s) - 1 and age_s >= steps.hold_s:
            return Price(None, age_s, source, fault or "the series has ended")
        return Price(steps.prices_usd_per_mwh[index], age_s, source, fault)


def parse_prices(text: str, file: str, hold_s: float | None = None) -> PriceSteps:
    """A price series; times must rise.

    Raises:
        ConfigInvalid: all faults of the file, each with file:line.
    """
    columns = ("time", "usd_per_mwh")
    faults = Faults(file)
    times_s: list[float] = []
    prices: list[float] = []
    for row in read_csv(text, file, needed=columns, allowed=columns):
        time_s = faults.cell(row, "time", unix_s)
        price = faults.cell(row, "usd_per_mwh", _sane)
        if time_s is None or price is None:
            continue
        if times_s and time_s <= times_s[-1]:
            faults.add(row.line, "time", row.cells["time"], "not after the row before")
            continue
        times_s.append(time_s)
        prices.append(price)
    if not times_s and not faults.found:
        faults.add(1, "", None, "no prices")
    faults.raise_any()
    if hold_s is None:
        hold_s = times_s[-1] - times_s[-2] if len(times_s) > 1 else DEFAULT_HOLD_S
    return PriceSteps(tuple(times_s), tuple(prices), hold_s)


class HttpPrices:
    """A feed that answers GET with {"usd_per_mwh": 41.2, "at_s": unix seconds}.

    Without `at_s` the price counts from its arrival. A failed refresh keeps the last price until it
    is `stale_after_s` old; after that it is unknown.
    """

    def __init__(
        self,
        url: str,
        *,
        stale_after_s: float = 900.0,
        deadline_s: float = 2.0,
        client: httpx2.AsyncClient | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Args: clock_s: unix time, s."""
        self._source = JsonSource(url, deadline_s, client)
        self._stale_after_s = stale_after_s
        self._clock_s = clock_s
        self._last: tuple[float, float] | None = None
        self._fault: str | None = "never read"

    async def refresh(self) -> None:
        """Ask the feed once, within its deadline. Does not raise."""
        try:
            body = await self._source.get()
            price = _sane(body.get("usd_per_mwh"))
            now_s = self._clock_s()
            at_s = min(unix_s(body["at_s"]), now_s) if "at_s" in body else now_s
            self._last, self._fault = (at_s, price), None
        except (FetchFailed, ValueError) as fault:
            self._fault = str(fault)

    def at(self, now_s: float) -> Price:
        """See PriceFeed."""
        if self._last is None:
            return Price(None, None, self._source.url, self._fault)
        age_s = max(0.0, now_s - self._last[0])
        if age_s > self._stale_after_s:
            return Price(None, age_s, self._source.url, self._fault or "stale")
        return Price(self._last[1], age_s, self._source.url, self._fault)

    async def close(self) -> None:
        """Give the connection back."""
        await self._source.close()


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """One price for ever, from the configuration."""

    usd_per_mwh: float
    source: str = "default"

    def at(self, now_s: float) -> Price:
        """See PriceFeed."""
        return Price(self.usd_per_mwh, 0.0, self.source)


@dataclass(frozen=True, slots=True)
class FirstKnown:
    """Asks several feeds in order; the first that knows the price wins."""

    feeds: Sequence[PriceFeed]

    def at(self, now_s: float) -> Price:
        """See PriceFeed. Unknown, with the first feed's fault, where none knows."""
        first: Price | None = None
        for feed in self.feeds:
            price = feed.at(now_s)
            if price.usd_per_mwh is not None:
                return price
            first = first or price
        return first or Price(None, None, "none", "no price feed is configured")


def _sane(value: object) -> float:
    """A price in USD/MWh. Raises: ValueError."""
    price = parse_usd_per_mwh(value)
    least, most = SANE_USD_PER_MWH
    if not (math.isfinite(price) and least <= price <= most):
        raise ValueError(f"price outside {least:g} to {most:g} USD/MWh")
    return price
