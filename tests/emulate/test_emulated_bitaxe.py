"""The emulated BitAxe: its own rules, and two independent clients that find it."""

import asyncio
import json
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.bitaxe import OLD_VERSION, BitAxe
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpRequest
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import BITAXE_GAMMA


def bitaxe_of(**options):
    machine = Machine("m", BITAXE_GAMMA, seed=1, clock=lambda: 0.0, full=True)
    body = Body(machine, 1, lambda: 0.0, ignoring=lambda: False, blank=lambda: False)
    return machine, BitAxe(body, **options)


def asked(state, method, path, body=None):
    content = b"" if body is None else json.dumps(body).encode()
    return state.respond(HttpRequest(method, path, path, {}, content))


def on_miner(kind, scenario):
    async def main():
        address = own_address()
        clock = lambda: time.monotonic() * 25.0  # noqa: E731
        miner = EmulatedMiner("rig", kind, address, seed=7, clock=clock, full=True)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 is not for this user here")
        try:
            return await asyncio.wait_for(scenario(miner), 60)
        finally:
            await miner.stop()

    return asyncio.run(main())


def test_new_firmware_pauses_and_says_so():
    machine, state = bitaxe_of()
    assert b"AxeOS" in asked(state, "GET", "/").body
    assert asked(state, "GET", "/api/system/info").body["miningPaused"] is False
    assert asked(state, "POST", "/api/system/pause").status == 200
    assert machine.asleep
    assert asked(state, "GET", "/api/system/info").body["miningPaused"] is True
    assert asked(state, "POST", "/api/system/resume").status == 200
    assert not machine.asleep


def test_old_firmware_knows_no_pause():
    machine, state = bitaxe_of(version=OLD_VERSION)
    assert "miningPaused" not in asked(state, "GET", "/api/system/info").body
    for verb in ("pause", "resume"):
        assert asked(state, "POST", f"/api/system/{verb}").status == 404
    assert not machine.asleep
    assert machine.commands == 0


def test_settings_are_kept_and_a_write_of_pools_is_counted():
    machine, state = bitaxe_of()
    assert asked(state, "PATCH", "/api/system", {"frequency": 490}).status == 200
    assert asked(state, "GET", "/api/system/info").body["frequency"] == 490
    assert 490 in asked(state, "GET", "/api/system/asic").body["frequencyOptions"]
    assert machine.pool_writes == 0
    asked(state, "PATCH", "/api/system", {"stratumURL": "elsewhere.invalid"})
    assert machine.pool_writes == 1
    assert asked(state, "PATCH", "/api/system", ["frequency"]).status == 400


def test_real_pyasic_identifies_it_and_cannot_stop_it():
    import pyasic

    async def scenario(miner):
        client = await pyasic.get_miner(miner.address)
        assert any(one.__name__ == "BitAxe" for one in type(client).__mro__)
        data = await client.get_data()
        assert data.wattage == 18
        assert float(data.hashrate) == pytest.approx(1.2, rel=0.06)
        assert await client.stop_mining() is False, "hazard 4: no stop, and is_mining stays True"
        assert not miner.machine.asleep
        assert miner.machine.pool_writes == 0

    on_miner("bitaxe", scenario)


@pytest.mark.parametrize(("kind", "pauses"), [("bitaxe", True), ("bitaxe_2_9", False)])
def test_real_pyasic_rs_identifies_it(kind, pauses):
    pyasic_rs = pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        client = await pyasic_rs.MinerFactory().get_miner(miner.address)
        assert "Bitaxe" in str(client)
        assert float(await client.get_wattage()) == pytest.approx(18, rel=0.07)
        assert client.supports_pause is pauses
        if pauses:
            assert await client.pause()
        assert miner.machine.asleep is pauses

    on_miner(kind, scenario)
