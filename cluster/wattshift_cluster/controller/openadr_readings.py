"""What the site tells a utility of itself, and the baseline that reductions are counted from.

A figure that nobody knows is told as missing. A mean that is known in part, and whatever is
foreseen, is told as estimated.
"""

import math
from collections.abc import Mapping

from wattshift_cluster.controller.history import MINUTE_S, Span
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.openadr.readings import UNKNOWN, OperatingState, Quality, Reading
from wattshift_scheduler.in_force.effective import standing_caps
from wattshift_scheduler.promises.flexibility import Flexibility, flexibility
from wattshift_scheduler.signals.notice import BEFORE_S
from wattshift_scheduler.signals.words import Work

SURE_SHARE = 0.95
"""Part of a span that must be known for its mean to be told without a doubt."""

LEAST_SHARE = 0.5
"""Less of a span than this says nothing of it."""

FORESEEN_S = 3600.0
"""How far ahead it is said that the site goes on as it does: an hour, as markets ask."""


class SiteReadings:
    """The readings of a running controller (see `grid.openadr.readings.Readings`)."""

    def __init__(
        self, controller: Controller, works: Mapping[str, Work], baselines: "Baselines"
    ) -> None:
        """Read from `controller`.

        Args:
            works: which work each resource is, by its name at the utility.
            baselines: of the same source.
        """
        self._c = controller
        self._works = works
        self._baselines = baselines

    def mean_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Mean draw by the meter; of mining, by its devices."""
        found = self._past(resource, starts_s, ends_s)
        return UNKNOWN if found is None else _reading(found.mean_w, found, starts_s, ends_s)

    def peak_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Highest draw."""
        found = self._past(resource, starts_s, ends_s)
        return UNKNOWN if found is None else _reading(found.peak_w, found, starts_s, ends_s)

    def baseline_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """The baseline of the event that lies in a span; of the whole site alone."""
        if self._work(resource) is not Work.ALL:
            return UNKNOWN
        watts_w = self._baselines.over(starts_s, ends_s)
        return UNKNOWN if watts_w is None else Reading(watts_w, Quality.ESTIMATED)

    def forecast_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """As it has drawn lately, and no more than the caps that are known."""
        c, now_s = self._c, self._c.clock.now_s()
        work = self._work(resource)
        if work is None or starts_s - now_s > FORESEEN_S:
            return UNKNOWN
        lately = c.drawn[work].span(now_s - BEFORE_S, now_s)
        if lately.known_share < LEAST_SHARE:
            return UNKNOWN
        caps = standing_caps(c.state, now_s)
        coming = [
            cap.limit_w for cap in caps if _touches(cap.starts_s, cap.ends_s, starts_s, ends_s)
        ]
        return Reading(min([lately.mean_w, *coming]), Quality.ESTIMATED)

    def shed_available_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """What nobody was promised, by when the span begins and for as long as it lasts."""
        c, now_s = self._c, self._c.clock.now_s()
        if self._work(resource) is None or ends_s <= now_s:
            return UNKNOWN
        steps = flexibility(c.state, now_s)
        in_time = [one for one in steps if one.deadline_s <= starts_s - now_s] or [steps[0]]
        return _offer(in_time[-1], ends_s - now_s)

    def setpoint_w(self, resource: str | None) -> Reading:
        """The draw that is held: the effective cap, or the target below it."""
        work, verdict = self._work(resource), self._c.state.verdict
        if work is None or verdict is None:
            return UNKNOWN
        below_w = verdict.mining_w if work is Work.MINING else verdict.aim_w
        return Reading(min(verdict.cap_w, below_w))

    def state(self, resource: str | None) -> OperatingState:
        """Whether it runs, and whether a signal holds it down."""
        state = self._c.state
        if any(alarm.severity == "critical" for alarm in state.alarms.values()):
            return OperatingState.ERROR
        held = state.verdict is not None and state.verdict.bound
        if bool((state.ledger.lease_w > 0).any()) or any(job.units for job in state.jobs.values()):
            return OperatingState.RUNNING_CURTAILED if held else OperatingState.RUNNING_NORMAL
        return OperatingState.IDLE_CURTAILED if held else OperatingState.IDLE_NORMAL

    def _work(self, resource: str | None) -> Work | None:
        return Work.ALL if resource is None else self._works.get(resource)

    def _past(self, resource: str | None, starts_s: float, ends_s: float) -> Span | None:
        """What is known of a span that is over; None of one that is not, or of nothing of ours."""
        work = self._work(resource)
        if work is None or ends_s > self._c.clock.now_s() or not ends_s > starts_s:
            return None
        return self._c.drawn[work].span(starts_s, ends_s)


class Baselines:
    """What the site would have drawn without an event: its mean over the quarter of an hour before
    the event was first asked about, fixed from then on (`meter before`).

    It is kept in the journal, for a baseline that creeps would move the target below it.
    """

    MOST = 1000
    """Events remembered over all sources; the oldest are forgotten beyond."""

    def __init__(self, controller: Controller, source: str) -> None:
        """Of the events of `source`."""
        self._c = controller
        self._source = source

    def of(self, event_id: str, starts_s: float, ends_s: float | None) -> float | None:
        """See `grid.openadr.asked.BaselineW`: W, or None while nothing is known."""
        key, kept = f"{self._source}/{event_id}", self._c.baselines
        if key in kept:
            return kept[key][0]
        before_s = min(self._c.clock.now_s(), starts_s)
        found = self._c.drawn[Work.ALL].span(before_s - BEFORE_S, before_s)
        if found.known_share * BEFORE_S < MINUTE_S:
            return None
        kept[key] = [found.mean_w, starts_s, math.inf if ends_s is None else ends_s]
        while len(kept) > self.MOST:
            del kept[next(iter(kept))]
        self._c.journal.keep_baselines(dict(kept))
        return found.mean_w

    def over(self, starts_s: float, ends_s: float) -> float | None:
        """The lowest baseline of an event that touches a span, W; None where there is none."""
        mine = (
            row[0]
            for key, row in self._c.baselines.items()
            if key.startswith(f"{self._source}/") and _touches(row[1], row[2], starts_s, ends_s)
        )
        return min(mine, default=None)


def _touches(begins_s: float | None, stops_s: float | None, starts_s: float, ends_s: float) -> bool:
    begun = begins_s is None or begins_s < ends_s
    return begun and (stops_s is None or stops_s > starts_s)


def _reading(watts_w: float, found: Span, starts_s: float, ends_s: float) -> Reading:
    if found.known_share < LEAST_SHARE:
        return UNKNOWN
    whole = starts_s % MINUTE_S == 0.0 and ends_s % MINUTE_S == 0.0
    sure = whole and found.known_share >= SURE_SHARE
    return Reading(watts_w, Quality.OK if sure else Quality.ESTIMATED)


def _offer(step: Flexibility, lasts_s: float) -> Reading:
    """Unknown where a known cap takes the watts in any case before the span is over."""
    if step.duration_s is not None and step.duration_s < lasts_s:
        return UNKNOWN
    sure = step.sure_share >= SURE_SHARE
    return Reading(step.deliverable_w, Quality.OK if sure else Quality.ESTIMATED)
