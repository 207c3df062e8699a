"""The site as a utility, the sun and a drill are told of it: figures of the state, None unknown."""

import math
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from wattshift_cluster.controller import views
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.solar import Moment
from wattshift_cluster.grid.utility.status import SiteFigures
from wattshift_scheduler.promises.flexibility import flexibility
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.state import State

Sheds = tuple[float | None, ...]


class SiteShown:
    """What the utility's master may read (see `utility.status.SiteStatus`)."""

    def __init__(self, controller: Controller) -> None:
        """Tell of `controller`."""
        self._c = controller
        self._worked_out: tuple[State, Sheds] | None = None
        try:
            self._software = version("wattshift")
        except PackageNotFoundError:
            self._software = ""

    def __call__(self) -> SiteFigures:
        """The figures now."""
        c, state = self._c, self._c.state
        outlook, age_s = state.outlook, c.clock.now_s() - state.meter_at_s
        fresh = age_s <= state.site.rules.stale_after_s
        cap_w = views.known(outlook.cap_w)
        short = cap_w is not None and outlook.shortfall_w > 0
        return SiteFigures(
            draw_w=views.known(state.meter_w) if fresh else None,
            draw_age_s=views.known(age_s),
            cap_w=cap_w,
            least_w=outlook.cap_w + outlook.shortfall_w if short else None,
            sheds_w=self._sheds_w(state),
            alarms={name: alarm.severity for name, alarm in c.alarms.items()},
            shadow=c.config.site.mode == "shadow",
            software=self._software,
        )

    def _sheds_w(self, state: State) -> Sheds:
        """Worked out once for each decision, however often a master asks."""
        if self._worked_out is None or self._worked_out[0] is not state:
            steps = flexibility(state, self._c.clock.now_s())
            self._worked_out = (state, tuple(views.known(one.deliverable_w) for one in steps))
        return self._worked_out[1]


def sun_moment(controller: Controller) -> Moment | None:
    """The newest reading of the grid connection beside what the site draws; None: there is none.

    What is drawn beside mining is counted as the core counts it, so that mining is left exactly
    what the sun leaves: unknown load at its bound, compute at what it may draw.
    """
    state = controller.state
    if not math.isfinite(state.meter_at_s):
        return None
    mining_w = views.measured_w(state, controller.clock.now_s())
    computes_w = math.fsum(node.bound_w for node in state.nodes.values())
    others_w = state.outlook.other_w + computes_w
    site_w = None if mining_w is None else others_w + mining_w
    return Moment(state.meter_at_s, views.known(state.meter_w), site_w, mining_w)


def real_event(controller: Controller, own: frozenset[str]) -> Callable[[float, float], str]:
    """What a drill gives way to (see `drills.RealEvent`): events, and caps that are dispatched.

    A cap without an end is the site's everyday limit, unless the utility's master wrote it.

    Args:
        own: sources that are no event of the grid: the drills', and what the market costs.
    """
    apart = own | {OPERATOR}

    def found(starts_s: float, ends_s: float) -> str:
        signals, rules = controller.state.signals, controller.state.site.rules
        for source, events in signals.events.items():
            for event in events if source not in apart else ():
                if event.stands(starts_s) and event.starts_s < ends_s:
                    return f"event {event.id} of {source}"
        connection_w = float(controller.state.site.tree.limit_w[0])
        for source, caps in signals.caps.items():
            for cap in caps if source not in apart else ():
                binds = cap.limit_w < connection_w and cap.confidence >= rules.act_at_confidence
                begins_s = -math.inf if cap.starts_s is None else cap.starts_s
                over_s = cap.ends_s
                if over_s is None:
                    over_s = math.inf if source == "utility" else -math.inf
                if binds and begins_s < ends_s and over_s > starts_s:
                    return f"cap {cap.id} of {source}"
        return ""

    return found
