"""The terms a site has agreed with a VTN's operator, and what an event asks under them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wattshift_cluster.grid.openadr.meanings import Becomes
from wattshift_scheduler.signals.words import Work

UNSTATED_PRIORITY = 1_000_000
"""Of an event that states none: behind every one that does."""

BaselineW = Callable[[str, float, float | None], float | None]
"""Event, start and end (unix time, s; None is open) -> what the site would draw without it, W;
None is unknown. It must answer the same for the same event, or its target would creep."""


def no_baseline_w(event_id: str, starts_s: float, ends_s: float | None) -> float | None:
    """Where nobody keeps a baseline."""
    return None


@dataclass(frozen=True, slots=True)
class Terms:
    """What this site has agreed with the operator of a VTN, and its names there.

    Attributes:
        source: name of the source, and the origin of its caps.
        ven_name, resources, groups: targets that mean this site; a resource tells its work.
        levels_w: caps of SIMPLE levels 1, 2 and 3, W, none above the one before.
        nominal_w: what 100 per cent is, W; None: nobody has told.
        subscription_w: cap that holds where the VTN tells none, W; None: there is none.
        units: of powers whose descriptor is missing; None: they are refused.
        usd_per: USD for one of each currency.
        commitments_w: reduction committed to, W, by program.
        baseline_w: see BaselineW.
    """

    source: str
    ven_name: str
    resources: Mapping[str, Work] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    levels_w: tuple[float, ...] = ()
    nominal_w: float | None = None
    subscription_w: float | None = None
    units: str | None = None
    usd_per: Mapping[str, float] = field(default_factory=dict)
    commitments_w: Mapping[str, float] = field(default_factory=dict)
    baseline_w: BaselineW = no_baseline_w


@dataclass(frozen=True, slots=True)
class Asked:
    """What one payload asks for a span of time.

    Attributes:
        id: unique within its source, and the same each time the event is read.
        event_id, program: where it comes from.
        label: of the event, for people (see `mapping.named`).
        becomes, name: what it is here, and its payload type.
        starts_s, ends_s: unix time, s; None is open.
        amount: W, USD/MWh or g/kWh, by what it becomes; 0 for alerts.
        shed_w: reduction below the baseline that it asks, W; 0 where it asks none.
        text: an alert's words.
        priority: 0 is highest.
        work: which work it is aimed at.
        confirmed: whether a whole answer of the VTN holds it, or a notice alone.
    """

    id: str
    event_id: str
    program: str
    becomes: Becomes
    name: str
    starts_s: float
    ends_s: float | None
    amount: float = 0.0
    shed_w: float = 0.0
    text: str = ""
    priority: int = UNSTATED_PRIORITY
    work: Work = Work.ALL
    confirmed: bool = True
    label: str = ""
