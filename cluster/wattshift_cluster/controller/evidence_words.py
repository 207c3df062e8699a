"""What the controller tells its evidence log: samples, energies and plans, in the log's own words.

Nothing here touches the disk. Sums run from one line to the next, so that the spans of a kind
follow each other and no joule stands in two of them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from wattshift_cluster.controller.books import Books
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.grid.meters.reading import QUALITIES, MeterReading
from wattshift_cluster.settle.bodies import EnergyOf, MeterBatch, Used
from wattshift_cluster.settle.intervals import UNKNOWN_SHARE_MOST
from wattshift_scheduler.decisions import Decision, Input, Moves
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.allocate import beyond
from wattshift_scheduler.state import State

SAMPLES_MOST = 1_000
"""Samples of one meter that share a line: 30 kB."""

DEVICES_PER_LINE = 5_000
"""Half a megabyte, half of what a line may be."""

ENERGY_S = 60.0
ENERGY_MOST_S = 900.0
DEVICES_A_MINUTE = 1_000
"""Beyond so many devices their energy is told less often, so that a day's file holds a day."""

GRANTED = "granted"
"""Quality of compute's energy: the watts granted to the units that run, not what they drew."""


class Batches:
    """Samples of all meters since the last line."""

    def __init__(self) -> None:
        """Start without a sample."""
        self._samples: dict[str, list[tuple[float, float]]] = {}
        self._quality: dict[str, str] = {}
        self._offset_s: dict[str, float] = {}
        self._counter: dict[str, tuple[tuple[float, float], ...]] = {}
        self._last: dict[str, tuple[float | None, bool]] = {}

    def add(self, source: str, reading: MeterReading, now_s: float, offset_s: float) -> None:
        """Take what a meter says, once: its sample, or, the first time, that it is unknown.

        Args:
            offset_s: its clock less ours at the least, s; NaN: unknown.
        """
        known = reading.watts_w is not None
        mark = (reading.at_s, known)
        # An unknown time ends the line from sample to sample; more of it says nothing new.
        if self._last.get(source) == mark or not (known or self._last.get(source, (None, True))[1]):
            return
        self._last[source] = mark
        samples = self._samples.setdefault(source, [])
        if reading.watts_w is None or reading.age_s is None:
            samples.append((now_s, math.nan))
            return
        samples.append((now_s - reading.age_s, reading.watts_w))
        if reading.energy_wh is not None:
            # The first and the last of a line: between two a counter misses nothing.
            count = (now_s - reading.age_s, reading.energy_wh)
            self._counter[source] = (*self._counter.get(source, ())[:1], count)
        self._quality[source] = _worse(self._quality.get(source), reading.quality)
        # The freshest sample tells best how far the clocks are apart.
        self._offset_s[source] = float(np.fmax(self._offset_s.get(source, math.nan), offset_s))

    @property
    def full(self) -> bool:
        """Whether a line is full: they are to be taken now."""
        return any(len(samples) >= SAMPLES_MOST for samples in self._samples.values())

    def taken(self) -> Iterator[MeterBatch]:
        """One batch of each meter that has spoken; the next ones begin anew."""
        for source, samples in self._samples.items():
            quality = self._quality.get(source, QUALITIES[0])
            offset_s = self._offset_s.get(source, math.nan)
            counter = self._counter.get(source, ())
            yield MeterBatch(source, quality, offset_s, tuple(samples), counter)
        self._samples, self._quality, self._offset_s, self._counter = {}, {}, {}, {}


def _worse(one: str | None, other: str | None) -> str:
    """The less sure of two qualities; one that nobody told is no measurement."""
    told = QUALITIES.index(other) if other in QUALITIES else len(QUALITIES) - 1
    return QUALITIES[told if one is None else max(told, QUALITIES.index(one))]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Sums of one device at the end of the last span."""

    energy_j: float = 0.0
    metered_s: float = 0.0
    earned_usd: float = 0.0


class Energies:
    """What each device drew and earned, and what was granted to each tenant's compute."""

    def __init__(self, books: Books, roster: Roster, now_s: float) -> None:
        """Count from now on."""
        self._books, self._roster = books, roster
        self._from_s = self._granted_s = now_s
        self._marks = {name: _mark(books, name) for name in books.devices}
        self._granted_w: dict[str, float] = {}
        self._tenants_j: dict[str, float] = {}

    def granted(self, jobs: Iterable[Job], now_s: float) -> None:
        """Count what was granted since the last call, and look at what is granted now."""
        for tenant, watts_w in self._granted_w.items():
            joules = watts_w * max(now_s - self._granted_s, 0.0)
            self._tenants_j[tenant] = self._tenants_j.get(tenant, 0.0) + joules
        self._granted_s = now_s
        self._granted_w = {}
        for job in jobs:
            if job.kind is not JobKind.MINING and (watts_w := _held_w(job)):
                tenant = job.terms.tenant
                self._granted_w[tenant] = self._granted_w.get(tenant, 0.0) + watts_w

    def due(self, state: State, now_s: float) -> bool:
        """Whether the span is long enough to be told."""
        often = math.ceil(len(state.fleet.devices) / DEVICES_A_MINUTE)
        return now_s - self._from_s >= min(max(often, 1) * ENERGY_S, ENERGY_MOST_S)

    def taken(
        self, state: State, now_s: float
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Bodies of lines of kind DEVICES and TENANTS for the span up to now; the next begins."""
        from_s, self._from_s = self._from_s, now_s
        self.granted(state.jobs.values(), now_s)
        rows = self._devices(state, now_s - from_s)
        infos = self._roster.entries
        quality = None
        for name in rows:
            quality = _worse(quality, infos[name].info.get("quality") if name in infos else None)
        devices = [
            {**EnergyOf(from_s, now_s, part).body(), "quality": quality} for part in _parts(rows)
        ]
        shares = {name: Used(round(joules)) for name, joules in self._tenants_j.items()}
        self._tenants_j = {}
        energy = EnergyOf(from_s, now_s, shares)
        return devices, [{**energy.body(), "quality": GRANTED}] if shares else []

    def _devices(self, state: State, span_s: float) -> dict[str, Used]:
        known = dict.fromkeys(one.id for one in state.fleet.devices)
        rows: dict[str, Used] = {}
        for name in {**known, **dict.fromkeys(self._books.devices)}:
            before, now = self._marks.get(name, _Mark()), _mark(self._books, name)
            if name not in known and now == before:
                continue
            self._marks[name] = now
            metered_s = now.metered_s - before.metered_s
            enough = metered_s >= (1.0 - UNKNOWN_SHARE_MOST) * span_s
            energy_j = round(now.energy_j - before.energy_j) if enough else math.nan
            rows[name] = Used(energy_j, round(now.earned_usd - before.earned_usd, 9))
        return rows


def _parts(rows: Mapping[str, Used]) -> Iterator[Mapping[str, Used]]:
    """The rows of each line."""
    left = iter(rows.items())
    while part := dict(islice(left, DEVICES_PER_LINE)):
        yield part


def _mark(books: Books, name: str) -> _Mark:
    account = books.devices.get(name)
    if account is None:
        return _Mark()
    return _Mark(account.energy_j, account.metered_s, account.earned_usd)


def _held_w(job: Job) -> float:
    """Watts granted to the units of a job that run, W."""
    if job.state.final:
        return 0.0
    units = job.units if job.by_node is None else sum(job.by_node.values())
    return units * job.unit_w


def planned_w(state: State) -> float:
    """What the site is planned to draw, W: all leases, the grants of compute, and the rest.

    NaN while a device has no lease yet: what it may draw was not decided by anybody here.
    """
    leases_w = beyond(budget.credit_w(state), state.ledger.lease_w)
    grants_w = sum(node.bound_w for node in state.nodes.values())
    rest_w = state.outlook.other_w
    return float(leases_w.sum()) + grants_w + rest_w


def summed_up(moves: Moves) -> Decision:
    """A change of many leases as one decision; the journal has it device by device."""
    before_w, after_w = float(np.nansum(moves.from_w)), float(np.nansum(moves.to_w))
    changed = int(np.sum(moves.from_w != moves.to_w))
    inputs: Mapping[str, Input] = {
        **moves.inputs,
        "leases": changed,
        "from_w": before_w,
        "to_w": after_w,
    }
    reason = f"{changed} leases of together {before_w:,.0f} W are now {after_w:,.0f} W"
    return Decision(moves.at_s, "devices", "moves", reason, inputs)
