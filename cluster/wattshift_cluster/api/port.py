"""What the HTTP face needs of a controller, and the shape of every answer.

The controller implements `ControllerPort` structurally and returns plain dicts of these shapes; it
never imports this package. Units end the names. Unknown is None, never 0. Times are RFC 3339 UTC
text, except in arguments, where they are Unix seconds.

Events of `subscribe` (name: data):

    site      SiteView, once per control tick
    decision  DecisionView, one per decision
    job       JobView, on every change of state
    signal    any signal view, when a cap, price or grid event arrives or ends
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NotRequired, Protocol

from typing_extensions import TypedDict

from wattshift_cluster.api.compute_views import JobView as JobView
from wattshift_cluster.api.compute_views import NodeList as NodeList
from wattshift_cluster.api.compute_views import NodeView as NodeView


class AlarmView(TypedDict):
    """Something a person should know; `severity` is "warning" or "critical"."""

    id: str
    severity: str
    text: str
    since: str


class FeederView(TypedDict):
    """One limit of the power tree and the ceilings committed under it, W.

    Where it has a meter of its own `power_w` is its word, None while unknown; else it is left out.
    """

    id: str
    parent: str | None
    limit_w: float
    committed_w: float
    power_w: NotRequired[float | None]
    power_age_s: NotRequired[float | None]
    power_quality: NotRequired[str]


class SharesView(TypedDict):
    """Mining shares so far; found = accepted + rejected + lost + still in flight."""

    accepted: int
    rejected: int
    lost: int


class SiteView(TypedDict):
    """The site now. `power_w` is the meter's word, None while it is unknown.

    `mode` is "control", or "shadow": then decisions are made and nothing is commanded.
    """

    name: str
    mode: str
    at: str
    power_w: float | None
    power_quality: str
    power_age_s: float | None
    cap_w: float | None
    cap_origin: str | None
    target_w: float | None
    margin_w: float
    headroom_w: float | None
    committed_w: float
    budget_w: float
    inference_w: float | None
    mining_w: float | None
    batch_w: float | None
    other_w: float | None
    price_usd_per_mwh: float | None
    tick: int
    epoch: int
    meter_stale: bool
    alarms: list[AlarmView]
    feeders: list[FeederView]
    hashes_total: float
    shares: SharesView
    jobs: dict[str, dict[str, int]]
    compute: list[NodeView]


class DeviceView(TypedDict):
    """One device; `state` is "confirmed", "settling", "unknown", "unreachable" or "shadow".

    `reported_mode`, `error` and `note` are its agent's words. `watts_source` says who tells an
    ASIC's watts: "sensor", "estimate", "outlet" or what was "learnt" of its point. `asleep` is
    judged by its draw, or by its hashrate where it reports no watts; None where neither is known.
    In a shadow site `mode` and `leased_w` are what it would be leased. `cycle_usd` is what one
    sleep and wake costs: its wear, and what it does not earn while it boots. `cycles` counts the
    wakes that its agent has ever caused; None where that is not known.
    """

    id: str
    kind: str
    model: str
    agent: str
    feeder: str
    mode: str | None
    leased_w: float | None
    ceiling_w: float
    watts_w: float | None
    quality: str
    age_s: float | None
    watts_source: NotRequired[str | None]
    hashrate_h_per_s: float | None
    state: str
    value_usd_per_h: float | None
    reason: str
    reported_mode: str | None
    asleep: bool | None
    error: str | None
    note: str | None
    wear_usd_per_cycle: NotRequired[float]
    cycle_usd: NotRequired[float]
    cycles: NotRequired[int | None]


class DeviceList(TypedDict):
    """Answer of /v1/devices."""

    devices: list[DeviceView]


class LimitView(TypedDict):
    """One power limit as it was asked for and as it is enforced now."""

    device: str
    asked_w: float
    enforced_w: float | None
    error: str | None
    took_s: float


class LimitList(TypedDict):
    """Answer of a POST to /v1/limits."""

    limits: list[LimitView]


class FleetRow(TypedDict):
    """How one ASIC took an order; `state` is its agent's word, `fault` why it was not ok.

    `fault` is None, "refused" or "unreachable"; `error` says it in words.
    """

    device: str
    ok: bool
    error: str | None
    state: str | None
    fault: str | None


class FleetRows(TypedDict):
    """Answer of a POST to /v1/fleet/{action}."""

    action: str
    dry_run: bool
    rows: list[FleetRow]


class ReleaseView(TypedDict):
    """A device at its safe point, and the first power limit that a GPU got back."""

    device: str
    limit: LimitView | None


class ProfilePointView(TypedDict):
    """One measured step of a power curve; `error_w` is half of a 95 % interval."""

    intensity_pct: int
    watts_w: float
    error_w: float
    hashrate_h_per_s: float
    seconds: float


class EstimateView(TypedDict):
    """The fitted curve at one step, with its 95 % interval, W."""

    mean_w: float
    low_w: float
    high_w: float


class AsicPointView(TypedDict):
    """One operating point of an ASIC as measured; `error_w` is half of a 95 % interval.

    `way` is "down" or "back"; `watts_w` is by `source`: "outlet", "sensor" or firmware "estimate".
    `settle_s` counts from the accepted command; None where none was given. A point that did not
    hold still is not `settled`. `income_usd_per_h` is what its hashes earn, `net_usd_per_h` that
    less its energy; None while either price is unknown.
    """

    mode: str
    way: str
    offered_w: float
    watts_w: float | None
    error_w: float | None
    source: str | None
    own_w: float | None
    outlet_w: float | None
    hashrate_h_per_s: float | None
    j_per_th: float | None
    temperature_c: float | None
    settle_s: float | None
    seconds: float
    settled: bool
    income_usd_per_h: float | None
    net_usd_per_h: float | None


class PlannedPointView(TypedDict):
    """A point that an ASIC's measurement goes to, with what it is said to draw and to take."""

    mode: str
    watts_w: float
    transition_s: float


class ProfileView(TypedDict, total=False):
    """A power curve; `state` is "none", "running", "done" or "aborted" with its reason.

    Of an ASIC (`kind` "asic") it is a walk down its points: `plan` says which, `at` where it is
    now, `ends_at` what its lease says; "planned" is what a dry run answers.
    """

    device: str
    kind: str
    state: str
    reason: str | None
    quality: str
    points: list[ProfilePointView | AsicPointView]
    fitted: list[EstimateView]
    residual_w: float | None
    at: str | None
    plan: list[PlannedPointView]
    expected_s: float
    ends_at: str | None


class CapView(TypedDict):
    """One cap; `shortfall_w` is what the site cannot shed of it, None where all fits."""

    id: str
    origin: str
    limit_w: float
    starts_at: str | None
    ends_at: str | None
    in_force: bool
    shortfall_w: float | None


class DecisionView(TypedDict):
    """One decision with the figures that it rests on."""

    at: str
    subject: str
    action: str
    reason: str
    inputs: dict[str, Any]


class FlexibilityStep(TypedDict):
    """Watts that can be shed within `deadline_s`, for how long, and when the reserve is back."""

    deadline_s: float
    deliverable_w: float
    duration_s: float | None
    rearm_s: float | None


class HistogramView(TypedDict):
    """A Prometheus histogram: cumulative counts by upper bound in s, with their sum and count."""

    buckets: dict[float, int]
    sum: float
    count: int


class MetricsView(TypedDict, total=False):
    """Figures of /metrics. Counters only grow; an absent key leaves its metric out.

    `energy_j` rows are (device, work, J); `hashes` rows (algorithm, device, hashes);
    `shares` rows (pool, result, shares); `jobs` rows (kind, state, jobs); `revenue_usd` rows
    (device, quality, USD); `node_power_w` rows (node, kind, W); `job_units` rows (job, node, n).
    """

    shadow: bool
    site_power_w: dict[str, float | None]
    feeder_power_w: dict[str, float | None]
    cap_w: dict[str, float]
    headroom_w: float | None
    price_usd_per_mwh: float | None
    hashprice_usd_per_ph_day: float | None
    hashprice_age_s: float | None
    revenue_usd: list[tuple[str, str, float]]
    energy_j: list[tuple[str, str, float]]
    overcap_s: float
    leases: dict[str, int]
    reading_age_s: dict[str, float | None]
    decision_s: HistogramView
    shed_s: HistogramView
    hashes: list[tuple[str, str, float]]
    shares: list[tuple[str, str, float]]
    jobs: list[tuple[str, str, int]]
    node_power_w: list[tuple[str, str, float | None]]
    unasked_w: dict[str, float | None]
    job_units: list[tuple[str, str, int]]


Event = tuple[int, str, Mapping[str, Any]]


class ControllerPort(Protocol):
    """The controller as its HTTP face sees it. The sync views are cheap and never block.

    Every method may raise a WattshiftError; each kind becomes one HTTP status (problems.py).
    """

    def site(self) -> Mapping[str, Any]:
        """Return a SiteView."""
        ...

    def devices(self) -> list[Mapping[str, Any]]:
        """Return a DeviceView per device."""
        ...

    def jobs(self, state: str | None = None) -> list[Mapping[str, Any]]:
        """Return JobViews, oldest first, of one state or of all."""
        ...

    def job(self, job_id: str) -> Mapping[str, Any]:
        """Return one JobView. Raises NotFound."""
        ...

    async def job_logs(self, job_id: str, lines: int) -> Mapping[str, Any]:
        """Return a compute_views.LogView of at most so many lines each. Raises NotFound."""
        ...

    async def drain_node(self, node: str, *, by: str) -> Mapping[str, Any]:
        """Have a node's work leave, for good; returns its NodeView. Raises NotFound, Refused."""
        ...

    def signals(self) -> Mapping[str, Any]:
        """Return the signals in force: price, caps, grid events."""
        ...

    def caps(self) -> list[Mapping[str, Any]]:
        """Return a CapView per cap that is in force or still to come."""
        ...

    def decisions(
        self, subject: str | None, since: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Return DecisionViews, newest first, of one subject, since a Unix time in s."""
        ...

    def flexibility(self) -> list[Mapping[str, Any]]:
        """Return one FlexibilityStep per deadline, tightest first."""
        ...

    def metrics_snapshot(self) -> Mapping[str, Any]:
        """Return a MetricsView."""
        ...

    def economics(self, pattern: str | None, limit: int) -> Mapping[str, Any]:
        """Return an economics_views.EconomicsView of the devices that match; totals hold all."""
        ...

    async def confirm_hashprice(self, by: str) -> list[str]:
        """Take figures that are held; returns their names. Raises Refused where none is held."""
        ...

    async def submit_job(
        self, spec: dict[str, Any], idempotency_key: str | None, job_id: str | None = None
    ) -> Mapping[str, Any]:
        """Store a job durably and return its JobView; a known key returns the job it made.

        `job_id` is the submitter's; None lets one be made. Raises Refused where another job has
        it, or where the job could never run here.
        """
        ...

    async def job_action(self, job_id: str, action: str) -> Mapping[str, Any]:
        """Pause, resume or cancel a job. Raises NotFound, Refused."""
        ...

    async def limit_devices(self, wanted_w: Mapping[str, float]) -> list[Mapping[str, Any]]:
        """Set power limits, W by device; one LimitView each. Raises NotFound, Refused."""
        ...

    async def command_fleet(
        self,
        action: str,
        devices: Sequence[str],
        *,
        by: str,
        by_id: str | None = None,
        reason: str | None,
        watts_w: float | None,
        override: bool,
        dry_run: bool,
    ) -> list[Mapping[str, Any]]:
        """Sleep, wake, lock, unlock or limit ASICs by id or pattern; a FleetRow each.

        `by` is the name of the token that asks. Raises NotFound, Refused.
        """
        ...

    async def teach_fleet(
        self, findings: Mapping[str, Mapping[str, Any]], *, by: str, reason: str | None
    ) -> list[Mapping[str, Any]]:
        """Hand findings, by device, to the agents of the machines; a FleetRow each.

        `by` is the name of the token that asks. Raises NotFound.
        """
        ...

    async def learnt_device(self, device_id: str) -> Mapping[str, Any]:
        """Return a learnt_views.LearntView. Raises NotFound, Refused."""
        ...

    async def release_device(self, device_id: str) -> Mapping[str, Any]:
        """Bring a device to its safe point; returns a ReleaseView. Raises NotFound, Refused."""
        ...

    async def profile_device(
        self,
        device_id: str,
        *,
        start: bool,
        stop: bool = False,
        dry_run: bool = False,
        with_sleep: bool = False,
        points: int | None = None,
    ) -> Mapping[str, Any]:
        """Measure a power curve, or tell of it; a ProfileView. Raises NotFound, Refused.

        All but `start` is for ASICs: break it off, only plan it, put it to sleep too, how many
        points at most.
        """
        ...

    async def set_cap(
        self,
        limit_w: float,
        starts_s: float | None,
        ends_s: float | None,
        origin: str,
        strict: bool,
    ) -> Mapping[str, Any]:
        """Set a cap and return its CapView. With `strict`, Refused below the site's floor."""
        ...

    async def clear_cap(self, cap_id: str | None) -> None:
        """Lift one cap, or every operator cap. Raises NotFound."""
        ...

    async def inject_signal(self, signal: dict[str, Any]) -> Mapping[str, Any]:
        """Take a grid event as if a feed had sent it, and return it as accepted."""
        ...

    def subscribe(self, last_id: int | None) -> AsyncIterator[Event]:
        """Yield (id, event, data) after `last_id`, or from now on; ids grow."""
        ...
