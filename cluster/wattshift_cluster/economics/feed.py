"""The hashprice as it can be trusted now: a source behind guards, a cache and a bound on its age.

It is asked now and then and answers at any moment. Stale is unknown: what nobody has confirmed for
too long is not an old price but none.
"""

import asyncio
import math
import random
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.economics import cache
from wattshift_cluster.economics.figures import BOUNDS, Figures, Seen, Source, SourceFailed
from wattshift_cluster.economics.files import NEEDED, STATED, hashprice_of
from wattshift_cluster.economics.guard import Guard
from wattshift_cluster.mining.backoff import Backoff
from wattshift_scheduler.hashprice import Scheme

BACKOFF_MOST_S = 3600.0
ROUND_DEADLINE_S = 30.0
"""Of one whole question to a source, whatever it consists of."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a feed is to be read.

    Attributes:
        scheme: how the pool pays.
        poll_s: pause between two questions, s.
        stale_after_s: age beyond which a figure is unknown, s.
        jump: factor from which a change is held.
        confirm_samples: later samples that confirm one.
    """

    scheme: Scheme = Scheme.FPPS
    poll_s: float = 300.0
    stale_after_s: float = 6 * 3600.0
    jump: float = 10.0
    confirm_samples: int = 3


@dataclass(frozen=True, slots=True)
class Known:
    """The hashprice at one moment.

    Attributes:
        usd_per_ph_day: USD per PH/s and day before the pool's fee; None is unknown.
        observed_s: unix time of the oldest figure that it rests on; NaN if there never was one.
        source: who said it.
        note: why it is unknown or held, what of it failed; empty while all is well.
        figures: the good figures by name.
        held: a sentence for each figure that is held back.
    """

    usd_per_ph_day: float | None
    observed_s: float
    source: str
    note: str
    figures: Figures
    held: tuple[str, ...] = ()


class HashpriceFeed:
    """One source of the hashprice. `refresh` asks it, `at` tells."""

    def __init__(
        self,
        source: Source,
        terms: Terms,
        *,
        cache_file: Path | None = None,
        now_s: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        """Take what the cache holds. Nothing is asked yet.

        Args:
            source: who is asked.
            terms: how it is read.
            cache_file: where good figures outlive a restart; None keeps none.
            now_s: unix time, to judge the cache by.
            rng: of the back-off's jitter.
        """
        self.source = source
        self.terms = terms
        self._cache_file = cache_file
        self._fault = "never read"
        self._backoff = Backoff(
            rng or random.Random(),
            least_s=terms.poll_s,
            first_s=2 * terms.poll_s,
            most_s=max(BACKOFF_MOST_S, terms.poll_s),
        )
        self._guards = {
            name: Guard(name, b, jump=terms.jump, confirm_samples=terms.confirm_samples)
            for name, b in BOUNDS.items()
        }
        if cache_file is not None:
            for name, seen in cache.load(cache_file, source.name, now_s).items():
                self._guards[name].restore(seen)

    async def refresh(self, now_s: float) -> float:
        """Ask once. Returns for how long the source is to be left alone, s. Does not raise."""
        try:
            async with asyncio.timeout(ROUND_DEADLINE_S):
                answer = await self.source.read(now_s)
        except (SourceFailed, TimeoutError) as fault:
            self._fault = str(fault) or f"no answer within {ROUND_DEADLINE_S:g} s"
            return self._after_failure(getattr(fault, "retry_after_s", None))
        before = self.figures
        for name, seen in answer.figures.items():
            # No sample comes from the future, and one of no time is none.
            if name in self._guards and math.isfinite(seen.at_s):
                self._guards[name].offer(Seen(seen.value, min(seen.at_s, now_s)))
        self._fault = answer.fault
        await self._keep(before)
        if answer.fault:
            return self._after_failure(answer.retry_after_s)
        self._backoff.reset()
        return self.terms.poll_s

    def _after_failure(self, retry_after_s: float | None) -> float:
        if self.source.local:
            return self.terms.poll_s
        wait_s = self._backoff.next_s()
        return min(max(wait_s, retry_after_s or 0.0), max(BACKOFF_MOST_S, self.terms.poll_s))

    async def confirm(self) -> list[str]:
        """A person confirms what is held. Returns the names of the figures now in force."""
        before = self.figures
        names = [name for name, guard in self._guards.items() if guard.confirm()]
        await self._keep(before)
        return names

    async def _keep(self, before: Figures) -> None:
        figures = self.figures
        if self._cache_file is not None and figures != before:
            await asyncio.to_thread(cache.save, self._cache_file, self.source.name, figures)

    @property
    def figures(self) -> Figures:
        """The good figures, however old."""
        return {n: guard.good for n, guard in self._guards.items() if guard.good is not None}

    def at(self, now_s: float) -> Known:
        """The hashprice at unix time `now_s`. Quick; never raises."""
        figures = self.figures
        held = tuple(g.held.reason for g in self._guards.values() if g.held is not None)
        words = [*held, *([self._fault] if self._fault else [])]
        oldest_s = now_s - self.terms.stale_after_s
        fresh = {name: seen.value for name, seen in figures.items() if seen.at_s >= oldest_s}
        needed = (STATED,) if STATED in fresh or not set(NEEDED) & figures.keys() else NEEDED
        observed_s = min((figures[n].at_s for n in needed if n in figures), default=math.nan)
        if not all(name in fresh for name in needed):
            missing = ", ".join(name for name in needed if name not in fresh)
            lost = "is stale" if all(name in figures for name in needed) else "was never read"
            note = "; ".join([f"{missing} {lost}", *words])
            return Known(None, observed_s, self.source.name, note, figures, held)
        if needed is NEEDED and "fees_btc" not in fresh:
            words.append("fees unknown, counted as none")
        price = hashprice_of(fresh, self.terms.scheme)
        return Known(price, observed_s, self.source.name, "; ".join(words), figures, held)

    async def close(self) -> None:
        """Give back what the source holds open."""
        await self.source.close()
