"""Energy prices: a step series in a file, an HTTP feed, a fixed price, or the first that knows.

A price is known only while it is valid. Negative prices are normal; a price outside SANE is taken
for a broken feed. An unknown price is None: the planner must then not assume cheap energy. A
currency other than USD is refused unless the site's owner has given a rate.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx2

from wattshift_cluster.config.quantities import parse_usd_per_mwh
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.rows import Shape, Table, of_csv
from wattshift_cluster.grid.curves.source import CurveSource
from wattshift_cluster.grid.curves.steps import began_s, value_at
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_cluster.grid.rows import unix_s
from wattshift_cluster.grid.said import Steps
from wattshift_cluster.grid.watched import WatchedFile

SANE_USD_PER_MWH = (-5_000.0, 30_000.0)
"""Wider than any market's floor and cap (Europe about -500, Australia about 20,300 AUD/MWh)."""


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


class FilePrices:
    """A CSV `time,usd_per_mwh` that follows its own changes; `end` and `issued` may stand in it.

    Without `end` a price holds until the next one, and the last one for `hold_s`; by default as
    long as the interval before it. Of several issues the newest that is out holds.
    """

    def __init__(self, path: Path, *, hold_s: float | None = None) -> None:
        """Read `path`. Raises: ConfigInvalid, each fault with file:line."""
        self._file = WatchedFile(path, lambda text, file: parse_prices(text, file, hold_s))

    @property
    def fault(self) -> ConfigInvalid | None:
        """Why the newest version of the file is not in force; None when it is."""
        return self._file.fault

    def steps(self, now_s: float) -> Steps | None:
        """The whole series as it is known at `now_s`, for planning ahead."""
        return self._file.read().known(now_s, -math.inf)

    def at(self, now_s: float) -> Price:
        """See PriceFeed."""
        steps, source = self.steps(now_s), str(self._file.path)
        return price_of(steps, now_s, source, str(self.fault) if self.fault else None)


def price_of(steps: Steps | None, now_s: float, source: str, fault: str | None = None) -> Price:
    """The price at `now_s` out of a curve in USD/MWh, or why there is none."""
    if steps is None or now_s < steps.times_s[0]:
        return Price(None, None, source, fault or "the series begins later")
    age_s = now_s - began_s(steps, now_s)
    if now_s >= steps.ends_s:
        return Price(None, age_s, source, fault or "the series has ended")
    price = value_at(steps, now_s)
    if math.isnan(price):
        return Price(None, age_s, source, fault or "a gap in the series")
    return Price(price, age_s, source, fault)


def parse_prices(text: str, file: str, hold_s: float | None = None) -> Table:
    """A price series; the times of an issue must rise.

    Raises:
        ConfigInvalid: all faults of the file, each with file:line.
    """
    shape = Shape(value="usd_per_mwh", last_s=hold_s)
    allowed = ("time", "end", "issued", "usd_per_mwh")
    return of_csv(text, file, shape, sane_price, allowed=allowed)


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
            price = sane_price(body.get("usd_per_mwh"))
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
class CurvePrices:
    """The price out of a curve that is asked for now and then."""

    curve: CurveSource

    def at(self, now_s: float) -> Price:
        """See PriceFeed."""
        return price_of(self.curve.steps(now_s), now_s, self.curve.name, self.curve.fault(now_s))


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


@dataclass(frozen=True, slots=True)
class Money:
    """In what a table states its prices.

    Attributes:
        currency: of the table, as the site's owner knows it, such as EUR.
        per_mwh: factor from the table's unit of energy to MWh: 1,000 where it is kWh.
        usd_per: USD for one of each currency that the owner has given a rate for.
    """

    currency: str = "USD"
    per_mwh: float = 1.0
    usd_per: Mapping[str, float] = field(default_factory=dict)

    def rate_usd(self) -> float:
        """USD for one of the currency. Raises: ValueError, where nobody has given a rate."""
        rate = {"USD": 1.0, **self.usd_per}.get(self.currency)
        if rate is None:
            raise ValueError(f"currency {self.currency[:20]} has no rate to USD here")
        return rate

    def read(self, value: object) -> float:
        """A price in USD/MWh. Raises: ValueError."""
        if isinstance(value, str):
            value = _plain(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("no price")
        return sane_price(float(value) * self.per_mwh * self.rate_usd())


def _plain(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no price") from None


def sane_price(value: object) -> float:
    """A price in USD/MWh. Raises: ValueError."""
    price = parse_usd_per_mwh(value)
    least, most = SANE_USD_PER_MWH
    if not (math.isfinite(price) and least <= price <= most):
        raise ValueError(f"price outside {least:g} to {most:g} USD/MWh")
    return price
