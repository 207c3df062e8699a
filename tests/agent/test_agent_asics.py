"""ASICs of an agent: background writes, expiry, other masters; and emulated machines' real wire."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from wattshift_cluster.agent import asics
from wattshift_cluster.agent.asics import AS_FOUND, AsicDevice, connect_by_pyasic
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic

POINTS = (
    AsicPoint(SLEEP, 30.0, 0.0, 0.0),
    AsicPoint("low", 1000.0, 50e12, 0.0),
    AsicPoint("high", 3000.0, 120e12, 0.0),
)
IDENTITY = AsicIdentity(
    address="10.0.0.9",
    model="S19k Pro",
    firmware="test",
    mac=None,
    algorithm="sha256d",
    nameplate_w=3000.0,
    tolerance=0.05,
    safe_w=30.0,
    power_on_w=3000.0,
    continuous=False,
    points=POINTS,
)
ASIC = Asic(id="rig1", address="10.0.0.9", nameplate_w=2760.0)


class Machine:
    """A machine in memory: what was written to it, and faults on demand."""

    address = "10.0.0.9"

    def __init__(self) -> None:
        self.mode: str | None = "high"
        self.written: list[str] = []
        self.unreachable = False
        self.refuse = False
        self.slow_s = 0.0

    async def identify(self) -> AsicIdentity:
        self._answer()
        return IDENTITY

    async def read(self) -> AsicReading:
        self._answer()
        watts = next(point.watts_w for point in POINTS if point.mode == self.mode)
        return AsicReading(boot_s(), watts, None, None, None, self.mode)

    async def set_point(self, mode: str, watts_w: float) -> None:
        self._answer()
        await asyncio.sleep(self.slow_s)
        if self.refuse:
            raise AsicRefused(self.address, f"set {mode}", "no")
        self.written.append(mode)
        self.mode = mode

    async def sleep(self) -> None:
        self._answer()
        self.written.append(SLEEP)
        self.mode = SLEEP

    async def wake(self) -> None:
        raise AssertionError("a wake could raise the draw past the lease")

    def _answer(self) -> None:
        if self.unreachable:
            raise AsicUnreachable(self.address, "read", "silence")


def lease(mode: str, watts_w: float) -> Lease:
    return Lease("rig1", 1, 1, mode, watts_w, boot_s() + 10)


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the device has no event for tests
            await asyncio.sleep(0.01)


def drive(
    machine: Machine,
    test: Callable[[AsicDevice], Awaitable[None]],
    asic: Asic = ASIC,
    refusal: str | None = None,
) -> None:
    async def connect(_: Asic) -> Machine:
        machine._answer()
        return machine

    async def scenario() -> None:
        device = AsicDevice(asic, refusal, connect)
        task = asyncio.create_task(device.run())
        try:
            await asyncio.wait_for(test(device), 20)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asics, "POLL_S", 0.02)
    monkeypatch.setattr(asics, "RETRY_S", (0.05,))
    monkeypatch.setattr(asics, "LOOKUP_S", (0.05,))
    monkeypatch.setattr(asics, "OVERRULE_S", 0.1)
    monkeypatch.setattr(asics, "ALARM_S", 0.3)


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
        await asyncio.sleep(2.1)  # what we wrote must have settled
        machine.mode = "high"
        await eventually(lambda: device.reading().foreign_write)
        await eventually(lambda: machine.mode == "low")
        await eventually(lambda: not device.reading().foreign_write)
        await asyncio.sleep(2.1)
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


def test_what_runs_without_a_lease_is_put_to_sleep_after_the_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asics, "GRACE_S", 0.3)
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        await asyncio.sleep(0.1)
        assert machine.mode == "high"
        await eventually(lambda: machine.mode == SLEEP)

    drive(machine, test)


@pytest.mark.parametrize("kind", ["luxos", "whatsminer"])
def test_an_emulated_machine_is_driven_over_its_real_wire(kind: str, tmp_path: Path) -> None:
    address = f"127.22.{1 + os.getpid() % 250}.{7 if kind == 'luxos' else 8}"
    row = {"id": "rig1", "kind": kind, "address": address, "seed": 3, "start": "full"}
    (tmp_path / "emulator.json").write_text(json.dumps({"machines": [row]}))
    command = ["-m", "wattshift_cluster.emulate.process", "--truth", "127.0.0.1:0"]
    emulator = subprocess.Popen(
        [sys.executable, *command, "--config", str(tmp_path / "emulator.json")],
        stdout=subprocess.PIPE,
    )
    asic = Asic(id="rig1", address=address, emulated=True)

    async def scenario() -> None:
        device = AsicDevice(asic, None, connect_by_pyasic)
        task = asyncio.create_task(device.run())
        try:
            await asyncio.wait_for(device.identified.wait(), 20)
            info = device.info()
            assert info is not None
            assert info.quality == "emulated"
            point = info.points[1]
            held = replace(lease(point.mode, point.watts_w * 1.05))
            device.hold(held)
            most_w = point.watts_w * (1 + info.tolerance)
            await eventually(lambda: (device.reading().watts_w or 9e9) <= most_w, within_s=25)
            assert device.reading().watts_w > info.safe_w * 1.5  # type: ignore[operator]
            await device.close()
            asleep_w = info.safe_w * (1 + info.tolerance)
            await eventually(lambda: (device.reading().watts_w or 9e9) <= asleep_w, within_s=25)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    try:
        assert emulator.stdout is not None
        assert json.loads(emulator.stdout.readline())["ready"]
        asyncio.run(scenario())
    finally:
        emulator.terminate()
        emulator.communicate(timeout=10)
