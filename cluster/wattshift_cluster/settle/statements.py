"""Statements for the tenants of hosted machines, whose sums are those of the site meter.

What the meter shows beyond all devices and compute is overhead (cooling, losses). A tenant bears
its share of that by energy, up to the share of its own energy that its contract lets pass. What
nobody bears is named `unallocated`, so that energy adds up to the metered energy exactly; where it
is negative, devices told more than the meter saw.
"""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wattshift_cluster.config.settlement import Hosted, Settlement
from wattshift_cluster.settle.bodies import EnergyOf
from wattshift_cluster.settle.settle import Settled
from wattshift_scheduler.signals.notice import BEFORE_S

JOULES_PER_KWH = 3.6e6
OWNER = "site"
"""Who has the devices that no tenant is named for."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one tenant used and earned in the span of a report.

    Attributes:
        tenant: its name; OWNER for the site's own.
        devices: how many devices.
        energy_kwh, compute_kwh: of its devices, and of its jobs on the site's compute.
        overhead_kwh: its share of what the site draws beside devices and compute.
        mining_usd: what its devices' hashes came to.
        credit: its share of what events paid, by currency.
        unknown: spans in which the energy of one of its devices is not known, and counted as 0.
    """

    tenant: str
    devices: int
    energy_kwh: float
    compute_kwh: float
    overhead_kwh: float
    mining_usd: float
    credit: Mapping[str, float]
    unknown: int


@dataclass(frozen=True, slots=True)
class Statements:
    """All statements of a span; energies add up to `metered_kwh` with `unallocated_kwh`.

    Attributes:
        rows: the owner's first, then tenants by name.
        metered_kwh: at the site meter; NaN where a part of the span is not known.
        unallocated_kwh: metered and borne by nobody; negative: devices told more than the meter.
    """

    rows: tuple[Statement, ...]
    metered_kwh: float
    unallocated_kwh: float


@dataclass(slots=True)
class _Sums:
    """Sums of one party, J and USD."""

    devices: set[str] = field(default_factory=set)
    energy_j: float = 0.0
    compute_j: float = 0.0
    mining_usd: float = 0.0
    unknown: int = 0
    credit: dict[str, float] = field(default_factory=dict)

    @property
    def all_j(self) -> float:
        return self.energy_j + self.compute_j


def statements(
    terms: Settlement,
    devices: Sequence[EnergyOf],
    tenants: Sequence[EnergyOf],
    settled: Iterable[Settled],
    span: tuple[float, float],
    metered_kwh: float,
) -> Statements:
    """The statements of a span.

    Args:
        terms: whose machines are whose.
        devices: energies by device; a span that lies across an edge counts by its share within.
        tenants: energies of compute by tenant.
        settled: events whose payment is credited.
        span: from and to, unix times, s.
        metered_kwh: at the site meter in the span; NaN: not known.
    """
    owners = _Owners(terms.hosted)
    sums: dict[str, _Sums] = {OWNER: _Sums()} | {one.tenant: _Sums() for one in terms.hosted}
    for energy in devices:
        share = _within(energy, span)
        for device, used in energy.rows.items():
            one = sums[owners.of(device)]
            if share > 0:
                one.devices.add(device)
                _add(one, used.energy_j * share)
                one.mining_usd += used.mining_usd * share
    for energy in tenants:
        share = _within(energy, span)
        for tenant, used in energy.rows.items():
            if share > 0 and math.isfinite(used.energy_j):
                sums.setdefault(tenant, _Sums()).compute_j += used.energy_j * share
    for event in settled:
        _credit(event, devices, owners, sums)
    return _stated(terms, sums, metered_kwh)


def _add(one: _Sums, energy_j: float) -> None:
    if math.isfinite(energy_j):
        one.energy_j += energy_j
    else:
        one.unknown += 1


def _stated(terms: Settlement, sums: Mapping[str, _Sums], metered_kwh: float) -> Statements:
    known_j = sum(one.all_j for one in sums.values())
    rest_j = metered_kwh * JOULES_PER_KWH - known_j
    most_pct = {one.tenant: one.overhead_pct for one in terms.hosted}
    rows = []
    for name in (OWNER, *sorted(sums.keys() - {OWNER})):
        one = sums[name]
        by_share_j = max(rest_j, 0.0) * one.all_j / known_j if known_j > 0 else 0.0
        # The owner bears no fixed share: what tenants do not bear stays unallocated.
        agreed_j = one.all_j * most_pct.get(name, 0.0) / 100.0
        overhead_j = 0.0 if math.isnan(rest_j) else min(by_share_j, agreed_j)
        rows.append(
            Statement(
                name,
                len(one.devices),
                one.energy_j / JOULES_PER_KWH,
                one.compute_j / JOULES_PER_KWH,
                overhead_j / JOULES_PER_KWH,
                one.mining_usd,
                dict(one.credit),
                one.unknown,
            )
        )
    borne_kwh = sum(row.energy_kwh + row.compute_kwh + row.overhead_kwh for row in rows)
    return Statements(tuple(rows), metered_kwh, metered_kwh - borne_kwh)


def _credit(
    event: Settled, devices: Sequence[EnergyOf], owners: "_Owners", sums: dict[str, _Sums]
) -> None:
    """Share out what an event paid, by how much each party's devices drew less than before it.

    What an event costs (a draw in the wrong direction may) is the owner's: tenants agreed to none.
    """
    if event.payment < 0:
        _pay(sums[OWNER], event.currency, event.payment)
    if not event.rows or not event.payment > 0:
        return
    begun_s, over_s = event.rows[0].interval_start_s, event.rows[-1].interval_end_s
    before_s = min(event.event.notified_s, begun_s)
    before = _mean_by(devices, owners, (before_s - BEFORE_S, before_s))
    during = _mean_by(devices, owners, (begun_s, over_s))
    less_w = {name: max(before.get(name, 0.0) - during.get(name, 0.0), 0.0) for name in before}
    total_w = sum(less_w.values())
    credited = {one.tenant for one in owners.hosted if one.credited}
    shares = {name: watts_w / total_w for name, watts_w in less_w.items()} if total_w > 0 else {}
    left = event.payment
    for name, share in shares.items():
        if name in credited:
            _pay(sums[name], event.currency, event.payment * share)
            left -= event.payment * share
    _pay(sums[OWNER], event.currency, left)


def _pay(one: _Sums, currency: str, amount: float) -> None:
    one.credit[currency] = one.credit.get(currency, 0.0) + amount


def _mean_by(
    devices: Sequence[EnergyOf], owners: "_Owners", span: tuple[float, float]
) -> dict[str, float]:
    """Mean draw of each party's devices over a span, W."""
    found: dict[str, float] = {}
    for energy in devices:
        share = _within(energy, span)
        if share <= 0:
            continue
        for device, used in energy.rows.items():
            if math.isfinite(used.energy_j):
                name = owners.of(device)
                found[name] = found.get(name, 0.0) + used.energy_j * share
    return {name: joules / (span[1] - span[0]) for name, joules in found.items()}


class _Owners:
    """Whose a device is: the first tenant with a pattern for it."""

    def __init__(self, hosted: Sequence[Hosted]) -> None:
        self.hosted = hosted
        self._known: dict[str, str] = {}

    def of(self, device: str) -> str:
        owner = self._known.get(device)
        if owner is None:
            owner = next((one.tenant for one in self.hosted if _fits(one, device)), OWNER)
            self._known[device] = owner
        return owner


def _fits(hosted: Hosted, device: str) -> bool:
    return any(fnmatch.fnmatchcase(device, pattern) for pattern in hosted.devices)


def _within(energy: EnergyOf, span: tuple[float, float]) -> float:
    """Share of an energy's span that lies within another."""
    length_s = energy.to_s - energy.from_s
    shared_s = min(energy.to_s, span[1]) - max(energy.from_s, span[0])
    return float(np.clip(shared_s / length_s, 0.0, 1.0)) if length_s > 0 else 0.0
