"""The feed of the hashprice: asks its source now and then, tells the core whenever what it knows
changes, and above all when it no longer knows.
"""

import asyncio

import structlog

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.economics.feed import HashpriceFeed, Known, Terms
from wattshift_cluster.economics.figures import Source
from wattshift_cluster.economics.files import FileSource
from wattshift_cluster.economics.mempool import MempoolSource
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.hashprice import Scheme

LOOK_S = 1.0
"""How often it is seen whether a figure has grown stale; asks nobody."""

FILE_PERIOD_MOST_S = 5.0
CACHE_FILE = "hashprice.json"
NOTE_MOST = 400
"""Characters of a reason that an alarm and the journal carry."""

log = structlog.get_logger()


def hashprice_feed(config: SiteConfig, now_s: float) -> HashpriceFeed | None:
    """What the site file names; None where the hashprice is a constant. Raises ConfigInvalid."""
    section = config.economics
    source: Source
    if section.history is not None:
        source = FileSource(section.history)
    elif section.url is not None:
        source = MempoolSource(section.url)
    else:
        return None
    terms = Terms(
        scheme=Scheme(section.scheme),
        poll_s=min(section.poll_s, FILE_PERIOD_MOST_S) if source.local else section.poll_s,
        stale_after_s=section.stale_after_s,
        jump=section.jump,
        confirm_samples=section.confirm_samples,
    )
    return HashpriceFeed(source, terms, cache_file=config.site.state_dir / CACHE_FILE, now_s=now_s)


class HashpriceTask:
    """Feeds the controller from one source until it is cancelled."""

    def __init__(self, controller: Controller, feed: HashpriceFeed) -> None:
        """Tell at once what the cache still knows, before the first decision is made: with a feed
        the constant of the site file does not count, and until it has spoken nothing does.
        """
        self._c = controller
        self._feed = feed
        self._told: Known | None = None
        self._ask_at_s = -1.0
        controller.hashprice = self
        self.tell()

    async def run(self) -> None:
        """Feed until cancelled."""
        try:
            while True:
                now_s = self._c.clock.now_s()
                if now_s >= self._ask_at_s:
                    wait_s = await self._feed.refresh(now_s)
                    self._ask_at_s = self._c.clock.now_s() + wait_s
                self.tell()
                await asyncio.sleep(LOOK_S)
        finally:
            await self._feed.close()

    def known(self) -> Known:
        """The hashprice now."""
        return self._feed.at(self._c.clock.now_s())

    def tell(self) -> None:
        """Put it into the inbox if it has changed."""
        known, before = self.known(), self._told
        if before is not None and _same(known, before):
            return
        self._told = known
        log.info("hashprice", usd_per_ph_day=known.usd_per_ph_day, note=known.note)
        # A question that failed is no alarm while the answer before it is fresh.
        note = known.note if known.usd_per_ph_day is None else "; ".join(known.held)
        event = ev.HashpriceSeen(
            known.usd_per_ph_day, known.observed_s, known.source, note[:NOTE_MOST]
        )
        self._c.inbox.put([event], urgent=True)

    async def confirm(self, by: str) -> list[str]:
        """An operator confirms what is held; returns the figures that are now in force."""
        names = await self._feed.confirm()
        if names:
            words = ", ".join(f"{name} {self._feed.figures[name].value:g}" for name in names)
            now_s = self._c.clock.now_s()
            self._c.tell(Decision(now_s, "site", "confirm", f"{words}, confirmed by {by}", {}))
            self.tell()
        return names


def _same(one: Known, other: Known) -> bool:
    """NaN is equal to itself here: a time that never was has not changed."""
    seen = {repr(one.observed_s), repr(other.observed_s)}
    return one.usd_per_ph_day == other.usd_per_ph_day and one.note == other.note and len(seen) == 1
