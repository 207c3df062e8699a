"""Everything that the core can ask of the world, as data.

Each command has an id and ends in a LeasesReplied or CommandEnded event with that id; the shell
makes one of them up (not ok, "timeout") when no answer comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wattshift_scheduler.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class GrantLeases:
    """Grant or renew leases at one agent.

    Attributes:
        id: command id.
        agent: the agent that owns the devices.
        boot_id: the boot of the agent that the validity below refers to.
        epoch: fencing token of this controller (I6).
        devices: ids, the rows of the columns below.
        sequence: rises with every lease of a device within an epoch.
        modes: operating point to take.
        watts_w: most that the device may draw, W.
        valid_until_boot_s: end of the lease on the agent's boot clock, s.
    """

    id: int
    agent: str
    boot_id: str
    epoch: int
    devices: tuple[str, ...]
    sequence: Ints
    modes: tuple[str, ...]
    watts_w: Floats
    valid_until_boot_s: float


@dataclass(frozen=True, slots=True)
class SetNodePower:
    """Set the watts that Ray may place on a node."""

    id: int
    node: str
    watts_w: float


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """Set how many replicas a service may run; `spec` is the job's own specification.

    `nodes` says for how many of them each node was given watts. Ray places them: a node without
    watts cannot take one.
    """

    id: int
    node: str
    job: str
    replicas: int
    spec: dict[str, Any] = field(repr=False)
    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartJob:
    """Start a batch job, resume a paused one, or change where a running one works.

    `nodes` says how many workers run on each node; empty means one on `node`.
    """

    id: int
    node: str
    job: str
    spec: dict[str, Any] = field(repr=False)
    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PauseJob:
    """Pause a batch job at its next checkpoint."""

    id: int
    node: str
    job: str


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End a job for good; what it has written stays."""

    id: int
    node: str
    job: str


@dataclass(frozen=True, slots=True)
class EvictUnits:
    """Have units of a job leave one node: Ray chose to keep them where the watts are gone.

    The last step of a shrink, after a lower target or a pause did not free the node in time. A
    replica that leaves drains its requests first; a batch worker ends at its checkpoint.
    """

    id: int
    node: str
    job: str
    units: int


@dataclass(frozen=True, slots=True)
class LimitUnits:
    """Set the power limit of the GPUs on one node that a job's units run on.

    `watts_w` is per unit, W; None lifts the limit. The end says in `watts_w` what is enforced.
    """

    id: int
    node: str
    job: str
    watts_w: float | None


ComputeCommand: TypeAlias = (
    SetNodePower | SetReplicas | StartJob | PauseJob | CancelJob | EvictUnits | LimitUnits
)
Command: TypeAlias = GrantLeases | ComputeCommand
