"""Watches one inference server that knows no gate, and holds a busy mark while it may be working.

What it says lags by seconds, so a request can always come in unseen: mining beside it is never as
safe as beside a gate's client, and happens only where the owner of the server opted in. Then it
takes an unbroken row of looks that all saw nothing; one look that saw work, or saw nothing at all,
ends it at once. A look is dated by the moment it was sent.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from wattshift_cluster.agent.observe.mark import HeldMark, Marker, Verdict
from wattshift_cluster.agent.observe.processes import UNKNOWN, Others
from wattshift_cluster.agent.observe.prometheus import Labels, ObservationFailed
from wattshift_cluster.agent.observe.scrape import NobodyListens, scrape
from wattshift_cluster.agent.observe.servers import KINDS, Kind, Work, read_work
from wattshift_cluster.bootclock import boot_s

log = structlog.get_logger()

PERIOD_S = 0.5
QUIET_S = 5.0
STALE_S = 2.0
LEAST_PERIOD_S, MOST_PERIOD_S = 0.1, 10.0
MOST_QUIET_S = 3600.0
MOST_STALE_S = 60.0
STALE_PERIODS = 2.0
"""`stale_s` is at least so many periods: a look has what is left of it as its deadline."""

NOT_OPTED_IN = "its owner did not opt in"
NEVER_SEEN = "it was not looked at yet"

Seen = Callable[[], Others]
"""Who else computes on the server's GPUs at this moment; quick, and UNKNOWN where nobody knows."""


@dataclass(frozen=True, slots=True)
class ObservedServer:
    """A server that we do not control.

    Attributes:
        name: for people; unique in one agent.
        kind: a row of `servers.KINDS`.
        url: of its metrics, `http://host:port/metrics`.
        devices: ids of the devices that it computes on; at least one.
        opt_in: its owner's word that mining may go on beside it while it is quiet.
        period_s: from look to look, s.
        quiet_s: how long every look must have seen no work before it counts as quiet, s.
        stale_s: an older look counts as none, s.
    """

    name: str
    kind: Kind
    url: str
    devices: tuple[str, ...]
    opt_in: bool = False
    period_s: float = PERIOD_S
    quiet_s: float = QUIET_S
    stale_s: float = STALE_S

    def __post_init__(self) -> None:
        assert self.devices, "a server computes on some device"
        assert LEAST_PERIOD_S <= self.period_s <= MOST_PERIOD_S, "period_s out of bounds"
        assert self.period_s <= self.quiet_s <= MOST_QUIET_S, "quiet_s out of bounds"
        assert STALE_PERIODS * self.period_s <= self.stale_s <= MOST_STALE_S, (
            "stale_s out of bounds"
        )

    @property
    def deadline_s(self) -> float:
        """Of one look, s: the last one is not yet stale when it ends."""
        return self.stale_s - self.period_s


def beside(server: ObservedServer) -> Literal["never", "when_quiet"]:
    """When a device may mine beside this server: with its owner's word alone, and when quiet."""
    return "when_quiet" if server.opt_in else "never"


class Observed:
    """One server under watch. It counts as busy from the start, and after the end of `run`."""

    def __init__(
        self,
        server: ObservedServer,
        markers: Sequence[Marker],
        seen: Seen = lambda: UNKNOWN,
    ) -> None:
        """Mark the gates busy.

        Args:
            server: what to watch.
            markers: the busy marks of its devices' gates.
            seen: processes on these devices that are neither ours nor gate clients.
        """
        assert len(markers) == len(server.devices), "one marker for each device"
        self.server = server
        self._mark = HeldMark(markers)
        self._seen = seen
        self._busy, self._why = True, NEVER_SEEN
        self._answered_s: float | None = None
        self._looked_s: float | None = None
        self._quiet_since_s: float | None = None
        self._counters: Mapping[str, Mapping[Labels, float]] | None = None

    def verdict(self) -> Verdict:
        """The state at this moment; a look that has grown stale counts as work."""
        at_s, now_s = self._answered_s, boot_s()
        age_s = None if at_s is None else max(0.0, now_s - at_s)
        busy, why = self._busy, self._why
        if not busy and (age_s is None or age_s > self.server.stale_s):
            busy, why = True, f"its last look is older than {self.server.stale_s:g} s"
        return Verdict(busy, why, at_s, age_s)

    async def run(self) -> None:
        """Look again and again until cancelled; leaves the gates marked busy."""
        try:
            while True:
                began_s = boot_s()
                await self.look()
                spent_s = boot_s() - began_s
                await asyncio.sleep(max(0.0, self.server.period_s - spent_s))
        finally:
            self._settle("it is not watched any more")

    async def look(self) -> Verdict:
        """Look once and set the marks."""
        at_s = boot_s()
        why = await self._work(at_s)
        if self._looked_s is not None and at_s - self._looked_s > self.server.stale_s:
            self._quiet_since_s = None  # the looks before were too long ago to be one row with this
        self._looked_s = at_s
        if why is None:
            if self._quiet_since_s is None:
                self._quiet_since_s = at_s
            quiet_s = at_s - self._quiet_since_s
            if quiet_s < self.server.quiet_s:
                why = f"quiet for {quiet_s:.1f} s of {self.server.quiet_s:g} s"
        else:
            self._quiet_since_s = None
        self._settle(why)
        return self.verdict()

    def _settle(self, why: str | None) -> None:
        """Take a new state: busy for this reason, or quiet."""
        busy = why is not None
        if busy != self._busy:
            log.info("server.busy" if busy else "server.quiet", server=self.server.name, why=why)
        self._busy, self._why = busy, why or "no work was seen"
        self._mark.set(busy=busy)

    async def _work(self, at_s: float) -> str | None:
        """Why the server may be working; None when this look saw that it does not."""
        server, row = self.server, KINDS[self.server.kind]
        try:
            samples = await scrape(server.url, row.wanted, server.deadline_s)
            work: Work | None = read_work(server.kind, samples)
        except NobodyListens:
            work = None
        except ObservationFailed as fault:
            self._counters = None
            return NOT_OPTED_IN if not server.opt_in else f"it cannot be observed: {fault}"
        self._answered_s = at_s
        before, self._counters = self._counters, None if work is None else work.counters
        found = self._seen()
        if work is None:
            return _gone(found, server)
        if beside(server) == "never":
            return NOT_OPTED_IN
        if work.requests > 0:
            return f"{work.requests:g} requests run or wait"
        if before is not None and before != work.counters:
            return "its counters moved"
        return _on_gpu(found, row.title, shown=row.shows_running)


def _gone(found: Others, server: ObservedServer) -> str | None:
    """Nobody listens: it is gone only if no process of its kind holds the GPU either."""
    if found.pids is None:
        why = "nothing listens, and the driver does not say whether it holds the GPU"
    elif found.pids:
        why = "nothing listens, but a process holds its GPU: it starts or ends"
    else:
        return None
    return why if server.opt_in else f"{NOT_OPTED_IN} ({why})"


def _on_gpu(found: Others, title: str, *, shown: bool) -> str | None:
    """What the driver adds to a server's own word."""
    if found.sm_pct is None:
        return None if shown else f"{title} does not show what it runs, and the driver does not say"
    return f"it uses {found.sm_pct:g} % of its GPU" if found.sm_pct > 0 else None
