"""Everything that the core remembers between two steps. Frozen: a step returns a new one."""

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from wattshift_scheduler.arrays import Bools, Ints
from wattshift_scheduler.carried import Carried
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.forecasts.reserve import Bursts, Held, Reserve
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.cycles import Turns
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.signals.memory import Memory
from wattshift_scheduler.signals.overhead import Overhead
from wattshift_scheduler.signals.words import Cap, Signals
from wattshift_scheduler.site import Site
from wattshift_scheduler.tables import Tables
from wattshift_scheduler.values import Quote, Values


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of one agent.

    Attributes:
        boot_id, boot_s: its boot, and its boot clock at its last reply, s.
        seen_s: our clock when that reply arrived, s.
        lost: why it is silent; empty while it answers.
    """

    boot_id: str
    boot_s: float
    seen_s: float
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Limited:
    """A power limit of a job's units on one node.

    Attributes:
        command: the command that asked for it.
        asked_w: limit of one unit that was asked for, W; None: none.
        asked_s: when, our clock.
        units: units that were there when it was asked for.
        enforced_w: limit of one unit that was confirmed, W; NaN while none is.
        covers: units that the confirmed limit holds for.
    """

    command: int
    asked_w: float | None
    asked_s: float
    units: int
    enforced_w: float = math.nan
    covers: int = 0


@dataclass(frozen=True, slots=True)
class NodePower:
    """Watts granted to Ray work on one compute node.

    Attributes:
        granted_w: what the node last said it holds, W; Ray clamps a shrink to what is in use.
        asked_w: what we last asked for, W; NaN before the first time.
        asked_s: when, our clock.
        up: whether Ray answers.
        used_w: what Ray work holds of it, W; NaN unknown.
        unasked_w: draw of work there that asked for no `power_w`, W; NaN unknown.
        system_w: draw of what Ray and Serve need there themselves, W; NaN unknown.
        unasked: what both are, for people.
        relief_w: watts by which confirmed power limits keep the work below what it holds, W.
        labels, gpus: as Ray tells; None before the first time.
        draining: the node is leaving: nothing new goes there.
        limits: power limits of units there, by job; `relief_w` is what they add up to.
        short_s: since when it has held more than it should have after a shrink, our clock; NaN if
            it does not.
        trouble: words of the last command about its watts that failed; empty if it did not.
        down_s: since when Ray is said not to answer there, our clock; NaN while it does, or before
            anybody has looked.
        forgotten: an operator vouches that the machine is off: it counts nothing until it is back.
    """

    granted_w: float
    asked_w: float = math.nan
    asked_s: float = -math.inf
    up: bool = False
    used_w: float = math.nan
    unasked_w: float = math.nan
    system_w: float = math.nan
    unasked: tuple[str, ...] = ()
    relief_w: float = 0.0
    labels: Mapping[str, str] | None = None
    gpus: float | None = None
    draining: bool = False
    limits: Mapping[str, Limited] = field(default_factory=dict)
    short_s: float = math.nan
    trouble: str = ""
    down_s: float = math.nan
    forgotten: bool = False

    @property
    def most_w(self) -> float:
        """What is granted or may have been granted to Ray work, W."""
        return self.granted_w if math.isnan(self.asked_w) else max(self.granted_w, self.asked_w)

    @property
    def bound_w(self) -> float:
        """The most that Ray work may draw: `most_w` less what confirmed limits hold back, W."""
        return max(self.most_w - self.relief_w, 0.0)


class Sent(NamedTuple):
    """A command that waits for its end. A cut makes hundreds: a tuple is made fastest."""

    kind: str
    subject: str
    at_s: float

    @classmethod
    def each(cls, kind: str, subjects: Iterable[str], at_s: float) -> "Iterator[Sent]":
        """One to each subject, made without a call in Python for each."""
        return map(_BARE, repeat(cls), zip(repeat(kind), subjects, repeat(at_s), strict=False))


_BARE: Any = tuple.__new__


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should know. It ends by itself when its cause is gone."""

    id: str
    severity: str
    text: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """The figures of the last decision, for people and metrics; all W or USD/MWh.

    `counted_w` is what has to be counted on when all is shed that can be, `shortfall_w` by how much
    that lies above the cap, and `feeder_counted_w` the same by feeder where one of them may carry
    less, else empty (`shortfalls`).
    """

    cap_w: float = math.nan
    cap_origin: str = "connection"
    margin_w: float = 0.0
    budget_w: float = math.nan
    committed_w: float = math.nan
    spare_w: float = 0.0
    other_w: float = 0.0
    price_usd_per_mwh: float = math.nan
    marginal_usd_per_mwh: float = math.nan
    binding: tuple[str, ...] = ()
    feeder_usd_per_mwh: tuple[float, ...] = ()
    feeder_committed_w: tuple[float, ...] = ()
    shortfall_w: float = 0.0
    counted_w: float = 0.0
    feeder_counted_w: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The whole memory of the core.

    Attributes:
        site: fixed for the life of a controller.
        values: fixed too, but for a hashprice that a feed gives.
        quote: where that hashprice comes from.
        epoch: fencing token of this controller; agents refuse older ones (I6).
        fleet, ladder, ledger, seen: devices and their columns.
        turns: what their turns between sleep and work rest on.
        tables: what they hold of their cards' memory, and what compute needs of it.
        agents, nodes: by name.
        strangers: nodes that Ray has and the site file does not name; never commanded.
        jobs: by id, final ones too.
        signals: caps, targets and events by source, overrides, price.
        memory: what arbitration goes on from.
        overhead: what is drawn beside the devices, learnt; None while nothing is believed.
        meter_w, meter_at_s: last reading of the site meter; NaN unknown.
        excess_w: measured watts beyond what the ledger explains, held and slowly released (I9).
        plan: the look-ahead plan that stands, expired or not; None without.
        bursts: how the demand of services has moved.
        reserve: what is kept ready for them and for the grid, as of the last decision.
        held: mining that is held up for promises to the grid, as of the last decision.
        sent: commands without an end yet.
        next_command: id of the next command.
        alarms: by id.
        outlook: figures of the last decision.
        verdict: the cap in force at the last decision.
        decided_s: when the last decision was made, our clock.
        carried: what the next decision need not work out anew; no memory, see there.
    """

    site: Site
    values: Values
    epoch: int
    fleet: Fleet
    ladder: Ladder
    ledger: Ledger
    seen: Telemetry
    turns: Turns = field(default_factory=lambda: Turns.none(0))
    tables: Tables = field(default_factory=lambda: Tables.unknown(0))
    agents: Mapping[str, Agent] = field(default_factory=dict)
    nodes: Mapping[str, NodePower] = field(default_factory=dict)
    strangers: Mapping[str, NodePower] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    signals: Signals = field(default_factory=lambda: Signals({}))
    memory: Memory = field(default_factory=Memory)
    overhead: Overhead | None = None
    meter_w: float = math.nan
    meter_at_s: float = -math.inf
    excess_w: float = 0.0
    plan: Standing | None = None
    bursts: Bursts = field(default_factory=Bursts)
    reserve: Reserve = field(default_factory=Reserve)
    held: Held = field(default_factory=Held)
    sent: Mapping[int, Sent] = field(default_factory=dict)
    next_command: int = 1
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    outlook: Outlook = field(default_factory=Outlook)
    quote: Quote = field(default_factory=Quote)
    verdict: Arbitrated | None = None
    decided_s: float = -math.inf
    carried: Carried | None = field(default=None, compare=False, repr=False)

    def touched(
        self, rows: Ints, *, ledger: Ledger | None = None, seen: Telemetry | None = None
    ) -> "State":
        """The state with another ledger or telemetry, which differ from its own in `rows` alone."""
        ledger = self.ledger if ledger is None else ledger
        seen = self.seen if seen is None else seen
        carried = self.carried
        if carried is not None and carried.belongs(self.fleet, self.ledger, self.seen):
            carried = carried.followed(ledger, seen, rows)
        return replace(self, ledger=ledger, seen=seen, carried=carried)

    @property
    def present(self) -> Carried:
        """What is carried, once a decision has brought it up to now."""
        assert self.carried is not None, "a decision begins with upkeep.brought"
        return self.carried

    def forgotten(self) -> "State":
        """The state without what is carried: the next decision works everything out anew."""
        return replace(self, carried=None)

    def leased_w(self) -> float:
        """The sum of all leases, W."""
        carried, lease_w = self.carried, self.ledger.lease_w
        if carried is not None and carried.lease_w is lease_w:
            return carried.leased_w
        return float(np.nansum(lease_w))

    @property
    def caps(self) -> tuple[Cap, ...]:
        """All caps of all sources, as stated."""
        return tuple(cap for caps in self.signals.caps.values() for cap in caps)

    def price_usd_per_mwh(self) -> float:
        """The energy price in force, else the site's default; infinite while it is unknown."""
        price = self.signals.price_usd_per_mwh
        price = self.values.default_price_usd_per_mwh if price is None else price
        return math.inf if price is None else price

    def of_kind(self, kind: JobKind) -> list[Job]:
        """Jobs of a kind that are not final."""
        return [job for job in self.jobs.values() if job.kind is kind and not job.state.final]

    def ended(self, *commands: int) -> "State":
        """The state without commands that have had their end."""
        sent = dict(self.sent)  # copied whole: to go over it would cost agents by agents a second
        for command in commands:
            sent.pop(command, None)
        return replace(self, sent=sent)

    def silent(self, now_s: float) -> Bools:
        """Devices whose agent is not answering now; shape (n,)."""
        stale_s = self.site.rules.stale_after_s
        dumb = [
            (agent := self.agents.get(name)) is None
            or bool(agent.lost)
            or now_s - agent.seen_s > stale_s
            for name in self.fleet.agents
        ]
        return np.array(dumb, dtype=np.bool_)[self.fleet.agent]


def initial(
    site: Site,
    values: Values,
    epoch: int,
    jobs: Mapping[str, Job] | None = None,
    signals: Signals | None = None,
    forgotten: Set[str] = frozenset(),
) -> State:
    """The state of a controller that has just started: it knows its site and its jobs, no device.

    Args:
        site, values: from the site file.
        epoch: higher than every epoch that any controller of this site has ever used.
        jobs: jobs from the journal.
        signals: what sources had said, from the journal: it holds until each has spoken again.
        forgotten: nodes that an operator vouched are off, and that were not seen since.
    """
    fleet = Fleet.of((), site.tree)
    return State(
        site=site,
        values=values,
        epoch=epoch,
        fleet=fleet,
        ladder=Ladder.of(fleet, values),
        quote=Quote(told_usd_per_ph_day=values.hashprice_usd_per_ph_day),
        ledger=Ledger.empty(fleet),
        seen=Telemetry.unknown(0),
        # Until a node says what it holds, it may hold all that the site file allows it.
        nodes={
            node.name: NodePower(granted_w=0.0, forgotten=True)
            if node.name in forgotten
            else NodePower(granted_w=node.max_w)
            for node in site.nodes
        },
        jobs=dict(jobs or {}),
        signals=Signals({}) if signals is None else signals,
    )
