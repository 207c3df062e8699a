"""Everything that the core can ask of the world, as data.

Each command has an id and ends in a LeasesReplied or CommandEnded event with that id; the shell
makes one of them up (not ok, "timeout") when no answer comes.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import repeat
from typing import Any, Protocol, TypeAlias

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.picked import Picked


@dataclass(frozen=True, slots=True)
class GrantLeases:
    """Grant or renew leases at one agent.

    Attributes:
        id: command id.
        agent: the agent that owns the devices.
        boot_id: the boot of the agent that the validity below refers to.
        epoch: fencing token of this controller (I6).
        devices: ids, the rows of the columns below; many are picked only when they are read.
        sequence: rises with every lease of a device within an epoch.
        modes: operating point to take.
        watts_w: most that the device may draw, W.
        valid_until_boot_s: end of the lease on the agent's boot clock, s.
    """

    id: int
    agent: str
    boot_id: str
    epoch: int
    devices: Sequence[str]
    sequence: Ints
    modes: Sequence[str]
    watts_w: Floats
    valid_until_boot_s: float


class Boot(Protocol):
    """What an agent last said of its boot: which it is, and its clock then, s."""

    @property
    def boot_id(self) -> str:
        """Name of the boot."""

    @property
    def boot_s(self) -> float:
        """Its clock, s."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What the grants of one step share: its columns, each agent's rows together.

    Attributes:
        first_id: command id of the first grant; the others follow.
        agents: of each grant.
        boots: what agents have said of their boots.
        ttl_s: from that to the end of the leases, s.
        ends: where the rows of each grant begin and those of the last one end.
        epoch, devices, sequence, modes, watts_w: see `GrantLeases`; of all grants.
    """

    first_id: int
    agents: Sequence[str]
    boots: Mapping[str, Boot]
    ttl_s: float
    ends: Sequence[int]
    epoch: int
    devices: Picked
    sequence: Ints
    modes: Picked
    watts_w: Floats

    def grants(self) -> "list[GrantLeases]":
        """The grants, one an agent; each takes its rows from the columns when it is read."""
        return _granted(self, len(self.agents))

    def rows(self, number: int) -> slice:
        """The rows of one grant."""
        return slice(self.ends[number], self.ends[number + 1])


class Granted(GrantLeases):
    """One grant of a batch. A step may make hundreds, so its parts are worked out when read.

    Attributes:
        batch: what it shares with the other grants of its step.
        number: where it stands among them.
    """

    __slots__ = ("batch", "number")
    batch: Batch
    number: int

    def __repr__(self) -> str:
        return repr(self.plain())

    def plain(self) -> GrantLeases:
        """The same on its own."""
        return GrantLeases(**{one.name: getattr(self, one.name) for one in fields(GrantLeases)})

    @property
    def id(self) -> int:
        """Its command id."""
        return self.batch.first_id + self.number

    @property
    def agent(self) -> str:
        """The agent that owns the devices."""
        return self.batch.agents[self.number]

    @property
    def boot_id(self) -> str:
        """The boot of that agent."""
        return self.batch.boots[self.agent].boot_id

    @property
    def epoch(self) -> int:
        """Fencing token of this controller (I6)."""
        return self.batch.epoch

    @property
    def devices(self) -> Sequence[str]:
        """Ids of its devices."""
        return self.batch.devices[self.batch.rows(self.number)]

    @property
    def sequence(self) -> Ints:
        """Lease numbers."""
        return self.batch.sequence[self.batch.rows(self.number)]

    @property
    def modes(self) -> Sequence[str]:
        """Operating points to take."""
        return self.batch.modes[self.batch.rows(self.number)]

    @property
    def watts_w(self) -> Floats:
        """Most that each device may draw, W."""
        return self.batch.watts_w[self.batch.rows(self.number)]

    @property
    def valid_until_boot_s(self) -> float:
        """End of the leases on the agent's boot clock, s."""
        return self.batch.boots[self.agent].boot_s + self.batch.ttl_s


_BARE: Any = object.__new__
_BATCH: Any = vars(Granted)["batch"].__set__
_NUMBER: Any = vars(Granted)["number"].__set__


def _granted(batch: Batch, count: int) -> list[GrantLeases]:
    """The grants of a batch, made without a call in Python for each: that would cost as much as to
    decide on a hundred devices."""
    made: list[GrantLeases] = list(map(_BARE, repeat(Granted, count)))
    deque(map(_BATCH, made, repeat(batch)), maxlen=0)
    deque(map(_NUMBER, made, range(count)), maxlen=0)
    return made


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
