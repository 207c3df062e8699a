"""The feeders' own meters: read beside the control loop, shown, and held against what is known.

The site's meter closes the control loop. These tell where in the tree it is that too much flows, or
other than the devices say: a machine on another feeder than the site file has, or one that lies.
A meter that does not answer is unknown; nothing is concluded from it.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np

from wattshift_cluster.config.site import Feeder, SiteConfig
from wattshift_cluster.grid.meters.build import build
from wattshift_cluster.grid.meters.guarded import GuardedMeter
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_scheduler.arrays import Floats, summed
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.state import Alarm, State

PERIOD_S = 1.0
PER_PERIOD = 50
"""Meters that are asked in one period; with more of them it is longer."""

OVER_SAMPLES = 2
"""Samples in a row above the limit: one may be a spike of the meter."""

DIFFERS_SHARE, DIFFERS_W = 0.1, 500.0
"""A meter and the devices under it may differ by so much, whichever is more: firmware watts are 5
to 20 % off each, which evens out over some, and fans and switches are leased by nobody."""

DIFFERS_SAMPLES = 60
"""Samples in a row that must differ: devices on their way tell their watts at different times."""

View = dict[str, Any]


class FeederMeters:
    """All feeders' meters of a site; those without one are left out everywhere.

    Attributes:
        alarms: that hold now, by id.
    """

    def __init__(self, config: SiteConfig, *, period_s: float = PERIOD_S) -> None:
        """Prepare; nothing is asked before `polled`. Args: period_s: between two questions."""
        self.alarms: dict[str, Alarm] = {}
        metered = [one for one in config.feeders if one.meter is not None]
        # Each meter has a deadline of its own for a whole read.
        self._client = httpx2.AsyncClient(timeout=None, trust_env=False) if metered else None
        self._drawn_w: dict[str, float | None] = {}
        self._shadow = config.site.mode == "shadow"
        self._meters = {one.name: self._built(one) for one in metered}
        places = () if config.compute is None else config.compute.nodes
        self._apart = {node.feeder for node in places}
        self._seen_s: dict[str, float] = {}
        self._over: dict[str, int] = {}
        self._differs: dict[str, int] = {}
        self.period_s = period_s * max(1.0, len(metered) / PER_PERIOD)

    def _built(self, feeder: Feeder) -> GuardedMeter:
        """The meter of a feeder, held against what its devices drew at the last look."""
        section = feeder.meter
        assert section is not None, "asked for those that have one"
        if feeder.meter_stale_after_s is not None:
            section = section.model_copy(update={"stale_after_s": feeder.meter_stale_after_s})
        return build(
            section,
            feeder.limit_w,
            name=f"feeders.{feeder.name}.meter",
            devices_w=lambda: self._drawn_w.get(feeder.name),
            client=self._client,
        )

    def __len__(self) -> int:
        """How many there are."""
        return len(self._meters)

    async def keep_polling(self, name: str) -> None:
        """Ask one meter until cancelled. One that hangs holds up no other."""
        meter = self._meters[name]
        while True:
            await meter.poll()
            await asyncio.sleep(self.period_s)

    async def close(self) -> None:
        """Close the connections."""
        for meter in self._meters.values():
            await meter.close()
        if self._client is not None:
            await self._client.aclose()

    @property
    def names(self) -> tuple[str, ...]:
        """The feeders that have one."""
        return tuple(self._meters)

    def readings(self) -> dict[str, MeterReading]:
        """What each says now."""
        return {name: meter.reading() for name, meter in self._meters.items()}

    def shown(self, feeders: list[View]) -> list[View]:
        """Feeders' views (api.site_views.FeederView) with what their meters say."""
        found = self.readings()
        return [
            {**one, **_power(found[one["id"]])} if one["id"] in found else one for one in feeders
        ]

    def powers_w(self) -> dict[str, float | None]:
        """Draw by feeder, W; None while unknown."""
        return {name: reading.watts_w for name, reading in self.readings().items()}

    def judge(self, state: State, now_s: float) -> tuple[Decision, ...]:
        """Hold the meters against limits and devices; a decision for each alarm that came or went.

        Call it once per period: it counts samples.
        """
        causes = dict(self._causes(state))
        kept = {
            name: Alarm(name, severity, text, self._since_s(name, now_s))
            for name, (severity, text) in causes.items()
        }
        came = [a for name, a in kept.items() if name not in self.alarms]
        went = [a for name, a in self.alarms.items() if name not in kept]
        self.alarms = kept
        told = [Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity}) for a in came]
        return (*told, *(Decision(now_s, a.id, "all clear", a.text, {}) for a in went))

    def _since_s(self, name: str, now_s: float) -> float:
        before = self.alarms.get(name)
        return now_s if before is None else before.since_s

    def _causes(self, state: State) -> Iterator[tuple[str, tuple[str, str]]]:
        tree = state.site.tree
        by_feeder_w = drawn_w(state)
        for name, reading in self.readings().items():
            at = tree.index[name]
            apart = self._shadow or tree.shared[at]
            self._drawn_w[name] = None if apart else known(float(by_feeder_w[at]))
            if reading.watts_w is None:
                if reading.at_s is not None or reading.fault != "never read":
                    text = f"the meter of feeder {name} is unknown: {reading.fault}"
                    yield f"feeder-meter:{name}", ("warning", text)
                self._over[name] = self._differs[name] = 0
                continue
            fresh = reading.at_s != self._seen_s.get(name)
            self._seen_s[name] = reading.at_s or 0.0
            limit_w = float(tree.limit_w[at])
            if self._count(self._over, name, reading.watts_w > limit_w, fresh) >= OVER_SAMPLES:
                text = (
                    f"feeder {name} carries {reading.watts_w:,.0f} W by its meter; "
                    f"its limit is {limit_w:,.0f} W"
                )
                yield f"feeder-over:{name}", ("critical", text)
            told_w = self._comparable_w(state, name, float(by_feeder_w[at]))
            differs = told_w is not None and _differ(reading.watts_w, told_w)
            if self._count(self._differs, name, differs, fresh) >= DIFFERS_SAMPLES:
                text = (
                    f"the meter of feeder {name} says {reading.watts_w:,.0f} W, what should hang "
                    f"on it {told_w:,.0f} W: commission finds a machine that hangs elsewhere"
                )
                yield f"feeder-differs:{name}", ("warning", text)

    def _comparable_w(self, state: State, name: str, drawn_w: float) -> float | None:
        """What the devices under a feeder draw; None where other load makes that no comparison.

        Ray's nodes are no devices with watts of their own, a shadow site's figures are those of
        machines that obeyed, and what is fed from two sides flows through either meter or both.
        """
        tree = state.site.tree
        at = tree.index[name]
        if self._shadow or np.isnan(drawn_w) or tree.shared[at]:
            return None
        if any(at in tree.path(tree.index[node]) for node in self._apart):
            return None
        own_w = state.site.rules.other_load_w if at == 0 else 0.0
        return drawn_w + own_w

    @staticmethod
    def _count(counts: dict[str, int], name: str, holds: bool, fresh: bool) -> int:
        """Samples in a row for which something held."""
        if fresh:
            counts[name] = counts.get(name, 0) + 1 if holds else 0
        return counts.get(name, 0)


def known(watts_w: float) -> float | None:
    """Watts, or None for NaN."""
    return None if np.isnan(watts_w) else watts_w


def _power(reading: MeterReading) -> View:
    return {
        "power_w": reading.watts_w,
        "power_age_s": reading.age_s,
        "power_quality": "unknown" if reading.watts_w is None else reading.quality,
    }


def _differ(meter_w: float, told_w: float) -> bool:
    return abs(meter_w - told_w) > max(DIFFERS_SHARE * max(meter_w, told_w), DIFFERS_W)


def drawn_w(state: State) -> Floats:
    """What the devices under each feeder say that they draw, W; NaN where one is not known."""
    tree, seen, fleet = state.site.tree, state.seen, state.fleet
    young = state.decided_s - seen.at_s <= state.site.rules.stale_after_s
    watts_w = np.where(young & ~seen.failed, seen.watts_w, np.nan)
    return tree.totals(summed(fleet.feeder, watts_w, len(tree.names)))
