"""Who holds how many watts, asked of Ray's bridge and of the controller several times a second.

A cut is kept with its moment. Watts count as over-committed when what Ray may place (the `power_w`
of all nodes, as Ray says it), what the ASICs are leased and the other load still exceed the cap
after the time that a cut's transitions may take. One look is not of one moment: the bridge reads
node by node, and watts that move from one to another can be seen on both. So they count when they
last; the highest single look is told beside it, and what the controller itself had committed, which
is of one moment. What Ray holds above what the controller asked of
a node is Ray's excess: Ray never takes watts from who holds them, it waits until they are given up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.ray_site import OTHER_W, Running

from wattshift_cluster.errors import WattshiftError

LOOK_S = 0.2
TRANSITION_S = 10.0
"""A worker has so long for the chunk in work, then it is killed; replicas, ASICs are faster."""

LASTS_S = 1.0
"""Watts that two nodes are seen to hold are on one of them by the bridge's next look at Ray."""

TOLERANCE_W = 0.5


@dataclass(frozen=True, slots=True)
class Capped:
    """A cap as it was set: when, until when, and how much."""

    at_s: float
    ends_s: float
    watts_w: float


@dataclass(frozen=True, slots=True)
class Look:
    """One look, W: `ray_w` by node as Ray says it, `asked_w` by node as the controller asked."""

    at_s: float
    ray_w: dict[str, float]
    asked_w: dict[str, float]
    leased_w: float
    committed_w: float = 0.0

    @property
    def promised_w(self) -> float:
        """All that may be drawn with no further command, W."""
        return sum(self.ray_w.values()) + self.leased_w + OTHER_W

    @property
    def excess_w(self) -> float:
        """What Ray holds above what was asked of its nodes, W."""
        return sum(max(self.ray_w[n] - self.asked_w.get(n, w), 0.0) for n, w in self.ray_w.items())


@dataclass(slots=True)
class Watch:
    """The looks and the caps of one run."""

    looks: list[Look] = field(default_factory=list)
    caps: list[Capped] = field(default_factory=list)

    async def cap(self, one: Running, watts_w: float, lasts_s: float) -> None:
        """Set a cap and keep it in mind."""
        at_s = time.monotonic()
        await one.cap(watts_w, lasts_s)
        self.caps.append(Capped(at_s, at_s + lasts_s, watts_w))

    async def lift(self, one: Running) -> None:
        """Clear the caps of this moment."""
        await asyncio.to_thread(one.client.delete, "/v1/caps")
        now_s = time.monotonic()
        self.caps = [replace(cap, ends_s=min(cap.ends_s, now_s)) for cap in self.caps]

    def figures(self) -> dict[str, Any]:
        """What all looks come to."""
        late = [(look.at_s, look.promised_w - cap.watts_w) for cap, look in self._late()]
        fits_s = [
            look.at_s - cap.at_s
            for cap in self.caps
            for look in self.looks
            if cap.at_s < look.at_s < cap.ends_s and look.promised_w > cap.watts_w + TOLERANCE_W
        ]
        core_w = [look.committed_w - cap.watts_w for cap, look in self._late()]
        return {
            "overcommit_w_max": round(_lasting(late), 1),
            "overcommit_w_max_one_look": round(max([0.0, *(over_w for _, over_w in late)]), 1),
            "overcommit_w_max_ledger": round(max([0.0, *core_w]), 1),
            "fits_after_s_max": round(max(fits_s, default=0.0), 2),
            "ray_excess_w_max": round(max((o.excess_w for o in self.looks), default=0.0), 1),
            "ray_excess_s_max": round(self._excess_s(), 2),
            "cuts": len(self.caps),
            "looks": len(self.looks),
        }

    def _late(self) -> list[tuple[Capped, Look]]:
        """The looks that fall into a cap whose transitions are over."""
        return [
            (cap, look)
            for cap in self.caps
            for look in self.looks
            if cap.at_s + TRANSITION_S < look.at_s < cap.ends_s
        ]

    def _excess_s(self) -> float:
        """The longest time without a break in which Ray held more than it was asked to."""
        longest_s, since_s = 0.0, None
        for look in self.looks:
            if look.excess_w <= TOLERANCE_W:
                since_s = None
                continue
            since_s = look.at_s if since_s is None else since_s
            longest_s = max(longest_s, look.at_s - since_s)
        return longest_s


def _lasting(rows: Sequence[tuple[float, float]]) -> float:
    """The most of (time, W above) among stretches above that last `LASTS_S` or longer, W."""
    most_w, stretch = 0.0, list[tuple[float, float]]()
    for row in rows:
        stretch = [*stretch, row] if row[1] > TOLERANCE_W else []
        if stretch and row[0] - stretch[0][0] >= LASTS_S:
            most_w = max(most_w, *(over_w for _, over_w in stretch))
    return most_w


@asynccontextmanager
async def watching(one: Running) -> AsyncIterator[Watch]:
    """Look until the block ends."""
    watch = Watch()
    looking = asyncio.create_task(_look_on(one, watch))
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look_on(one: Running, watch: Watch) -> None:
    while True:
        # While bridge or controller are dead there is nobody to ask: no look.
        with suppress(WattshiftError):
            look = await _look(one)
            if look is not None:
                watch.looks.append(look)
        await asyncio.sleep(LOOK_S)


async def _look(one: Running) -> Look | None:
    site, devices = await asyncio.gather(one.get("/v1/site"), one.get("/v1/devices"))
    report = await one.report()
    if not report.get("nodes"):
        return None
    return Look(
        time.monotonic(),
        {
            row["name"]: float(row["power_w_total"])
            for row in report["nodes"]
            if row.get("power_w_total") is not None
        },
        {row["node"]: row["asked_w"] for row in site["compute"] if row["asked_w"] is not None},
        sum(row["leased_w"] or 0.0 for row in devices["devices"]),
        site["committed_w"] or 0.0,
    )
