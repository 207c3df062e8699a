"""Gathers from the lines of a log what a settlement needs, in one pass, as columns."""

import math
from array import array
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import ValidationError

from wattshift_cluster.config.settlement import Settlement
from wattshift_cluster.settle.bodies import SITE, EnergyOf, MeterBatch, event_of
from wattshift_cluster.settle.counter import Counter
from wattshift_cluster.settle.intervals import QUALITIES, Samples
from wattshift_cluster.settle.lines import Kind, Line
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.signals.words import GridEvent

EVENTS_MOST = 100_000
SPANS_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Steps:
    """A series that holds each value until the next time; columns of one length, NaN unknown."""

    at_s: Floats
    values: Floats

    def mean(self, from_s: float, to_s: float) -> float:
        """Mean over a span; NaN where a part of it is not known."""
        if not (to_s > from_s and len(self.at_s) and self.at_s[0] <= from_s):
            return math.nan
        within = self.at_s[(self.at_s > from_s) & (self.at_s < to_s)]
        edges_s = np.concatenate([[from_s], within, [to_s]])
        held = self.values[np.searchsorted(self.at_s, edges_s[:-1], "right") - 1]
        return float(np.sum(held * np.diff(edges_s)) / (to_s - from_s))


@dataclass(slots=True)
class _Columns:
    at_s: "array[float]" = field(default_factory=lambda: array("d"))
    watts_w: "array[float]" = field(default_factory=lambda: array("d"))
    offset_s: "array[float]" = field(default_factory=lambda: array("d"))
    quality: "array[int]" = field(default_factory=lambda: array("q"))
    counted_s: "array[float]" = field(default_factory=lambda: array("d"))
    counted_wh: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Collected:
    """What the lines told so far; give each one to `take`, in order.

    Attributes:
        from_s: earlier meter samples and energies are passed over.
        events: by source and id, as told last; the notice is the first one.
        terms: the settlement's terms, as told last; None: never.
        devices, tenants: energies in the order of the log.
        unread: lines whose body this version cannot read.
        unsigned_s: time of the earliest sample that no signature covers yet; infinite: none.
    """

    from_s: float = -math.inf
    events: dict[tuple[str, str], GridEvent] = field(default_factory=dict)
    terms: Settlement | None = None
    devices: list[EnergyOf] = field(default_factory=list)
    tenants: list[EnergyOf] = field(default_factory=list)
    unread: int = 0
    unsigned_s: float = math.inf
    _meters: dict[str, _Columns] = field(default_factory=dict)
    _caps: _Columns = field(default_factory=_Columns)
    _plans: _Columns = field(default_factory=_Columns)

    def take(self, line: Line) -> None:
        """Take what a line tells; one that cannot be read is counted."""
        try:
            self._taken(line)
        except (ValueError, KeyError, TypeError, SiteInvalid, ValidationError):
            self.unread += 1

    def _taken(self, line: Line) -> None:
        if line.kind is Kind.METER:
            self._sampled(MeterBatch.of(line.body))
        elif line.kind is Kind.CHECKPOINT:
            self.unsigned_s = math.inf
        elif line.kind is Kind.EVENT:
            self._told(event_of(line.body))
        elif line.kind is Kind.CAP:
            self._held(self._caps, line.at_s, line.body["cap_w"])
        elif line.kind is Kind.PLAN:
            self._held(self._plans, line.at_s, line.body["site_w"])
        elif line.kind is Kind.TERMS:
            self.terms = Settlement.model_validate(line.body)
        elif line.kind in (Kind.DEVICES, Kind.TENANTS):
            spans = self.devices if line.kind is Kind.DEVICES else self.tenants
            energy = EnergyOf.of(line.body)
            if energy.to_s > self.from_s and len(spans) < SPANS_MOST:
                spans.append(energy)

    def _sampled(self, batch: MeterBatch) -> None:
        columns = self._meters.setdefault(batch.source, _Columns())
        quality = QUALITIES.index(batch.quality)
        for at_s, watts_w in batch.samples:
            self.unsigned_s = min(self.unsigned_s, at_s)
            if at_s >= self.from_s:
                columns.at_s.append(at_s)
                columns.watts_w.append(watts_w)
                columns.offset_s.append(batch.offset_s)
                columns.quality.append(quality)
        for at_s, energy_wh in batch.counter:
            if at_s >= self.from_s:
                columns.counted_s.append(at_s)
                columns.counted_wh.append(energy_wh)

    def _told(self, event: GridEvent) -> None:
        key = (event.source, event.id)
        if key in self.events or len(self.events) < EVENTS_MOST:
            before = self.events.get(key)
            # A notice cannot be taken back by telling the event again.
            first_s = min(event.notified_s, before.notified_s) if before else event.notified_s
            self.events[key] = replace(event, notified_s=first_s)

    def _held(self, columns: _Columns, at_s: float, value: float | None) -> None:
        columns.at_s.append(at_s)
        columns.watts_w.append(math.nan if value is None else float(value))

    def samples(self, source: str = SITE) -> Samples:
        """The raw samples of a meter, and what its counter said."""
        columns = self._meters.get(source, _Columns())
        return Samples(
            np.array(columns.at_s, dtype=np.float64),
            np.array(columns.watts_w, dtype=np.float64),
            np.array(columns.offset_s, dtype=np.float64),
            np.array(columns.quality, dtype=np.int64),
            Counter(
                np.array(columns.counted_s, dtype=np.float64),
                np.array(columns.counted_wh, dtype=np.float64),
            ),
        )

    def caps(self) -> Steps:
        """The effective cap, W."""
        return _steps(self._caps)

    def plans(self) -> Steps:
        """What the site was planned to draw, W."""
        return _steps(self._plans)


def _steps(columns: _Columns) -> Steps:
    at_s = np.array(columns.at_s, dtype=np.float64)
    order = np.argsort(at_s, kind="stable")
    return Steps(at_s[order], np.array(columns.watts_w, dtype=np.float64)[order])
