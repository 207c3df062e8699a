"""Small things that an agent owes a machine: its own time, its rest, cool air, its owner's mode."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.agent import asic_machine as bench
from tests.ports import own_net

from wattshift_cluster.agent.asics import gate
from wattshift_cluster.agent.asics.contact import connect_by_probe
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.leases import judge
from wattshift_cluster.asic.antminer import PATIENCE_S, AntminerDriver
from wattshift_cluster.asic.driver import SLEEP, AsicReading, Choosing, Slow, command_s
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import Found
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic, AsicSection
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.memory import Memory

drive, eventually, lease = bench.drive, bench.eventually, bench.lease
Machine: Any = bench.Machine

NET = own_net()
WAIT_S = 15.0
HASTY = replace(bench.FAST, write_s=0.1, close_s=0.1)


class Leisurely(Machine):  # type: ignore[misc]
    """Its firmware takes its time for a command, and its driver says so."""

    command_s = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.slow_sleep_s = 0.4


def hasty() -> Lanes:
    return Lanes(rhythm=HASTY, pace=bench.PATIENT)


def test_a_command_has_the_time_that_its_driver_needs() -> None:
    machine = Leisurely()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await eventually(lambda: machine.written == [SLEEP], WAIT_S)
        await eventually(lambda: device.command.state is State.CONFIRMED, WAIT_S)

    drive(machine, test, lanes=hasty)


def test_an_ending_agent_waits_for_a_command_that_is_under_way() -> None:
    machine = Leisurely()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        began_s = time.monotonic()
        await device.close()
        assert machine.written == [SLEEP]
        assert time.monotonic() - began_s < WAIT_S

    drive(machine, test, lanes=hasty)


def test_a_machine_whose_driver_is_quick_has_the_usual_deadline() -> None:
    machine = Machine()
    machine.slow_sleep_s = 0.4

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await eventually(lambda: device.command.tries >= 2, WAIT_S)
        assert machine.written == []

    drive(machine, test, lanes=hasty)


def test_an_antminer_is_given_the_time_of_its_slowest_known_write() -> None:
    found = Found("antminer", "Antminer S21", "1")
    driver = AntminerDriver(Setup("127.0.0.1", found, ABILITIES["antminer"], None, 2.0))
    assert isinstance(driver, Slow)
    assert command_s(driver, 12.0) > PATIENCE_S
    assert command_s(driver, 99.0) == 99.0
    assert command_s(Machine(), 12.0) == 12.0


RESTING = bench.ASIC.model_copy(update={"min_off_s": 60.0})


def test_while_a_machine_rests_its_watts_are_offered_to_nobody_and_leased_to_others() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        info = device.info()
        assert info is not None
        assert len(info.points) == 3
        version = device.inventory_version
        device.hold(lease(SLEEP, 31.5))
        await eventually(lambda: device.rest is not None, WAIT_S)
        assert device.inventory_version > version
        info, terms = device.info(), device.terms()
        assert info is not None
        assert [point.mode for point in info.points] == [SLEEP]
        assert info.nameplate_w == 3000.0
        verdict = judge(lease("low", 1050.0), None, terms, 1, boot_s())
        assert "rests until" in (verdict.reason or "")
        await eventually(lambda: device.command.proven, WAIT_S)
        assert "rests until" in (device.reading().note or "")
        device.remember(lambda memory: replace(memory, slept_s=time.time() - 61.0))
        await eventually(lambda: device.rest is None, WAIT_S)
        info = device.info()
        assert info is not None
        assert len(info.points) == 3, "from now on a lease gives it a place in the queue"

    drive(machine, test, RESTING)


def test_a_machine_at_work_does_not_rest_however_lately_it_slept() -> None:
    memory = Memory(slept_s=time.time(), written="high")

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("high", 3150.0))
        await eventually(lambda: device.command.proven, WAIT_S)
        assert device.rest is None
        assert device.closed is None

    drive(Machine(), test, RESTING, memory=memory)


class Breathing(Machine):  # type: ignore[misc]
    """Its firmware tells the temperature of the air at its inlet, where it has one."""

    inlet_c: float | None = None

    async def read(self) -> AsicReading:
        seen: AsicReading = await super().read()
        return replace(seen, inlet_c=self.inlet_c)


def test_no_machine_is_woken_into_air_that_is_too_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LOOK_AGAIN_S", 0.05)
    machine = Breathing(SLEEP)
    machine.inlet_c = 41.2
    section = AsicSection(inlet_limit_c=40.0)
    quick = replace(bench.FAST, full_s=0.05)

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("low", 1050.0))
        told = "the air at its inlet has 41 °C, the limit is 40 °C"
        await eventually(lambda: told in (device.command.reason or ""), WAIT_S)
        assert told in (device.reading().note or "")
        machine.inlet_c = None
        await eventually(lambda: machine.mode == "low", WAIT_S)

    lanes = lambda: Lanes(section, rhythm=quick, pace=bench.PATIENT)  # noqa: E731
    drive(machine, test, bench.EMULATED, lanes=lanes)


@pytest.mark.parametrize("kind", ["whatsminer", "whatsminer_v2"])
def test_the_air_is_told_by_the_firmware_that_knows_it(kind: str) -> None:
    async def main() -> None:
        miner = EmulatedMiner("rig", kind, f"{NET}.251", seed=7, clock=time.monotonic)
        await miner.start()
        try:
            driver = await connect_by_probe(Asic(id="rig", address=miner.address, emulated=True))
            await driver.identify()
            assert (await driver.read()).inlet_c == 26.0
            await driver.close()
        finally:
            await miner.stop()

    asyncio.run(main())


def owners(miner: EmulatedMiner) -> dict[str, Any]:
    """The configuration of an emulated Antminer."""
    conf: dict[str, Any] = getattr(miner.firmware, "conf")  # noqa: B009 - of one firmware alone
    return conf


def test_a_machine_is_woken_into_its_owners_mode_by_an_agent_that_never_saw_it_awake() -> None:
    asic = Asic(id="rig1", address=f"{NET}.252", emulated=True)

    async def life(miner: EmulatedMiner, memory: Memory, *, wake: bool) -> Memory:
        lanes = Lanes(rhythm=bench.FAST, pace=bench.PATIENT)
        device = AsicDevice(asic, None, connect_by_probe, lanes=lanes, memory=memory)

        async def test() -> None:
            await device.identified.wait()
            if wake:
                device.hold(lease("normal", 3700.0))
                await eventually(lambda: owners(miner)["bitmain-work-mode"] != "1", WAIT_S)
                return
            await eventually(lambda: device.memory.owners_choice is not None, WAIT_S)
            device.safe()
            await eventually(lambda: owners(miner)["bitmain-work-mode"] == "1", WAIT_S)
            await device.settled()

        await bench.sweeping([device], lanes, test(), within_s=30.0)
        kept: Memory = device.memory
        return kept

    async def main() -> None:
        miner = EmulatedMiner(
            "rig", "antminer", asic.address, seed=7, clock=time.monotonic, full=True
        )
        await miner.start()
        owners(miner)["bitmain-work-mode"] = "3"
        try:
            memory = await life(miner, Memory(), wake=False)
            assert memory.owners_choice == "low"
            await life(miner, memory, wake=True)
            assert owners(miner)["bitmain-work-mode"] == "3"
        finally:
            await miner.stop()

    asyncio.run(main())


def test_words_that_a_driver_does_not_know_change_nothing() -> None:
    found = Found("antminer", "Antminer S21", "1")
    driver = AntminerDriver(Setup("127.0.0.1", found, ABILITIES["antminer"], None, 2.0))
    assert isinstance(driver, Choosing)
    assert driver.owners_choice is None
    driver.owners_choice = "low"
    driver.owners_choice = "high"
    assert driver.owners_choice == "low", "a high mode may draw more than the nameplate"
