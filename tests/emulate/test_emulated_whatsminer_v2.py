"""The rules of the emulated Whatsminer v2 that clients trip over, without a socket."""

import pytest

from wattshift_cluster.asic.whatsminer_sign import seal, unseal, v2_secrets
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import M50S_PLUS_PLUS
from wattshift_cluster.emulate.whatsminer_v2 import MOST_TOKENS, TOKEN_AGE_S, WhatsminerV2

PASSWORD = "owner's"


class Now:
    value_s = 0.0

    def __call__(self):
        return self.value_s


class Flag:
    up = False

    def __call__(self):
        return self.up


class Client:
    """One that follows the maker's document."""

    def __init__(self, *, full=True, realism="quick"):
        self.now, self.ignoring, self.blank = Now(), Flag(), Flag()
        self.machine = Machine(
            "m", M50S_PLUS_PLUS, seed=1, clock=self.now, full=full, realism=realism
        )
        body = Body(self.machine, 1, self.now, self.ignoring, self.blank, PASSWORD)
        self.firmware = WhatsminerV2(body)

    def secrets(self, password=PASSWORD):
        told = self.firmware.answer({"cmd": "get_token"})
        assert told["Code"] == 134
        return v2_secrets(
            password, told["Msg"]["salt"], told["Msg"]["time"], told["Msg"]["newsalt"]
        )

    def sealed(self, secrets, **request):
        sealed = seal(secrets.key, {"token": secrets.token, **request})
        reply = self.firmware.answer({"enc": 1, "data": sealed})
        return unseal(secrets.key, reply["enc"]) if "enc" in reply else reply

    def summary(self):
        return self.firmware.answer({"command": "summary"})["SUMMARY"][0]


@pytest.mark.parametrize("named", ["cmd", "command"])
def test_a_sealed_command_with_a_token_is_obeyed(named):
    client = Client()
    secrets = client.secrets()
    reply = client.sealed(secrets, **{named: "adjust_power_limit"}, power_limit="2500")
    assert (reply["Code"], reply["Msg"]) == (131, "API command OK")
    assert client.machine.mode == "limit:2500"
    assert client.summary()["Power Limit"] == 2500
    assert client.sealed(secrets, **{named: "power_off"}, respbefore="true")["Code"] == 131
    assert client.machine.asleep
    assert client.firmware.answer({named: "status"})["Msg"]["mineroff"] == "true"
    assert client.sealed(secrets, **{named: "power_on"})["Code"] == 131
    assert client.machine.mode == "limit:2500"
    assert client.firmware.answer({named: "status"})["Msg"]["mineroff"] == "false"


def test_nothing_else_is_obeyed():
    client = Client()
    secrets, wrong = client.secrets(), client.secrets("guess")
    off = {"cmd": "power_off", "respbefore": "true"}
    assert client.sealed(wrong, **off)["Code"] == 23
    assert client.sealed(secrets, **off, token="stale")["Code"] == 135
    assert client.firmware.answer(off)["Code"] == 45
    assert client.sealed(secrets, cmd="update_pools")["Code"] == 14
    for garbage in ("", "?", "AAAA", None, 5, {}):
        assert client.firmware.answer({"enc": 1, "data": garbage})["Code"] in (23, 135)
    for limit in ("1154", "3301", "x", "", "-5", "9" * 500, None, 25.5):
        reply = client.sealed(secrets, cmd="adjust_power_limit", power_limit=limit)
        assert reply["Code"] == 132
    assert client.machine.mode == "limit:3300"
    assert client.machine.commands == 0


def test_a_token_lasts_half_an_hour_and_dies_with_a_restart():
    client = Client()
    secrets = client.secrets()
    client.now.value_s = TOKEN_AGE_S - 1
    assert client.sealed(secrets, cmd="power_on")["Code"] == 131
    client.now.value_s = TOKEN_AGE_S + 1
    assert client.sealed(secrets, cmd="power_on")["Code"] == 135
    secrets = client.secrets()
    client.firmware.restart()
    assert client.sealed(secrets, cmd="power_on")["Code"] == 135


def test_there_is_room_for_so_many_tokens():
    client = Client()
    for _ in range(MOST_TOKENS):
        client.secrets()
    refused = client.firmware.answer({"cmd": "get_token"})
    assert (refused["Code"], refused["Msg"]) == (136, "over max connect")
    client.now.value_s = TOKEN_AGE_S + 1
    client.secrets()


def test_a_new_limit_restarts_mining():
    client = Client(realism="real")
    client.now.value_s = 600.0
    assert client.summary()["HS RT"] > 130e6
    client.sealed(client.secrets(), cmd="adjust_power_limit", power_limit="3000")
    client.now.value_s += 12.0
    assert client.summary()["HS RT"] == 0
    assert client.summary()["Power Limit"] == 3000
    client.now.value_s += 600.0
    assert client.summary()["HS RT"] == pytest.approx(138e6 * 3000 / 3300, rel=0.03)


def test_what_can_be_joined_and_what_not():
    client = Client()
    joined = client.firmware.answer({"command": "pools+devs+summary"})
    assert joined["summary"][0]["SUMMARY"][0]["Power"] > 3000
    assert sum(b["MHS av"] for b in joined["devs"][0]["DEVS"]) == pytest.approx(138e6, rel=0.03)
    assert joined["pools"][0]["POOLS"] == []
    for command in ("summary+status", "get_version+summary", "reboot", "", "+", "summary+" * 20):
        assert client.firmware.answer({"command": command})["Code"] == 14
    for odd in ({}, {"command": 5}, {"cmd": None}, {"command": ["summary"]}):
        assert client.firmware.answer(odd)["Code"] == 14


def test_faults_of_its_own_words():
    client = Client()
    client.blank.up = True
    assert client.summary()["Power"] is None
    assert client.summary()["HS RT"] is None
    client.ignoring.up = True
    secrets = client.secrets()
    limited = client.sealed(secrets, cmd="adjust_power_limit", power_limit="2000")
    assert limited["Code"] == client.sealed(secrets, cmd="power_off")["Code"] == 131
    assert client.machine.mode == "limit:3300"


def test_it_names_itself():
    client = Client()
    assert client.firmware.answer({"cmd": "get_version"})["Msg"]["api_ver"].startswith("2.")
    details = client.firmware.answer({"cmd": "devdetails"})["DEVDETAILS"]
    assert (len(details), details[0]["Model"]) == (3, "M50S++VK30")
    told = client.firmware.answer({"cmd": "get_miner_info"})["Msg"]
    assert told["mac"] == client.summary()["MAC"]
