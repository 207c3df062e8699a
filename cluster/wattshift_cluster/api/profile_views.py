"""The shape of a measured power curve: a GPU's over its intensities, an ASIC's over its points."""

from typing_extensions import TypedDict


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
