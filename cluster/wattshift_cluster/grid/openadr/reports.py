"""OpenADR reports: what a VTN asked for, from the site's readings, as the protocol's objects.

A value that is not known is left out and marked MISSING beside it: unknown is not zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from wattshift_cluster.grid.openadr.asked import Terms
from wattshift_cluster.grid.openadr.due import Due, Slice, next_due
from wattshift_cluster.grid.openadr.kept import Known
from wattshift_cluster.grid.openadr.mapping import ours
from wattshift_cluster.grid.openadr.readings import (
    ENERGY_UNITS,
    UNKNOWN,
    Answer,
    Quality,
    Reading,
    Readings,
    Told,
    answer,
)
from wattshift_cluster.grid.openadr.times import TimeInvalid, lay_out
from wattshift_cluster.grid.openadr.words import (
    Event,
    Interval,
    IntervalPeriod,
    Payload,
    Report,
    ReportDescriptor,
    ReportPayloadDescriptor,
    ReportResource,
)

AGGREGATED = "AGGREGATED_REPORT"
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report that is due: for which event, by which descriptor, when, over what.

    `key` counts it: an event's id and its descriptor's place.
    """

    key: str
    event: Event
    descriptor: ReportDescriptor
    due: Due


def wanted(known: Known, terms: Terms, now_s: float) -> list[Wanted]:
    """The next report of each descriptor of each event that is ours, by the time it is due."""
    found: list[Wanted] = []
    for name, heard in known.heard.items():
        event = heard.event
        if heard.cancelled_s is not None or event.unreadable or ours(event, terms) is None:
            continue
        try:
            laid = lay_out(event, heard.first_s, partial(known.draw, event.id), now_s)
        except TimeInvalid:
            continue
        for place, descriptor in enumerate(event.report_descriptors):
            if answer(descriptor.payload_type, descriptor.units).told is Told.NOTHING:
                continue
            key = f"{name}/{place}"
            sent = known.sent.get(key, 0)
            due = next_due(event, laid, descriptor, heard.first_s, sent)
            if due is not None:
                found.append(Wanted(key, event, descriptor, due))
    return sorted(found, key=lambda one: one.due.at_s)


def unanswered(known: Known, terms: Terms) -> Iterator[str]:
    """Reports that are asked for and cannot be given, each with the reason."""
    for heard in known.heard.values():
        event = heard.event
        if heard.cancelled_s is not None or ours(event, terms) is None:
            continue
        for descriptor in event.report_descriptors:
            found = answer(descriptor.payload_type, descriptor.units)
            if found.told is Told.NOTHING:
                asked = descriptor.payload_type[:40]
                yield f"event {event.name or event.id}: no report of {asked}: {found.why}"


def build(one: Wanted, terms: Terms, readings: Readings) -> Report:
    """The report itself."""
    descriptor = one.descriptor
    found = answer(descriptor.payload_type, descriptor.units)
    units = descriptor.units or (found.units[0] if found.units else None)
    told = ReportPayloadDescriptor(
        payload_type=descriptor.payload_type, reading_type=descriptor.reading_type, units=units
    )
    return Report(
        event_id=one.event.id,
        program_id=one.event.program_id,
        client_name=terms.ven_name,
        name=f"{descriptor.payload_type}-{one.due.turn}"[:128],
        descriptors=(told,),
        resources=tuple(
            ReportResource(
                name=name,
                period=_period(one.due.slices[0]),
                intervals=tuple(
                    _interval(piece, resource, descriptor, found, units, readings)
                    for piece in one.due.slices
                ),
            )
            for name, resource in _resources(descriptor, terms).items()
        ),
    )


def _resources(descriptor: ReportDescriptor, terms: Terms) -> Mapping[str, str | None]:
    """Names on the wire, and the resources that they stand for; None is the whole site."""
    if descriptor.aggregate or not terms.resources:
        return {AGGREGATED: None}
    asked = [name for name in terms.resources if name in descriptor.targets]
    return {name: name for name in (asked or terms.resources)}


def _interval(
    piece: Slice,
    resource: str | None,
    descriptor: ReportDescriptor,
    found: Answer,
    units: str | None,
    readings: Readings,
) -> Interval:
    kind = descriptor.payload_type
    payloads: tuple[Payload, ...]
    if found.told is Told.STATE:
        payloads = (Payload(type=kind, values=(readings.state(resource).value,)),)
    else:
        reading = _reading(piece, resource, descriptor, found, readings)
        payloads = _payloads(kind, reading, piece, units)
    return Interval(id=piece.id, period=_period(piece), payloads=payloads)


def _payloads(kind: str, reading: Reading, piece: Slice, units: str | None) -> tuple[Payload, ...]:
    quality = Payload(type="DATA_QUALITY", values=(reading.quality.value,))
    if reading.watts_w is None:
        return (Payload(type="DATA_QUALITY", values=(Quality.MISSING.value,)),)
    if units in ENERGY_UNITS:
        amount = reading.watts_w * piece.lasts_s / JOULES_PER_KWH
    else:
        amount = reading.watts_w if units == "W" else reading.watts_w / 1e3
    value = Payload(type=kind, values=(round(amount, 6),))
    return (value,) if reading.quality is Quality.OK else (value, quality)


def _reading(
    piece: Slice,
    resource: str | None,
    descriptor: ReportDescriptor,
    found: Answer,
    readings: Readings,
) -> Reading:
    span = (resource, piece.starts_s, piece.ends_s)
    ahead = not descriptor.historical or descriptor.reading_type == "FORECAST"
    if found.told is Told.SHED:
        return readings.shed_available_w(*span)
    if found.told is Told.SETPOINT:
        return readings.setpoint_w(resource)
    if found.told is Told.BASELINE:
        return readings.baseline_w(*span)
    if found.told is Told.FORECAST or ahead:
        return readings.forecast_w(*span)
    if found.told is Told.CHANGE:
        return _less(readings.mean_w(*span), readings.baseline_w(*span))
    if descriptor.reading_type == "PEAK":
        return readings.peak_w(*span)
    return readings.mean_w(*span)


def _less(used: Reading, baseline: Reading) -> Reading:
    if used.watts_w is None or baseline.watts_w is None:
        return UNKNOWN
    worst = used.quality if used.quality is not Quality.OK else baseline.quality
    return Reading(used.watts_w - baseline.watts_w, worst)


def _period(piece: Slice) -> IntervalPeriod:
    start = datetime.fromtimestamp(piece.starts_s, UTC).isoformat(timespec="milliseconds")
    lasts = f"{piece.lasts_s:.3f}".rstrip("0").rstrip(".")
    return IntervalPeriod(start=start.replace("+00:00", "Z"), duration=f"PT{lasts}S")
