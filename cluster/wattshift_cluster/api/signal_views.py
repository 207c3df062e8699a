"""The shape of what is told of signals: each source's words, and the operators' overrides.

Units end the names; None is unknown or open, never 0. Times are RFC 3339 UTC text.
"""

from typing_extensions import TypedDict

from wattshift_cluster.api.site_views import CapView


class OverrideView(TypedDict):
    """An operator's word that a cap does not hold until a time; `stated_w` is what it would be."""

    source: str
    cap: str
    name: str | None
    limit_w: float
    stated_w: float | None
    ends_at: str | None
    by: str
    reason: str


class OverrideList(TypedDict):
    """The overrides that hold."""

    overrides: list[OverrideView]


class TargetView(TypedDict):
    """A set point below the caps, of all work or of mining alone; priority 0 is highest."""

    id: str
    name: str | None
    watts_w: float
    work: str
    priority: int
    starts_at: str | None
    ends_at: str | None
    in_force: bool


class GridEventView(TypedDict):
    """An event of a grid program; `commitment_w` is the reduction that the site has promised."""

    id: str
    name: str | None
    program: str
    notified_at: str | None
    starts_at: str | None
    ends_at: str | None
    commitment_w: float | None
    cancelled_at: str | None
    in_force: bool


class AlertView(TypedDict):
    """An alert; `asks` is "least" (draw as little as possible) or "notice" (nothing by itself)."""

    id: str
    name: str
    asks: str
    text: str
    starts_at: str | None
    ends_at: str | None
    in_force: bool


class StepView(TypedDict):
    """A value of a series from a time on."""

    starts_at: str | None
    value: float | None


class SeriesView(TypedDict):
    """Prices in USD/MWh, or carbon in g/kWh: what holds now, and what is to come."""

    now: float | None
    steps: list[StepView]
    ends_at: str | None
    told_age_s: float | None


class SourceView(TypedDict):
    """All that one source says.

    `kind` is "feed", "operator" or "injected"; `left_out` counts what is too much to be shown;
    `notes` are what it said and was not taken; `fault` why it was not heard lately.
    """

    kind: str
    caps: list[CapView]
    targets: list[TargetView]
    events: list[GridEventView]
    alerts: list[AlertView]
    left_out: int
    prices: SeriesView | None
    carbon: SeriesView | None
    notes: list[str]
    heard_age_s: float | None
    fault: str | None


class SignalsView(TypedDict):
    """The price in force, and what each source says."""

    price_usd_per_mwh: float | None
    price_from_feed: bool
    carbon_g_per_kwh: float | None
    overrides: list[OverrideView]
    sources: dict[str, SourceView]
