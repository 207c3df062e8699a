"""The agent around its devices: what ends a lease, and what cannot begin one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Reading
from wattshift_cluster.agent.service import Agent, BadRequest
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.errors import NotFound, Refused, TryLater
from wattshift_cluster.wire.epochs import EpochFile


class Recorder:
    """A device that writes down what it is told."""

    id = "rig1"
    inventory_version = 3

    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self) -> DeviceInfo | None:
        return None

    def terms(self) -> Terms:
        return Terms({"sleep": 30.0, "high": 3000.0}, 3150.0)

    def reading(self) -> Reading:
        return Reading(self.id, boot_s(), "emulated")

    def hold(self, lease: Lease) -> None:
        self.told.append(lease.mode)

    def safe(self) -> None:
        self.told.append("safe")

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.told.append("closed")


def lease(sequence: int, ttl_s: float, mode: str = "high") -> dict[str, Any]:
    watts_w = 3000.0 if mode == "high" else 30.0
    return {
        "device": "rig1",
        "epoch": 1,
        "sequence": sequence,
        "mode": mode,
        "watts_w": watts_w,
        "valid_until_boot_s": boot_s() + ttl_s,
    }


async def exchange(agent: Agent, *leases: dict[str, Any]) -> dict[str, Any]:
    return await agent.handle("exchange", {"boot_id": boot_id(), "leases": list(leases)})


@pytest.fixture
def device() -> Recorder:
    return Recorder()


@pytest.fixture
def agent(device: Recorder, tmp_path: Path) -> Agent:
    return Agent("racks", [device], EpochFile(tmp_path))


def test_the_end_of_a_lease_writes_the_safe_point(agent: Agent, device: Recorder) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(agent.run())
        answer = await exchange(agent, lease(1, 0.5))
        assert answer["results"][0]["accepted"]
        assert answer["inventory_version"] == 3
        await asyncio.sleep(0.3)
        assert (await exchange(agent, lease(2, 0.5)))["readings"][0]["lease"]["sequence"] == 2
        await asyncio.sleep(0.3)
        assert device.told == ["high", "high"], "a renewed lease has not ended"
        await asyncio.sleep(0.5)
        assert device.told == ["high", "high", "safe"]
        assert (await exchange(agent))["readings"][0]["lease"] is None
        running.cancel()

    asyncio.run(scenario())


def test_one_malformed_lease_takes_none(agent: Agent, device: Recorder) -> None:
    with pytest.raises(BadRequest, match="watts_w"):
        asyncio.run(exchange(agent, lease(1, 5.0), {**lease(2, 5.0), "watts_w": None}))
    assert device.told == []


def test_once_it_is_ending_nothing_leaves_the_safe_point(agent: Agent, device: Recorder) -> None:
    async def scenario() -> None:
        await agent.close()
        with pytest.raises(TryLater):
            await exchange(agent, lease(1, 5.0))

    asyncio.run(scenario())
    assert device.told == ["closed"]


def test_a_release_is_obeyed_at_once(agent: Agent, device: Recorder) -> None:
    async def scenario() -> None:
        await exchange(agent, lease(1, 5.0))
        answer = await agent.handle("release", {"device": "rig1"})
        assert answer["readings"][0]["lease"] is None
        with pytest.raises(NotFound):
            await agent.handle("release", {"device": "rig2"})

    asyncio.run(scenario())
    assert device.told == ["high", "safe"]


def test_an_epoch_that_cannot_be_kept_is_not_taken(
    agent: Agent, device: Recorder, tmp_path: Path
) -> None:
    """A fence that a power cut could lower would be none."""
    (tmp_path / "epoch.new").mkdir()
    result = asyncio.run(exchange(agent, lease(1, 5.0)))["results"][0]
    assert not result["accepted"]
    assert "cannot be written" in result["reason"]
    assert device.told == []


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("exchange", {"boot_id": boot_id(), "leases": [lease(1, 5.0)]}),
        ("release", {"device": "rig1"}),
        ("limit", {"limits": {"rig1": 100.0}}),
        ("profile", {"device": "rig1", "start": True}),
        ("asic", {"action": "sleep", "devices": ["rig1"], "by": "anna"}),
    ],
)
def test_a_shadow_agent_tells_and_obeys_nobody(
    device: Recorder, tmp_path: Path, op: str, fields: dict[str, Any]
) -> None:
    async def scenario() -> None:
        agent = Agent("racks", [device], EpochFile(tmp_path), shadow=True)
        assert (await exchange(agent))["readings"][0]["device"] == "rig1"
        with pytest.raises(Refused, match="shadow"):
            await agent.handle(op, fields)
        assert device.told == []

    asyncio.run(scenario())
