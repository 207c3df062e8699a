"""The emulated VNish: its own rules, and two independent clients that find and drive it."""

import asyncio
import json
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpRequest
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import S19K_PRO_VNISH
from wattshift_cluster.emulate.vnish import FACTORY_PASSWORD, TOKEN_S, Vnish

RAMP_S = 0.2


class Now:
    value_s = 0.0

    def __call__(self):
        return self.value_s


def vnish_of(**options):
    now = Now()
    machine = Machine("m", S19K_PRO_VNISH, seed=1, clock=now, full=True)
    body = Body(machine, 1, now, ignoring=lambda: False, blank=lambda: False)
    return now, machine, Vnish(body, **options)


def asked(state, method, path, body=None, token=""):
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": token} if token else {}
    return state.respond(HttpRequest(method, path, path, headers, content))


def on_miner(scenario, **options):
    async def main():
        address = own_address()
        clock = lambda: time.monotonic() * 100.0  # noqa: E731
        miner = EmulatedMiner("rig", "vnish", address, seed=7, clock=clock, full=True, **options)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 is not for this user here")
        try:
            return await asyncio.wait_for(scenario(miner), 60)
        finally:
            await miner.stop()

    return asyncio.run(main())


def test_readings_are_open_and_commands_are_locked():
    now, machine, state = vnish_of()
    assert b"AnthillOS" in asked(state, "GET", "/").body
    for path in ("info", "summary", "status", "perf-summary"):
        assert asked(state, "GET", f"/api/v1/{path}").status == 200
    locked = (("GET", "settings"), ("GET", "autotune/presets"), ("POST", "mining/stop"))
    for method, path in locked:
        assert asked(state, method, f"/api/v1/{path}").status == 401
    assert asked(state, "POST", "/api/v1/unlock", {"pw": "wrong"}).status == 403
    assert not machine.asleep
    token = asked(state, "POST", "/api/v1/unlock", {"pw": FACTORY_PASSWORD}).body["token"]
    assert asked(state, "POST", "/api/v1/mining/stop", token=token).status == 200
    assert machine.asleep
    assert asked(state, "POST", "/api/v1/mining/resume", token=f"Bearer {token}").status == 200
    assert not machine.asleep
    now.value_s = TOKEN_S + 1.0
    assert asked(state, "POST", "/api/v1/mining/stop", token=token).status == 401


def test_any_preset_is_answered_alike_and_only_a_known_one_is_taken():
    _, machine, state = vnish_of()
    token = asked(state, "POST", "/api/v1/unlock", {"pw": FACTORY_PASSWORD}).body["token"]
    machine.sleep()
    for name in ("1188", "99999"):
        body = {"miner": {"overclock": {"preset": name}}}
        answer = asked(state, "POST", "/api/v1/settings", body, token)
        assert answer.body == {"restart_required": False, "reboot_required": False}
    assert machine.profile.name == "1188"
    assert machine.asleep
    assert machine.pool_writes == 0
    asked(state, "POST", "/api/v1/settings", {"miner": {"pools": []}}, token)
    assert machine.pool_writes == 1
    presets = asked(state, "GET", "/api/v1/autotune/presets", token=token).body
    assert {row["status"] for row in presets} == {"tuned", "untuned"}


def test_the_old_port_names_the_model():
    _, _, state = vnish_of()
    assert (
        state.answer({"command": "stats"})["STATS"][0]["Type"] == "Antminer S19k Pro (Vnish 1.2.7)"
    )
    joined = state.answer({"command": "stats+summary"})
    assert joined["summary"][0]["SUMMARY"][0]["GHS 5s"] == pytest.approx(121_800, rel=0.03)
    assert state.answer({"command": "stats+reboot"})["STATUS"][0]["STATUS"] == "E"


def test_real_pyasic_identifies_it_and_its_power_limit_sends_nothing():
    import pyasic

    async def scenario(miner):
        client = await pyasic.get_miner(miner.address)
        assert any(one.__name__ == "VNish" for one in type(client).__mro__)
        data = await client.get_data()
        assert data.wattage == pytest.approx(miner.machine.watts_w(), rel=0.011)
        assert float(data.hashrate) == pytest.approx(121.8, rel=0.03)
        assert data.wattage_limit == 2794
        before = miner.machine.commands
        assert await client.set_power_limit(2500) is False, "hazard 6"
        assert miner.machine.commands == before
        assert await client.stop_mining()
        await asyncio.sleep(RAMP_S)
        assert 20 < miner.machine.watts_w() < 30
        assert (await client.get_data(include=["is_mining"])).is_mining is False
        assert await client.resume_mining()
        await asyncio.sleep(RAMP_S)
        assert miner.machine.watts_w() == pytest.approx(2794, rel=0.02)
        assert miner.machine.pool_writes == 0

    on_miner(scenario)


def test_real_pyasic_rs_identifies_and_drives_it():
    pyasic_rs = pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        client = await pyasic_rs.MinerFactory().get_miner(miner.address)
        assert "VNish" in str(client)
        assert float(await client.get_wattage()) == pytest.approx(2794, rel=0.03)
        assert await client.pause()
        assert miner.machine.asleep
        assert await client.resume()
        assert not miner.machine.asleep
        assert await client.set_power_limit(2500)
        assert miner.machine.mode == "2485"
        assert miner.machine.pool_writes == 0

    on_miner(scenario)
