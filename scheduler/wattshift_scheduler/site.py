"""What a site is made of: devices with their operating points, nodes, tenants, and the rules.

All watts are W at the meter side of the named feeder. Objects here are checked when they are made,
so that the rest of the core never meets a negative limit or an empty device. The feeder tree has a
module of its own and is known here too.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.feeder_tree import Feeder as Feeder
from wattshift_scheduler.feeder_tree import FeederTree as FeederTree
from wattshift_scheduler.feeder_tree import feeder_limit_w as feeder_limit_w

MOST_WEAR_USD = 100_000.0
"""Above the price of any machine: a cycle cannot wear off more than all of it."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way a device can run.

    Attributes:
        mode: name of the point, as the agent knows it ("sleep", "290MHz", "limit:2400", "mine").
        watts_w: nominal draw, W.
        hashrate_h_per_s: hashes per second at this point, of the algorithm that `Values` prices.
        transition_s: time that the device needs to reach this point, s.
        revenue_usd_per_h: what it earns beside those hashes, by its owner's word, USD/h.
    """

    mode: str
    watts_w: float
    hashrate_h_per_s: float
    transition_s: float
    revenue_usd_per_h: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """A thing that draws power and obeys leases.

    Attributes:
        id: unique in the site.
        kind: "asic", "gpu" or "cpu".
        agent: the agent that owns it.
        feeder: the feeder it hangs on.
        points: operating points, least watts first; the first is where a shed ends.
        nameplate_w: most that the maker says it draws, W.
        tolerance: share by which it may draw more than nominal.
        continuous: any watts between the first and the last point can be leased.
        rests_apart: but none between the first and the second: it rests or it works, as a machine
            does that is held at a power target; a gate works for any share of the time.
        fenced: falls to its safe point by itself when its lease expires (a gate does, an ASIC not).
        safe_w: draw at the safe point, W.
        host: compute node whose watts this device overlaps through its gate, or None.
        wear_usd_per_cycle: what one sleep and wake wears off it, USD.
        table_bytes: of its card's memory that what it mines keeps a table in; 0 without one. Then a
            lease may ask for its lowest point with the table freed (tables.EMPTY).
        table_build_s: how long it builds that before it hashes, s.
    """

    id: str
    kind: str
    agent: str
    feeder: str
    points: tuple[OperatingPoint, ...]
    nameplate_w: float
    tolerance: float = 0.05
    continuous: bool = False
    fenced: bool = False
    safe_w: float = 0.0
    power_on_w: float = 0.0
    host: str | None = None
    wear_usd_per_cycle: float = 0.0
    table_bytes: int = 0
    table_build_s: float = 0.0
    rests_apart: bool = False

    def __post_init__(self) -> None:
        if not self.points:
            raise SiteInvalid(self.id, "a device needs at least one operating point")
        watts = [point.watts_w for point in self.points]
        numbers = [
            *watts,
            *(p.hashrate_h_per_s for p in self.points),
            *(p.revenue_usd_per_h for p in self.points),
            *(p.transition_s for p in self.points),
            self.nameplate_w,
            self.safe_w,
            self.power_on_w,
            self.table_bytes,
            self.table_build_s,
        ]
        if not all(math.isfinite(n) and n >= 0 for n in numbers):
            raise SiteInvalid(self.id, "its figures must be finite and not negative")
        if any(later <= earlier for earlier, later in itertools.pairwise(watts)):
            raise SiteInvalid(self.id, f"its operating points must rise in watts, not {watts}")
        if not 0 <= self.wear_usd_per_cycle <= MOST_WEAR_USD:
            allowed = f"0 to {MOST_WEAR_USD:,.0f} USD"
            raise SiteInvalid(self.id, f"wear is not in {allowed}: {self.wear_usd_per_cycle}")
        if not 0 <= self.tolerance < 1:
            raise SiteInvalid(self.id, f"tolerance must lie in 0 to 1, not {self.tolerance}")
        if self.nameplate_w < watts[-1]:
            raise SiteInvalid(self.id, "nameplate_w lies below its highest operating point")


@dataclass(frozen=True, slots=True)
class Node:
    """A compute node: watts granted to Ray work (`power_w`) on one host.

    Attributes:
        name: the host's name; devices with `host == name` overlap it through their gates.
        feeder: the feeder it hangs on.
        max_w: most watts that may be granted to work on it, W.
        gpus: GPUs that it has; what Ray tells of a node that is up goes before.
        labels: labels that it has; what Ray tells goes before.
    """

    name: str
    feeder: str
    max_w: float
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody whose jobs share the site's compute with others'.

    Attributes:
        name: as jobs name it.
        weight: its fair share is its part of the sum of all tenants' weights that want to run.
        quota_w: watts that its jobs may hold, W; infinite for no quota.
        quota_gpus: GPUs that its jobs may hold; infinite for no quota.
        borrows: whether it may use more than its quota while nobody else wants it.
    """

    name: str
    weight: float = 1.0
    quota_w: float = math.inf
    quota_gpus: float = math.inf
    borrows: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise SiteInvalid(self.name, f"its weight must be > 0, not {self.weight}")
        if not (self.quota_w >= 0 and self.quota_gpus >= 0):
            raise SiteInvalid(self.name, "its quotas must not be negative")


@dataclass(frozen=True, slots=True)
class Rules:
    """The site's control constants. Every one has a unit and a reason.

    Attributes:
        margin_share: part of each limit that is kept free (meter error, model error).
        stale_margin_share: margin while the site meter is stale (I9).
        lease_ttl_s: life of a lease on the agent's own clock (DESIGN 2.1).
        lease_renew_s: how often an unchanged lease is renewed.
        stale_after_s: age at which a reading or the meter counts as unknown.
        command_timeout_s: when an unanswered command is given up.
        settle_factor: a device is overdue after transition_s times this factor.
        other_load_w: bound on load that nobody leases, W.
        scale_down_after_s: how long a service must be quiet before it loses a replica.
        ageing_per_h: priority that a waiting job gains in an hour, so that none starves.
        expected_shed_s: how long a price, or a cap without an end, is expected to hold: an hour, as
            day-ahead markets price by the hour. The cost of a cycle is spread over it.
        act_at_confidence: a forecast cap of at least this confidence binds; below, it is advice.
        ramp_up_w_per_s, ramp_down_w_per_s: steepest rise of the cap that is acted on, and the
            steepest fall towards a known future cap or to a target, W/s; infinite: none. A hard cap
            is never delayed.
        hold_s: after a cap has fallen, what is acted on does not rise for so long, s.
        stagger_s: after a cap has risen, feeders and hosts raise one after the other over so long,
            s, so that no common rhythm appears on the grid; 0: all at once.
        min_up_s, min_down_s: how long a machine that takes long to come up stays up, or down,
            before a price may turn it again, s; 0: nothing but the cost of a cycle keeps it.
        burst_share: of the bursts of services, the part whose watts are kept within the gates'
            reach, 0 to below 1; 0: none are kept.
    """

    margin_share: float = 0.02
    stale_margin_share: float = 0.05
    lease_ttl_s: float = 15.0
    lease_renew_s: float = 5.0
    stale_after_s: float = 5.0
    command_timeout_s: float = 5.0
    settle_factor: float = 1.5
    other_load_w: float = 0.0
    scale_down_after_s: float = 30.0
    ageing_per_h: float = 10.0
    expected_shed_s: float = 3600.0
    act_at_confidence: float = 0.5
    ramp_up_w_per_s: float = math.inf
    ramp_down_w_per_s: float = math.inf
    hold_s: float = 0.0
    stagger_s: float = 0.0
    min_up_s: float = 0.0
    min_down_s: float = 0.0
    burst_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.act_at_confidence <= 1:
            raise SiteInvalid("rules", f"act_at_confidence is not in 0 to 1: {self}")
        if not (self.ramp_up_w_per_s > 0 and self.ramp_down_w_per_s > 0):
            raise SiteInvalid("rules", f"a ramp must be > 0 W/s: {self}")
        for name in ("hold_s", "stagger_s", "min_up_s", "min_down_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SiteInvalid("rules", f"{name} must be finite and not negative, not {value}")
        for name, share in (
            ("margin_share", self.margin_share),
            ("stale_margin_share", self.stale_margin_share),
        ):
            if not 0 <= share < 1:
                raise SiteInvalid("rules", f"{name} is not in 0 to 1: {share}")
        if not (math.isfinite(self.other_load_w) and self.other_load_w >= 0):
            raise SiteInvalid("rules", f"other_load_w must not be negative: {self.other_load_w}")
        if not 0 <= self.burst_share < 1:
            raise SiteInvalid("rules", f"burst_share is not in 0 to 1: {self.burst_share}")
        if not (math.isfinite(self.expected_shed_s) and self.expected_shed_s > 0):
            raise SiteInvalid("rules", f"expected_shed_s must be > 0, not {self.expected_shed_s}")


@dataclass(frozen=True, slots=True)
class Site:
    """The fixed part of a site: its tree, compute nodes, rules, agents and tenants."""

    name: str
    tree: FeederTree
    nodes: tuple[Node, ...] = ()
    rules: Rules = field(default_factory=Rules)
    agents: tuple[str, ...] = ()
    tenants: tuple[Tenant, ...] = ()

    def __post_init__(self) -> None:
        for names in ([n.name for n in self.nodes], [t.name for t in self.tenants]):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SiteInvalid(twice[0], "it is named twice")
        for node in self.nodes:
            if node.feeder not in self.tree.index:
                raise SiteInvalid(node.name, f"its feeder {node.feeder!r} does not exist")
            if not (math.isfinite(node.max_w) and node.max_w >= 0):
                raise SiteInvalid(node.name, "max_w must be finite and not negative")
            if not (math.isfinite(node.gpus) and node.gpus >= 0):
                raise SiteInvalid(node.name, "gpus must be finite and not negative")
