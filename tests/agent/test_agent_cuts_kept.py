"""Power that we took from a machine is still taken by us after the agent was killed."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.agent import test_agent_fencing as fencing_tests

from wattshift_cluster.agent.asics.fencing import Fencing
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.emulate.outlets.modbus import EmulatedModbusCabinet
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.kept import KeptCut
from wattshift_cluster.fleet.memory import Memory, MemoryDamaged, MemoryFolder

bench = fencing_tests.bench
Rig: Any = fencing_tests.Rig
eventually, lease = bench.eventually, bench.lease
HOST = fencing_tests.HOST.replace("127.61.", "127.62.")
vars(fencing_tests)["HOST"] = HOST
WAIT_S = 15.0

Test = Callable[[AsicDevice], Awaitable[None]]


class Site:
    """A machine on an outlet, its cabinet, and one life after another of its agent.

    Attributes:
        killed: what the disk holds of the machine from the moment of a kill.
    """

    def __init__(self, folder: Path) -> None:
        self.rig = Rig()
        self.rig.machine.mac = "02:00:00:00:00:01"
        self.folder = MemoryFolder(folder)
        self.killed: bytes | None = None
        self.cut = True

    @property
    def strip(self) -> Any:
        return self.rig.strip

    def kill(self) -> None:
        """From now on nothing more of this life reaches the disk."""
        self.killed = self.folder.path("rig1").read_bytes()

    def run(self, *lives: Test) -> None:
        async def main() -> None:
            cabinet = EmulatedModbusCabinet(self.strip)
            await cabinet.start(HOST, 0)
            try:
                for life in lives:
                    await self._live(life, cabinet.port)
            finally:
                await cabinet.stop()

        asyncio.run(main())

    async def _live(self, life: Test, port: int) -> None:
        keeper, memory = Keeper(self.folder), self.folder.load("rig1")
        device = AsicDevice(
            self.rig.asic, None, self.rig.machine.connect, lanes=self.rig.lanes, memory=memory
        )
        pdu = self.rig.pdu(port, cut=self.cut, metered=False)
        fencing = Fencing([pdu], [device], keeper, grace_s=0.3, look_s=0.03)
        running = asyncio.create_task(fencing.run())
        try:
            await eventually(lambda: fencing_tests.powered(device) is not None, WAIT_S)
            await bench.sweeping([device], self.rig.lanes, life(device), keeper, within_s=30.0)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if self.killed is not None:
                self.folder.path("rig1").write_bytes(self.killed)
            self.killed = None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def is_cut(site: Site, device: AsicDevice) -> None:
    """It does not sleep and is silent, and so loses its power."""
    await device.identified.wait()
    await eventually(lambda: device.reading().watts_w == 3000.0, WAIT_S)
    site.rig.machine.unreachable = True
    device.safe()
    await eventually(lambda: not site.strip.on("0"), WAIT_S)
    site.kill()
    site.rig.machine.unreachable = False


async def comes_back_for_a_lease(site: Site, device: AsicDevice) -> None:
    info = device.info()
    assert info is not None
    assert [point.mode for point in info.points] == [SLEEP, "low", "high"]
    await eventually(lambda: device.reading().watts_w == 0.0, WAIT_S)
    assert "cut at its outlet: set sleep: unreachable" in (device.reading().note or "")
    device.end_grace()
    await eventually(lambda: device.command.state is State.CONFIRMED, WAIT_S)
    await asyncio.sleep(0.3)
    assert not site.strip.on("0"), "nothing but a lease brings it up"
    device.hold(lease("low", 1050.0))
    await eventually(lambda: site.strip.on("0"), WAIT_S)
    await eventually(lambda: device.reading().watts_w == 1000.0, WAIT_S)
    await eventually(lambda: device.memory.cut is None, WAIT_S)
    await eventually(lambda: device.reading().note is None, WAIT_S)


def test_a_cut_is_on_disk_before_the_outlet_obeys_and_ends_in_the_next_life_as_in_this(
    site: Site,
) -> None:
    seen: list[Memory] = []
    switch = site.strip.command

    def noted(outlet: str, *, on: bool) -> bool:
        seen.append(site.folder.load("rig1"))
        return bool(switch(outlet, on=on))

    async def first(device: AsicDevice) -> None:
        await is_cut(site, device)
        kept = seen[0].cut
        assert kept is not None
        assert "unreachable" in kept.reason
        assert kept.known is not None
        assert kept.known.points == bench.POINTS
        assert seen[0].slept_s is not None, "it rests, too"

    async def second(device: AsicDevice) -> None:
        seen.clear()
        await comes_back_for_a_lease(site, device)
        kept = seen[0].cut
        assert kept is not None
        assert kept.rising, "else the next life would take the power of a machine at work"

    site.strip.command = noted
    site.run(first, second)
    assert site.folder.load("rig1").cut is None
    assert [on for _, on in site.strip.switchings("0")] == [False, True]


def test_a_real_machine_that_was_cut_is_not_one_that_slept_before_us(site: Site) -> None:
    site.rig.asic = bench.ASIC.model_copy(update={"min_off_s": 0.0})
    site.run(
        lambda device: is_cut(site, device), lambda device: comes_back_for_a_lease(site, device)
    )


def test_a_cut_that_was_decided_and_not_done_is_done(site: Site) -> None:
    async def first(device: AsicDevice) -> None:
        site.strip.fault = fencing_tests.OutletFault.LIE
        await device.identified.wait()
        site.rig.machine.unreachable = True
        device.safe()
        await eventually(lambda: device.memory.cut is not None, WAIT_S)
        await eventually(lambda: site.folder.load("rig1").cut is not None, WAIT_S)
        site.kill()

    async def second(device: AsicDevice) -> None:
        site.strip.fault = fencing_tests.OutletFault.NONE
        await eventually(lambda: not site.strip.on("0"), WAIT_S)

    site.run(first, second)


def rising(site: Site) -> None:
    known = bench.IDENTITY
    memory = Memory(cut=KeptCut("it did not sleep", time.time(), known, rising=True))
    site.folder.save("rig1", memory, sync=True)


def test_power_that_was_on_its_way_back_is_not_taken_again(site: Site) -> None:
    rising(site)

    async def life(device: AsicDevice) -> None:
        device.hold(lease("high", 3150.0))
        await eventually(lambda: device.memory.cut is None, WAIT_S)
        await asyncio.sleep(0.2)
        assert site.strip.on("0")

    site.run(life)
    assert site.strip.switchings("0") == ()


def test_power_that_did_not_come_back_before_the_kill_comes_for_the_next_lease(site: Site) -> None:
    rising(site)
    site.strip.command("0", on=False)
    while site.strip.on("0"):
        time.sleep(0.01)

    async def life(device: AsicDevice) -> None:
        await asyncio.sleep(0.3)
        assert not site.strip.on("0")
        device.hold(lease("high", 3150.0))
        await eventually(lambda: site.strip.on("0"), WAIT_S)
        await eventually(lambda: device.memory.cut is None, WAIT_S)

    site.run(life)


def test_an_outlet_that_somebody_else_switched_off_stays_off(site: Site) -> None:
    async def life(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("high", 3150.0))
        site.strip.command("0", on=False)
        await eventually(lambda: device.reading().watts_w == 0.0, WAIT_S)
        await asyncio.sleep(0.3)

    async def again(device: AsicDevice) -> None:
        device.hold(lease("high", 3150.0))
        await asyncio.sleep(0.3)
        assert device.memory.cut is None

    site.run(life, again)
    assert [on for _, on in site.strip.switchings("0")] == [False]


def test_an_owner_who_allows_no_cuts_any_more_may_switch_it_on(site: Site) -> None:
    memory = Memory(cut=KeptCut("it did not sleep", time.time(), bench.IDENTITY))
    site.folder.save("rig1", memory, sync=True)
    site.cut = False

    async def life(device: AsicDevice) -> None:
        await eventually(lambda: device.memory.cut is None, WAIT_S)
        assert "outlet" not in (device.reading().note or "")

    site.run(life)
    assert site.strip.switchings("0") == ()


def test_another_machine_at_the_address_of_one_without_power_changes_nothing(site: Site) -> None:
    stranger = bench.Machine(mac="02:00:00:00:00:02")
    ours = site.rig.machine.connect

    async def connect(asic: Any) -> Any:
        return await (ours(asic) if site.strip.on("0") else stranger.connect(asic))

    site.rig.machine.connect = connect

    async def first(device: AsicDevice) -> None:
        await is_cut(site, device)

    async def second(device: AsicDevice) -> None:
        await eventually(lambda: "identify" in stranger.asked, WAIT_S)
        await comes_back_for_a_lease(site, device)
        assert stranger.written == []

    site.rig.asic = bench.EMULATED.model_copy(update={"mac": "02:00:00:00:00:01"})
    site.run(first, second)


def test_a_lease_that_comes_while_the_cut_is_written_down_saves_its_power(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life(device: AsicDevice) -> None:
        await device.identified.wait()
        save, began = site.folder.save, list[Memory]()

        def late(name: str, memory: Memory, *, sync: bool) -> None:
            if memory.cut is not None:
                began.append(memory)
                device.hold(lease("high", 3150.0))
            save(name, memory, sync=sync)

        monkeypatch.setattr(site.folder, "save", late)
        site.rig.machine.unreachable = True
        device.safe()
        await eventually(lambda: bool(began) and device.memory.cut is None, WAIT_S)
        monkeypatch.undo()

    site.run(life)
    assert site.strip.switchings("0") == ()


@pytest.mark.parametrize(
    "cut",
    [
        {"reason": "x", "since_s": 1.0},
        {"reason": "x" * 500, "since_s": 1.0, "known": None},
        {"reason": "x", "since_s": float("nan"), "known": None},
        {"reason": "x", "since_s": 1.0, "known": {"model": "S19"}},
    ],
)
def test_a_cut_that_cannot_be_read_damages_the_memory(tmp_path: Path, cut: Any) -> None:
    folder = MemoryFolder(tmp_path)
    folder.save("rig1", Memory(), sync=False)
    raw = json.loads(folder.path("rig1").read_text())
    folder.path("rig1").write_text(json.dumps({**raw, "cut": cut}))
    with pytest.raises(MemoryDamaged):
        folder.load("rig1")
    for name in ("cut", "moved", "owners_choice"):
        del raw[name]
    folder.path("rig1").write_text(json.dumps(raw))
    assert folder.load("rig1") == Memory(), "a file of before these were kept"
