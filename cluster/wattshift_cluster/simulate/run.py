"""Turn the simulated clock: poll the world, step, carry out, let time pass, count.

The loop is the live controller's: one step a second, and one more at once for the answers to its
own commands. `clock` jumps over settled stretches, at most a minute at a time, so that a day takes
seconds. Everything random comes from the seed, so the same call gives the same result.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.simulate import faults as broken
from wattshift_cluster.simulate import fleet as modelled
from wattshift_cluster.simulate.clock import jumped
from wattshift_cluster.simulate.faults import Fault, FaultKind
from wattshift_cluster.simulate.feeds import Feeds, feeds
from wattshift_cluster.simulate.tally import Tally
from wattshift_cluster.simulate.world import Slice, World
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Moves
from wattshift_scheduler.hashprice import Scheme
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.signals.arbitrate import arbitrate
from wattshift_scheduler.site import Device, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

JUMP_MAX_S = 60.0
"""Longest jump over a settled stretch, s."""

SETTLED_STEPS = 3
"""Steps without any decision after which a stretch counts as settled."""

ANSWER_ROUNDS = 4
"""Most steps within one turn: a command, its answer, and what the answer sets free."""

ROWS = ("at_s", "cap_w", "total_w", "mining_w", "service_w", "batch_w", "other_w",
        "committed_w", "price_usd_per_mwh")  # fmt: skip
"""Columns of the time series."""


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What a run came to. All figures are modelled.

    Attributes:
        simulated_hours: length of the run, h.
        energy_mwh: by work: mining, service, batch, other.
        cost_usd: energy bought at the price series.
        revenue_usd: by work: mining (hashes at the hashprice), reserve (gated watts at the reserve
            price), compute (services and batch at their stated value).
        cycles, wear_usd: wakes from sleep of what has no gate, and what all of them wore off, USD.
        net_usd: revenue less cost and wear.
        overcap_seconds, overcap_worst_w: all time above the cap, excused or not.
        shortfall_seconds: the part of it in which the controller had said that it cannot shed more.
        overcap_bound_s: how long a disturbance may excuse watts above the cap.
        breaches: times above the cap that nothing excuses.
        sheds: every cut with its seconds to the cap.
        faults: by kind, how many began.
        decisions, leases_refused, steps: counts.
        sources: where prices, demand and caps came from.
        seed: of everything random.
        wall_seconds: how long the run took; the one figure that differs between equal runs.
        rows: the time series, columns as in ROWS.
    """

    simulated_hours: float
    devices: int
    energy_mwh: Mapping[str, float]
    cost_usd: float
    revenue_usd: Mapping[str, float]
    cycles: int
    wear_usd: float
    net_usd: float
    overcap_seconds: float
    overcap_worst_w: float
    shortfall_seconds: float
    overcap_bound_s: float
    breaches: Sequence[Mapping[str, float]]
    sheds: Sequence[Mapping[str, float | None]]
    faults: Mapping[str, int]
    decisions: int
    leases_refused: int
    steps: int
    sources: Mapping[str, str]
    seed: int
    quality: str
    wall_seconds: float
    rows: Sequence[tuple[float, ...]] = field(repr=False, default=())

    def to_json(self) -> dict[str, Any]:
        """Everything but the time series, as JSON can hold it."""
        body = asdict(replace(self, rows=()))
        del body["rows"]
        plain: dict[str, Any] = json.loads(json.dumps(body))
        return plain


@dataclass(slots=True)
class Drive:
    """One run: a controller's state on one side, a world on the other."""

    site: Site
    values: Values
    jobs: Sequence[Job]
    world: World
    feeds: Feeds
    faults: Sequence[Fault]
    tally: Tally
    period_s: float
    rows_every_s: float
    state: State = field(init=False)
    owed: list[ev.Event] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    decisions: int = 0
    steps: int = 0
    quiet: int = 0
    away: int = 0
    began: list[Fault] = field(default_factory=list)
    active: list[Fault] = field(default_factory=list)
    _told: tuple[object, ...] = ()
    _cap_w: float = math.inf

    def __post_init__(self) -> None:
        self._start(epoch=1, jobs={})

    def _start(self, epoch: int, jobs: Mapping[str, Job]) -> None:
        """A controller starts: it knows its site and its journal's jobs and inventory, no more."""
        self.state = initial(self.site, self.values, epoch, jobs)
        self.owed = [self.world.joined()]
        self.owed += [ev.JobSubmitted(job) for job in self.jobs if job.id not in jobs]
        self._told = ()

    def until(self, end_s: float) -> None:
        """Run until `end_s`."""
        while self.world.now_s < end_s - 1e-6:
            self._break_and_mend()
            self._signal()
            if not self.away:
                self._turn()
            self._pass_time(end_s)

    def _break_and_mend(self) -> None:
        now_s = self.world.now_s + 1e-6
        for fault in [f for f in self.active if f.ends_s <= now_s]:
            self.active.remove(fault)
            broken.end(self.world, fault)
            self.tally.disturbed(self.world.now_s)
            if fault.kind is FaultKind.CONTROLLER_RESTART:
                self.away -= 1
                if not self.away:
                    self._start(self.state.epoch + 1, self.state.jobs)
        # Two faults of a kind on one thing would mend each other: the later one does not begin.
        for fault in self.faults[len(self.began) :]:
            if fault.starts_s > now_s:
                break
            self.began.append(fault)
            if any((f.kind, f.subject) == (fault.kind, fault.subject) for f in self.active):
                continue
            self.active.append(fault)
            self.tally.disturbed(self.world.now_s)
            broken.begin(self.world, fault)
            self.away += fault.kind is FaultKind.CONTROLLER_RESTART

    def _signal(self) -> None:
        """Tell the controller of caps, price and load, where they have changed."""
        now_s = self.world.now_s
        price, load = self.feeds.price_usd_per_mwh.at(now_s), self.feeds.demand_share.at(now_s)
        for node in self.world.nodes.values():
            node.load = load or 0.0
        cap_w = arbitrate(self.feeds.caps, float(self.site.tree.limit_w[0]), now_s).cap_w
        if cap_w < self._cap_w - 1e-6 and math.isfinite(self._cap_w):
            self.tally.cut(now_s, self._cap_w, cap_w)
        elif cap_w != self._cap_w:
            self.tally.disturbed(now_s)
        self._cap_w = cap_w
        told: tuple[object, ...] = (price, cap_w, self._hashprice())
        if told != self._told and not self.away:
            self._told = told
            self.owed.append(ev.SignalChanged("schedule", self.feeds.caps))
            self.owed.append(ev.SignalChanged("price", (), price, True))
            series = self.feeds.hashprice_usd_per_ph_day
            if series is not None:
                note = "" if series.at(now_s) is not None else "the history begins later"
                seen = ev.HashpriceSeen(series.at(now_s), now_s, series.source, note)
                self.owed.append(seen)

    def _hashprice(self) -> float | None:
        """The hashprice in force now; what was hashed until it changed is booked at the old one."""
        series, values = self.feeds.hashprice_usd_per_ph_day, self.tally.values
        if series is None:
            return values.hashprice_usd_per_ph_day
        now = series.at(self.world.now_s)
        if now != values.hashprice_usd_per_ph_day:
            self.tally.hashed(self.hashes())
            self.tally.values = replace(values, hashprice_usd_per_ph_day=now)
        return now

    def hashes(self) -> float:
        """What all devices have hashed so far."""
        return float(np.sum([one.hashes for one in self.world.devices.values()]))

    def _turn(self) -> None:
        events, self.owed = [*self.owed, *self.world.poll()], []
        made = 0
        for _ in range(ANSWER_ROUNDS):
            self.state, commands, told = step(self.state, events, self.world.now_s)
            self.steps += 1
            made += sum(len(one.devices) if isinstance(one, Moves) else 1 for one in told)
            events = [event for command in commands for event in self.world.carry(command)]
            if not events:
                break
        self.owed += events
        self.decisions += made
        self.quiet = 0 if made or self.owed else self.quiet + 1

    def _pass_time(self, end_s: float) -> None:
        now_s = self.world.now_s
        edge_s = min(end_s, self._next_edge_s())
        jump_s = min(edge_s - now_s, JUMP_MAX_S)
        if self._settled() and jump_s > self.period_s:
            self._count(self.world.drift(jump_s))
            self.state = jumped(self.state, jump_s)
            return
        for one in self.world.advance(min(now_s + self.period_s, max(edge_s, now_s + 1e-3))):
            self._count(one)

    def _next_edge_s(self) -> float:
        now_s = self.world.now_s
        edges = [self.feeds.next_change_s(now_s)]
        edges += [fault.ends_s for fault in self.active]
        edges += [fault.starts_s for fault in self.faults[len(self.began) : len(self.began) + 1]]
        quiet_s = self.site.rules.scale_down_after_s
        edges += [
            job.quiet_since_s + quiet_s
            for job in self.state.jobs.values()
            if job.quiet_since_s is not None
        ]
        return min((edge for edge in edges if edge > now_s), default=math.inf)

    def _settled(self) -> bool:
        state = self.state
        return (
            self.quiet >= SETTLED_STEPS
            and not self.away
            and not self.active
            and not self.owed
            and not state.sent
            and state.excess_w == 0.0
            and bool(state.ledger.confirmed.all())
            and not self.world.moving
            and not math.isfinite(self.world.next_ready_s())
        )

    def _count(self, one: Slice) -> None:
        now_s, outlook = one.at_s, self.state.outlook
        price = self.feeds.price_usd_per_mwh.at(now_s)
        short = not self.away and outlook.shortfall_w > 0.5
        cost = self.values.default_price_usd_per_mwh if price is None else price
        assert cost is not None, "a simulated site has a price at every moment"
        self.tally.add(one, self._cap_w, cost, short)
        if not self.rows or now_s - self.rows[-1][0] >= self.rows_every_s:
            watts = (one.mining_w, one.service_w, one.batch_w, one.other_w)
            row = (now_s, self._cap_w, one.total_w, *watts, outlook.committed_w, cost)
            self.rows.append(tuple(round(float(cell), 3) for cell in row))


def _values(config: SiteConfig) -> Values:
    """The site's values; without a stated price the simulated energy is free between price rows."""
    values = blueprint.values_of(config)
    if values.default_price_usd_per_mwh is not None:
        return values
    return replace(values, default_price_usd_per_mwh=0.0)


def run_simulation(
    site_path: str | Path,
    *,
    prices: str | None = None,
    demand: str | None = None,
    signal: str | None = None,
    column: str | None = None,
    hashprice: str | None = None,
    hashprice_column: str | None = None,
    fleet: str | Path | None = None,
    days: float = 1.0,
    seed: int = 1,
    faults_per_day: float = 24.0,
    fault_kinds: Sequence[str] | None = None,
    period_s: float = 1.0,
    rows_every_s: float = 60.0,
) -> SimulationResult:
    """Simulate a site for some days. Same arguments, same result (but `wall_seconds`).

    Args:
        site_path: the site file.
        prices, demand, signal: files, plain or .gz, also by name below WATTSHIFT_DATA; None: a
            seeded generator, named as such in the result's `sources`.
        column: column of the price file; by default `usd_per_mwh`, else its second column.
        hashprice, hashprice_column: a history of the hashprice and its column, see `feeds`; None:
            the site file's constant.
        fleet: JSON list of {"count", "model", "agent", "wear_usd_per_cycle"}; None: a small default
            fleet, of which nothing wears off.
        days: length, simulated days.
        seed: of devices, faults and generators.
        faults_per_day: faults a day, on average; 0 for none.
        fault_kinds: kinds of fault to draw from; None: all of `FaultKind`.
        period_s: period of the control loop, s.
        rows_every_s: spacing of the time series, s.

    Raises:
        ConfigInvalid: a fault in any of the files or arguments.
    """
    config = load_site(site_path)
    kinds = [FaultKind(kind) for kind in fault_kinds] if fault_kinds is not None else [*FaultKind]
    driven = feeds(
        prices=prices,
        demand=demand,
        signal=signal,
        column=column,
        seed=seed,
        days=days,
        connection_w=config.root.limit_w,
        hashprice=hashprice,
        hashprice_column=hashprice_column,
        scheme=Scheme(config.economics.scheme),
    )
    # The modelled agents are there from the start, so none is waited for.
    site = replace(blueprint.site_of(config), agents=())
    return simulate(
        site,
        _values(config),
        modelled.fitting(site, modelled.read_fleet(fleet, config), str(site_path)),
        modelled.jobs_of(config),
        driven,
        days=days,
        seed=seed,
        faults_per_day=faults_per_day,
        fault_kinds=kinds,
        period_s=period_s,
        rows_every_s=rows_every_s,
    )


def simulate(
    site: Site,
    values: Values,
    devices: Sequence[Device],
    jobs: Sequence[Job],
    driven: Feeds,
    *,
    days: float,
    seed: int,
    faults_per_day: float = 0.0,
    fault_kinds: Sequence[FaultKind] = tuple(FaultKind),
    period_s: float = 1.0,
    rows_every_s: float = 60.0,
) -> SimulationResult:
    """Simulate a site that is given as objects. See `run_simulation`."""
    begin_s = time.perf_counter()
    world = World.of(site, devices, jobs, seed)
    end_s = days * 86400.0
    planned = broken.schedule(world, seed, end_s, faults_per_day, fault_kinds)
    tally = Tally(values, bound_s(site, devices))
    drive = Drive(site, values, jobs, world, driven, planned, tally, period_s, rows_every_s)
    drive.until(end_s)
    return _result(drive, days, seed, time.perf_counter() - begin_s)


def bound_s(site: Site, devices: Sequence[Device]) -> float:
    """How long watts above the cap are excused after a disturbance, s.

    The longest of the ways back: leases of a site without a controller end and devices ramp down;
    or a device that disobeys is noticed and the others make room for it.
    """
    rules = site.rules
    slowest_s = max(point.transition_s for device in devices for point in device.points)
    fenced_s = rules.lease_ttl_s + slowest_s
    noticed_s = rules.stale_after_s + slowest_s * rules.settle_factor + 2.0 + slowest_s
    return max(fenced_s, noticed_s) + 5.0


def _result(drive: Drive, days: float, seed: int, wall_s: float) -> SimulationResult:
    tally = drive.tally
    tally.hashed(drive.hashes())
    revenue = {
        "mining": tally.mining_usd,
        "reserve": tally.reserve_usd,
        "compute": tally.work_usd,
    }
    devices = drive.world.devices.values()
    wear_usd = sum(one.cycles * one.device.wear_usd_per_cycle for one in devices)
    return SimulationResult(
        simulated_hours=days * 24.0,
        devices=len(drive.world.devices),
        energy_mwh={work: joules / 3.6e9 for work, joules in tally.energy_j.items()},
        cost_usd=tally.cost_usd,
        revenue_usd=revenue,
        cycles=sum(one.cycles for one in devices if not one.device.fenced),
        wear_usd=wear_usd,
        net_usd=sum(revenue.values()) - tally.cost_usd - wear_usd,
        overcap_seconds=tally.overcap_s,
        overcap_worst_w=tally.overcap_worst_w,
        shortfall_seconds=tally.shortfall_s,
        overcap_bound_s=tally.bound_s,
        breaches=[asdict(one) for one in tally.breaches],
        sheds=[asdict(one) for one in tally.sheds],
        faults=broken.counted(drive.began),
        decisions=drive.decisions,
        leases_refused=sum(agent.refused for agent in drive.world.agents.values()),
        steps=drive.steps,
        sources=dict(drive.feeds.sources),
        seed=seed,
        quality="modelled",
        wall_seconds=wall_s,
        rows=drive.rows,
    )
