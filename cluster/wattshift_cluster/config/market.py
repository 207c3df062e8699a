"""`[market]` of site.toml: what energy costs and emits, and when a peak is billed.

Each source is exactly one of its ways in. Nothing is asked of anybody unless it is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from wattshift_cluster.config.fields import (
    FilePath,
    HttpUrl,
    Name,
    Section,
    Switch,
    is_loopback,
    number,
    seconds,
    split_address,
    watts,
    whole,
)
from wattshift_cluster.config.settlement import Zone

FEEDS_MOST = 20
HOUR_S = 3600.0
DAY_S = 86_400.0

Label = Annotated[str, Field(min_length=1, max_length=128)]
Month = Annotated[int, whole(1, 12)]
Horizon = Annotated[int, whole(1, 72)]


class Table(Section):
    """`[….table]`: where things stand in somebody's CSV or JSON.

    `rows` is the path with dots to a JSON list; `time`, `value`, `end` and `issued` are columns or
    keys, `issued` also a path in the whole answer. Only rows that hold the texts of `where` count.
    `zone` is that of times that name none; a number is a time in `time_unit`. A value without an
    end holds until the next one, but never longer than `hold`.
    """

    format: Literal["csv", "json"] = "csv"
    rows: Annotated[str, Field(max_length=128)] = ""
    time: Label = "time"
    value: Label = "value"
    end: Label = "end"
    issued: Label = "issued"
    where: Mapping[str, Label] = {}
    zone: Zone | None = None
    time_unit: Literal["s", "ms"] = "s"
    hold_s: Annotated[float, seconds(1, 31 * DAY_S)] | None = Field(None, alias="hold")


class OneWay(Section):
    """A source that is reached in exactly one of `WAYS`; a `file` is a CSV."""

    WAYS: ClassVar[tuple[str, ...]] = ("file", "url")

    file: FilePath | None = None
    url: HttpUrl | None = None
    table: Table = Table()
    deadline_s: Annotated[float, seconds(0.5, 600)] = Field(10.0, alias="deadline")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = [way for way in self.WAYS if getattr(self, way) is not None]
        if len(named) != 1:
            raise ValueError(f"exactly one way in is needed; allowed: {', '.join(self.WAYS)}")
        if self.file is not None and self.table.format == "json":
            raise ValueError("a file is a CSV; allowed: format csv, or url")
        return self


class Gridstatus(Section):
    """`gridstatus`: a price of North America, through the extra `market`.

    `iso` is a class of gridstatus (`CAISO`, `Ercot`, `ISONE`, `MISO`, `NYISO`, `PJM`, `SPP`), and
    `location` a node, hub or zone. PJM asks for a key, in `key_file`.
    """

    iso: Label
    location: Label
    market: Literal[
        "DAY_AHEAD_HOURLY", "REAL_TIME_5_MIN", "REAL_TIME_15_MIN", "REAL_TIME_HOURLY"
    ] = "DAY_AHEAD_HOURLY"
    key_file: FilePath | None = None


class Entsoe(Section):
    """`entsoe`: day-ahead prices of a European bidding zone such as `DE_LU`, through `market`."""

    zone: Label
    key_file: FilePath


class Asked(OneWay):
    """What every source of a curve has: its name, and how often and how long it is trusted.

    A curve older than `stale_after` is unknown. Its age counts from `issued`, or from when it was
    last heard.
    """

    name: Name
    poll_s: Annotated[float, seconds(1, DAY_S)] = Field(300.0, alias="poll")
    stale_after_s: Annotated[float, seconds(60, 31 * DAY_S)] = Field(
        36 * HOUR_S, alias="stale_after"
    )


class PriceFeed(Asked):
    """`[[market.prices]]`: a price of energy by `file`, `url`, `gridstatus` or `entsoe`.

    Of several the first one that knows holds. A price is in `currency` per `per`; for anything but
    USD `[market.currencies]` must hold the rate.
    """

    WAYS = ("file", "url", "gridstatus", "entsoe")

    gridstatus: Gridstatus | None = None
    entsoe: Entsoe | None = None
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    per: Literal["MWh", "kWh"] = "MWh"


class WattTimeAccount(Section):
    """`watttime`: the marginal emissions forecast of `region`; the password is in a file."""

    region: Label
    username: Label
    password_file: FilePath
    url: HttpUrl = "https://api.watttime.org"
    horizon_h: Horizon = 24

    @field_validator("url")
    @classmethod
    def _private(cls, url: str) -> str:
        return _encrypted(url)


class ElectricityMapsAccount(Section):
    """`electricity_maps`: the average intensity of `zone`; the token is in a file."""

    zone: Label
    token_file: FilePath
    url: HttpUrl = "https://api.electricitymaps.com"
    horizon_h: Literal[6, 24, 48, 72] = 24

    @field_validator("url")
    @classmethod
    def _private(cls, url: str) -> str:
        return _encrypted(url)


class CarbonFeed(Asked):
    """`[[market.carbon]]`: what a kWh emits, by `file`, `url`, `moer`, `watttime` or
    `electricity_maps`.

    `unit` is that of a table. `moer` is a history of California's signal with columns `time`,
    `moer` and `f1` to `f12` in kg/kWh.
    """

    WAYS = ("file", "url", "moer", "watttime", "electricity_maps")

    moer: FilePath | None = None
    watttime: WattTimeAccount | None = None
    electricity_maps: ElectricityMapsAccount | None = None
    unit: Literal["g/kWh", "kg/kWh", "kg/MWh", "lbs/MWh"] = "g/kWh"
    stale_after_s: Annotated[float, seconds(60, 31 * DAY_S)] = Field(
        6 * HOUR_S, alias="stale_after"
    )


class LoadFeed(OneWay):
    """`forecast` and `actual` of `[[market.peaks]]`: the load of the whole grid, in `unit`."""

    unit: Literal["W", "kW", "MW", "GW"] = "MW"


class When(Section):
    """When a peak counts: `months`, from the first of `hours` to the second, by the clock of
    `zone`; with `working_days` only from Monday to Friday.
    """

    zone: Zone = "UTC"
    months: Annotated[tuple[Month, ...], Field(min_length=1, max_length=12)] = tuple(range(1, 13))
    hours: tuple[Annotated[int, whole(0, 23)], Annotated[int, whole(1, 24)]] = (0, 24)
    working_days: Switch = False

    @field_validator("hours")
    @classmethod
    def _rising(cls, hours: tuple[int, int]) -> tuple[int, int]:
        if hours[0] >= hours[1]:
            raise ValueError("hours must rise; allowed: such as [13, 19]")
        return hours


class Peaks(When):
    """`[[market.peaks]]`: intervals in which the whole grid may peak (4CP, 12CP), held at `cap`.

    Each day the fewest intervals that hold `cover` of its chance of a new peak of the month are
    capped, with that chance as their confidence: the site acts on it from `act_at_confidence` of
    `[rules]` on. `day_error_pct` and `interval_error_pct` are the standard deviations of the
    forecast: of a whole day, and of one interval within it. With `final` a day counts only as far
    as later days of the forecast leave its peak standing: fewer curtailments, and more risk.
    """

    name: Name = "peaks"
    forecast: LoadFeed
    actual: LoadFeed | None = None
    cap_w: Annotated[float, watts(0)] = Field(alias="cap")
    interval_s: Annotated[float, seconds(300, HOUR_S)] = Field(900.0, alias="interval")
    cover: Annotated[float, number(0.1, 1)] = 0.9
    day_error_pct: Annotated[float, number(0, 50, "%")] = 2.0
    interval_error_pct: Annotated[float, number(0.1, 50, "%")] = 1.0
    least_confidence: Annotated[float, number(0, 1)] = 0.05
    final: Switch = False
    horizon_s: Annotated[float, seconds(HOUR_S, 7 * DAY_S)] = Field(2 * DAY_S, alias="horizon")
    poll_s: Annotated[float, seconds(1, DAY_S)] = Field(900.0, alias="poll")
    stale_after_s: Annotated[float, seconds(60, 31 * DAY_S)] = Field(
        12 * HOUR_S, alias="stale_after"
    )

    @field_validator("interval_s")
    @classmethod
    def _whole(cls, interval_s: float) -> float:
        return _of_hour(interval_s)


class DemandCharge(When):
    """`[[market.demand]]`: a charge on the site's highest mean over `interval` in a month.

    The cap of each interval is the month's highest so far, and `planned` at least: what is paid
    for in any case.
    """

    name: Name = "demand"
    planned_w: Annotated[float, watts(1)] = Field(alias="planned")
    interval_s: Annotated[float, seconds(60, HOUR_S)] = Field(900.0, alias="interval")

    @field_validator("interval_s")
    @classmethod
    def _whole(cls, interval_s: float) -> float:
        return _of_hour(interval_s)


class Market(Section):
    """`[market]`: prices, carbon, peaks of the grid, and the charge on the site's own.

    `currencies` gives USD for one of each.
    """

    currencies: Mapping[str, Annotated[float, number(1e-6, 1e6)]] = {}
    prices: Annotated[tuple[PriceFeed, ...], Field(max_length=FEEDS_MOST)] = ()
    carbon: Annotated[tuple[CarbonFeed, ...], Field(max_length=FEEDS_MOST)] = ()
    peaks: Annotated[tuple[Peaks, ...], Field(max_length=FEEDS_MOST)] = ()
    demand: Annotated[tuple[DemandCharge, ...], Field(max_length=FEEDS_MOST)] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its sources, in the order of the file."""
        feeds = (*(one.name for one in self.prices), *(one.name for one in self.carbon))
        costs = (*(one.name for one in self.peaks), *(one.name for one in self.demand))
        return (*feeds, *costs)

    @model_validator(mode="after")
    def _named_once(self) -> Market:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources named twice: {', '.join(twice)}")
        for price in self.prices:
            if price.currency != "USD" and price.currency not in self.currencies:
                raise ValueError(
                    f"{price.name}: currency {price.currency} has no rate; "
                    f"allowed: USD, or one of [market.currencies]"
                )
        return self


def _of_hour(interval_s: float) -> float:
    if interval_s % 60 or HOUR_S % interval_s:
        raise ValueError("must be whole minutes that divide an hour; allowed: such as 15m, 30m")
    return interval_s


def _encrypted(url: str) -> str:
    """Credentials travel encrypted, or on this machine."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    bare = split_address(host)[0] if ":" in host.rpartition("]")[2] else host.strip("[]")
    if scheme != "https" and not is_loopback(bare):
        raise ValueError("a password would travel in the clear; allowed: https://…")
    return url
