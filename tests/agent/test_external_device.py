"""The device on an emulated card: a stand-in program, whose load the card is given, and its watts.

The wrapper, the program and the NVML binding are real; the card's physics are emulated.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from wattshift_cluster.agent.consent import Surroundings
from wattshift_cluster.agent.external.build import external_devices
from wattshift_cluster.agent.external.device import MINE, ExternalDevice
from wattshift_cluster.agent.gpus import HostGpus, open_gpus
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.agent.specs import gpu_spec
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.build import NvmlNotBuilt
from wattshift_cluster.emulate.nvml.control import EmulatedCard
from wattshift_cluster.emulate.nvml.inprocess import emulated_here
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.gate import ClientGate

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 15.0
CONSENT = 'owner = "Jane"\nmining = true\ndeveloper_fees = ["t-rex"]\n'


@pytest.fixture
def card(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCard]:
    cache = tmp_path_factory.getbasetemp().parent / "emulated-nvml"
    try:
        with emulated_here(cache, tmp_path / "control", [models.H200]) as driver:
            yield driver.cards[0]
    except NvmlNotBuilt as fault:
        pytest.skip(str(fault))


def section(folder: Path, device: str, **habits: object) -> AgentConfig:
    program = folder / "program"
    source = Path(__file__).with_name("foreign_program.py").read_text()
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    (folder / "habits.json").write_text(json.dumps(habits))
    (folder / "consent.toml").write_text(CONSENT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agent = {
        "name": "host", "listen": "127.0.0.1:1", "token_file": folder / "t",
        "state_dir": folder, "gate_dir": folder, "consent_file": folder / "consent.toml",
    }  # fmt: skip
    miner = {
        "device": device, "program": "t-rex", "path": program, "algorithm": "kawpow",
        "url": "stratum+tcp://127.0.0.1:1", "user": "wallet.rig", "api_port": port, "quiet": "0s",
        "revenue_usd_per_h": 0.12,
    }  # fmt: skip
    return AgentConfig.model_validate({"agent": agent, "miners": [miner]})


class Rig:
    """A device that runs, and the card that draws while its program counts."""

    def __init__(self, folder: Path, card: EmulatedCard, device: ExternalDevice) -> None:
        self.folder, self.card, self.device = folder, card, device
        self.inference = 0.0

    async def physics(self) -> None:
        before = 0
        while True:
            await asyncio.sleep(0.05)
            with suppress(OSError, ValueError):
                now = int((self.folder / "count").read_bytes())
                self.card.load(0.9 if now != before else self.inference)
                before = now

    def lease(self, mode: str) -> None:
        watts_w = {point.mode: point.watts_w for point in self.device.info().points}[mode]
        self.device.hold(Lease(self.device.id, 1, 1, mode, watts_w, boot_s() + 60))

    async def until(self, *, mode: str, low: bool) -> None:
        """Until the reading says this mode and its watts are low, or high."""
        end_s = boot_s() + PATIENCE_S
        while True:
            now = self.device.reading()
            watts_w = now.watts_w or 0.0
            if now.mode == mode and now.error is None and (watts_w < 150) is low:
                return
            assert boot_s() < end_s, now
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(
    folder: Path, card: EmulatedCard, monkeypatch: pytest.MonkeyPatch, **habits: object
) -> AsyncIterator[Rig]:
    config = section(folder, "host-gpu0", **habits)
    gpus = open_gpus(config)
    assert gpus is not None
    device = made(config, gpus)
    # The emulated card settles within 0.2 s; a real one is given three.
    monkeypatch.setattr(device, "_settle_s", 0.6)
    rig = Rig(folder, card, device)
    tasks = [asyncio.create_task(one) for one in (device.run(), rig.physics())]
    try:
        yield rig
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await device.close()
        gpus.close()


def made(config: AgentConfig, gpus: HostGpus) -> ExternalDevice:
    folder = config.agent.gate_dir
    spec = gpu_spec("host-gpu0", folder, gpus.cards[0], 0, "host", emulated=True)
    around = Surroundings(service_uid=4711, dmi_dir=folder)
    return external_devices(config, [spec], gpus, around)["host-gpu0"]


def test_a_lease_becomes_watts_and_a_lie_costs_it_its_threads(
    tmp_path: Path, card: EmulatedCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, card, monkeypatch, lies=True) as rig:
            await rig.until(mode="idle", low=True)
            rig.lease(MINE)
            await rig.until(mode=MINE, low=False)
            assert rig.device.own_pids()
            rig.lease("idle")
            await rig.until(mode="idle", low=False)  # it says that it paused
            await rig.until(mode="idle", low=True)
            note = str(rig.device.reading().note)
            assert "stopped" in note
            assert "the card draws" in note

    asyncio.run(scenario())


def test_beside_inference_its_own_watts_are_told_apart(
    tmp_path: Path, card: EmulatedCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, card, monkeypatch) as rig:
            rig.lease(MINE)
            await rig.until(mode=MINE, low=False)
            client = ClientGate(tmp_path / "host-gpu0.clients")
            with client.busy():
                await rig.until(mode="idle", low=True)
                rig.inference = 0.5
                end_s = boot_s() + PATIENCE_S
                while "are inference's" not in str(rig.device.reading().note):
                    assert boot_s() < end_s
                    await asyncio.sleep(0.02)
                assert (rig.device.reading().watts_w or 0.0) < 150
            client.close()

    asyncio.run(scenario())


def test_what_it_is_told_as_promises_nothing_that_it_cannot_keep(
    tmp_path: Path, card: EmulatedCard
) -> None:
    del card
    config = section(tmp_path, "host-gpu0")
    gpus = open_gpus(config)
    assert gpus is not None
    info = made(config, gpus).info()
    gpus.close()
    assert not info.fenced, "its ceiling falls by watts alone"
    assert info.host is None, "nobody counts on it to make room within milliseconds"
    assert info.points[-1].watts_w == info.nameplate_w, "nothing bounds it but the card's limit"


def test_a_section_for_a_card_that_is_not_here_starts_nothing(tmp_path: Path) -> None:
    config = section(tmp_path, "host-gpu7")
    with pytest.raises(ConfigInvalid, match="no GPU 'host-gpu7' here"):
        external_devices(config, [], None)
