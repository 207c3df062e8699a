"""The jobs of one division: each has a seat, and those that ask alike are kin."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.compute.ground import Asks
from wattshift_scheduler.compute.ranking import Order
from wattshift_scheduler.jobs import Job, Rule, Verdict

NOWHERE: Mapping[int, int] = {}
"""Units by node of a job that had none."""


@dataclass(slots=True, eq=False)
class Kin:
    """Jobs that differ in nothing but watts, units and time, and what was learnt of them together.

    A unit that asks for no fewer watts than one of its kin that has just been refused is refused as
    well, so most of a long queue costs one comparison.

    Attributes:
        service: services, and not batch.
        tenant, priority: whose they are, and the priority without ageing.
        asks: what a unit asks of a node beside watts: labels and GPUs.
        number: the board's number of `asks`.
        rows: nodes that may take a new unit if they have the watts, by row.
        owns: whether the tenant has a quota.
        feasible_w: most watts of a unit known to fit an empty site, W.
        full_w, full_at: least watts of a unit known to find no room, W, and the state of the board
            for which that is known.
        over_w, over_at: the same of a unit beyond its tenant's quota.
    """

    service: bool
    tenant: str
    priority: int
    asks: Asks
    number: int
    rows: tuple[int, ...]
    owns: bool
    feasible_w: float = -math.inf
    full_w: float = math.inf
    full_at: int = -1
    over_w: float = math.inf
    over_at: int = -1


@dataclass(slots=True, eq=False)
class Seat:
    """One job in a division.

    Attributes:
        job: the job, sized.
        kin: those that ask alike.
        wanted: units that it could use.
        points: its effective priority.
        order: its place in line: services first, then by points; see `ranking.order`.
        unit_w: watts that a unit holds, W.
        drawn_w: the most that a unit may draw, W.
        kept: units that it held when the division began, by node.
        young: it must not be preempted yet.
        rank: its place in the queue of batch.
        at: units that it has now, by node.
        units: their sum.
        limit_w: power limit of one unit, W; None if it runs without.
        why: the rule that kept a unit out; None while none was.
        refused: the verdict of a job that can never run.
        gave_way: the job that is due and took units of it; None while none did.
    """

    job: Job
    kin: Kin
    wanted: int
    points: int
    order: Order
    unit_w: float
    drawn_w: float
    kept: Mapping[int, int]
    young: bool = False
    rank: int = 0
    at: dict[int, int] = field(default_factory=dict)
    units: int = 0
    limit_w: float | None = None
    why: Rule | None = None
    refused: Verdict | None = None
    gave_way: Job | None = None

    @property
    def min_met(self) -> bool:
        """Whether a service has the replicas that it needs."""
        return self.units >= min(self.job.min_units, self.wanted)
