"""The emulated Braiins OS: its own rules, and two independent clients that find and drive it."""

import asyncio
import itertools
import json
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.braiins import FACTORY_PASSWORD, TOKEN_S, Braiins
from wattshift_cluster.emulate.braiins_rest import rest
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpRequest
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import S21_PRO

RAMP_S = 0.2


class Now:
    value_s = 0.0

    def __call__(self):
        return self.value_s


def braiins_of(**options):
    now = Now()
    machine = Machine("m", S21_PRO, seed=1, clock=now, full=True)
    body = Body(machine, 1, now, ignoring=lambda: False, blank=lambda: False)
    return now, machine, Braiins(body, **options)


def asked(state, method, path, body=None, token=""):
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": token} if token else {}
    return rest(state)(HttpRequest(method, path, path, headers, content))


def on_miner(kind, scenario, **options):
    async def main():
        address = own_address()
        clock = options.pop("clock", lambda: time.monotonic() * 100.0)
        miner = EmulatedMiner("rig", kind, address, seed=7, clock=clock, **options)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 is not for this user here")
        try:
            return await asyncio.wait_for(scenario(miner), 60)
        finally:
            await miner.stop()

    return asyncio.run(main())


def test_the_old_port_joins_readings_in_any_order():
    _, _, state = braiins_of()
    assert "BOSer" in state.answer({"command": "version"})["VERSION"][0]
    assert state.answer({"command": "devdetails"})["DEVDETAILS"][0]["Model"] == "Antminer S21 Pro"
    for order in itertools.permutations(("devs", "tunerstatus", "version", "summary")):
        joined = state.answer({"command": "+".join(order)})
        tuner = joined["tunerstatus"][0]["TUNERSTATUS"][0]
        assert tuner["ApproximateMinerPowerConsumption"] == pytest.approx(3510, rel=0.05)
        assert joined["summary"][0]["SUMMARY"][0]["MHS 5s"] == pytest.approx(234e6, rel=0.05)
    for bad in ("", "pause", "summary+reboot", 5):
        assert state.answer({"command": bad})["STATUS"][0]["STATUS"] == "E"


def test_everything_but_the_login_wants_a_token_and_it_dies_unused():
    now, machine, state = braiins_of()
    path = "/api/v1/actions/pause"
    assert asked(state, "PUT", path).status == 401
    wrong = {"username": "root", "password": "1234"}
    assert asked(state, "POST", "/api/v1/auth/login", wrong).status == 401
    assert not machine.asleep
    right = {"username": "root", "password": FACTORY_PASSWORD}
    token = asked(state, "POST", "/api/v1/auth/login", right).body["token"]
    now.value_s = TOKEN_S - 1.0
    assert asked(state, "PUT", path, token=token).body is False
    assert machine.asleep
    now.value_s += TOKEN_S - 1.0
    assert asked(state, "PUT", path, token=token).body is True, "use keeps a token alive"
    now.value_s += TOKEN_S + 1.0
    assert asked(state, "PUT", path, token=token).status == 401


def test_a_target_stays_in_the_constraints_and_does_not_wake():
    _, machine, state = braiins_of()
    token = state.login("root", FACTORY_PASSWORD)
    machine.sleep()
    path = "/api/v1/performance/power-target"
    for bad in ({"watt": 100}, {"watt": 9000}, {"watt": "2000"}, {"watt": None}, [], None):
        assert asked(state, "PUT", path, bad, token).status == 400
    assert asked(state, "PUT", path, {"watt": 2000}, token).body == {"watt": 2000}
    assert machine.limit_w == 2000
    assert machine.asleep
    profile = asked(state, "GET", "/api/v1/performance/efficiency-profile", token=token).body
    assert 6 <= len(profile["points"]) <= 20
    _, _, old = braiins_of(profile=False)
    token = old.login("root", FACTORY_PASSWORD)
    assert asked(old, "GET", "/api/v1/performance/efficiency-profile", token=token).status == 404


def test_real_pyasic_identifies_and_drives_it():
    import pyasic

    async def scenario(miner):
        client = await pyasic.get_miner(miner.address)
        assert any(one.__name__ == "BOSer" for one in type(client).__mro__)
        data = await client.get_data()
        assert data.wattage == pytest.approx(miner.machine.watts_w(), rel=0.011)
        assert float(data.hashrate) == pytest.approx(234, rel=0.03)
        assert (data.wattage_limit, data.is_mining) == (3510, True)
        assert data.mac == miner.firmware.mac.upper()
        assert miner.firmware.logins > 1, "pyasic logs in once per request (hazard 9)"
        assert await client.set_power_limit(2500)
        assert miner.firmware.restarts == 1, "a forced apply restarts mining (hazard 13)"
        await client.web.set_power_target(2400)
        assert miner.firmware.restarts == 1, "a plain one does not"
        await asyncio.sleep(0.5)
        assert miner.machine.mode == "limit:2400"
        assert await client.stop_mining()
        await asyncio.sleep(RAMP_S)
        assert 20 < miner.machine.watts_w() < 30
        assert (await client.get_data(include=["is_mining"])).is_mining is False
        assert await client.resume_mining()
        await asyncio.sleep(RAMP_S)
        assert miner.machine.watts_w() == pytest.approx(2400, rel=0.04)
        assert miner.machine.pool_writes == 0

    on_miner("braiins", scenario, full=True)


def test_grpc_refuses_a_wrong_password_and_falls_silent_with_the_machine():
    import pyasic
    from grpclib import GRPCError

    async def scenario(miner):
        client = await pyasic.get_miner(miner.address)
        with pytest.raises(GRPCError):
            await client.stop_mining()
        assert not miner.machine.asleep
        await miner.inject(Fault.MUTE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.web.get_miner_stats(), 0.3)

    on_miner("braiins", scenario, full=True, password="the owner's")


@pytest.mark.parametrize("kind", ["braiins", "braiins_25_07"])
def test_real_pyasic_rs_identifies_and_drives_it(kind):
    pyasic_rs = pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        client = await pyasic_rs.MinerFactory().get_miner(miner.address)
        assert "Braiins" in str(client)
        assert float(await client.get_wattage()) == pytest.approx(3510, rel=0.05)
        assert await client.pause()
        assert miner.machine.asleep
        assert await client.resume()
        assert not miner.machine.asleep
        assert await client.set_power_limit(2500)
        assert miner.machine.mode == "limit:2500"
        assert miner.firmware.restarts == 0
        assert miner.machine.pool_writes == 0

    on_miner(kind, scenario, full=True)
