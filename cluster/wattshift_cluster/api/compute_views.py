"""The shape of what is told of jobs and compute nodes; units end the names, None is unknown."""

from typing import Any, NotRequired

from typing_extensions import TypedDict


class ProgressView(TypedDict):
    """Items of a batch job; `total` is None until its input has been counted."""

    done: int
    total: int | None


class VerdictView(TypedDict):
    """How a job stands against the watts, by which rule and against which limit.

    `admission` is "deny", "defer", "after_shedding" or "fit". `bound_by` names the feeder, node,
    tenant or cap that binds; `have_w` is what that has for the job where it is about watts.
    `expected_at` is the first moment at which it would fit that anybody knows.
    """

    admission: str
    rule: str
    words: str
    bound_by: str | None
    need_w: float
    have_w: float | None
    expected_at: str | None


class PowerStepView(TypedDict):
    """A power limit of one unit that is in force, and the share of throughput that it keeps."""

    watts_w: float
    throughput: float | None


class LearntView(TypedDict):
    """Watts of one replica of a service that lets them be learnt.

    `given_w` is the most; `learnt_w` what sensors show, of `quality` "measured" or "emulated", from
    `samples` since `since`. `in_use` once replicas are deployed with it. `note` says why nothing is
    learnt now, or how far it is.
    """

    given_w: float
    learnt_w: float | None
    in_use: bool
    quality: str | None
    samples: int
    since: str | None
    note: str | None


class JobView(TypedDict):
    """One job and why it stands where it stands.

    `units` are asked for, on `nodes`; `by_node` are those that hold watts, as Ray's side told.
    `desired` is what Serve's own autoscaling wants. `eta_s` holds at the present rate.
    """

    id: str
    kind: str
    name: str
    state: str
    reason: str
    submitted_at: str
    watts_w: float | None
    progress: ProgressView | None
    spec: dict[str, Any]
    admission: NotRequired[str]
    verdict: NotRequired[VerdictView | None]
    tenant: NotRequired[str]
    priority: NotRequired[int]
    unit_w: NotRequired[float | None]
    units: NotRequired[int]
    running: NotRequired[int]
    min_units: NotRequired[int]
    max_units: NotRequired[int]
    nodes: NotRequired[dict[str, int]]
    by_node: NotRequired[dict[str, int] | None]
    ongoing: NotRequired[float | None]
    desired: NotRequired[int | None]
    p95_ms: NotRequired[float | None]
    ttft_p95_ms: NotRequired[float | None]
    itl_p95_ms: NotRequired[float | None]
    power_step: NotRequired[PowerStepView | None]
    learnt: NotRequired[LearntView | None]
    rate_per_s: NotRequired[float | None]
    eta_s: NotRequired[float | None]
    failed_items: NotRequired[int | None]
    dead_letters: NotRequired[str | None]
    checkpoint_at: NotRequired[str | None]
    deadline_at: NotRequired[str | None]
    late_since: NotRequired[str | None]
    url: NotRequired[str | None]
    error: NotRequired[str | None]


class LogView(TypedDict):
    """What was decided about a job, and what its own code printed, oldest first.

    `printed` is None where the compute side keeps none or did not answer; `trouble` says why.
    """

    job: str
    lines: list[str]
    printed: list[str] | None
    trouble: str | None


class NodeView(TypedDict):
    """One compute node: the watts of Ray's work there.

    `power_w` is granted, `asked_w` what was last asked for, `used_w` what work holds of it.
    `unasked_w` is drawn by work that asked for no watts, `system_w` by what Ray and Serve need
    themselves, and `unasked` says what both are.
    `relief_w` is what confirmed power limits take off. `units` are jobs' units there, by job.
    `forgotten`: it counts nothing, because an operator vouches that its machine is off.
    `displaces_usd_per_mwh` is what mining would earn with one more watt on its feeder: 0 where none
    is short of watts, None while that is not known.
    """

    node: str
    feeder: str
    up: bool
    draining: bool
    forgotten: bool
    power_w: float | None
    asked_w: float | None
    max_w: float
    used_w: float | None
    unasked_w: float | None
    system_w: float | None
    unasked: list[str]
    relief_w: float
    gpus: float
    labels: dict[str, str]
    units: dict[str, int]
    displaces_usd_per_mwh: NotRequired[float | None]


class NodeList(TypedDict):
    """Answer of /v1/nodes."""

    nodes: list[NodeView]
