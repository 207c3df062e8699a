"""Reads a pool's own page about us every minute and holds it against what we count."""

import asyncio
from collections.abc import Callable

import structlog

from wattshift_cluster.mining.audit import PoolAudit, accepted_difficulty
from wattshift_cluster.mining.shares import ShareCounts

log = structlog.get_logger()

PERIOD_S = 60.0
DEADLINE_S = 10.0


class PoolReport:
    """One pool's page.

    Attributes:
        fault: why nothing could be read of it; None while it can.
    """

    def __init__(
        self,
        url: str,
        user: str,
        counts: Callable[[], ShareCounts],
        clock_s: Callable[[], float],
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        """Nothing is read before `run`.

        Args:
            url: of the page; it may hold a key, so it is never logged.
            user: our name at the pool.
            counts: our own shares at this pool.
            clock_s: runs forward only.
        """
        self.fault: str | None = None
        self._url, self._user = url, user
        self._counts, self._clock_s = counts, clock_s
        self._period_s = period_s
        self._audit = PoolAudit()

    @property
    def alarm(self) -> str | None:
        """How the pool's figures differ from ours; None while they agree."""
        return self._audit.alarm

    async def run(self) -> None:
        """Read it again and again until cancelled."""
        # Only agents that audit a pool need an HTTP client.
        from wattshift_cluster.grid.fetch import FetchFailed, JsonSource

        source = JsonSource(self._url, DEADLINE_S)
        try:
            while True:
                try:
                    self._take(accepted_difficulty(await source.get(), self._user))
                except FetchFailed as fault:
                    self._fail(f"the pool's page: {fault}".replace(self._url, "(the page)"))
                await asyncio.sleep(self._period_s)
        finally:
            await source.close()

    def _take(self, theirs: float | None) -> None:
        if theirs is None:
            self._fail("the pool's page does not tell what it accepted from this name")
            return
        self.fault, before = None, self.alarm
        self._audit.take(self._clock_s(), self._counts(), theirs)
        if self.alarm is not None and before is None:
            log.error("pool.figures_differ", user=self._user, reason=self.alarm)
        elif self.alarm is None and before is not None:
            log.info("pool.figures_agree", user=self._user)

    def _fail(self, reason: str) -> None:
        if self.fault is None:
            log.warning("pool.page_unread", user=self._user, reason=reason)
        self.fault = reason
