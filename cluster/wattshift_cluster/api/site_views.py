"""The shape of what is told of the site as a whole: power, feeders, caps, decisions, flexibility.

Units end the names; None is unknown, never 0. Times are RFC 3339 UTC text.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from wattshift_cluster.api.compute_views import NodeView


class AlarmView(TypedDict):
    """Something a person should know; `severity` is "warning" or "critical"."""

    id: str
    severity: str
    text: str
    since: str


class FeederView(TypedDict):
    """One limit of the power tree and the ceilings committed under it, W.

    `margin_w` of the limit is kept free. `second_parent` stands where it is fed from two sides:
    each must carry all of it alone, so it is committed in full under both. Where it has a meter of
    its own `power_w` is its word, None while unknown; else it is left out.

    Where it may carry less than is drawn there at the least, `shortfall_w` is what lacks with
    everything asked down (0: it then fits), and `shortfall_counted_w` what lacks as counted now.
    """

    id: str
    parent: str | None
    limit_w: float
    committed_w: float
    margin_w: NotRequired[float]
    second_parent: NotRequired[str]
    power_w: NotRequired[float | None]
    power_age_s: NotRequired[float | None]
    power_quality: NotRequired[str]
    shortfall_w: NotRequired[float]
    shortfall_counted_w: NotRequired[float]


class SharesView(TypedDict):
    """Mining shares so far; found = accepted + rejected + lost + still in flight."""

    accepted: int
    rejected: int
    lost: int


class FrequencyView(TypedDict):
    """An agent that sheds by itself when the grid's frequency falls (docs/frequency.md).

    `share` of what may be shed is shed now, `cut_w` as leases go. `hz` and `v_pu` are `age_s` old;
    the agent told all of it `told_age_s` ago.
    """

    agent: str
    programme: str | None
    phase: str | None
    share: float | None
    cut_w: float | None
    reason: str | None
    latched: bool
    sheds: int | None
    hz: float | None
    v_pu: float | None
    age_s: float | None
    told_age_s: float
    fault: str | None
    quality: str | None
    decides_within_s: float | None
    claims: list[str]


class ReserveView(TypedDict):
    """What is kept ready within `within_s`, W: `burst_w` for bursts of services by what was seen of
    them, `plan_w` by the look-ahead plan, of which the larger counts; `grid_w` for grid events.

    It is held by mining behind gates (`gates_w`) and by what nothing draws (`free_w`); `short_w` is
    what lacks. `lent_w` is what gates have given up for services until slower devices follow.
    """

    burst_w: float
    plan_w: float
    grid_w: float
    within_s: float
    gates_w: float
    free_w: float
    lent_w: float
    short_w: float


class SiteView(TypedDict):
    """The site now. `power_w` is the meter's word, None while it is unknown.

    `mode` is "control", or "shadow": then decisions are made and nothing is commanded.

    `cap_w` is the cap that is acted on, of `cap_origin`, whose source stated `cap_stated_w`;
    `cap_waits` says what keeps it below that (a ramp, a hold) and `cap_advice` is a lower forecast
    that is not sure enough to bind. `target_w` is what a target leaves to all work,
    `mining_target_w` what a target or the notice of event `notice` leaves to mining; None: nothing
    binds. At `next_change_at` the signals change by themselves. At `next_cap_at` the lowest of the
    caps becomes `next_cap_w`, as its source states it; None: no change of it is known.

    Where the cap lies below what is drawn at the least, `shortfall_w` is what lacks with everything
    asked down (0: it then fits), and `shortfall_counted_w` what lacks as counted now.
    """

    name: str
    mode: str
    at: str
    power_w: float | None
    power_quality: str
    power_age_s: float | None
    cap_w: float | None
    cap_origin: str | None
    cap_id: str | None
    cap_name: str | None
    cap_kind: str | None
    cap_stated_w: float | None
    cap_waits: str | None
    cap_advice: "CapView | None"
    target_w: float | None
    target_id: str | None
    target_name: str | None
    mining_target_w: float | None
    notice: str | None
    notice_name: str | None
    next_change_at: str | None
    next_cap_w: float | None
    next_cap_at: str | None
    next_cap_origin: str | None
    next_cap_name: str | None
    margin_w: float
    headroom_w: float | None
    committed_w: float
    budget_w: float
    reserve: NotRequired[ReserveView]
    inference_w: float | None
    mining_w: float | None
    batch_w: float | None
    other_w: float | None
    price_usd_per_mwh: float | None
    carbon_g_per_kwh: float | None
    shortfall_w: NotRequired[float]
    shortfall_counted_w: NotRequired[float]
    tick: int
    epoch: int
    meter_stale: bool
    alarms: list[AlarmView]
    feeders: list[FeederView]
    hashes_total: float
    shares: SharesView
    jobs: dict[str, dict[str, int]]
    compute: list[NodeView]
    frequency: NotRequired[list[FrequencyView]]


class CapView(TypedDict):
    """One cap; `shortfall_w` is by how much it lies below what the site can be asked down to, and
    of one that holds `shortfall_counted_w` by how much below what is counted now, None: it does not
    (`scheduler`'s `shortfalls`: what is not seen to obey counts at its ceiling).


    `name` is for people, None where the id is. `overridden_w` is what holds in its place by an
    operator's word; None: it holds itself.
    `window_s` is the span whose mean it binds (0: every sample), `kind` why it is hard.
    """

    id: str
    name: str | None
    source: str
    origin: str
    kind: str
    limit_w: float
    window_s: float
    confidence: float
    starts_at: str | None
    ends_at: str | None
    in_force: bool
    overridden_w: float | None
    shortfall_w: float | None
    shortfall_counted_w: NotRequired[float | None]


class DecisionView(TypedDict):
    """One decision with the figures that it rests on."""

    at: str
    subject: str
    action: str
    reason: str
    inputs: dict[str, Any]


class FlexibilityStep(TypedDict):
    """Watts that can be shed within `deadline_s`, for how long, and when the reserve is back.

    `duration_s` None: no end is known. `sure_share` is the part of what is leased that sensors
    lately showed to be drawn. `promised_w` is held back for grid events and bursts of inference.
    """

    deadline_s: float
    deliverable_w: float
    duration_s: float | None
    rearm_s: float | None
    sure_share: float | None
    promised_w: float
