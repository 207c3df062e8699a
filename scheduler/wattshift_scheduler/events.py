"""Everything that can happen to a site, as data. The core learns of the world only through these.

Columns in an event are aligned with its `devices`. NaN is unknown; it is never zero (I3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.signals.overhead import Overhead
from wattshift_scheduler.signals.words import Cap, GridEvent, Override, Target
from wattshift_scheduler.site import Device


@dataclass(frozen=True, slots=True)
class Tick:
    """A second has passed."""


@dataclass(frozen=True, slots=True)
class DeviceJoined:
    """An agent offers devices: new ones, or known ones whose points have changed."""

    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class DeviceLeft:
    """Devices that no agent answers for any more. Their last ceiling is not forgotten silently:
    an operator removes them, so `reason` is journaled."""

    devices: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """A reply of an agent, whatever it answered: its boot and its boot clock at that moment.

    Attributes:
        agent: the agent's name.
        boot_id: identity of its boot; a new one means that everything it held is gone.
        boot_s: its boot clock when it replied, s.
        received_s: our clock when the reply arrived, s.
    """

    agent: str
    boot_id: str
    boot_s: float
    received_s: float


@dataclass(frozen=True, slots=True)
class AgentLost:
    """An agent did not answer within its deadline."""

    agent: str
    reason: str


@dataclass(frozen=True, slots=True)
class Readings:
    """What one agent reads from its devices.

    Attributes:
        devices: ids, the rows of the columns below.
        at_s: when each sample was taken, on our clock, s.
        watts_w, limit_w, hashrate_h_per_s: draw, enforced limit read back, hashrate; NaN unknown.
        held_w: watts of the lease that the agent says the device holds now; NaN if none.
        held_for_s: how long that lease still lasts, s; NaN if none.
        held_mode: operating point of that lease; empty text if none.
        foreign: the device's set point was written by somebody else.
        failed: the device did not answer its agent.
        table_held_bytes: of its card's memory that its table takes now; NaN unknown; None: no
            agent here tells.
        clients: processes that mark its gate; NaN unknown, None as above.
    """

    devices: tuple[str, ...]
    at_s: Floats
    watts_w: Floats
    limit_w: Floats
    hashrate_h_per_s: Floats
    held_w: Floats
    held_for_s: Floats
    held_mode: tuple[str, ...]
    foreign: Bools
    failed: Bools
    table_held_bytes: Floats | None = None
    clients: Floats | None = None


@dataclass(frozen=True, slots=True)
class LeasesReplied:
    """An agent's answer to GrantLeases.

    Attributes:
        command: id of the command that is answered.
        devices: ids, the rows of the columns below.
        sequence: sequence of the lease that is answered.
        accepted: whether the agent took it.
        reasons: the agent's words for each refusal, empty for an accepted one.
    """

    command: int
    devices: Sequence[str]
    sequence: Ints
    accepted: Bools
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeterRead:
    """The site meter: watts at the root feeder, or None when it failed."""

    watts_w: float | None
    at_s: float


@dataclass(frozen=True, slots=True)
class SignalChanged:
    """One source of signals has spoken: all that it says now, and a price if it has one.

    Attributes:
        source: who speaks ("operator", "schedule", "price").
        caps: all caps of that source, replacing its earlier ones.
        price_usd_per_mwh: energy price, None if this source has no price or lost it.
        sets_price: whether this source is one that speaks about price.
        targets: all targets of that source, replacing its earlier ones.
        overrides: all overrides that stand; taken from the operator alone.
        events: all grid events of that source, replacing its earlier ones.
    """

    source: str
    caps: tuple[Cap, ...] = ()
    price_usd_per_mwh: float | None = None
    sets_price: bool = False
    targets: tuple[Target, ...] = ()
    overrides: tuple[Override, ...] = ()
    events: tuple[GridEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class OverheadLearnt:
    """What the site draws beside its devices, learnt from their sum and the site meter.

    Attributes:
        overhead: the model; None: no longer believed.
    """

    overhead: Overhead | None


@dataclass(frozen=True, slots=True)
class CarbonSeen:
    """What a kWh from the grid emits now, g; None while no source tells."""

    g_per_kwh: float | None


@dataclass(frozen=True, slots=True)
class HashpriceSeen:
    """The feed of the hashprice has spoken.

    Attributes:
        usd_per_ph_day: revenue of 1 PH/s for a day, USD; None while it is unknown or stale.
        observed_s: when its figures were observed, our clock; NaN if never.
        source: file or URL that it came from.
        note: why it is unknown or held back; empty while all is well.
    """

    usd_per_ph_day: float | None
    observed_s: float
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job that was accepted and written down."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobActed:
    """A person pauses, resumes or cancels a job."""

    job: str
    action: str


@dataclass(frozen=True, slots=True)
class JobReported:
    """What the compute side says of a job.

    Attributes:
        job: the job's id.
        state: "starting", "running", "paused", "completed", "failed" or "cancelled".
        done, total: batch progress in items; None where it does not apply.
        running: replicas that serve (services).
        ongoing: requests in progress or queued over all replicas (services).
        p95_ms: 95th percentile latency over the last window, ms; None if unknown.
        error: words of a failure.
        by_node: units that hold watts, by node; None if the compute side cannot tell.
        desired: replicas that Serve's own autoscaling wants; None where it does not scale.
        ttft_p95_ms, itl_p95_ms: of a language model, ms; None if unknown.
        rate_per_s: items or requests per second; None if unknown.
        items_failed: items that went to the dead letters (batch).
        checkpoint_age_s: since the last chunk was committed, s; None if none yet.
    """

    job: str
    state: str
    done: int | None = None
    total: int | None = None
    running: int | None = None
    ongoing: float | None = None
    p95_ms: float | None = None
    error: str | None = None
    by_node: Mapping[str, int] | None = None
    desired: int | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    rate_per_s: float | None = None
    items_failed: int | None = None
    checkpoint_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class ComputeSeen:
    """What the compute bridge says of one node.

    Attributes:
        node: its name in the site.
        up: whether Ray is up and the node alive.
        power_w: the node's `power_w` in Ray, W; None if unknown.
        reason: words for a node that is down.
        used_w: what of it Ray work holds, W; None if unknown.
        unasked_w: draw of work on the node that asked for no `power_w`, W; None if unknown.
        system_w: draw of what Ray and Serve need there themselves, W; None if unknown.
        unasked: what both are, for people.
        labels: the node's labels in Ray.
        gpus: the node's GPUs in Ray; None if unknown.
        draining: the node is leaving: nothing new goes there.
    """

    node: str
    up: bool
    power_w: float | None
    reason: str = ""
    used_w: float | None = None
    unasked_w: float | None = None
    system_w: float | None = None
    unasked: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: float | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """An operator vouches that the machine of a lost compute node is off.

    Attributes:
        node: its name in the site.
        by: who says so.
    """

    node: str
    by: str


@dataclass(frozen=True, slots=True)
class UnitsLearnt:
    """What sensors show of the watts of one replica of a service that lets them be learnt.

    Said again while it waits to be put to use, so that it is as soon as it can be.

    Attributes:
        job: the service.
        unit_w: the most that one replica draws, by what was seen, W.
        quality: of the sensors, "measured" or "emulated".
        samples: readings that it rests on.
        since_s: when the first of them was taken, our clock.
    """

    job: str
    unit_w: float
    quality: str
    samples: int
    since_s: float


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command was acknowledged, refused, or gave no answer in time."""

    command: int
    ok: bool
    reason: str = ""
    watts_w: float | None = None


@dataclass(frozen=True, slots=True)
class PlanUpdated:
    """The look-ahead planner has spoken.

    Attributes:
        plan: what holds from now on until it expires; None: there is no plan, nor is one to come.
    """

    plan: Standing | None


Event: TypeAlias = (
    Tick
    | DeviceJoined
    | DeviceLeft
    | AgentSeen
    | AgentLost
    | Readings
    | LeasesReplied
    | MeterRead
    | SignalChanged
    | OverheadLearnt
    | CarbonSeen
    | HashpriceSeen
    | JobSubmitted
    | JobActed
    | JobReported
    | ComputeSeen
    | NodeForgotten
    | UnitsLearnt
    | CommandEnded
    | PlanUpdated
)
