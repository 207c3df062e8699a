"""Meters over Modbus TCP, on real servers: SunSpec's layouts, register maps, and what fails."""

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from wattshift_cluster.grid.meters.modbus import ModbusMeter, Plan, RegisterPlan
from wattshift_cluster.grid.meters.pause import Pause
from wattshift_cluster.grid.meters.registers import Encoding, Place, WordOrder
from wattshift_cluster.grid.meters.sunspec import SunSpecPlan

HOST = "127.8.4.1"
NONE, NO_SCALE = 0x8000, 0x8000


def floats(*values: float) -> list[int]:
    packed = struct.pack(f">{len(values)}f", *values)
    return list(struct.unpack(f">{len(packed) // 2}H", packed))


def integer_model(number: int, **changes: int) -> list[int]:
    """A meter of 201 to 204 as a maker would lay it out; all that is not named is not there."""
    points = {"A": NONE, "AphA": NONE, "AphB": NONE, "AphC": NONE, "A_SF": NO_SCALE}
    points |= {"PhV": NONE, "PhVphA": 2305, "PhVphB": 2298, "PhVphC": 2311, "PPV": NONE}
    points |= {"PhVphAB": 3990, "PhVphBC": 3985, "PhVphCA": 4001, "V_SF": 0xFFFF}
    points |= {"Hz": 4998, "Hz_SF": 0xFFFE}
    points |= {"W": 1234, "WphA": NONE, "WphB": NONE, "WphC": NONE, "W_SF": 1}
    points |= {"VA": NONE, "VAphA": NONE, "VAphB": NONE, "VAphC": NONE, "VA_SF": NO_SCALE}
    points |= {"VAR": NONE, "VARphA": NONE, "VARphB": NONE, "VARphC": NONE, "VAR_SF": NO_SCALE}
    points |= {"PF": NONE, "PFphA": NONE, "PFphB": NONE, "PFphC": NONE, "PF_SF": NO_SCALE}
    wide = {"TotWhExp": 77, "ExpA": 0, "ExpB": 0, "ExpC": 0}
    wide |= {"TotWhImp": 123_456_789, "ImpA": 0, "ImpB": 0, "ImpC": 0}
    energy_scale = changes.pop("TotWh_SF", 0)
    wide |= {key: changes.pop(key) for key in list(changes) if key in wide}
    assert set(changes) <= set(points)
    words = [*(points | changes).values()]
    for value in wide.values():
        words += [value >> 16, value & 0xFFFF]
    words.append(energy_scale)
    words += [0] * (105 - len(words))
    return [number, 105, *words]


def float_model(number: int, watts_w: float = 9876.5) -> list[int]:
    nan = float("nan")
    amps, ln, ll = [nan] * 4, [nan, 231.5, 229.25, 230.5], [nan, 400.0, 398.5, 399.0]
    values = [*amps, *ln, *ll, 50.02, watts_w, nan, nan, nan]
    values += [nan] * 12 + [5.0, nan, nan, nan] + [65_536.0, nan, nan, nan]
    words = floats(*values)
    words += [0] * (124 - len(words))
    return [number, 124, *words]


COMMON = [1, 66, *[0x5753] * 66]


def device(*models: Sequence[int]) -> list[int]:
    return [0x5375, 0x6E53, *(word for model in models for word in model), 0xFFFF, 0]


@asynccontextmanager
async def serving(
    blocks: dict[int, list[int]], *, unit: int = 1, port: int = 0, action: Any = None
) -> AsyncIterator[Any]:
    data = [
        SimData(address, values=words, datatype=DataType.REGISTERS)
        for address, words in blocks.items()
    ]
    server: Any = ModbusTcpServer(SimDevice(unit, data, action=action), address=(HOST, port))
    assert await server.listen()
    try:
        yield server
    finally:
        await server.shutdown()


def port_of(server: Any) -> int:
    return int(server.transport.sockets[0].getsockname()[1])


def meter_at(port: int, plan: Plan, *, unit: int = 1, **more: Any) -> ModbusMeter:
    settings = {
        "deadline_s": 5.0,
        "pause": Pause(random.Random(3), first_s=0.1, most_s=0.2),
        **more,
    }
    return ModbusMeter(HOST, port, unit, plan, **settings)


async def put(server: Any, address: int, words: list[int]) -> None:
    await server.async_setValues(1, 16, address, words)


@pytest.mark.parametrize("base", [0, 40_000, 50_000])
@pytest.mark.parametrize(
    ("model", "volts_v"),
    [
        (integer_model(201), 230.5),
        (integer_model(202), 229.8),
        (integer_model(203), 229.8),
        (integer_model(204), 398.5),
    ],
)
def test_a_sunspec_meter_of_integers_is_found(base: int, model: list[int], volts_v: float) -> None:
    async def scene() -> None:
        # Something else stands before it: an inverter of 103, which is no meter.
        async with serving({base: device(COMMON, [103, 50, *[7] * 50], model)}) as server:
            meter = meter_at(port_of(server), SunSpecPlan())
            reading = await meter.poll()
            assert reading.fault is None
            assert reading.watts_w == 12_340.0
            assert reading.energy_wh == 123_456_789.0
            assert reading.hz == pytest.approx(49.98)
            assert reading.volts_v == pytest.approx(volts_v)
            assert reading.wraps_wh == 2.0**32
            assert reading.quality == "measured"
            await meter.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("number", "volts_v"), [(211, 231.5), (212, 229.25), (213, 229.25), (214, 398.5)]
)
def test_a_sunspec_meter_of_floats_is_found(number: int, volts_v: float) -> None:
    async def scene() -> None:
        async with serving({40_000: device(COMMON, float_model(number))}) as server:
            meter = meter_at(port_of(server), SunSpecPlan())
            reading = await meter.poll()
            assert (reading.fault, reading.watts_w) == (None, 9876.5)
            assert reading.energy_wh == 65_536.0
            assert reading.hz == pytest.approx(50.02, abs=1e-4)
            assert reading.volts_v == volts_v
            assert reading.wraps_wh is None
            await meter.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"W": NONE}, {"watts_w": None}),
        ({"W_SF": NO_SCALE}, {"watts_w": None}),
        ({"W_SF": 11}, {"watts_w": None}),
        ({"W": 0x10000 - 500, "W_SF": 0xFFFF}, {"watts_w": -50.0}),
        ({"TotWhImp": 0}, {"energy_wh": None}),
        ({"TotWh_SF": 3}, {"energy_wh": 123_456_789_000.0, "wraps_wh": 2.0**32 * 1000}),
        ({"Hz": 50, "Hz_SF": NO_SCALE}, {"hz": 50.0}),
        ({"PhVphB": NONE}, {"volts_v": None}),
    ],
)
def test_what_a_sunspec_meter_does_not_have_is_unknown(
    changes: dict[str, int], found: dict[str, float | None]
) -> None:
    async def scene() -> None:
        async with serving({0: device(COMMON, integer_model(203, **changes))}) as server:
            meter = meter_at(port_of(server), SunSpecPlan(base=0))
            reading = await meter.poll()
            for name, value in found.items():
                assert getattr(reading, name) == value
            if found.get("watts_w", 0.0) is None:
                assert reading.fault == "the meter does not know"
            await meter.close()

    asyncio.run(scene())


def test_a_reversed_sunspec_meter_is_turned_with_its_energy() -> None:
    async def scene() -> None:
        async with serving({0: device(COMMON, integer_model(203))}) as server:
            meter = meter_at(port_of(server), SunSpecPlan(negate=True))
            reading = await meter.poll()
            assert (reading.watts_w, reading.energy_wh) == (-12_340.0, 77.0)
            await meter.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("blocks", "base", "words"),
    [
        ({40_000: device(COMMON, [103, 50, *[7] * 50])}, None, "none of its 2 SunSpec models"),
        ({40_000: [0x5375, 0x6E54, 0, 0]}, None, "no SunSpec device"),
        ({40_000: device(COMMON, float_model(213))}, 0, "not at register 0"),
        ({0: device(*[[300, 0]] * 80)}, None, "none of its 64 SunSpec models"),
        ({0: device([203, 20, *[0] * 20])}, None, "none of its 1 SunSpec models"),
    ],
)
def test_a_device_without_a_meter_is_told(
    blocks: dict[int, list[int]], base: int | None, words: str
) -> None:
    async def scene() -> None:
        async with serving(blocks) as server:
            meter = meter_at(port_of(server), SunSpecPlan(base))
            reading = await meter.poll()
            assert reading.watts_w is None
            assert words in str(reading.fault)
            await meter.close()

    asyncio.run(scene())


def test_a_meter_that_has_moved_in_the_chain_is_found_again() -> None:
    async def scene() -> None:
        first = device(COMMON, integer_model(203), [64_000, 4, *[0] * 4])
        async with serving({0: first}) as server:
            meter = meter_at(port_of(server), SunSpecPlan())
            assert (await meter.poll()).watts_w == 12_340.0
            second = device(COMMON, [64_000, 4, *[0] * 4], integer_model(203, W=99))
            await put(server, 0, second[: len(first)])
            moved = await meter.poll()
            assert "model 64000 stands where 203 was" in str(moved.fault)
            assert (await meter.poll()).watts_w == 990.0
            await meter.close()

    asyncio.run(scene())


CASES: list[tuple[Encoding, list[int], float]] = [
    ("int16", [0xFF38], -200.0),
    ("uint16", [0xFF38], 65_336.0),
    ("int32", [0xFFFF, 0xFF38], -200.0),
    ("uint32", [0x0001, 0x0002], 65_538.0),
    ("int64", [0xFFFF, 0xFFFF, 0xFFFF, 0xFF38], -200.0),
    ("uint64", [0, 0, 1, 2], 65_538.0),
    ("float32", floats(9731.5), 9731.5),
    ("float64", list(struct.unpack(">4H", struct.pack(">d", 9731.25))), 9731.25),
]


@pytest.mark.parametrize(("encoding", "words", "value"), CASES)
@pytest.mark.parametrize("order", ["big", "little"])
def test_a_register_map_is_read_as_it_says(
    encoding: Encoding, words: list[int], value: float, order: WordOrder
) -> None:
    async def scene() -> None:
        laid = words if order == "big" else words[::-1]
        async with serving({7: laid, 90: [2350, 2290, 2310], 95: [5001]}, unit=9) as server:
            volts = tuple(Place(90 + at, "uint16", "input", scale=0.1) for at in range(3))
            plan = RegisterPlan(
                Place(7, encoding, "input", order, scale=-10.0),
                energy=Place(7, encoding, "holding", order, scale=100.0),
                frequency=Place(95, "uint16", scale=0.01),
                voltages=volts,
            )
            meter = meter_at(port_of(server), plan, unit=9)
            reading = await meter.poll()
            assert reading.fault is None
            assert reading.watts_w == pytest.approx(-10.0 * value)
            assert reading.hz == pytest.approx(50.01)
            assert reading.volts_v == pytest.approx(229.0)
            if encoding.startswith("float"):
                assert reading.wraps_wh is None
            else:
                wraps = 2.0 ** (16 * len(words)) * 100.0
                assert reading.wraps_wh == wraps
                assert reading.energy_wh == pytest.approx((value * 100.0) % wraps)
            await meter.close()

    asyncio.run(scene())


def test_a_register_that_is_not_there_is_told_and_the_connection_kept() -> None:
    async def scene() -> None:
        async with serving({7: [5]}) as server:
            plan = RegisterPlan(Place(7, "int16"), energy=Place(400, "uint32"))
            meter = meter_at(port_of(server), plan)
            for _ in range(2):
                reading = await meter.poll()
                assert (reading.watts_w, reading.fault) == (
                    None,
                    "register 400: Modbus exception 2",
                )
            await meter.close()

    asyncio.run(scene())


def test_a_device_that_was_away_is_left_alone_for_a_while_and_found_again() -> None:
    async def scene() -> None:
        steady = [0.0]
        pause = Pause(random.Random(3), first_s=100.0, most_s=100.0, steady_s=lambda: steady[0])
        plan = RegisterPlan(Place(7, "int16"))
        async with serving({7: [5]}) as server:
            port = port_of(server)
            meter = meter_at(port, plan, pause=pause, deadline_s=0.5, steady_s=lambda: steady[0])
            assert await read_once(meter, pause) == 5.0
        lost = await meter.poll()
        assert (lost.watts_w, pause.resting) == (5.0, True), "it holds until it is stale"
        assert lost.fault
        async with serving({7: [6]}, port=port):
            for _ in range(5):
                assert (await meter.poll()).fault == lost.fault
            steady[0] += 101.0
            assert meter.reading().watts_w is None
            assert await read_once(meter, pause) == 6.0
            assert not pause.resting
            await meter.close()

    asyncio.run(scene())


async def read_once(meter: ModbusMeter, pause: Pause) -> float | None:
    """Read it; a machine with much to do may need more than one attempt for that."""
    for _ in range(40):
        reading = await meter.poll()
        if reading.fault is None:
            return reading.watts_w
        pause.worked()
    raise AssertionError(reading)


def test_the_deadline_is_one_for_all_requests_of_a_poll() -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(0.1)

    async def scene() -> None:
        async with serving({7: [5, 5, 5, 5, 5, 5]}, action=slow) as server:
            volts = tuple(Place(8 + at, "int16") for at in range(3))
            plan = RegisterPlan(Place(7, "int16"), Place(11, "int16"), Place(12, "int16"), volts)
            meter = meter_at(port_of(server), plan, deadline_s=0.3)
            reading = await meter.poll()
            assert reading.watts_w is None
            assert reading.fault
            await meter.close()

    asyncio.run(scene())


def test_a_mute_device_is_unknown_within_the_deadline() -> None:
    async def scene() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(mute, HOST, 0)
        meter = meter_at(
            server.sockets[0].getsockname()[1], RegisterPlan(Place(7, "int16")), deadline_s=0.2
        )
        began = time.monotonic()
        reading = await meter.poll()
        assert time.monotonic() - began < 5.0
        assert reading.watts_w is None
        assert reading.fault == "no answer within 0.2 s" or "response" in str(reading.fault)
        await meter.close()
        server.close()

    asyncio.run(scene())
