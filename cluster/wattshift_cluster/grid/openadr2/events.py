"""Events of OpenADR 2.0b, as openleadr reads them, in the shape of events of 3.1.

SIMPLE levels, LOAD_DISPATCH set points and reductions, and absolute prices have counterparts; every
other signal keeps its own name, and is then ignored as a private type.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from wattshift_cluster.grid.openadr.failures import VtnNonsense
from wattshift_cluster.grid.openadr.words import Event, read_event

SCALES: Mapping[str, float] = {
    "none": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "d": 1e-1,
    "c": 1e-2,
    "m": 1e-3,
}
FOREVER = "P9999Y"

Raw = Mapping[str, Any]


def standing(rows: Sequence[Raw]) -> list[Event]:
    """Events of 2.0b in the shape of 3.1, without those that were called off.

    Raises:
        VtnNonsense: one of them has no id.
    """
    return [
        modern_event(row)
        for row in rows
        if (row.get("event_descriptor") or {}).get("event_status") != "cancelled"
    ]


def modern_event(row: Raw) -> Event:
    """An event of 2.0b, as openleadr reads it, in the shape of one of 3.1.

    Raises:
        VtnNonsense: it has no id.
    """
    about: Raw = row.get("event_descriptor") or {}
    name = about.get("event_id")
    if not isinstance(name, str) or not name:
        raise VtnNonsense("events: an event without an id")
    active: Raw = row.get("active_period") or {}
    starts = active.get("dtstart")
    late_s = _start_after_s(active)
    middle = timedelta(seconds=late_s / 2)
    payloads = [
        made
        for signal in row.get("event_signals") or ()
        for made in _intervals(signal, starts, middle)
    ]
    priority = about.get("priority")
    changed = about.get("modification_date_time")
    body: dict[str, Any] = {
        "id": name,
        "programID": str(about.get("market_context") or ""),
        # In 2.0b a priority of 0 means none.
        "priority": priority if isinstance(priority, int) and priority > 0 else None,
        "modificationDateTime": _stamp(changed) if isinstance(changed, datetime) else None,
        "intervalPeriod": {
            "start": _stamp(starts + middle) if isinstance(starts, datetime) else None,
            "duration": _length(active.get("duration")),
            # 2.0b starts up to so much later; 3.1 so much sooner or later.
            "randomizeStart": f"PT{late_s / 2:.3f}S" if late_s else None,
        },
        "payloadDescriptors": _descriptors(payloads),
        "intervals": [
            {
                "id": place,
                "intervalPeriod": made["period"],
                "payloads": [{"type": made["type"], "values": [made["value"]]}],
            }
            for place, made in enumerate(payloads)
        ],
    }
    if about.get("test_event") is True:
        for interval in body["intervals"]:
            interval["payloads"][0]["type"] = "TEST_EVENT"
    return read_event(body)


def _intervals(signal: Raw, starts: Any, middle: timedelta) -> list[dict[str, Any]]:
    """The intervals of one signal, each with a start of its own, one after the other."""
    cursor = starts
    made: list[dict[str, Any]] = []
    for interval in signal.get("intervals") or ():
        begins = interval.get("dtstart") or cursor
        lasts = interval.get("duration")
        kind, value, told = _payload(signal, interval.get("signal_payload"))
        period = {
            "start": _stamp(begins + middle) if isinstance(begins, datetime) else None,
            "duration": _length(lasts),
        }
        made.append({"type": kind, "value": value, "period": period, "told": told})
        if isinstance(begins, datetime) and isinstance(lasts, timedelta):
            cursor = begins + lasts
    return made


def _payload(signal: Raw, value: Any) -> tuple[str, Any, dict[str, str]]:
    """Payload type of 3.1, its value and its descriptor."""
    name, kind = str(signal.get("signal_name")), str(signal.get("signal_type"))
    measure: Raw = signal.get("measurement") or {}
    scale = SCALES.get(str(measure.get("scale") or "none"))
    watts_w = None
    if measure.get("name") == "powerReal" and scale and isinstance(value, int | float):
        watts_w = value * scale
    if name.upper() == "SIMPLE" and kind == "level":
        return "SIMPLE", value, {}
    if name == "LOAD_DISPATCH" and watts_w is not None:
        if kind == "setpoint":
            return "DISPATCH_SETPOINT", watts_w, {"units": "W"}
        if kind == "delta" and watts_w <= 0:
            return "DISPATCH_SETPOINT_RELATIVE", -watts_w, {"units": "W"}
    if name in ("ELECTRICITY_PRICE", "ENERGY_PRICE") and kind == "price":
        told = {"currency": str(measure.get("unit") or "")}
        if measure.get("name") == "currencyPerKWh" and scale == 1.0:
            told["units"] = "KWH"
        return "PRICE", value, told
    return f"{name}/{kind}"[:128], value, {}


def _descriptors(payloads: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    kinds = {made["type"]: made["told"] for made in payloads if made["told"]}
    return [{"payloadType": kind, **told} for kind, told in kinds.items()]


def _start_after_s(active: Raw) -> float:
    """How much later than told the event may begin, chosen at random by the site, s."""
    tolerance: Raw = active.get("tolerance") or {}
    after = (tolerance.get("tolerate") or {}).get("startafter")
    return max(0.0, after.total_seconds()) if isinstance(after, timedelta) else 0.0


def _length(lasts: Any) -> str | None:
    """A duration of 3.1; one of zero has no end in 2.0b."""
    if not isinstance(lasts, timedelta):
        return None
    seconds_s = lasts.total_seconds()
    return FOREVER if seconds_s == 0 else f"{'-' if seconds_s < 0 else ''}PT{abs(seconds_s):.3f}S"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
