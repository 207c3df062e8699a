"""The tables that a site file names, read as the controller will: what is wrong is told beforehand.

Schedules, prices, loads and histories stand in files of their own. A controller does not start
with one that has faults, so `wattshift config check` and `wattshift up` look at them first. No
secret is read, and nobody is asked over a network.
"""

from collections.abc import Callable, Iterator
from functools import partial

from wattshift_cluster.config.market import Market
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.economics.files import FileSource
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.market.prices import FilePrices
from wattshift_cluster.grid.schedule import Schedule


def check_files(config: SiteConfig) -> None:
    """Read every table that the site file names.

    Raises:
        ConfigInvalid: one cannot be read or has faults; all faults of all of them.
    """
    faults: list[Fault | str] = []
    for read in _readers(config):
        try:
            read()
        except ConfigInvalid as invalid:
            faults += invalid.faults
    if faults:
        raise ConfigInvalid(faults)


def above_floor(config: SiteConfig, schedule: Schedule) -> None:
    """A cap in a file that the site can never reach is a fault of the file.

    The floor is what the site file says, or at least the load that nobody leases. A cap that comes
    live is taken all the same: the site then sheds to its floor and says how much is missing.

    Raises:
        ConfigInvalid: one fault per such cap.
    """
    idle_w = 0.0 if config.compute is None else config.compute.idle_w
    floor_w = max(config.site.floor_w or 0.0, config.site.other_load_w + idle_w)
    faults = [
        Fault(
            f"{config.grid.schedule}:{entry.line}",
            "limit",
            f"{entry.limit_w:,.0f} W",
            f"below what the site can shed to; allowed: at least {floor_w:,.0f} W",
        )
        for entry in schedule.entries()
        if entry.limit_w < floor_w
    ]
    if faults:
        raise ConfigInvalid(faults)


def _readers(config: SiteConfig) -> Iterator[Callable[[], object]]:
    schedule, prices, history = config.grid.schedule, config.grid.prices, config.economics.history
    if schedule is not None:
        yield lambda: above_floor(config, Schedule(schedule))
    if prices is not None:
        yield lambda: FilePrices(prices)
    if history is not None:
        yield lambda: FileSource(history)
    for market in _tables(config.market):
        yield partial(_read, market, config)


def _tables(market: Market) -> Iterator[Market]:
    """Each source of the market as a market of its own; prices by packages of others left out."""
    # Its currencies go with each price.
    alone = market.model_copy(update={"prices": (), "carbon": (), "peaks": (), "demand": ()})
    for price in market.prices:
        if price.file is not None:
            yield alone.model_copy(update={"prices": (price,)})
    for carbon in market.carbon:
        yield alone.model_copy(update={"carbon": (carbon,)})
    for peaks in market.peaks:
        yield alone.model_copy(update={"peaks": (peaks,)})


def _read(market: Market, config: SiteConfig) -> None:
    # Most sites name none: they need not wait for what it takes to read one.
    from wattshift_cluster.grid.market.sources import market_sources

    market_sources(market, config.site.state_dir, config.root.limit_w)
