"""From `[market]` of site.toml to its sources of signals."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from wattshift_cluster.config.market import (
    CarbonFeed,
    DemandCharge,
    LoadFeed,
    Market,
    OneWay,
    Peaks,
    PriceFeed,
    Table,
    When,
)
from wattshift_cluster.config.quantities import WATT_UNITS
from wattshift_cluster.config.settlement import zone_of
from wattshift_cluster.grid.curves.readers import FileReader, HttpReader, Reader
from wattshift_cluster.grid.curves.rows import ReadValue, Shape
from wattshift_cluster.grid.curves.source import CurveSource, Kind
from wattshift_cluster.grid.curves.steps import filled
from wattshift_cluster.grid.market.carbon import ElectricityMaps, WattTime, in_unit
from wattshift_cluster.grid.market.carbon_history import MoerFile
from wattshift_cluster.grid.market.prices import CurvePrices, FirstKnown, Money, Price
from wattshift_cluster.grid.market.published import EntsoePrices, GridstatusPrices, Wanted
from wattshift_cluster.grid.market.thread import MarketThread
from wattshift_cluster.grid.peaks.coincident import PeakSource, PeakTerms, in_watts
from wattshift_cluster.grid.peaks.demand_charge import DemandSource, DemandTerms
from wattshift_cluster.grid.peaks.kept_highest import KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Source, Steps
from wattshift_scheduler.signals.peaks import Duty, Errors

PER_MWH: Mapping[str, float] = {"MWh": 1.0, "kWh": 1000.0}


@dataclass(frozen=True, slots=True)
class MarketSources:
    """The sources of a site's market.

    Attributes:
        prices, carbon: in the order of the file; of several the first one that knows holds.
        peaks: of the grid.
        demand: each needs the site meter's samples.
    """

    prices: tuple[CurveSource, ...] = ()
    carbon: tuple[CurveSource, ...] = ()
    peaks: tuple[PeakSource, ...] = ()
    demand: tuple[DemandSource, ...] = ()

    @property
    def all(self) -> tuple[Source, ...]:
        """All of them."""
        return (*self.prices, *self.carbon, *self.peaks, *self.demand)

    def price_now(self, now_s: float) -> Price:
        """The price of the first source that knows one, and why none does."""
        return FirstKnown([CurvePrices(one) for one in self.prices]).at(now_s)

    def prices_ahead(self, now_s: float) -> Steps | None:
        """Prices over time for planning, USD/MWh, NaN unknown: of the first that knows each."""
        return reduce(filled, (one.steps(now_s) for one in self.prices), None)

    def carbon_ahead(self, now_s: float) -> Steps | None:
        """Emissions over time for planning, g/kWh, likewise."""
        return reduce(filled, (one.steps(now_s) for one in self.carbon), None)


def market_sources(
    market: Market,
    state_dir: Path,
    connection_w: float,
    *,
    clock_s: Callable[[], float] = time.time,
) -> MarketSources:
    """Make the sources; files are read for the first time, nothing else is asked.

    Args:
        state_dir: what must outlive a restart is kept there, as `highest-NAME.json`.
        connection_w: limit of the root feeder, W.
        clock_s: unix time, s.

    Raises:
        ConfigInvalid: a file has faults, or an extra is not installed.
    """
    thread = MarketThread()

    def curve(kind: Kind, config: PriceFeed | CarbonFeed, reader: Reader) -> CurveSource:
        return CurveSource(
            config.name,
            kind,
            reader,
            poll_s=config.poll_s,
            stale_after_s=config.stale_after_s,
            clock_s=clock_s,
        )

    def kept(name: str) -> KeptHighest:
        return KeptHighest(state_dir / f"highest-{name}.json")

    return MarketSources(
        tuple(curve(Kind.PRICE, one, _price(one, market, thread)) for one in market.prices),
        tuple(curve(Kind.CARBON, one, _carbon(one)) for one in market.carbon),
        tuple(_peaks(one, kept(one.name), clock_s) for one in market.peaks),
        tuple(_demand(one, kept(one.name), connection_w, clock_s) for one in market.demand),
    )


def _price(config: PriceFeed, market: Market, thread: MarketThread) -> Reader:
    read = Money(config.currency, PER_MWH[config.per], market.currencies).read
    if config.gridstatus is not None:
        asked = config.gridstatus
        wanted = Wanted(asked.iso, asked.market, asked.location)
        return GridstatusPrices(wanted, thread, read, key_file=asked.key_file)
    if config.entsoe is not None:
        return EntsoePrices(config.entsoe.zone, config.entsoe.key_file, thread, read)
    return _table(config, read)


def _carbon(config: CarbonFeed) -> Reader:
    if config.moer is not None:
        return MoerFile(config.moer)
    if config.watttime is not None:
        account = config.watttime
        return WattTime(
            account.url,
            account.region,
            account.username,
            account.password_file,
            horizon_h=account.horizon_h,
            deadline_s=config.deadline_s,
        )
    if config.electricity_maps is not None:
        maps = config.electricity_maps
        return ElectricityMaps(
            maps.url,
            maps.zone,
            maps.token_file,
            horizon_h=maps.horizon_h,
            deadline_s=config.deadline_s,
        )
    return _table(config, in_unit(config.unit))


def _peaks(config: Peaks, kept: KeptHighest, clock_s: Callable[[], float]) -> PeakSource:
    duty = Duty(config.name, config.cap_w, config.interval_s, config.cover, config.least_confidence)
    terms = PeakTerms(
        duty,
        _season(config),
        Errors(config.day_error_pct / 100.0, config.interval_error_pct / 100.0),
        config.final,
        config.horizon_s,
        config.poll_s,
        config.stale_after_s,
    )
    actual = None if config.actual is None else _load(config.actual)
    return PeakSource(terms, _load(config.forecast), actual, kept, clock_s=clock_s)


def _demand(
    config: DemandCharge, kept: KeptHighest, connection_w: float, clock_s: Callable[[], float]
) -> DemandSource:
    terms = DemandTerms(
        config.name, _season(config), config.interval_s, config.planned_w, connection_w
    )
    return DemandSource(terms, kept, clock_s=clock_s)


def _load(config: LoadFeed) -> Reader:
    return _table(config, in_watts(WATT_UNITS[config.unit]))


def _table(config: OneWay, read: ReadValue) -> Reader:
    shape = _shape(config.table)
    if config.file is not None:
        return FileReader(config.file, shape, read)
    assert config.url is not None, "checked by the section: exactly one way in"
    is_csv = config.table.format == "csv"
    return HttpReader(config.url, shape, read, is_csv=is_csv, deadline_s=config.deadline_s)


def _shape(table: Table) -> Shape:
    return Shape(
        table.time,
        table.value,
        table.end,
        table.issued,
        table.rows,
        table.where,
        None if table.zone is None else zone_of(table.zone),
        0.001 if table.time_unit == "ms" else 1.0,
        table.hold_s,
    )


def _season(when: When) -> Season:
    return Season(frozenset(when.months), zone_of(when.zone), when.hours, when.working_days)
