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
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
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


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        id: unique in the site, never reused.
        kind: service, batch or mining.
        name: the owner's name for it.
        spec: what was submitted, passed on to the compute side as it is.
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
    """

    id: str
    kind: JobKind
    name: str
    spec: Mapping[str, Any]
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
    def wanted_w(self) -> float:
        """Watts of the units asked for now, W."""
        return self.units * self.unit_w

    def moved(self, state: JobState, reason: str, **changes: Any) -> "Job":
        """Return the job in another state. A final job never moves: that would be a bug."""
        assert not self.state.final, f"{self.id} is {self.state.value} and cannot become {state}"
        return replace(self, state=state, reason=reason, **changes)


REPORTED: Mapping[str, JobState] = {
    "starting": JobState.STARTING,
    "running": JobState.RUNNING,
    "paused": JobState.PAUSED,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
