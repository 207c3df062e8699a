"""Sessions held ready on both Whatsminer APIs, and what v2's sealed commands survive."""

import asyncio
import json
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.asic import whatsminer_v2
from wattshift_cluster.asic.connect import connect, driver_for
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.asic.probe import Found
from wattshift_cluster.asic.whatsminer_sign import V2Secrets, seal, unseal, v2_secrets
from wattshift_cluster.emulate.listener import EmulatedMiner

PASSWORDS = {"whatsminer": "super", "whatsminer_v2": "admin"}
KINDS = tuple(PASSWORDS)


async def driver_of(miner):
    kind = miner.machine.spec.kind
    owners = Credentials(PASSWORDS[kind])
    return await connect(miner.address, credentials=owners, deadline_s=5.0)


# Held ready


def test_a_prepared_v3_command_is_one_exchange_on_the_open_connection(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        assert len(miner._tasks) == 1
        seen, ask = [], driver._line.ask

        async def watched(request, *, repeatable):
            seen.append((request["cmd"], repeatable))
            return await ask(request, repeatable=repeatable)

        driver._line.ask = watched
        await driver.sleep()
        assert miner.machine.asleep
        assert seen == [("set.miner.service", False)]
        assert len(miner._tasks) == 1
        await driver.close()

    on_miner("whatsminer", scenario, full=True)


def test_a_prepared_v2_command_is_one_exchange(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        firmware, tokens = miner._firmware, len(miner._firmware._tokens)
        seen = []
        unsealed = firmware._unsealed
        firmware._unsealed = lambda data: seen.append("sealed") or unsealed(data)
        for command in (driver.sleep, driver.sleep, driver.prepare):
            await command()
        assert miner.machine.asleep
        assert seen == ["sealed"] * 2
        assert len(firmware._tokens) == tokens == 1

    on_miner("whatsminer_v2", scenario, full=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_the_machine_forgot_is_renewed_in_the_same_command(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        miner._firmware.restart()
        await driver.sleep()
        assert miner.machine.asleep
        await driver.wake()
        assert not miner.machine.asleep
        await driver.close()

    on_miner(kind, scenario, full=True)


def test_an_old_token_is_replaced_before_it_ends(on_miner, monkeypatch):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        monkeypatch.setattr(whatsminer_v2, "TOKEN_S", 0.0)
        await driver.prepare()
        assert len(miner._firmware._tokens) == 2

    on_miner("whatsminer_v2", scenario)


def test_a_machine_without_room_for_tokens_refuses_and_says_so(on_miner):
    async def scenario(miner):
        for _ in range(32):
            miner._firmware._token()
        driver = await driver_of(miner)
        with pytest.raises(AsicRefused, match="code 136: over max connect"):
            await driver.sleep()
        assert (await driver.read()).watts_w is not None

    on_miner("whatsminer_v2", scenario, full=True)


def test_a_refusal_is_tried_once_more_and_no_third_time(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        firmware, seen = miner._firmware, []
        firmware._unsealed = lambda data: (
            seen.append(data) or {"STATUS": "E", "Code": 45, "Msg": "permission denied"}
        )
        with pytest.raises(AsicRefused, match="code 45: permission denied"):
            await driver.sleep()
        assert len(seen) == 2
        await driver.close()

    on_miner("whatsminer_v2", scenario, full=True)


# What is answered


@pytest.mark.parametrize(
    "reply",
    [
        {"enc": seal(b"k" * 32, {"Code": 131, "Msg": "API command OK"})},
        {"enc": "no base64 at all"},
        {"enc": ""},
        {"enc": 1},
        {"enc": None, "Code": "131"},
        {},
        {"STATUS": "S", "Code": True},
    ],
    ids=["another key", "no base64", "empty", "a number", "a string", "nothing", "true"],
)
def test_an_answer_that_is_not_the_machines_yes_is_a_refusal(on_miner, reply):
    async def scenario(miner):
        driver = await driver_of(miner)
        miner._firmware._unsealed = lambda data: reply
        with pytest.raises(AsicRefused):
            await driver.sleep()

    on_miner("whatsminer_v2", scenario, full=True)


@pytest.mark.parametrize(
    "token",
    [
        {"Msg": "over max connect"},
        {"Msg": {"time": "1", "salt": "abc", "newsalt": 5}},
        {"Msg": {"time": "1", "salt": "no/such salt!", "newsalt": "abc"}},
        {"Msg": {"time": "1", "salt": "a" * 5000, "newsalt": "abc"}},
        {"Msg": None},
    ],
)
def test_a_token_that_cannot_be_used_is_an_error(on_miner, token):
    async def scenario(miner):
        driver = await driver_of(miner)
        miner._firmware._alone["get_token"] = lambda: token
        with pytest.raises((AsicRefused, AsicUnreachable)):
            await driver.sleep()

    on_miner("whatsminer_v2", scenario, full=True)


@pytest.mark.parametrize(
    "row",
    [
        {"Power": "n/a", "HS RT": "x", "Power Limit": None},
        {"Power": -1, "HS RT": -1, "Power Limit": -1},
        {"Power": 3_300_000, "HS RT": 1e15, "Power Limit": 1e9},
        {"Power": [3300], "HS RT": {}, "Power Limit": True},
        {},
    ],
    ids=["text", "minus one", "absurd", "types", "nothing"],
)
def test_a_value_of_the_wrong_kind_is_unknown(on_miner, row):
    async def scenario(miner):
        driver = await driver_of(miner)
        miner._firmware._joinable["summary"] = lambda: {"SUMMARY": [row]}
        reading = await driver.poll()
        assert reading.watts_w is None
        assert reading.hashrate_h_per_s is None
        assert reading.power_limit_w is None
        assert reading.mode is None

    on_miner("whatsminer_v2", scenario, full=True)


def test_newer_firmware_puts_its_summary_elsewhere(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        row = miner._firmware._summary()["SUMMARY"][0]
        miner._firmware._joinable["summary"] = lambda: {"STATUS": "S", "Msg": row}
        assert (await driver.poll()).watts_w == row["Power"]

    on_miner("whatsminer_v2", scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), [("whatsminer", 1204), ("whatsminer_v2", 1155)])
def test_an_answer_from_another_machine_is_no_sample(on_miner, kind, low):
    async def scenario(miner):
        driver = await driver_of(miner)
        known = await driver.identify()
        await driver.prepare()
        await miner.stop()
        stranger = EmulatedMiner("other", kind, miner.address, seed=8, clock=time.monotonic)
        await stranger.start()
        try:
            for call in (
                driver.poll(),
                driver.read(),
                driver.poll(),
                driver.set_point(f"limit:{low}", low),
            ):
                with pytest.raises(AsicUnreachable, match=f"it is now {known.mac[:8]}"):
                    await call
            assert stranger.machine.commands == 0
            assert (await driver.identify()).mac != known.mac
            assert (await driver.poll()).watts_w is not None
        finally:
            await driver.close()
            await stranger.stop()

    on_miner(kind, scenario)


@pytest.mark.parametrize("at_once", [True, False])
def test_no_v3_command_is_sent_to_another_machine(on_miner, at_once):
    async def scenario(miner):
        driver = await driver_of(miner)
        known = await driver.identify()
        await driver.prepare()
        await miner.stop()
        stranger = EmulatedMiner("other", "whatsminer", miner.address, seed=8, clock=time.monotonic)
        signed = []
        stranger.firmware._signed = lambda request: signed.append(request) or False
        await stranger.start()
        try:
            if not at_once:  # it has been met, and refused, before
                with pytest.raises(AsicUnreachable):
                    await driver.poll()
            for command in (driver.sleep, driver.sleep):
                with pytest.raises(AsicUnreachable, match=f"it is now {known.mac[:8]}"):
                    await command()
            assert signed == []
        finally:
            await driver.close()
            await stranger.stop()

    on_miner("whatsminer", scenario)


def test_nothing_but_power_and_mining_is_ever_written(on_miner):
    """Whatever a caller does, the machine is told one of three things and never of a pool."""

    async def scenario(miner):
        driver = await driver_of(miner)
        firmware, told = miner._firmware, []
        key = v2_secrets("admin", firmware._salt, "0", "abc").key
        unsealed = firmware._unsealed
        firmware._unsealed = lambda data: told.append(unseal(key, data)) or unsealed(data)
        await driver.prepare()
        for point in (await driver.identify()).points:
            await driver.set_point(point.mode, point.watts_w)
        await driver.wake()
        await driver.close()
        fields = {"cmd", "token", "power_limit", "respbefore"}
        assert {name for request in told for name in request} == fields
        wanted = {"adjust_power_limit", "power_off", "power_on"}
        assert {request["cmd"] for request in told} == wanted
        assert miner.machine.pool_writes == 0

    on_miner("whatsminer_v2", scenario, full=True)


# Signing


def test_signatures_agree_with_those_of_pyasic():
    """Checked against another implementation, with fixed words and salts."""
    _crypt = pytest.importorskip("pyasic.rpc.btminer")._crypt

    made = v2_secrets("p4ss word", "BQ5hoXV9", "5626", "jbzkfQls")
    hashed = _crypt("p4ss word", "$1$BQ5hoXV9$").split("$")[3]
    assert made.token == _crypt(hashed + "5626", "$1$jbzkfQls$").split("$")[3]


def test_secrets_are_not_shown():
    made = v2_secrets("p4ss", "BQ5hoXV9", "5626", "jbzkfQls")
    assert repr(made) == "V2Secrets()"
    assert made.token not in str(made)
    assert isinstance(made, V2Secrets)


@pytest.mark.parametrize("text", ["", "x", "ü" * 33, "a" * 4096])
def test_what_is_sealed_is_unsealed(text):
    assert unseal(b"k" * 32, seal(b"k" * 32, {"cmd": text})) == {"cmd": text}


def test_a_v2_machine_that_hangs_up_on_commands_is_unreachable():
    """Seen with pyasic-rs: an older emulator dropped a command, and `pause()` returned True."""
    address = own_address()

    async def serve(reader, writer):
        asked = json.loads(await reader.read(4096))
        if "enc" not in asked:
            told = {"time": "1", "salt": "abcdefgh", "newsalt": "hgfedcba"}
            writer.write(json.dumps({"STATUS": "S", "Code": 134, "Msg": told}).encode() + b"\x00")
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, address, 4028)
        async with server:
            found = Found("whatsminer_v2", "M50S++VK30", "2023")
            driver = await driver_for(address, found, credentials=Credentials("admin"))
            with pytest.raises(AsicUnreachable):
                await driver.sleep()

    asyncio.run(main())
