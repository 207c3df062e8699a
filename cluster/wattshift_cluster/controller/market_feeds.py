"""`[market]` of site.toml as feeds of the controller: prices, carbon, peaks, the demand charge."""

import math
from collections.abc import Callable

from wattshift_cluster.config.market import Market
from wattshift_cluster.controller.service import Controller, Feed
from wattshift_cluster.controller.signal_feed import SourceFeed

Sampled = Callable[[float, float], None]


def market_feeds(controller: Controller) -> list[Feed]:
    """A feed for each source of the market. Raises ConfigInvalid where one cannot be used."""
    config = controller.config
    if config.market == Market():
        return []
    # Most sites name none: they need not wait for what it takes to read one.
    from wattshift_cluster.grid.market.sources import market_sources

    found = market_sources(
        config.market,
        config.site.state_dir,
        config.root.limit_w,
        clock_s=controller.clock.now_s,
    )
    controller.peaks_ahead += found.peaks
    controller.samplers += [_unknown_is_nan(one.sample) for one in found.demand]
    return [SourceFeed(controller, one) for one in found.all]


def _unknown_is_nan(sample: Sampled) -> Callable[[float | None, float], None]:
    return lambda watts_w, at_s: sample(math.nan if watts_w is None else watts_w, at_s)
