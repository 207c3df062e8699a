"""What an agent has learnt of its ASICs outlives it, unless the machine or the file is another."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import build
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.fleet.learnt_file import Kept, LearntFolder
from wattshift_cluster.fleet.memory import MemoryFolder

eventually = bench.eventually
Machine: Any = bench.Machine

TAUGHT = Learnt().with_point("high", 2700.0, 5.0, 120e12)


def offered_w(device: AsicDevice, mode: str) -> float:
    terms = device.terms()
    assert terms is not None
    return terms.modes[mode]


def test_a_restart_keeps_it_and_another_firmware_drops_it(tmp_path: Path) -> None:
    machine, folder = Machine(mac="02:00:00:00:00:01"), LearntFolder(tmp_path)
    keeper = Keeper(MemoryFolder(tmp_path), folder)
    lanes = Lanes(rhythm=bench.FAST, pace=bench.QUICK)

    async def life(test: Callable[[AsicDevice], Awaitable[None]]) -> None:
        device = AsicDevice(
            bench.ASIC, None, machine.connect, lanes=lanes, kept=folder.load("rig1")
        )
        await bench.sweeping([device], lanes, test(device), keeper)

    async def first(device: AsicDevice) -> None:
        await device.identified.wait()
        device.learn(TAUGHT)

    async def second(device: AsicDevice) -> None:
        await device.identified.wait()
        assert offered_w(device, "high") == pytest.approx(2862.0), "from its first word on"

    async def third(device: AsicDevice) -> None:
        await device.identified.wait()
        assert offered_w(device, "high") == 3000.0
        assert device.lessons.learnt == Learnt()

    async def lives() -> None:
        await life(first)
        kept = folder.load("rig1")
        assert kept is not None
        assert (kept.mac, kept.learnt) == (machine.mac, TAUGHT)
        await life(second)
        folder.save("rig1", replace(kept, firmware="older"))
        with capture_logs() as logs:
            await life(third)
        (told,) = [one for one in logs if one["event"] == "asic.learnt_dropped"]
        assert told["reason"] == "its firmware was older and is test"
        after = folder.load("rig1")
        assert after is not None
        assert not after.learnt, "and the disk says so, too"

    asyncio.run(lives())


AGENT = """
[agent]
name = "a"
listen = "127.61.0.9:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "none"
[[asics]]
id = "rig1"
address = "127.61.0.10"
emulated = true
[[asics]]
id = "rig2"
address = "127.61.0.11"
emulated = true
"""


def test_a_damaged_file_is_left_out_with_one_reason_and_the_others_are_read(tmp_path: Path) -> None:
    folder = LearntFolder(tmp_path / "state")
    for device in ("rig1", "rig2"):
        folder.save(device, Kept.of(bench.IDENTITY, TAUGHT))
    folder.path("rig1").write_text(folder.path("rig1").read_text().replace("2700", "1700"))
    (tmp_path / "agent.toml").write_text(AGENT)
    with capture_logs() as logs:
        parts = build(load_agent(tmp_path / "agent.toml"))
    (told,) = [one for one in logs if one["event"] == "asic.learnt_damaged"]
    assert told["device"] == "rig1"
    assert "checksum" in told["reason"]
    assert parts.asics is not None
    learnt = [device.lessons.learnt for device in parts.asics.devices]
    assert learnt == [Learnt(), TAUGHT]


def test_all_are_told_anew_together_and_none_whose_command_is_open() -> None:
    machines = [Machine(), Machine()]
    machines[1].deaf = True
    lanes = Lanes(rhythm=bench.FAST, pace=bench.PATIENT)
    devices = [
        AsicDevice(replace_id(f"rig{i}"), None, machine.connect, lanes=lanes)
        for i, machine in enumerate(machines)
    ]

    async def main() -> None:
        sweep = asyncio.create_task(AsicSweep(devices, lanes, Keeper(None), tell_s=0.1).run())
        try:
            await asyncio.gather(*(device.identified.wait() for device in devices))
            devices[1].safe()
            for device in devices:
                device.lessons.merge(TAUGHT)
            await eventually(lambda: offered_w(devices[0], "high") < 3000.0)
            await asyncio.sleep(0.25)
            assert offered_w(devices[1], "high") == 3000.0
        finally:
            sweep.cancel()
            with suppress(asyncio.CancelledError):
                await sweep

    asyncio.run(main())


def replace_id(name: str) -> Any:
    return bench.ASIC.model_copy(update={"id": name})
