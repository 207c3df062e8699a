"""Which ASIC is commanded: the one that is meant, and not one that slept before us."""

import asyncio

import pytest
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.machine import AS_FOUND, AsicDevice
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.memory import Memory

ASIC, EMULATED, Machine = bench.ASIC, bench.EMULATED, bench.Machine
drive, eventually, lease = bench.drive, bench.eventually, bench.lease


def test_a_machine_back_from_silence_is_not_believed_until_it_obeys_again() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await eventually(lambda: device.command.state is State.CONFIRMED)
        machine.unreachable = True
        await eventually(lambda: device.command.state in (State.UNREACHABLE, State.FAILED))
        machine.refuse, machine.unreachable = True, False
        await eventually(lambda: device.contact.error is None)
        assert device.reading().watts_w == 30.0, "it boots, and will draw more"
        await eventually(lambda: device.reading().error is not None)
        machine.refuse = False
        await eventually(lambda: device.command.state is State.CONFIRMED)
        assert device.reading().error is None
        assert machine.asked.count("identify") > 1, "another may have its address now"

    drive(machine, test)


def test_a_running_machine_back_from_silence_counts_once_it_shows_its_watts() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: device.command.state is State.CONFIRMED)
        machine.unreachable = True
        await eventually(lambda: device.command.state is State.UNREACHABLE)
        machine.blank, machine.unreachable = True, False
        await eventually(lambda: device.contact.error is None)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert device.reading().error is not None
        machine.blank = False
        await eventually(lambda: device.command.state is State.CONFIRMED)
        assert device.reading().error is None

    drive(machine, test)


def test_after_a_silence_nothing_is_commanded_before_it_has_said_who_it_is() -> None:
    machine = Machine(mac="02:00:00:00:00:01")

    async def test(device: AsicDevice) -> None:
        device.hold(lease("high", 3150.0))
        await eventually(lambda: machine.written == ["high"])
        machine.silent = True
        await eventually(lambda: device.command.state is State.UNREACHABLE)
        device.safe()
        await asyncio.sleep(0.3)
        assert machine.written == ["high"], "somebody else may listen there by now"
        machine.silent = False
        await eventually(lambda: machine.mode == SLEEP)

    drive(machine, test)


def test_a_machine_that_tells_nothing_is_not_woken() -> None:
    machine = Machine(SLEEP)
    machine.blank = True

    async def test(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: "not seen yet" in (device.reading().note or ""))
        machine.blank = False
        await eventually(lambda: device.why_asleep == "asleep since before us")
        assert machine.written == []

    drive(machine, test)


def test_another_machine_at_the_address_is_never_commanded() -> None:
    machine = Machine(mac="02:00:00:00:00:02")
    asic = ASIC.model_copy(update={"mac": "02:00:00:00:00:01"})

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: "another machine" in (device.reading().error or ""))
        device.safe()
        device.hold(lease("low", 1050.0))
        await asyncio.sleep(0.3)
        info = device.info()
        assert info is not None
        assert [point.mode for point in info.points] == [AS_FOUND]
        assert info.nameplate_w == 3000.0, "the most that either of them may draw"
        assert device.reading().watts_w is None
        assert machine.written == []
        machine.mac = "02:00:00:00:00:01"
        await eventually(lambda: machine.mode == "low")

    drive(machine, test, asic)


def test_the_first_machine_seen_is_the_one_that_is_meant() -> None:
    machine = Machine(mac="02:00:00:00:00:01")

    async def test(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: device.command.state is State.CONFIRMED)
        machine.unreachable = True
        await eventually(lambda: device.command.state is State.UNREACHABLE)
        machine.mac, machine.mode = "02:00:00:00:00:02", "high"
        machine.unreachable = False
        await eventually(lambda: "another machine" in (device.reading().error or ""))
        device.safe()
        await asyncio.sleep(0.2)
        assert machine.mode == "high", "it is not ours to put to sleep"

    device = drive(machine, test)
    assert device.memory.mac == "02:00:00:00:00:01"
    again = Machine(mac="02:00:00:00:00:02")

    async def later(device: AsicDevice) -> None:
        await eventually(lambda: "another machine" in (device.reading().error or ""))

    drive(again, later, memory=device.memory)


def test_not_even_sleep_is_written_to_a_machine_found_asleep() -> None:
    machine = Machine(SLEEP)

    async def test(device: AsicDevice) -> None:
        device.safe()
        await eventually(lambda: device.why_asleep is not None)
        await asyncio.sleep(0.2)
        assert machine.written == []

    assert drive(machine, test).memory.written is None, "else it would be ours after a restart"


def test_another_firmware_at_the_address_gets_another_driver() -> None:
    old, new = Machine(), Machine()
    connected: list[str] = []

    async def connect(asic: Asic) -> Machine:
        connected.append(asic.address)
        return old if len(connected) == 1 else new

    async def test(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: old.mode == "low")
        old.unreachable = True
        await eventually(lambda: new.mode == "low")
        assert old.asked[-1] == "close"

    machine = Machine()
    machine.connect = connect
    drive(machine, test)


@pytest.mark.parametrize("ours", [True, False])
def test_a_machine_asleep_before_us_is_left_unless_we_had_put_it_there(ours: bool) -> None:
    machine = Machine(SLEEP)
    asic = ASIC.model_copy(update={"min_off_s": 0.0})

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("low", 1050.0))
        if ours:
            await eventually(lambda: machine.mode == "low")
            return
        await asyncio.sleep(0.2)
        assert machine.written == []
        info, terms = device.info(), device.terms()
        assert info is not None
        assert terms is not None
        assert [point.mode for point in info.points] == [SLEEP]
        assert terms.closed == device.reading().note == "asleep since before us"
        await device.close()
        assert machine.written == []

    memory = Memory(written=SLEEP) if ours else Memory(written="low")
    device = drive(machine, test, asic, memory=memory)
    assert device.memory.written == "low", "what it was found at is not what we wrote"


def test_a_machine_found_asleep_that_wakes_by_itself_obeys_again() -> None:
    machine = Machine(SLEEP)

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: device.why_asleep is not None)
        device.safe()
        version = device.inventory_version
        machine.mode = "high"
        await eventually(lambda: machine.mode == SLEEP)
        assert device.inventory_version > version

    drive(machine, test)


def test_an_emulated_machine_found_asleep_is_woken_at_once() -> None:
    machine = Machine(SLEEP)

    async def test(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: machine.mode == "low")

    drive(machine, test, EMULATED)
