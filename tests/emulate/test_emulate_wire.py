"""Rules of the emulated firmwares that clients trip over."""

import base64
import hashlib
import time

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.luxos import LuxOs
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import M60S, S19K_PRO
from wattshift_cluster.emulate.whatsminer import Whatsminer


def never():
    return False


class Now:
    value_s = 0.0

    def __call__(self):
        return self.value_s


def lux_of():
    now = Now()
    machine = Machine("m", S19K_PRO, seed=1, clock=now)
    return now, machine, LuxOs(Body(machine, 1, now, ignoring=never, blank=never))


def code(reply):
    return reply["STATUS"][0]["STATUS"], reply["STATUS"][0]["Code"]


def test_one_session_at_a_time_and_it_expires():
    now, machine, lux = lux_of()
    assert lux.answer({"command": "session"})["SESSION"][0]["SessionID"] == ""
    session = lux.answer({"command": "logon"})["SESSION"][0]["SessionID"]
    assert code(lux.answer({"command": "logon"})) == ("E", 402)
    wake = {"command": "curtail", "parameter": f"{session},wakeup"}
    now.value_s = 59.0
    assert code(lux.answer(wake)) == ("S", 335)
    now.value_s = 118.0
    assert code(lux.answer(wake))[0] == "S", "use keeps a session alive"
    now.value_s = 179.0
    assert code(lux.answer(wake)) == ("E", 403)
    assert not machine.asleep


def test_a_profile_needs_atm_off_and_does_not_wake():
    _, machine, lux = lux_of()
    session = lux.answer({"command": "logon"})["SESSION"][0]["SessionID"]
    profile = {"command": "profileset", "parameter": f"{session},290MHz"}
    assert code(lux.answer(profile))[0] == "E"
    lux.answer({"command": "atmset", "parameter": f"{session},enabled=false"})
    assert code(lux.answer(profile))[0] == "S"
    assert machine.profile.name == "290MHz"
    assert machine.asleep


def test_joined_commands_and_unknown_ones():
    _, _, lux = lux_of()
    joined = lux.answer({"command": "power+summary"})
    assert joined["power"][0]["POWER"][0]["Watts"] > 0
    assert joined["summary"][0]["SUMMARY"][0]["GHS 5s"] == 0
    for bad in ("power+reboot", "reboot", "curtail+power", ""):
        assert code(lux.answer({"command": bad})) == ("E", 14)
    assert code(lux.answer({"command": 5})) == ("E", 14)


def signed(command, param, password="super", salt="", ts=None, **more):
    ts = int(time.time()) if ts is None else ts
    digest = hashlib.sha256(f"{command}{password}{salt}{ts}".encode()).digest()
    token = base64.b64encode(digest)[:8].decode()
    return {"cmd": command, "param": param, "ts": ts, "account": "super", "token": token, **more}


def test_a_whatsminer_obeys_signed_commands_only():
    machine = Machine("m", M60S, seed=1, clock=Now())
    whats = Whatsminer(Body(machine, 1, Now(), ignoring=never, blank=never))
    asked = whats.answer({"cmd": "get.device.info", "param": "salt"})
    salt = asked["msg"]["salt"]
    start = ("set.miner.service", "start")
    for wrong in (
        signed(*start, salt=salt, password="admin"),
        signed(*start, salt="other"),
        signed(*start, salt=salt, ts=int(time.time()) - 7200),
        signed(*start, salt=salt, account="root"),
        {"cmd": start[0], "param": start[1]},
    ):
        assert whats.answer(wrong)["code"] != 0
        assert machine.asleep
    assert whats.answer(signed(*start, salt=salt))["code"] == 0
    assert not machine.asleep
    limit = "set.miner.power_limit"
    assert whats.answer(signed(limit, 100, salt=salt))["code"] != 0
    assert whats.answer(signed(limit, "2000", salt=salt))["code"] != 0
    assert whats.answer(signed(limit, 2000, salt=salt))["code"] == 0
    assert machine.limit_w == 2000
