"""Mining that follows the sun: what the site would export becomes a target for mining.

At one moment the meter at the grid connection shows the net import, and the site knows what it and
its mining draw. What mining can draw without importing is what it draws now, less the net import.
It rises with hysteresis and falls at once. A moment whose figures are not all known has no surplus.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from wattshift_cluster.config.utility import Solar
from wattshift_cluster.grid.said import Said, Say
from wattshift_scheduler.signals.words import Target, Work

ORIGIN = "solar"


@dataclass(frozen=True, slots=True)
class Moment:
    """The site at one moment, W; None is unknown.

    Attributes:
        at_s: unix time of the net import, s.
        net_import_w: at the grid connection; negative: the site exports.
        site_w: what the site draws, wherever it comes from, mining among it.
        mining_w: what mining draws of it.
    """

    at_s: float
    net_import_w: float | None
    site_w: float | None
    mining_w: float | None


class Follower:
    """Decides how many watts mining may draw; it keeps what it decided last.

    Attributes:
        mining_w: the last decision, W; 0: off.
        reason: for people.
    """

    def __init__(self, terms: Solar) -> None:
        """Begin with mining off. It may come on at once: nothing is known to have run before."""
        self.mining_w = 0.0
        self.reason = "no reading yet"
        self._terms = terms
        self._turned_s = -math.inf

    def decide(self, net_import_w: float | None, mining_w: float | None, now_s: float) -> float:
        """Watts for mining from now on, W.

        The same watts are never more than `import_bound` above what the sun leaves at this reading.

        Args:
            net_import_w, mining_w: as of a Moment.
            now_s: a clock that nobody sets, s.
        """
        if not (_known(net_import_w) and _known(mining_w)):
            return self._set(0.0, now_s, "the meter or the draw of mining is unknown")
        # After a cut the miners may still draw what they drew, and a sensor may say so for longer:
        # more than was allowed counts as more import, never as more sun.
        mines_w = min(max(mining_w, 0.0), self.mining_w)
        spare_w = mines_w - net_import_w
        aim_w = max(spare_w - self._terms.export_kept_w, 0.0)
        most_w = spare_w + self._terms.import_bound_w
        since_s = now_s - self._turned_s
        if self.mining_w > 0:
            return self._while_on(aim_w, most_w, since_s, now_s)
        needed_w = self._terms.floor_w + self._terms.hysteresis_w
        if aim_w <= 0 or aim_w < needed_w:
            return self._set(0.0, now_s, "too little surplus to begin")
        if since_s < self._terms.min_off_s:
            return self._set(0.0, now_s, "off for its least time")
        return self._set(aim_w, now_s, "follows the surplus")

    def _while_on(self, aim_w: float, most_w: float, since_s: float, now_s: float) -> float:
        floor_w = self._terms.floor_w
        if aim_w > 0 and aim_w >= floor_w:
            raised = aim_w > self.mining_w
            if raised and aim_w < self.mining_w + self._terms.hysteresis_w:
                return self._set(self.mining_w, now_s, "follows the surplus")
            return self._set(aim_w, now_s, "follows the surplus")
        if 0 < floor_w <= most_w and since_s < self._terms.min_on_s:
            return self._set(floor_w, now_s, "on for its least time, within the import bound")
        return self._set(0.0, now_s, "the surplus is below the floor")

    def _set(self, mining_w: float, now_s: float, reason: str) -> float:
        if (mining_w > 0) != (self.mining_w > 0):
            self._turned_s = now_s
        self.mining_w, self.reason = mining_w, reason
        return mining_w


class SolarSource:
    """`[solar]` as a running source of one target for mining (see `said.Source`)."""

    def __init__(
        self,
        terms: Solar,
        moment: Callable[[], Moment | None],
        *,
        name: str = "solar",
        clock_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; mining is off until the first whole moment.

        Args:
            moment: the newest moment; None: there is none. Quick, never raises.
            clock_s: unix time, s.
            steady_s: a clock that nobody sets, s.
        """
        self._terms = terms
        self._moment = moment
        self._name = name
        self._clock_s, self._steady_s = clock_s, steady_s
        self._follower = Follower(terms)
        self._said: Said | None = None

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._name

    async def run(self, say: Say) -> None:
        """Speak until cancelled."""
        while True:
            said = self.once()
            if self._said is None or _news(self._said, said):
                self._said = said
                say(said)
            await asyncio.sleep(self._terms.period_s)

    def once(self) -> Said:
        """Look once and decide."""
        now_s, moment = self._clock_s(), self._moment()
        fault = None
        if moment is None:
            fault, heard_s = "no reading of the grid connection", 0.0
        else:
            heard_s = moment.at_s
            # A reading from the future is as doubtful as an old one: a clock is wrong.
            if not abs(now_s - moment.at_s) <= self._terms.stale_after_s:
                fault = "the reading of the grid connection is stale"
            elif not all(map(_known, (moment.net_import_w, moment.site_w, moment.mining_w))):
                fault = "the grid connection or the site's own draw is unknown"
        return Said(
            self._name,
            heard_s,
            targets=(self._target(None if fault else moment),),
            notes=(self._follower.reason,),
            fault=fault,
        )

    def _target(self, moment: Moment | None) -> Target:
        """What the whole site may draw while mining does: other work first, mining on top."""
        now_s = self._steady_s()
        if moment is None or moment.site_w is None or moment.mining_w is None:
            self._follower.decide(None, None, now_s)
            watts_w = 0.0
        else:
            mining_w = self._follower.decide(moment.net_import_w, moment.mining_w, now_s)
            others_w = max(moment.site_w - max(moment.mining_w, 0.0), 0.0)
            watts_w = others_w + mining_w if mining_w > 0 else 0.0
        return Target("surplus", ORIGIN, watts_w, priority=self._terms.priority, work=Work.MINING)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _news(before: Said, now: Said) -> bool:
    return (before.targets, before.fault, before.notes) != (now.targets, now.fault, now.notes)
