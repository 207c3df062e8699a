"""OpenADR 2.0b against the VTN of openleadr on loopback, and its events in the shape of 3.1."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.config.openadr import OpenAdr2
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.openadr.failures import VtnNonsense
from wattshift_cluster.grid.openadr2.events import modern_event, standing
from wattshift_cluster.grid.openadr2.source import OpenAdr2Source, library
from wattshift_cluster.grid.said import Said
from wattshift_scheduler.signals.arbitrate import arbitrate

wire: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("openadr_rig.py"))))
HOST = "127.7.2.1"
WAIT_S = 30.0
START = datetime(2027, 1, 15, 8, tzinfo=UTC)
POWER = {"name": "powerReal", "unit": "W", "scale": "k"}
PRICE = {"name": "currencyPerKWh", "unit": "USD", "scale": "none"}


def raw(
    name: str, kind: str, *values: float, measurement: Any = None, **more: Any
) -> dict[str, Any]:
    minute = timedelta(minutes=10)
    intervals = [
        {"dtstart": START + place * minute, "duration": minute, "signal_payload": value}
        for place, value in enumerate(values)
    ]
    signal = {"signal_name": name, "signal_type": kind, "intervals": intervals}
    if measurement is not None:
        signal["measurement"] = measurement
    return {
        "event_descriptor": {"event_id": "e", "priority": 0, "market_context": "http://m", **more},
        "active_period": {"dtstart": START, "duration": len(values) * minute},
        "event_signals": [signal],
    }


@pytest.mark.parametrize(
    ("row", "kind", "value", "units"),
    [
        (raw("SIMPLE", "level", 2.0), "SIMPLE", 2.0, None),
        (raw("LOAD_DISPATCH", "setpoint", 400, measurement=POWER), "DISPATCH_SETPOINT", 4e5, "W"),
        (
            raw("LOAD_DISPATCH", "delta", -50, measurement=POWER),
            "DISPATCH_SETPOINT_RELATIVE",
            5e4,
            "W",
        ),
        (raw("LOAD_DISPATCH", "delta", 50, measurement=POWER), "LOAD_DISPATCH/delta", 50, None),
        (raw("LOAD_DISPATCH", "setpoint", 400), "LOAD_DISPATCH/setpoint", 400, None),
        (raw("ELECTRICITY_PRICE", "price", 0.1, measurement=PRICE), "PRICE", 0.1, "KWH"),
        (raw("LOAD_CONTROL", "x-loadControlSetpoint", 1), "LOAD_CONTROL/x-loadControlSetpoint", 1,
         None),
        (raw("SIMPLE", "level", 2.0, test_event=True), "TEST_EVENT", 2.0, None),
    ],
)  # fmt: skip
def test_signals_become_payload_types(
    row: dict[str, Any], kind: str, value: float, units: str | None
) -> None:
    event = modern_event(row)
    (payload,) = event.intervals[0].payloads
    assert (payload.type, payload.values) == (kind, (value,))
    told = {one.payload_type: one.units for one in event.descriptors}
    assert told.get(kind) == units
    assert event.priority is None
    assert event.program_id == "http://m"


def test_intervals_without_a_start_follow_each_other_and_zero_is_endless() -> None:
    row = raw("SIMPLE", "level", 1, 2)
    for interval in row["event_signals"][0]["intervals"]:
        del interval["dtstart"]
    row["event_signals"][0]["intervals"][1]["duration"] = timedelta(0)
    periods = [one.period for one in modern_event(row).intervals]
    assert [(one.start, one.duration) for one in periods if one is not None] == [
        ("2027-01-15T08:00:00Z", "PT600.000S"),
        ("2027-01-15T08:10:00Z", "P9999Y"),
    ]


def test_a_random_start_of_2_0b_never_begins_before_the_time_told() -> None:
    row = raw("SIMPLE", "level", 1)
    row["active_period"]["tolerance"] = {"tolerate": {"startafter": timedelta(minutes=4)}}
    event = modern_event(row)
    assert event.period is not None
    assert (event.period.start, event.period.randomize_start) == (
        "2027-01-15T08:02:00Z",
        "PT120.000S",
    )


def test_an_event_that_was_called_off_stands_no_longer() -> None:
    rows = [raw("SIMPLE", "level", 1), raw("SIMPLE", "level", 2, event_id="f")]
    assert [one.id for one in standing(rows)] == ["e", "f"]
    rows[0]["event_descriptor"]["event_status"] = "cancelled"
    assert [one.id for one in standing(rows)] == ["f"]


def test_an_event_without_an_id_is_nonsense() -> None:
    with pytest.raises(VtnNonsense):
        modern_event({"event_descriptor": {}})


def test_without_the_extra_the_reason_is_clear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openleadr", None)
    config = OpenAdr2(url="http://127.0.0.1:1", ven_name="v")
    with pytest.raises(ConfigInvalid, match=r"wattshift\[openadr2\]"):
        OpenAdr2Source(config, tmp_path)


def level(server: Any, name: str, value: float, answers: list[str]) -> None:
    server.add_event(
        "ven-id",
        "SIMPLE",
        "level",
        [
            {
                "dtstart": datetime.now(UTC) - timedelta(seconds=5),
                "duration": timedelta(minutes=5),
                "signal_payload": value,
            }
        ],
        event_id=name,
        callback=lambda ven_id, event_id, opt_type: answers.append(f"{event_id} {opt_type}"),
    )


@asynccontextmanager
async def site(port: int, folder: Path) -> AsyncIterator[list[Said]]:
    config = OpenAdr2(
        url=f"http://{HOST}:{port}/OpenADR2/Simple/2.0b", ven_name="my-site", levels_w=(8e5, 5e5)
    )
    source = OpenAdr2Source(config, folder, poll_s=0.05)
    said: list[Said] = []
    task = asyncio.create_task(source.run(said.append))
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def cap_w(said: list[Said]) -> float:
    return arbitrate(said[-1].caps, 1e6, datetime.now(UTC).timestamp()).cap_w


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 (the condition is another's, and tells nobody)
            await asyncio.sleep(0.01)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


def test_events_of_a_real_vtn_come_change_and_go(tmp_path: Path) -> None:
    async def scene() -> None:
        port, answers = free_port(HOST), []  # type: tuple[int, list[str]]
        async with wire.vtn_2_0b(HOST, port) as server:
            level(server, "a", 1, answers)
            async with site(port, tmp_path) as said:
                await until(lambda: bool(said) and cap_w(said) == 8e5)
                await until(lambda: answers == ["a optIn"])
                level(server, "b", 2, answers)
                await until(lambda: cap_w(said) == 5e5)
                server.cancel_event("ven-id", "b")
                await until(lambda: cap_w(said) == 8e5)
                assert any(one.cancelled_s is not None for one in said[-1].events)

    play(scene)


def test_a_vtn_that_is_gone_or_has_forgotten_takes_nothing_back(tmp_path: Path) -> None:
    async def scene() -> None:
        port, answers = free_port(HOST), []  # type: tuple[int, list[str]]
        async with wire.vtn_2_0b(HOST, port) as server, site(port, tmp_path) as said:
            level(server, "a", 2, answers)
            await until(lambda: bool(said) and cap_w(said) == 5e5)
            await until((tmp_path / "openadr2-openadr2.json").exists)
        async with site(port, tmp_path) as said:
            await until(lambda: bool(said) and "no answer" in (said[-1].fault or ""))
            assert cap_w(said) == 5e5
        async with wire.vtn_2_0b(HOST, port), site(port, tmp_path) as said:
            await until(lambda: bool(said) and said[-1].fault is None)
            assert cap_w(said) == 5e5

    play(scene)


def test_the_library_is_found() -> None:
    pytest.importorskip("openleadr")
    assert library().OpenADRClient is not None
