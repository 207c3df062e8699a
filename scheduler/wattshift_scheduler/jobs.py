"""Jobs: what a person submitted, where it stands, and why it stands there.

    submitted ─▶ pending ─▶ starting ─▶ running ─▶ completed | failed
                   ▲            │          │  ▲
                   │            ▼          ▼  │
                   └─────────  pausing ─▶ paused
    (any state that is not final) ─▶ cancelling ─▶ cancelled

Every change carries a reason in words and one of four ordered verdicts (DESIGN, kueue's idea):
deny < defer < after_shedding < fit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from operator import attrgetter
from typing import Any

from wattshift_scheduler.errors import JobInvalid


class JobKind(StrEnum):
    """What a job is."""

    SERVICE = "service"
    BATCH = "batch"
    MINING = "mining"


class JobState(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether a job in this state can never change again."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Admission(IntEnum):
    """How a job stands against the watts, worst first, so that `min` is the verdict of many."""

    DENY = 0
    DEFER = 1
    AFTER_SHEDDING = 2
    FIT = 3


class Rule(StrEnum):
    """Which rule gave a verdict; for machines, as the words beside it are for people."""

    FITS = "fits"
    MINING_GIVES_WAY = "mining-gives-way"
    BATCH_GIVES_WAY = "batch-gives-way"
    CAP = "cap"
    FEEDER = "feeder"
    NODE = "node"
    NO_SUCH_NODE = "no-such-node"
    GANG = "gang"
    QUOTA_WATTS = "quota-watts"
    QUOTA_GPUS = "quota-gpus"
    FAIR_SHARE = "fair-share"
    WORTH = "worth"
    HELD = "held"
    BACK_OFF = "back-off"
    PLAN = "plan"
    DEADLINE = "deadline"
    CLUSTER_DOWN = "cluster-down"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job stands, by which rule, against which limit, and when that may change.

    Attributes:
        admission: the ordered result.
        rule: which rule decided.
        words: the reason for people.
        bound_by: name of the feeder, node, tenant or cap that binds; empty if nothing does.
        need_w: watts that the job still asks for, W; 0 if it has all it asked for.
        have_w: watts that the binding limit has for it, W; NaN where it is not about watts.
        expected_s: when it is expected to run, our clock; None if nobody can tell.
    """

    admission: Admission
    rule: Rule
    words: str
    bound_by: str = ""
    need_w: float = 0.0
    have_w: float = math.nan
    expected_s: float | None = None


@dataclass(frozen=True, slots=True)
class PowerStep:
    """A power limit under which one unit may run, and the share of its throughput that it keeps.

    Attributes:
        watts_w: draw of one unit under that limit, W.
        throughput: 0 to 1 of what it does without a limit.
    """

    watts_w: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a job runs: who asks, on which nodes, and what may be taken from it.

    Attributes:
        tenant: whose job it is.
        priority: higher goes first; 0 is usual.
        gpus: GPUs of one unit; a share of one is allowed.
        selector: labels that a node must have, as Ray's label selectors: a value, or "!value".
        gang: all units or none (batch).
        min_run_s: it is not preempted before it has run so long, s.
        flexibility: class 0 to 3: 0, 10, 25 or 50 % of its throughput may be taken in an event.
        steps: power limits for a unit, most watts first; none if its draw cannot be limited.
        slo_ttft_p95_ms, slo_itl_p95_ms: time to the first token and between tokens that 95 % of a
            language model's requests must keep, ms; None if none.
    """

    tenant: str = "default"
    priority: int = 0
    gpus: float = 0.0
    selector: tuple[tuple[str, str], ...] = ()
    gang: bool = False
    min_run_s: float = 0.0
    flexibility: int = 0
    steps: tuple[PowerStep, ...] = ()
    slo_ttft_p95_ms: float | None = None
    slo_itl_p95_ms: float | None = None


FLEXIBILITY_LOSS: tuple[float, ...] = (0.0, 0.10, 0.25, 0.50)
"""Share of its throughput that a job of each flexibility class may lose on average in an event.

Source: the classes Flex 0 to 3 of Emerald's field test (arXiv 2507.00909)."""


@dataclass(frozen=True, slots=True)
class Look:
    """One report of a service's load, as the forecast of its demand needs it.

    Attributes:
        at_s: when it came, our clock, s.
        running: replicas that served.
        ongoing: requests in progress or queued over all of them.
        worst: the worst of its latencies as a share of what it promises; NaN if none is known.
    """

    at_s: float
    running: int
    ongoing: float
    worst: float


@dataclass(frozen=True, slots=True)
class Load:
    """What is remembered of a service to foresee its demand (demand.py).

    Attributes:
        looks: the last reports, oldest first; a bounded few.
        up_s: how long a replica takes from being asked for to serving, as seen, s; NaN unknown.
        asked: replicas asked for when `asked_s` was noted.
        asked_s: since when more replicas have been asked for than serve; NaN if they all serve.
        late_s: when its latency last called for one more, our clock.
        quiet_most: most replicas that it needed since `quiet_since_s` of its job.
    """

    looks: tuple[Look, ...] = ()
    up_s: float = math.nan
    asked: int = 0
    asked_s: float = math.nan
    late_s: float = -math.inf
    quiet_most: int = 0


@dataclass(frozen=True, slots=True)
class Learnt:
    """What sensors have taught of the watts of one replica of a service.

    Attributes:
        given_w: what its owner gave as the most, W.
        unit_w: what one replica is now believed to draw at most, W; never above `given_w`.
        quality: of the sensors, "measured" or "emulated".
        samples: readings that it rests on.
        since_s: when the first of them was taken, our clock.
    """

    given_w: float
    unit_w: float
    quality: str
    samples: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        id: unique in the site, never reused.
        kind: service, batch or mining.
        name: the owner's name for it.
        spec: what was submitted, passed on to the compute side as it is; may hold credentials.
        submitted_s: our clock at acceptance, s.
        unit_w: watts of one replica (service) or of the job (batch), W; 0 for mining.
        min_units, max_units: replicas that a service needs and may have; 1 and 1 for batch.
        value_usd_per_h: value of one running unit for an hour, USD.
        slo_p95_ms: latency that a service promises, ms; None if none.
        deadline_s: when a batch job should be done, our clock; None if open.
        state, reason, admission: where it stands and why.
        units: replicas asked for now.
        running, ongoing, p95_ms: last report of a service.
        quiet_since_s: since when a service could do with fewer replicas; None if it could not.
        done, total: progress of a batch job in items.
        held: a person paused it, so only a person resumes it.
        not_before_s: no new attempt before this time, our clock, after a failed one.
        terms: who asks, where it may run, and what may be taken from it.
        nodes: units asked for by node; they add up to `units`.
        by_node: units that hold watts by node, as last reported; None if never told.
        desired: replicas that Serve's own autoscaling wants; None where it does not scale.
        ttft_p95_ms, itl_p95_ms: last report of a language model, ms; None if unknown.
        rate_per_s: items (batch) or requests (service) per second; None if unknown.
        items_failed: items that went to the dead letters (batch).
        checkpoint_s: when its last chunk was committed, our clock; None if none yet.
        began_s: since when it has been running without a pause, our clock; None if it is not.
        unit_limit_w: power limit of one unit that is asked for, W; None if it runs without.
        verdict: how it stands, by which rule; None before the first decision.
        wanted: replicas that a service could use now (demand.py); None before the first decision.
        load: what that rests on.
        refused: how often in a row its last command failed with the same words, and those.
        shelved: its power steps while they are out of use, because a limit was refused.
        shelved_s: since when, our clock.
        learnt: watts of a replica as sensors show them; None while nothing is learnt.
        pace_per_s, best_per_s: items per second of one worker between checkpoints, as last seen and
            the most that was (compute/pacing.py); None until known.
        counted: since when that is counted, our clock, the items done by then, and the workers;
            None while it is not.
        late_s: since when it is known that it misses its deadline (compute/lateness.py), our clock;
            None while it may make it, or has none.
        gave_way_to: the job that was due and to which it gave units for which it still waits; empty
            for none.
    """

    id: str
    kind: JobKind
    name: str
    spec: Mapping[str, Any] = field(repr=False)
    submitted_s: float
    unit_w: float = 0.0
    min_units: int = 1
    max_units: int = 1
    value_usd_per_h: float = 0.0
    slo_p95_ms: float | None = None
    deadline_s: float | None = None
    state: JobState = JobState.PENDING
    reason: str = "submitted"
    admission: Admission = Admission.DEFER
    units: int = 0
    running: int = 0
    ongoing: float = 0.0
    p95_ms: float | None = None
    quiet_since_s: float | None = None
    done: int | None = None
    total: int | None = None
    held: bool = False
    not_before_s: float = -math.inf
    terms: Terms = Terms()
    nodes: Mapping[str, int] = field(default_factory=dict)
    by_node: Mapping[str, int] | None = None
    desired: int | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    rate_per_s: float | None = None
    items_failed: int = 0
    checkpoint_s: float | None = None
    began_s: float | None = None
    unit_limit_w: float | None = None
    verdict: Verdict | None = None
    wanted: int | None = None
    load: Load = Load()
    refused: tuple[int, str] = (0, "")
    shelved: tuple[PowerStep, ...] = ()
    shelved_s: float = -math.inf
    learnt: Learnt | None = None
    pace_per_s: float | None = None
    best_per_s: float | None = None
    counted: tuple[float, int, int] | None = None
    late_s: float | None = None
    gave_way_to: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.unit_w) and self.unit_w >= 0):
            raise JobInvalid(self.id, f"its watts must be finite and not negative: {self.unit_w}")
        if not 0 <= self.min_units <= self.max_units:
            raise JobInvalid(self.id, "replicas: 0 <= min <= max is needed")
        if not math.isfinite(self.value_usd_per_h):
            raise JobInvalid(self.id, "its value must be finite")

    @property
    def usd_per_mwh(self) -> float:
        """Value of this job's watts, USD/MWh; infinite for a job that draws none."""
        return self.value_usd_per_h / self.unit_w * 1e6 if self.unit_w > 0 else math.inf

    @property
    def due_s(self) -> float:
        """The deadline that it may still make, our clock, s; infinite for a job that has none, and
        for one that is late: what is missed is not urgent any more."""
        return math.inf if self.deadline_s is None or self.late_s is not None else self.deadline_s

    @property
    def wanted_w(self) -> float:
        """Watts of the units asked for now, W."""
        return self.units * self.unit_w

    def moved(self, state: JobState, reason: str, **changes: Any) -> "Job":
        """Return the job in another state. A final job never moves: that would be a bug."""
        assert not self.state.final, f"{self.id} is {self.state.value} and cannot become {state}"
        return self.changed(state=state, reason=reason, **changes)

    def changed(self, **changes: Any) -> "Job":
        """Return a copy with other values in some fields, checked as every job is.

        Several times as fast as `dataclasses.replace`, which looks at each of some forty fields in
        turn: a decision on a long queue copies many jobs.
        """
        return Job(**(dict(zip(_NAMES, _VALUES(self), strict=True)) | changes))


_NAMES = tuple(one.name for one in fields(Job))
_VALUES = attrgetter(*_NAMES)


FINAL_KEPT = 1000
"""Batch jobs that have ended and are still remembered here; the journal has all of them."""


def remembered(jobs: Mapping[str, Job]) -> Mapping[str, Job]:
    """The jobs without the oldest batch jobs that have ended, beyond FINAL_KEPT."""
    over = len(jobs) - FINAL_KEPT
    if over <= 0:
        return jobs
    ended = [job.id for job in jobs.values() if job.kind is JobKind.BATCH and job.state.final]
    gone = set(ended[: max(len(ended) - FINAL_KEPT, 0)])
    return {id_: job for id_, job in jobs.items() if id_ not in gone} if gone else jobs


REPORTED: Mapping[str, JobState] = {
    "starting": JobState.STARTING,
    "running": JobState.RUNNING,
    "paused": JobState.PAUSED,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
