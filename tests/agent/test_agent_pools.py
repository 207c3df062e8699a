"""The agent's pools: what its file may say, what its owner must have said, and no pool at all."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from wattshift_cluster.agent.build import build
from wattshift_cluster.agent.consent import Surroundings
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.specs import cpu_spec
from wattshift_cluster.config.agent import AgentConfig, Pool, PoolAccount
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings

AGENT = """
[agent]
name = "host"
listen = "127.0.0.1:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
consent_file = "consent.toml"
[hashing]
devices = "cpu"
[pool]
url = "{url}"
user = "bc1qowner.rig"
{more}
"""
FALLBACK = '[[pool.fallback]]\nurl = "{url}"\nuser = "{user}"\n'
CONSENT = """
owner = "Jane"
mining = true
payout = ["bc1qowner"]
pools = ["pool.example:3333", "stratum+tls://second.example:443"]
"""


def agent(
    folder: Path, url: str = "stratum+tls://pool.example:3333", more: str = ""
) -> AgentConfig:
    (folder / "agent.toml").write_text(AGENT.format(url=url, more=more))
    return load_agent(folder / "agent.toml", environ={})


def faults(folder: Path, url: str, more: str = "") -> str:
    with pytest.raises(ConfigInvalid) as invalid:
        agent(folder, url, more)
    assert invalid.value.exit_code == 3
    return str(invalid.value)


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("stratum+tls://pool.example:3333", ""),
        ("stratum+ssl://pool.example:3333", f'fingerprint = "{"Ab:" * 31}cd"'),
        ("stratum+tls://pool.example:3333", 'ca_file = "ca.pem"'),
        ("stratum+tcp://127.3.2.1:3333", ""),
        ("stratum+tcp://localhost:3333", ""),
        ("stratum+tcp://[::1]:3333", ""),
        ("stratum+tcp://pool.example:3333", "plaintext = true"),
    ],
)
def test_a_pool_is_encrypted_or_here_or_named_as_plaintext(
    tmp_path: Path, url: str, more: str
) -> None:
    assert agent(tmp_path, url, more).pool is not None


def test_a_pool_in_the_clear_needs_the_owners_word(tmp_path: Path) -> None:
    clear = "stratum+tcp://pool.example:3333"
    said = faults(tmp_path, clear)
    assert "pool.url" in said
    assert "plaintext = true" in said
    second = faults(tmp_path, "stratum+tls://a.example:1", FALLBACK.format(url=clear, user="x"))
    assert "pool.fallback[0].url" in second
    program = (
        f'[[miners]]\ndevice = "gpu0"\nprogram = "t-rex"\npath = "/opt/t-rex"\n'
        f'algorithm = "kawpow"\nurl = "{clear}"\nuser = "x"\n'
    )
    assert "miners[0].url" in faults(tmp_path, "stratum+tls://a.example:1", program)
    # One pool's word is not another's.
    more = "plaintext = true\n" + FALLBACK.format(url=clear, user="x")
    assert "pool.fallback[0].url" in faults(tmp_path, clear, more)


@pytest.mark.parametrize(
    ("url", "more", "where"),
    [
        ("stratum+tcp://127.0.0.1:3333", 'ca_file = "ca.pem"', "pool.url"),
        ("stratum+tls://pool.example:1", 'fingerprint = "abc"', "pool.fingerprint"),
        ("stratum+tls://pool.example:1", 'hold = "0s"', "pool.hold"),
        ("stratum+tls://pool.example:1", '[[pool.fallback]]\nurl = "x"\nuser = "y"', "fallback[0]"),
        ("stratum+udp://pool.example:1", "", "pool.url"),
    ],
)
def test_what_a_pool_cannot_say(tmp_path: Path, url: str, more: str, where: str) -> None:
    assert where in faults(tmp_path, url, more)


def around(folder: Path) -> Surroundings:
    return Surroundings(service_uid=os.getuid(), installer_uid=os.getuid(), dmi_dir=folder / "none")


def refusal_of(folder: Path, more: str = "", url: str = "stratum+tls://pool.example:3333") -> str:
    (folder / "consent.toml").write_text(CONSENT)
    (folder / "consent.toml").chmod(0o444)
    parts = build(agent(folder, url, more), around(folder))
    (device,) = parts.devices
    assert isinstance(device, HashingDevice)
    asyncio.run(device.close())
    return device.spec.refusal or ""


def test_every_pool_and_its_account_must_be_in_the_owners_consent(tmp_path: Path) -> None:
    def fallback(url: str, user: str = "bc1qowner") -> str:
        return FALLBACK.format(url=url, user=user)

    second = "stratum+tls://second.example:443"
    assert refusal_of(tmp_path) == ""
    assert refusal_of(tmp_path, fallback(second)) == ""
    assert refusal_of(tmp_path, fallback("stratum+tcp://127.0.0.1:1", "anybody")) == ""
    assert "third.example" in refusal_of(tmp_path, fallback("stratum+tls://third.example:443"))
    assert "bc1qthief" in refusal_of(tmp_path, fallback(second, "bc1qthief"))
    clear = fallback("stratum+tcp://second.example:443") + "plaintext = true\n"
    assert "second.example" in refusal_of(tmp_path, clear)  # the owner has agreed to TLS there


def test_a_fail_over_is_told_although_work_goes_on() -> None:
    async def body() -> None:
        gone, server = LoopbackPool(), LoopbackPool(PoolSettings(difficulty=1e-6))
        nobody = await gone.start(Endpoint("127.64.1.2", 0))
        at = await server.start(Endpoint("127.64.1.2", 0))
        await gone.stop()
        second = PoolAccount(url=f"stratum+tcp://{at}", user="rig")
        pool = Pool(url=f"stratum+tcp://{nobody}", user="rig", fallback=(second,))
        desk = PoolDesk(pool.model_copy(update={"give_up_s": 0.05}))
        running = asyncio.create_task(desk.run())
        try:
            async with asyncio.timeout(20):
                while desk.unit() is None:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
            assert desk.fault is None
            assert f"mining for {at}: {nobody} cannot connect" in (desk.alarm or "")
            assert [status.active for status in desk.pools()] == [False, True]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()

    asyncio.run(body())


def test_without_any_pool_for_the_hold_only_idle_is_offered_until_one_is_back(
    tmp_path: Path,
) -> None:
    """Watts that would be leased for work that nobody pays for go to somebody else."""
    ahead_s = 0.0

    def clock_s() -> float:
        return time.monotonic() + ahead_s

    async def body() -> None:
        nonlocal ahead_s
        server = LoopbackPool(PoolSettings(difficulty=1e-6))
        at = await server.start(Endpoint("127.64.1.1", 0))
        pool = Pool(url=f"stratum+tcp://{at}", user="rig")
        desk = PoolDesk(pool, clock_s=clock_s)
        spec = cpu_spec("host-cpu0", tmp_path, 100.0, 19, None)
        device = HashingDevice(spec, desk, tmp_path)
        running = asyncio.create_task(desk.run())

        def modes() -> list[str]:
            info = device.info()
            return [point.mode for point in info.points]

        async def until_fault(fault: bool) -> None:
            async with asyncio.timeout(20):
                while (desk.fault is not None) is not fault:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)

        try:
            await until_fault(False)
            ahead_s = 1000.0  # a session as long as you like is no reason
            version = device.inventory_version
            assert modes() == ["idle", "hash"]
            await server.stop()
            await until_fault(True)
            ahead_s = pool.hold_s - 20.0
            assert modes() == ["idle", "hash"]
            assert device.terms().closed is None
            assert desk.unit() is None  # no work is given out at once, whatever is offered
            assert device.inventory_version == version
            ahead_s += 25.0
            assert device.inventory_version == version + 1
            assert modes() == ["idle"]
            assert "no pool has work" in (device.terms().closed or "")
            back = LoopbackPool(PoolSettings(difficulty=1e-6))
            await back.start(at)
            await until_fault(False)
            assert device.inventory_version == version + 2
            assert modes() == ["idle", "hash"]
            assert device.terms().closed is None
            await back.stop()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await device.close()

    asyncio.run(body())
