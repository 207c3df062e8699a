"""ASICs of an agent: background writes, expiry, other masters; and emulated machines' real wire."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.agent import asic_machine as bench
from tests.ports import own_address

from wattshift_cluster.agent.asics.contact import connect_by_probe
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AS_FOUND, AsicDevice
from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicRefused
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic, AsicSection
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.safety import WakeQueue

ASIC, EMULATED = bench.ASIC, bench.EMULATED
FAST, QUICK, PATIENT = bench.FAST, bench.QUICK, bench.PATIENT
Machine, drive, sweeping = bench.Machine, bench.drive, bench.sweeping
eventually, lease = bench.eventually, bench.lease


def test_a_lease_is_written_and_its_end_writes_sleep() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        info = device.info()
        assert info is not None
        assert (info.fenced, info.safe_w, info.nameplate_w) == (False, 30.0, 3000.0)
        device.hold(lease("low", 1050.0))
        await eventually(lambda: machine.mode == "low")
        device.hold(lease("low", 1049.0))
        await asyncio.sleep(0.1)
        assert machine.written == ["low"], "a renewal writes nothing"
        device.safe()
        await eventually(lambda: machine.mode == SLEEP)
        await eventually(lambda: device.reading().watts_w == 30.0)
        assert device.reading().error is None

    drive(machine, test)


class Targeted(Machine):
    """A machine held at a power target, which knows none below that of its lowest point."""

    async def identify(self) -> AsicIdentity:
        return replace(await super().identify(), continuous=True, tolerance=0.0)

    async def set_point(self, mode: str, watts_w: float) -> None:
        if watts_w < 999.0:
            raise AsicRefused(self.address, f"set {mode}", "not even the lowest target is as low")
        await super().set_point(mode, watts_w)


def test_a_lease_below_its_lowest_target_is_sleep() -> None:
    machine = Targeted()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("low", 999.5))
        await eventually(lambda: machine.mode == "low")
        device.hold(lease("low", 700.0))
        await eventually(lambda: machine.mode == SLEEP)
        await eventually(lambda: device.command.state is State.CONFIRMED)
        assert device.reading().error is None

    drive(machine, test)


def test_going_down_does_not_wait_for_a_slow_way_up() -> None:
    machine = Machine()
    machine.slow_s = 5.0

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("high", 3150.0))
        await asyncio.sleep(0.1)
        began_s = boot_s()
        device.hold(lease(SLEEP, 30.0))
        await eventually(lambda: machine.mode == SLEEP, within_s=1.0)
        assert boot_s() - began_s < 1.0
        assert machine.written == [SLEEP]

    drive(machine, test)


def test_a_failed_write_is_said_and_tried_again() -> None:
    machine = Machine()
    machine.refuse = True

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("low", 1050.0))
        await eventually(lambda: "set low" in (device.reading().error or ""))
        machine.refuse = False
        await eventually(lambda: machine.mode == "low")
        await eventually(lambda: device.reading().error is None)

    drive(machine, test)


def test_a_silent_machine_keeps_its_last_sample_and_says_so() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: device.reading().watts_w == 3000.0)
        machine.unreachable = True
        await eventually(lambda: device.reading().error is not None)
        last = device.reading()
        assert "silence" in (last.error or "")
        await asyncio.sleep(0.1)
        assert device.reading().at_boot_s == last.at_boot_s, "an old sample shows its age"

    drive(machine, test)


def test_another_masters_raise_is_alarmed_and_taken_back_its_lowering_is_left() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("low", 1050.0))
        await eventually(lambda: machine.mode == "low")
        await asyncio.sleep(0.4)  # what we wrote must have settled
        machine.mode = "high"
        await eventually(lambda: device.reading().foreign_write)
        await eventually(lambda: machine.mode == "low")
        await eventually(lambda: not device.reading().foreign_write)
        await asyncio.sleep(0.4)
        machine.mode = SLEEP
        await eventually(lambda: device.reading().foreign_write)
        await asyncio.sleep(0.3)
        assert machine.mode == SLEEP
        assert machine.written == ["low", "low"]

    drive(machine, test)


def test_closing_puts_it_to_sleep() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        await device.close()
        assert machine.mode == SLEEP

    drive(machine, test)


@pytest.mark.parametrize("how", ["protected", "no consent"])
def test_what_must_not_be_written_is_only_read(how: str) -> None:
    machine = Machine()
    asic = ASIC.model_copy(update={"protected": how == "protected"})

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: device.reading().watts_w == 3000.0)
        info = device.info()
        assert info is not None
        assert [(point.mode, point.watts_w) for point in info.points] == [(AS_FOUND, 3000.0)]
        assert info.safe_w == 3000.0, "nothing can be shed there"
        device.hold(lease("low", 1050.0))
        device.safe()
        await device.close()
        await asyncio.sleep(0.1)
        assert machine.written == []

    drive(machine, test, asic, None if how == "protected" else "no consent")


def test_an_unknown_machine_counts_at_the_nameplate_its_owner_gave() -> None:
    machine = Machine()
    machine.unreachable = True

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: "silence" in (device.reading().error or ""))
        info = device.info()
        assert info is not None
        assert (info.nameplate_w, info.safe_w) == (2760.0, 2760.0)
        assert device.reading().watts_w is None
        version = device.inventory_version
        machine.unreachable = False
        await eventually(lambda: device.inventory_version > version)
        found = device.info()
        assert found is not None
        assert len(found.points) == 3

    drive(machine, test)


def test_what_runs_without_a_lease_is_put_to_sleep_after_the_grace() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        await asyncio.sleep(0.1)
        assert machine.mode == "high"
        await eventually(lambda: machine.mode == SLEEP)

    drive(machine, test, lanes=lambda: Lanes(rhythm=replace(FAST, grace_s=0.3), pace=QUICK))


def test_an_accepted_command_that_is_ignored_is_named_and_commanded_again() -> None:
    machine = Machine()
    machine.deaf = True

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await eventually(lambda: "sleep failed" in (device.reading().error or ""))
        await eventually(lambda: "3,000 W" in (device.reading().error or ""))
        tries = len(machine.written)
        await eventually(lambda: len(machine.written) > tries)
        machine.deaf = False
        await eventually(lambda: device.command.state is State.CONFIRMED)
        assert device.reading().error is None

    drive(machine, test)


def test_a_sample_that_was_under_way_before_the_command_confirms_nothing() -> None:
    machine = Machine(SLEEP)

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        machine.slow_poll_s = 0.5
        polls = machine.asked.count("poll")
        await eventually(lambda: machine.asked.count("poll") > polls + 1)
        machine.mode, machine.deaf = "high", True
        device.safe()
        await eventually(lambda: machine.written != [])
        states = set()
        for _ in range(60):
            await asyncio.sleep(0.02)
            states.add(device.command.state)
        assert State.CONFIRMED not in states
        assert "not confirmed" in (device.reading().note or "")

    drive(machine, test, EMULATED, lanes=lambda: Lanes(rhythm=FAST, pace=PATIENT))


def test_a_machine_without_watts_is_confirmed_by_its_hashrate() -> None:
    machine = Machine()
    machine.blind = machine.deaf = True

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await eventually(lambda: "reports no watts" in (device.reading().note or ""))
        machine.deaf = False
        await eventually(lambda: device.command.state is State.CONFIRMED)

    drive(machine, test, lanes=lambda: Lanes(rhythm=FAST, pace=PATIENT))


def test_polls_are_cheap_and_all_is_read_now_and_then() -> None:
    machine = Machine()
    machine.board_c = 71.0

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        await eventually(lambda: machine.asked.count("poll") > 20)
        assert machine.asked.count("read") == 1
        assert machine.asked.count("identify") == machine.asked.count("prepare") == 1
        assert device.reading().temperature_c == 71.0

    drive(machine, test)
    assert machine.asked[-1] == "close"


def test_after_a_sleep_a_wake_waits_and_another_sleep_does_not() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        device.hold(lease("high", 3150.0))
        await eventually(lambda: machine.written == ["high"])
        device.safe()
        await eventually(lambda: machine.mode == SLEEP)
        device.hold(lease("low", 1050.0))
        await eventually(lambda: "rests until" in (device.reading().note or ""))
        assert device.reading().error is None
        await asyncio.sleep(0.2)
        assert machine.written == ["high", SLEEP]

    device = drive(machine, test)
    assert device.memory.slept_s is not None
    assert device.memory.cycles == 0

    async def after(device: AsicDevice) -> None:
        device.hold(lease("low", 1050.0))
        await eventually(lambda: machine.mode == "low")

    rested = replace(device.memory, slept_s=device.memory.slept_s - 601.0)
    woken = drive(machine, after, memory=rested)
    assert (woken.memory.cycles, woken.memory.written) == (1, "low")


def test_machines_wake_one_after_another() -> None:
    async def scenario() -> None:
        queue = WakeQueue(1, None, seed=1, window_s=0.4)
        lanes = Lanes(rhythm=FAST, pace=QUICK, wakes=queue, wakes_emulated=True)
        machines = [Machine(SLEEP) for _ in range(4)]
        devices = [
            AsicDevice(EMULATED.model_copy(update={"id": f"rig{i}"}), None, m.connect, lanes=lanes)
            for i, m in enumerate(machines)
        ]

        async def test() -> None:
            for device in devices:
                device.hold(lease("low", 1050.0, device.id))
            await eventually(lambda: any("turn" in (d.reading().note or "") for d in devices))
            await eventually(lambda: all(m.mode == "low" for m in machines), within_s=10)
            woke_s = sorted(m.written_s[0] for m in machines)
            assert all(b - a > 0.35 for a, b in pairwise(woke_s))

        await sweeping(devices, lanes, test())

    asyncio.run(scenario())


def test_a_hot_machine_is_lowered_and_says_why() -> None:
    machine = Machine()
    machine.board_c = 95.0

    async def test(device: AsicDevice) -> None:
        device.hold(lease("high", 3150.0))
        await eventually(lambda: machine.mode == "low")
        assert "too hot" in (device.reading().note or "")
        assert device.reading().error is None

    limits = AsicSection(board_limit_c=90.0)
    drive(machine, test, lanes=lambda: Lanes(limits, rhythm=FAST, pace=QUICK))


def test_a_memory_that_cannot_be_read_leaves_the_machine_at_its_ceiling() -> None:
    machine = Machine(mac="02:00:00:00:00:01")

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: device.reading().watts_w == 3000.0)
        device.hold(lease("low", 1050.0))
        device.safe()
        info = device.info()
        assert info is not None
        assert [(point.mode, point.watts_w) for point in info.points] == [(AS_FOUND, 3000.0)]
        assert device.reading().error == "damaged"
        await asyncio.sleep(0.1)
        assert machine.written == []

    drive(machine, test, damage="damaged")


def test_a_thousand_machines_are_put_to_sleep_at_once() -> None:
    async def scenario() -> None:
        lanes = Lanes()
        machines = [Machine() for _ in range(1000)]
        hung = machines[::20]
        devices = [
            AsicDevice(EMULATED.model_copy(update={"id": f"rig{i}"}), None, m.connect, lanes=lanes)
            for i, m in enumerate(machines)
        ]

        async def never() -> None:
            await asyncio.Event().wait()

        async def test() -> None:
            await asyncio.gather(*(device.identified.wait() for device in devices))
            for machine in machines:
                machine.slow_sleep_s = 0.5
            for machine in hung:
                machine.sleep = machine.poll = never  # type: ignore[method-assign, assignment]
            before = [len(machine.asked) for machine in machines]
            began_s = boot_s()
            for device in devices:
                device.safe()
            well = [m for m in machines if m not in hung]
            await eventually(lambda: all(m.mode == SLEEP for m in well), within_s=30)
            assert boot_s() - began_s < 8.0, "one after another would take 500 s"
            asked = sum(len(m.asked) - n for m, n in zip(machines, before, strict=True))
            assert asked < 3000, "no machine is read first"
            ours = [d for d, m in zip(devices, machines, strict=True) if m not in hung]
            states = lambda: {d.command.state for d in ours}  # noqa: E731
            await eventually(lambda: states() == {State.CONFIRMED}, within_s=15)

        await sweeping(devices, lanes, test(), within_s=60)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["luxos", "whatsminer"])
def test_an_emulated_machine_is_driven_over_its_real_wire(kind: str, tmp_path: Path) -> None:
    address = own_address()
    row = {"id": "rig1", "kind": kind, "address": address, "seed": 3, "start": "full"}
    (tmp_path / "emulator.json").write_text(json.dumps({"machines": [row]}))
    command = ["-m", "wattshift_cluster.emulate.process", "--truth", "127.0.0.1:0"]
    emulator = subprocess.Popen(
        [sys.executable, *command, "--config", str(tmp_path / "emulator.json")],
        stdout=subprocess.PIPE,
    )
    asic = Asic(id="rig1", address=address, emulated=True)

    async def test(device: AsicDevice) -> None:
        await asyncio.wait_for(device.identified.wait(), 20)
        info = device.info()
        assert info is not None
        assert info.quality == "emulated"
        point = info.points[1]
        device.hold(lease(point.mode, point.watts_w * 1.05))
        most_w = point.watts_w * (1 + info.tolerance)
        await eventually(lambda: (device.reading().watts_w or 9e9) <= most_w, within_s=25)
        assert device.reading().watts_w > info.safe_w * 1.5  # type: ignore[operator]
        await eventually(lambda: device.command.state is State.CONFIRMED)
        await device.close()
        asleep_w = info.safe_w * (1 + info.tolerance)
        await eventually(lambda: (device.reading().watts_w or 9e9) <= asleep_w, within_s=25)
        await eventually(lambda: device.command.state is State.CONFIRMED)

    async def scenario() -> None:
        lanes = Lanes()
        device = AsicDevice(asic, None, connect_by_probe, lanes=lanes)
        await sweeping([device], lanes, test(device), within_s=90)

    try:
        assert emulator.stdout is not None
        assert json.loads(emulator.stdout.readline())["ready"]
        asyncio.run(scenario())
    finally:
        emulator.terminate()
        emulator.communicate(timeout=10)
