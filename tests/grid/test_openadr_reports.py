"""When OpenADR reports are due, over which intervals, and what they hold."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from wattshift_cluster.grid.openadr.asked import Terms
from wattshift_cluster.grid.openadr.due import AT_LEISURE_S, Due, next_due
from wattshift_cluster.grid.openadr.kept import Heard, Known, counted
from wattshift_cluster.grid.openadr.readings import (
    ANSWERS,
    UNKNOWN,
    OperatingState,
    Quality,
    Reading,
    Told,
)
from wattshift_cluster.grid.openadr.reports import build, unanswered, wanted
from wattshift_cluster.grid.openadr.times import lay_out
from wattshift_cluster.grid.openadr.words import Event, Report, ReportDescriptor
from wattshift_scheduler.signals.words import Work

NOW = 1_800_000_000.0
HOUR = 3600.0
AHEAD = {"startInterval": 0, "historical": False}
TERMS = Terms("openadr", "ven-1", resources={"miners": Work.MINING, "racks": Work.ALL})


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def event(count: int = 6, start_s: float = NOW, **more: Any) -> Event:
    body = {
        "id": "e",
        "programID": "p",
        "intervalPeriod": {"start": stamp(start_s), "duration": "PT1H"},
        "intervals": [
            {"id": at, "payloads": [{"type": "PRICE", "values": [1]}]} for at in range(count)
        ],
        **more,
    }
    return Event.model_validate(body)


def dues(one: Event, first_s: float = NOW, most: int = 9, **asks: Any) -> list[Due]:
    wants = ReportDescriptor.model_validate({"payloadType": "USAGE", **asks})
    laid = lay_out(one, first_s, lambda place: 0.0, first_s)
    found: list[Due] = []
    while len(found) < most:
        due = next_due(one, laid, wants, first_s, found[-1].turn if found else 0)
        if due is None:
            break
        found.append(due)
    return found


def shown(found: list[Due]) -> list[tuple[float, list[int]]]:
    return [((due.at_s - NOW) / HOUR, [one.id for one in due.slices]) for due in found]


def test_by_default_one_report_of_all_intervals_at_the_end() -> None:
    assert shown(dues(event(3))) == [(3, [0, 1, 2])]


def test_a_forecast_is_made_before_the_intervals_begin() -> None:
    assert shown(dues(event(3), startInterval=0, historical=False)) == [(0, [0, 1, 2])]


def test_reports_at_a_regular_period() -> None:
    found = dues(event(6), startInterval=1, numIntervals=2, frequency=2, repeat=3)
    assert shown(found) == [(2, [0, 1]), (4, [2, 3]), (6, [4, 5])]


def test_rolling_forecasts() -> None:
    found = dues(event(5), startInterval=0, numIntervals=3, frequency=1, repeat=3, historical=False)
    assert shown(found) == [(0, [0, 1, 2]), (1, [1, 2, 3]), (2, [2, 3, 4])]


def test_repeated_without_end_it_stops_with_the_intervals() -> None:
    found = dues(event(4), startInterval=0, numIntervals=1, frequency=1, repeat=-1)
    assert [at for at, _ in shown(found)] == [1, 2, 3, 4]


def test_an_event_without_intervals_implies_a_row_of_them() -> None:
    one = event(intervals=[])
    found = dues(
        one, startInterval=0, numIntervals=48, frequency=1, repeat=-1, historical=False, most=3
    )
    assert [(at, ids[0], len(ids)) for at, ids in shown(found)] == [
        (0, 0, 48),
        (1, 1, 48),
        (2, 2, 48),
    ]


def test_of_reports_that_were_over_when_it_was_heard_only_the_latest_is_made() -> None:
    asks = {"startInterval": 0, "numIntervals": 1, "frequency": 1, "repeat": -1}
    late = dues(event(6), first_s=NOW + 3.5 * HOUR, **asks)
    assert [at for at, _ in shown(late)] == [3, 4, 5, 6]
    long_ago = event(intervals=[], start_s=NOW - 4000 * HOUR)
    (first, *_) = dues(long_ago, first_s=NOW + 60, most=1, **asks)
    assert first.at_s == NOW


def test_at_leisure_it_is_made_at_once_and_then_now_and_then() -> None:
    one = event(intervals=[], intervalPeriod={"start": "0001-01-01", "duration": "P9999Y"})
    found = dues(one, frequency=0, repeat=3)
    assert [due.at_s - NOW for due in found] == [0, AT_LEISURE_S, 2 * AT_LEISURE_S]
    assert found[0].slices[0].ends_s == NOW


@pytest.mark.parametrize("frequency", [-7, 0])
def test_strange_numbers_make_no_endless_row(frequency: int) -> None:
    assert len(dues(event(3), frequency=frequency, repeat=2)) <= 2
    assert dues(event(3), startInterval=99) == []
    assert dues(event(3), repeat=0) == []


class PartReadings:
    """Miners draw 200 kW and racks are not metered."""

    def mean_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        assert ends_s > starts_s
        return {
            None: Reading(900e3, Quality.ESTIMATED),
            "miners": Reading(200e3),
            "racks": UNKNOWN,
        }[resource]

    def peak_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        return Reading(950e3)

    def baseline_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        return Reading(1000e3)

    def forecast_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        return Reading(700e3)

    def shed_available_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        return Reading(300e3)

    def setpoint_w(self, resource: str | None) -> Reading:
        return Reading(None)

    def state(self, resource: str | None) -> OperatingState:
        return OperatingState.RUNNING_CURTAILED


def report(**asks: Any) -> Report:
    one = event(2, reportDescriptors=[{"payloadType": "USAGE", **asks}])
    known = Known({"e": Heard(one, NOW)}, seed="s")
    (due,) = wanted(known, TERMS, NOW)
    return build(due, TERMS, PartReadings())


def values(made: Report) -> dict[str, list[Any]]:
    return {
        resource.name: [payload.values for payload in resource.intervals[0].payloads]
        for resource in made.resources
    }


def test_usage_is_energy_by_resource_and_what_is_unknown_is_missing() -> None:
    made = report()
    assert values(made) == {"miners": [(200.0,)], "racks": [("MISSING",)]}
    assert (made.event_id, made.program_id, made.client_name) == ("e", "p", "ven-1")
    assert made.descriptors[0].units == "KWH"
    interval = made.resources[0].intervals[0]
    assert interval.period is not None
    assert (interval.period.start, interval.period.duration) == (
        "2027-01-15T08:00:00.000Z",
        "PT3600S",
    )
    wire = made.on_wire()
    assert "id" not in wire
    assert wire["resources"][0]["resourceName"] == "miners"


def test_a_sum_is_told_as_one_with_its_quality() -> None:
    assert values(report(aggregate=True)) == {"AGGREGATED_REPORT": [(900.0,), ("ESTIMATED",)]}


def test_targets_choose_resources() -> None:
    assert list(values(report(targets=["miners"]))) == ["miners"]


@pytest.mark.parametrize(
    ("asks", "value"),
    [
        ({"payloadType": "DEMAND", "readingType": "MEAN"}, 200.0),
        ({"payloadType": "DEMAND", "readingType": "PEAK"}, 950.0),
        ({"payloadType": "DEMAND", "units": "W"}, 200e3),
        ({"payloadType": "BASELINE", "units": "KWH"}, 1000.0),
        ({"payloadType": "DELTA_USAGE"}, -800.0),
        ({"payloadType": "OPERATING_STATE"}, "RUNNING_CURTAILED"),
        ({"payloadType": "SETPOINT"}, "MISSING"),
        ({"payloadType": "LOAD_SHED_DELTA_AVAILABLE", **AHEAD}, 300.0),
        ({"payloadType": "USAGE_FORECAST", **AHEAD}, 700.0),
        ({"payloadType": "USAGE", **AHEAD}, 700.0),
    ],
)  # fmt: skip
def test_each_type_comes_from_its_reading(asks: dict[str, Any], value: object) -> None:
    assert values(report(**asks))["miners"] == [(value,)]


def test_every_report_enumeration_is_answered_or_refused_with_a_reason() -> None:
    assert len(ANSWERS) == 24
    for found in ANSWERS.values():
        assert (found.told is Told.NOTHING) == bool(found.why)


@pytest.mark.skipif(not os.environ.get("WATTSHIFT_DATA"), reason="WATTSHIFT_DATA is not set")
def test_the_report_enumerations_are_those_of_the_schema() -> None:
    folder = Path(os.environ["WATTSHIFT_DATA"]) / "reference" / "openadr-3.1.1"
    if not folder.is_dir():
        pytest.skip("the OpenADR schemas are not in WATTSHIFT_DATA")
    schema = yaml.safe_load((folder / "report-payloads.schema.yaml").read_text())
    assert sorted(schema["definitions"]) == sorted(ANSWERS)


def test_what_cannot_be_told_is_told() -> None:
    asks = [
        {"payloadType": "STORAGE_CHARGE_LEVEL"},
        {"payloadType": "com.example.x"},
        {"payloadType": "READING", "units": "VOLTS"},
    ]
    known = Known({"e": Heard(event(reportDescriptors=asks), NOW)}, seed="s")
    assert wanted(known, TERMS, NOW) == []
    notes = list(unanswered(known, TERMS))
    assert [word in note for word, note in zip(("storage", "private", "VOLTS"), notes, strict=True)]


def test_a_report_that_was_sent_is_not_wanted_again_and_others_events_not_at_all() -> None:
    asks = [{"payloadType": "USAGE"}]
    known = Known({"e": Heard(event(reportDescriptors=asks), NOW)}, seed="s")
    assert [one.key for one in wanted(known, TERMS, NOW)] == ["e/0"]
    assert wanted(counted(known, "e/0", 1), TERMS, NOW) == []
    others = Known({"e": Heard(event(reportDescriptors=asks, targets=["x"]), NOW)}, seed="s")
    assert wanted(others, TERMS, NOW) == []
