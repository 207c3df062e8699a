"""An operator's orders to ASICs, through the agent's door: locks, holds, limits, and bad input."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.desk import OrderMalformed
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import Asics, build
from wattshift_cluster.agent.leases import Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Reading
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.memory import MemoryDamaged, MemoryFolder
from wattshift_cluster.wire.epochs import EpochFile

Machine, eventually = bench.Machine, bench.eventually

Row = dict[str, Any]


class Card:
    """A device that is no ASIC."""

    id = "gpu0"
    inventory_version = 0

    def info(self) -> DeviceInfo | None:
        return None

    def terms(self) -> Terms | None:
        return None

    def reading(self) -> Reading:
        return Reading(self.id, boot_s(), "emulated")

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


class Bench:
    """An agent with two machines whose memory lies in a folder; as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines = {f"rig{i}": Machine(mac=f"02:00:00:00:00:0{i}") for i in (1, 2)}
        self.devices: dict[str, AsicDevice] = {}
        self.agent: Agent | None = None
        self.sequence = 0

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        async def scenario() -> None:
            lanes = Lanes(rhythm=bench.FAST, pace=bench.QUICK)
            memories, keeper = MemoryFolder(self.folder), Keeper(MemoryFolder(self.folder))
            self.devices = {}
            for name, machine in self.machines.items():
                damage, memory = None, None
                try:
                    memory = memories.load(name)
                except MemoryDamaged as fault:
                    damage = str(fault)
                asic = bench.EMULATED.model_copy(update={"id": name})
                self.devices[name] = AsicDevice(
                    asic, None, machine.connect, lanes=lanes, memory=memory, damage=damage
                )
            parts = tuple(self.devices.values())
            asics = Asics(parts, AsicSweep(parts, lanes, keeper), keeper)
            epochs = EpochFile(self.folder)
            self.agent = Agent("rack", [*parts, Card()], epochs, asics=asics)
            task = asyncio.create_task(self.agent.run())
            try:
                await asyncio.gather(*(d.identified.wait() for d in parts))
                await asyncio.wait_for(test(), 20)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(scenario())

    async def order(self, action: str, *devices: str, **fields: Any) -> list[Row]:
        assert self.agent is not None
        named = list(devices or self.machines)
        asked = {"action": action, "devices": named, "by": "anna", **fields}
        rows: list[Row] = (await self.agent.handle("asic", asked))["results"]
        assert [row["device"] for row in rows] == list(dict.fromkeys(named))
        return rows

    async def lease(self, device: str, mode: str, watts_w: float) -> Row:
        assert self.agent is not None
        self.sequence += 1
        lease = {
            "device": device,
            "epoch": 1,
            "sequence": self.sequence,
            "mode": mode,
            "watts_w": watts_w,
            "valid_until_boot_s": boot_s() + 60,
        }
        answer = await self.agent.handle("exchange", {"boot_id": boot_id(), "leases": [lease]})
        result: Row = answer["results"][0]
        return result

    def modes(self, device: str) -> list[str]:
        info = self.devices[device].info()
        assert info is not None
        return [point.mode for point in info.points]


@pytest.fixture
def rack(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_lock_puts_to_sleep_and_nothing_wakes_it_but_its_owner(rack: Bench) -> None:
    machine = rack.machines["rig1"]

    async def test() -> None:
        assert (await rack.lease("rig1", "high", 3150.0))["accepted"]
        await eventually(lambda: machine.written == ["high"])
        version = rack.devices["rig1"].inventory_version
        (row,) = await rack.order("lock", "rig1", reason="replacing a fan")
        assert row["ok"]
        assert "locked by anna: replacing a fan" in row["state"]
        assert machine.mode == SLEEP
        assert rack.modes("rig1") == [SLEEP]
        assert rack.devices["rig1"].inventory_version > version
        refused = await rack.lease("rig1", "high", 3150.0)
        assert refused["reason"] == "locked by anna: replacing a fan"
        assert (await rack.lease("rig1", SLEEP, 31.5))["accepted"]
        for action, by in (("wake", "anna"), ("wake", "bob"), ("unlock", "bob"), ("lock", "bob")):
            (row,) = await rack.order(action, "rig1", by=by)
            assert not row["ok"]
            assert "only anna" in row["error"]
            assert "locked by anna" in row["state"]
        machine.mode = "high"  # somebody presses its button
        await eventually(lambda: machine.mode == SLEEP)
        assert rack.devices["rig1"].reading().note is not None
        (row,) = await rack.order("unlock", "rig1")
        assert row["ok"]
        assert rack.modes("rig1") == [SLEEP, "low", "high"]
        assert machine.mode == SLEEP, "the last lease said so"
        assert (await rack.lease("rig1", "low", 1050.0))["accepted"]
        await eventually(lambda: machine.mode == "low")

    rack.run(test)


def test_a_lock_outlives_the_agent_and_an_override_is_kept(rack: Bench) -> None:
    async def lock() -> None:
        assert all(row["ok"] for row in await rack.order("lock"))

    async def later() -> None:
        assert "locked by anna" in (rack.devices["rig1"].reading().note or "")
        rack.machines["rig1"].mode = "high"
        await eventually(lambda: rack.machines["rig1"].mode == SLEEP)
        assert not (await rack.lease("rig1", "low", 1050.0))["accepted"]
        (row,) = await rack.order("unlock", "rig1", by="root", override=True)
        assert row["ok"]
        assert MemoryFolder(rack.folder).load("rig1").restraint.lock is None
        assert MemoryFolder(rack.folder).load("rig2").restraint.lock is not None

    rack.run(lock)
    rack.run(later)
    override = MemoryFolder(rack.folder).load("rig1").restraint.override
    assert override is not None
    assert (override.by, override.lock.by) == ("root", "anna")


def test_a_lock_is_on_disk_before_it_is_answered(rack: Bench) -> None:
    async def test() -> None:
        await rack.order("lock", "rig1")
        assert MemoryFolder(rack.folder).load("rig1").restraint.lock is not None

    rack.run(test)


def test_a_lock_that_cannot_be_kept_holds_and_says_so(rack: Bench) -> None:
    async def test() -> None:
        (rack.folder / "asics" / "rig1.new").mkdir()
        first, second = await rack.order("lock")
        assert "would be forgotten" in first["error"]
        assert second["ok"]
        await eventually(lambda: rack.machines["rig1"].mode == SLEEP)
        (row,) = await rack.order("unlock", "rig1")
        assert "nothing changed" in row["error"]
        assert rack.devices["rig1"].why_asleep is not None

    rack.run(test)


def test_a_held_machine_sleeps_until_any_operator_wakes_it(rack: Bench) -> None:
    async def hold() -> None:
        await rack.lease("rig1", "low", 1050.0)
        (row,) = await rack.order("sleep", "rig1")
        assert row["ok"]
        assert rack.machines["rig1"].mode == SLEEP
        assert (await rack.lease("rig1", "low", 1050.0))["reason"] == "held asleep by anna"

    async def wake() -> None:
        assert "held asleep by anna" in (rack.devices["rig1"].reading().note or "")
        assert (await rack.order("wake", "rig1", by="bob"))[0]["ok"]
        assert (await rack.lease("rig1", "low", 1050.0))["accepted"]
        await eventually(lambda: rack.machines["rig1"].mode == "low")

    rack.run(hold)
    rack.run(wake)


def test_a_wake_takes_in_a_machine_that_was_found_asleep(tmp_path: Path) -> None:
    rack = Bench(tmp_path)
    rack.machines["rig1"].mode = SLEEP

    async def test() -> None:
        device = rack.devices["rig1"]
        device.gate.found_asleep = None  # as on a machine that is not emulated
        await eventually(lambda: device.why_asleep == "asleep since before us")
        assert not (await rack.lease("rig1", "low", 1050.0))["accepted"]
        assert (await rack.order("lock", "rig1"))[0]["ok"]
        await eventually(lambda: rack.machines["rig1"].written == [SLEEP])
        assert (await rack.order("unlock", "rig1"))[0]["ok"]
        assert device.why_asleep == "asleep since before us"
        assert device.memory.written is None, "else a restart would take it for ours"
        assert (await rack.order("wake", "rig1"))[0]["ok"]
        assert (await rack.lease("rig1", "low", 1050.0))["accepted"]
        await eventually(lambda: rack.machines["rig1"].mode == "low")

    rack.run(test)


def test_a_limit_lowers_at_once_and_offers_only_what_fits(rack: Bench) -> None:
    machine = rack.machines["rig1"]

    async def test() -> None:
        await rack.lease("rig1", "high", 3150.0)
        await eventually(lambda: rack.devices["rig1"].command.state is State.CONFIRMED)
        assert (await rack.order("limit", "rig1", watts_w=2000))[0]["ok"]
        assert rack.modes("rig1") == [SLEEP, "low"]
        await eventually(lambda: machine.mode == "low")
        assert not (await rack.lease("rig1", "high", 3150.0))["accepted"]
        assert "limited to 2,000 W by anna" in (rack.devices["rig1"].reading().note or "")
        assert (await rack.order("limit", "rig1", watts_w=None))[0]["ok"]
        assert rack.modes("rig1") == [SLEEP, "low", "high"]
        await eventually(lambda: machine.mode == "high")

    rack.run(test)


def test_a_dry_run_tells_and_does_nothing(rack: Bench) -> None:
    async def test() -> None:
        await rack.order("lock", "rig2")
        for action, fields in (
            ("sleep", {}),
            ("lock", {}),
            ("limit", {"watts_w": 100}),
            ("wake", {}),
        ):
            first, second = await rack.order(action, by="bob", dry_run=True, **fields)
            assert first["ok"]
            assert "would" in first["state"]
            assert second["ok"] == (action in ("sleep", "limit")), "it tells what would be refused"
        assert rack.devices["rig1"].memory.restraint.limit_w is None
        assert rack.devices["rig1"].why_asleep is None
        assert rack.machines["rig1"].written == []

    rack.run(test)


def test_a_damaged_memory_is_cleared_by_an_override_alone(rack: Bench) -> None:
    MemoryFolder(rack.folder).path("rig1").write_text("{")

    async def test() -> None:
        await eventually(lambda: rack.devices["rig1"].reading().watts_w == 3000.0)
        assert rack.modes("rig1") == ["as-found"]
        for action in ("sleep", "wake", "lock", "unlock"):
            (row,) = await rack.order(action, "rig1")
            assert "damaged" in row["error"]
        await asyncio.sleep(1.2)  # a save of the sweep would have come by
        assert MemoryFolder(rack.folder).path("rig1").read_text() == "{"
        (row,) = await rack.order("unlock", "rig1", override=True)
        assert row["ok"]
        assert rack.modes("rig1") == [SLEEP, "low", "high"]
        assert MemoryFolder(rack.folder).load("rig1").restraint.lock is None

    rack.run(test)


def test_what_cannot_be_ordered_is_told_and_the_rest_is_done(rack: Bench) -> None:
    async def test() -> None:
        rows = await rack.order("sleep", "rig1", "gpu0", "nowhere", "rig1")
        assert [row["ok"] for row in rows] == [True, False, False]
        assert "no ASIC" in rows[1]["error"]
        assert "no device 'nowhere'" in rows[2]["error"]
        assert rows[2]["state"] is None
        assert rack.machines["rig1"].mode == SLEEP

    rack.run(test)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"action": "reboot"}, "action is none of sleep"),
        ({"action": None}, "action"),
        ({"action": ["sleep"]}, "action"),
        ({"devices": []}, "list of 1 to 4096"),
        ({"devices": "rig1"}, "list of 1 to 4096"),
        ({"devices": ["rig1"] * 5000}, "list of 1 to 4096"),
        ({"devices": [7]}, "names"),
        ({"devices": [["rig1"]]}, "names"),
        ({"by": None}, "by is not a text"),
        ({"by": " "}, "by is not a text"),
        ({"by": "a\nb"}, "cannot be printed"),
        ({"reason": 5}, "reason"),
        ({"reason": "x" * 301}, "reason is not a text of 1 to 300"),
        ({"watts_w": 100}, "belongs to limit"),
        ({"action": "limit", "watts_w": True}, "not a number"),
        ({"action": "limit", "watts_w": "1kW"}, "not a number"),
        ({"action": "limit", "watts_w": 0}, "above 0"),
        ({"action": "limit", "watts_w": float("nan")}, "above 0"),
        ({"action": "limit", "watts_w": 10**400}, "above 0"),
        ({"override": "yes"}, "neither true nor false"),
        ({"override": True}, "unlock alone"),
        ({"action": "wake", "override": True}, "unlock alone"),
        ({"dry_run": 1}, "neither true nor false"),
    ],
)
def test_a_malformed_order_does_nothing(rack: Bench, fields: Row, says: str) -> None:
    async def test() -> None:
        asked = {"action": "sleep", "devices": ["rig1"], "by": "anna", **fields}
        assert rack.agent is not None
        with pytest.raises(OrderMalformed, match=says):
            await rack.agent.handle("asic", asked)
        assert rack.machines["rig1"].written == []

    rack.run(test)


def test_a_wake_that_waits_for_the_disk_undoes_no_later_lock(rack: Bench) -> None:
    async def test() -> None:
        await rack.order("sleep", "rig1")
        waking = asyncio.create_task(rack.order("wake", "rig1", by="bob"))
        await asyncio.sleep(0)
        assert (await rack.order("lock", "rig1"))[0]["ok"]
        await waking
        assert (rack.devices["rig1"].why_asleep or "").startswith("locked by anna")
        assert MemoryFolder(rack.folder).load("rig1").restraint.lock is not None

    rack.run(test)


AGENT = """
[agent]
name = "rack"
listen = "127.0.0.1:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "none"
[asic]
wake_per_minute = 30
board_limit_c = 85
[[asics]]
id = "rig1"
address = "127.35.1.1"
emulated = true
mac = "02-00-5e-10-00-01"
min_off = "0s"
[[asics]]
id = "rig2"
address = "127.35.1.2"
emulated = true
"""


def test_an_agent_is_built_with_what_its_machines_remember(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(AGENT)
    config = load_agent(path, environ={})
    assert config.asics[0].mac == "02:00:5E:10:00:01"
    MemoryFolder(tmp_path / "state").path("rig2").write_text("[]")
    parts = build(config)
    assert parts.asics is not None
    first, second = parts.asics.devices
    assert first.barred is None
    assert "is damaged" in (second.barred or "")
    path.write_text(AGENT.replace('gate_dir = "gates"', 'gate_dir = "gates"\nshadow = true'))
    shadowed = build(load_agent(path, environ={})).asics
    assert shadowed is not None
    assert "shadow" in (shadowed.devices[0].barred or "")
