"""What one decision takes over from the one before it, so that it costs what has changed.

A figure of a device holds until an event or a grant touches the device (`State.touched` notes
which), or until a moment that is kept beside it. Whatever is carried says what it was worked out
from; a decision that finds something else in its state works it out anew. Nothing here is memory:
without it (`State.forgotten`) the next decision is the same, and slower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wattshift_scheduler.arrays import Bools, Column, Floats, Ints, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.cycles import Asked, Turns, Weighed
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.turns import Worths
from wattshift_scheduler.leases import Ledger, Telemetry

STEPS = 100
"""A continuous device is leased in hundredths of its top."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The devices of a fleet by agent and by feeder, so that nothing sorts them again.

    Attributes:
        agent: columns by agent, each agent's rising; None: they stand so already.
        agent_rank: where each column stands in that order; shape (n,).
        blocks: the agent of each block of that order, as an index into `Fleet.agents`.
        block_first: where each block begins there; shape (blocks + 1,).
        feeder: columns by feeder, likewise; None: they stand so already.
        feeder_first: where the columns of each feeder that has some begin there.
        feeder_used: those feeders.
        gates: columns of fenced devices.
        continuous: columns of devices that can be leased any watts, and the step of leases of each,
            a hundredth of its top: the gate knows no finer intensity.
        tabled: whether any device keeps a table.
    """

    agent: Ints | None
    agent_rank: Ints
    blocks: Ints
    block_first: Ints
    feeder: Ints | None
    feeder_first: Ints
    feeder_used: Ints
    gates: Ints
    continuous: Ints
    step_w: Floats
    tabled: bool

    @classmethod
    def of(cls, fleet: Fleet) -> "Orders":
        """Sort the devices once."""
        n, agent, feeder = len(fleet), _order(fleet.agent), _order(fleet.feeder)
        rank = np.arange(n)
        if agent is not None:
            rank = np.empty(n, dtype=np.int64)
            rank[agent] = np.arange(n)
        there = fleet.agent if agent is None else fleet.agent[agent]
        block_first = np.flatnonzero(np.diff(there, prepend=-1))
        used = fleet.feeder if feeder is None else fleet.feeder[feeder]
        feeder_first = np.flatnonzero(np.diff(used, prepend=-1))
        continuous = np.flatnonzero(fleet.continuous)
        step_w = fleet.point_limit_w[fleet.first[continuous + 1] - 1] / STEPS
        return cls(
            agent=agent,
            agent_rank=frozen(rank),
            blocks=frozen(there[block_first]),
            block_first=frozen(np.append(block_first, n)),
            feeder=feeder,
            feeder_first=frozen(feeder_first),
            feeder_used=frozen(used[feeder_first]),
            gates=frozen(np.flatnonzero(fleet.fenced)),
            continuous=frozen(continuous),
            step_w=frozen(np.where(step_w > 0, step_w, 1.0)),
            tabled=bool((fleet.table_bytes > 0).any()),
        )

    def by_agent(self, columns: Ints) -> tuple[Ints, Ints]:
        """Some rising columns by agent, and where each block begins and the last one ends there."""
        if self.agent is None:
            return columns, np.searchsorted(columns, self.block_first)
        marked = np.zeros(len(self.agent), dtype=np.bool_)
        marked[self.agent_rank[columns]] = True
        ranks = np.flatnonzero(marked)
        return self.agent[ranks], np.searchsorted(ranks, self.block_first)

    def of_agents(self, marked: Bools) -> Ints:
        """All columns of the agents that are marked; shape (agents,) in."""
        return np.flatnonzero(self.spread(marked))

    def spread(self, by_agent: Column) -> Column:
        """What is told by agent, device by device; shape (agents,) in, (n,) out."""
        there = np.repeat(by_agent[self.blocks], np.diff(self.block_first))
        spread: Column = there if self.agent is None else there[self.agent_rank]  # type: ignore[assignment]
        return spread

    def by_feeder(self, amounts: Floats, feeders: int) -> Floats:
        """Sum a column at the devices' own feeders; shape (feeders,)."""
        total = np.zeros(feeders)
        if len(amounts):
            there = amounts if self.feeder is None else amounts[self.feeder]
            total[self.feeder_used] = np.add.reduceat(there, self.feeder_first)
        return total


def _order(keys: Ints) -> Ints | None:
    """An order in which equal keys stand together, rising in themselves; None: they do already."""
    if np.count_nonzero(np.diff(keys)) + 1 == len(np.unique(keys)) or not len(keys):
        return None
    return frozen(np.argsort(keys, kind="stable").astype(np.int64))


@dataclass(frozen=True, slots=True)
class Heard:
    """When each agent of a fleet answered last, and which are silent; shape (agents,) each.

    Attributes:
        agents, fleet: what it was worked out from.
        silent: those that do not answer now.
        seen_s: when each answered last, our clock; -inf if never.
        until_s: before this moment only news of them change that.
    """

    agents: Mapping[str, Any]
    fleet: Fleet
    silent: Bools
    seen_s: Floats
    until_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision asks of each device; shape (n,) each.

    Attributes:
        ceiling_w: the most that it can draw with no further command.
        least_w: what it draws at least once all that can be shed is: its ceiling while it is stuck.
        late: it has not settled on its last grant in time.
        stuck: it cannot be relied on now.
        runs: it is leased above its lowest point, or seen to draw more.
        free: it may mine now and is not stuck.
        due_s: before this moment none of these changes by itself, our clock.
    """

    ceiling_w: Floats
    least_w: Floats
    late: Bools
    stuck: Bools
    runs: Bools
    free: Bools
    due_s: Floats


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of `Facts`, W.

    Attributes:
        ceilings_w, leasts_w: at the devices' own feeders, the overlap with compute counted once;
            shape (feeders,).
        ceiling_w, least_w: over all devices, that overlap not taken off.
        facts, credit_w: what they were summed from.
    """

    ceilings_w: Floats
    leasts_w: Floats
    ceiling_w: float
    least_w: float
    facts: Facts
    credit_w: Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """The answers of `cycles.weigh`, and the ladder, price, memory and plan that they rest on; and
    for which running devices the ladder was ranked."""

    weighed: Weighed
    ladder: Ladder
    price_usd_per_mwh: float
    turns: Turns
    worths: Worths | None = None
    runs: Bools | None = None

    def other(self, ladder: Ladder, turns: Turns, asked: Asked, rows: Ints) -> Ints | None:
        """Devices whose answer may be another now; None: it may be of any.

        Args:
            ladder, turns, asked: as of now.
            rows: devices of which something else has changed.
        """
        due = asked.now_s >= self.weighed.until_s
        if due or self.turns is not turns or self.price_usd_per_mwh != asked.price_usd_per_mwh:
            return None
        if self.worths is not asked.worths:
            return None
        if ladder is self.ladder:
            return rows
        if ladder.turned is None or ladder.turned.token is not self.ladder.token:
            return None
        return union(len(ladder.awake), rows, ladder.turned.devices)


@dataclass(frozen=True, slots=True)
class Carried:
    """All that is carried.

    Attributes:
        fleet, ledger, seen: the columns that it belongs to.
        orders: of the fleet.
        facts, heard: as of the last decision.
        patterns, mines: of the running mining jobs, and the devices that they name; shape (n,).
        emptied: the devices that made room for compute by then; shape (n,).
        bounds_w, credit_w: what compute may draw on the hosts of gated devices, W; and the part of
            it that counts for each device (`budget.credit_w`); shape (n,).
        lease_w, leased_w: the leases' watts, and their sum.
        touched: rows of the columns that have changed since `facts` were worked out.
        sums: of `facts`.
        weights: what the price says to each device.
        wanted_w: watts that the last allocation wanted for each device; shape (n,).
        moving: devices that did not hold what was wanted then.
        filled: what the next allocation can start from.
        promised: what was seen and answered for promises (`holding.Kept`); None without any.
    """

    fleet: Fleet
    ledger: Ledger
    seen: Telemetry
    orders: Orders
    facts: Facts
    heard: Heard
    patterns: tuple[str, ...]
    mines: Bools
    emptied: Bools
    bounds_w: tuple[float, ...]
    credit_w: Floats
    lease_w: Floats
    leased_w: float
    touched: tuple[Ints, ...] = ()
    sums: Sums | None = None
    weights: Weights | None = None
    wanted_w: Floats | None = None
    moving: Ints | None = None
    filled: Any = None
    promised: Any = None

    def belongs(self, fleet: Fleet, ledger: Ledger, seen: Telemetry) -> bool:
        """Whether these are the columns that it was worked out from."""
        return self.fleet is fleet and self.ledger is ledger and self.seen is seen

    def followed(self, ledger: Ledger, seen: Telemetry, rows: Ints) -> "Carried":
        """The same for columns that differ in some rows alone."""
        return replace(self, ledger=ledger, seen=seen, touched=(*self.touched, rows))


def union(n: int, *parts: Ints) -> Ints:
    """The rows that stand in any of the parts, rising, of `n` rows."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return np.zeros(0, dtype=np.int64)
    marked = np.zeros(n, dtype=np.bool_)
    for part in filled:
        marked[part] = True
    return np.flatnonzero(marked)
