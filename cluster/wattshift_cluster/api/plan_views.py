"""The shape of the look-ahead plan in the API. Units end the names; None is unknown, never 0.

Times are RFC 3339 UTC text. What is planned is nobody's command: the control loop uses its prices
and reservations, and decides each second by what it then sees.
"""

from typing_extensions import TypedDict


class PlanRow(TypedDict):
    """One interval of a plan.

    `price_usd_per_mwh` is the middle of what is foreseen, or what is published, then
    `price_published`. `shadow_usd_per_mwh` is what a Wh more costs, with expected peaks' charges
    and what a cap that binds is worth. `mining_w` counts machines at rest in. `reserve_w` is kept
    reachable for inference, `hold_w` reserved for batch jobs with a deadline. `awake` counts
    devices by kind; `begins` says what begins here, for people.
    """

    starts_at: str | None
    price_usd_per_mwh: float | None
    price_low_usd_per_mwh: float | None
    price_high_usd_per_mwh: float | None
    price_published: bool
    shadow_usd_per_mwh: float | None
    cap_w: float | None
    services_w: float
    services_high_w: float | None
    batch_w: float
    mining_w: float
    other_w: float
    solar_w: float | None
    site_w: float | None
    reserve_w: float
    hold_w: float
    awake: dict[str, float]
    batch_by_job_w: dict[str, float]
    begins: list[str]


class PlannedKind(TypedDict):
    """Devices alike, and how many there are."""

    name: str
    count: int


class PlannedBatch(TypedDict):
    """A batch job that is planned, the energy that it still needs, and what a MWh of it is worth
    now: it rests while one costs more. None: it is owed whatever it costs, or has no deadline."""

    job: str
    left_wh: float
    deadline_at: str | None
    usd_per_mwh: float | None


class PlanBrief(TypedDict):
    """A plan in short: "optimal", "feasible", "infeasible" or "time-limit", and `usd` expected."""

    made_at: str | None
    status: str | None
    gap: float | None
    solve_s: float | None
    usd: float | None


class PlanView(PlanBrief):
    """The newest plan, from the interval that runs on.

    `state` is "off" (this site makes none), "waiting" (for the first), "current", "late" (the
    ladder alone decides) or "failed" (there never was one); `reason` says why, and is also told
    where the last try failed while the plan before it still holds. `unmet` is what could not be
    met, the most important first; `notes` what was assumed or left out. `made` are the last plans.
    """

    state: str
    reason: str | None
    age_s: float | None
    expires_at: str | None
    start_at: str | None
    step_s: float | None
    horizon_s: float | None
    unmet: list[str]
    notes: list[str]
    events: list[str]
    kinds: list[PlannedKind]
    batches: list[PlannedBatch]
    rows: list[PlanRow]
    made: list[PlanBrief]
