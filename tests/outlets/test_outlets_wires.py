"""The PDU drivers against real sockets. Objects and numbers are written down here, not shared."""

import asyncio
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.config.outlets import Pdu as Section
from wattshift_cluster.emulate.outlets.modbus import EmulatedModbusCabinet
from wattshift_cluster.emulate.outlets.redfish import EmulatedRedfishPdu
from wattshift_cluster.emulate.outlets.snmp import EmulatedSnmpPdu, Objects
from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip
from wattshift_cluster.outlets.build import build
from wattshift_cluster.outlets.driver import Pdu, PduRefused, PduUnreachable, sane_w

HOST = own_address()
PASSWORD = "correct horse"
KEY = "battery staple"

# As the makers' MIBs print them, each with the index that outlet 4 has.
MODELS = {
    "apc-rpdu2": (
        "4",
        Objects(
            state=("1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.{i}", 2, 1),
            on=("1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{i}", 1),
            off=("1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{i}", 2),
            watts="1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.{i}",
        ),
    ),
    "raritan-pdu2": (
        "1.4",
        Objects(
            state=("1.3.6.1.4.1.13742.6.4.1.2.1.3.{i}", 7, 8),
            on=("1.3.6.1.4.1.13742.6.4.1.2.1.2.{i}", 1),
            off=("1.3.6.1.4.1.13742.6.4.1.2.1.2.{i}", 0),
            watts="1.3.6.1.4.1.13742.6.5.4.3.1.4.{i}.5",
            decimals="1.3.6.1.4.1.13742.6.3.5.4.1.7.{i}.5",
            digits=1,
        ),
    ),
    "servertech-sentry4": (
        "1.1.4",
        Objects(
            state=("1.3.6.1.4.1.1718.4.1.8.3.1.1.{i}", 1, 2),
            on=("1.3.6.1.4.1.1718.4.1.8.5.1.2.{i}", 1),
            off=("1.3.6.1.4.1.1718.4.1.8.5.1.2.{i}", 2),
            watts="1.3.6.1.4.1.1718.4.1.8.3.1.7.{i}",
        ),
    ),
    "eaton-epdu": (
        "0.4",
        Objects(
            state=("1.3.6.1.4.1.534.6.6.7.6.6.1.2.{i}", 1, 0),
            on=("1.3.6.1.4.1.534.6.6.7.6.6.1.4.{i}", 0),
            off=("1.3.6.1.4.1.534.6.6.7.6.6.1.3.{i}", 0),
            watts="1.3.6.1.4.1.534.6.6.7.6.5.1.3.{i}",
        ),
    ),
}


def secret(folder, name, text):
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def section(protocol, address, outlet="4", more_of_outlet=None, **fields):
    return Section.model_validate(
        {
            "name": "pdu",
            "protocol": protocol,
            "address": address,
            "feeder": "f",
            "feeder_limit": "20kW",
            "deadline": "3s",
            "settle": "300ms",
            "outlets": [
                {"id": outlet, "device": "rig", "power_on": 3500, **(more_of_outlet or {})}
            ],
            **fields,
        }
    )


def drive(emulated, make, test, port=0):
    """Start a PDU, build the driver of the section for its port, run the test, close both."""

    async def main():
        await emulated.start(HOST, port)
        pdu = build(make(emulated.port))
        try:
            return await asyncio.wait_for(test(pdu), 30)
        finally:
            await pdu.close()
            await emulated.stop()

    return asyncio.run(main())


def hurried(made):
    return made.model_copy(update={"deadline_s": 1.0})


def strip(outlet, watts_w=3217.0, **options):
    made = Strip([outlet], clock=time.monotonic, **options)
    made.plug(outlet, lambda: watts_w)
    return made


def snmp(folder, model, outlet="4", v3=True):
    index, objects = MODELS[model]
    made = strip(index)
    if v3:
        emulated = EmulatedSnmpPdu(made, objects, user=("operator", PASSWORD, KEY))
        fields = {
            "username": "operator",
            "password_file": secret(folder, "auth", PASSWORD),
            "privacy_file": secret(folder, "priv", KEY),
        }
    else:
        emulated = EmulatedSnmpPdu(made, objects, community="s3cret-community")
        fields = {"community_file": secret(folder, "community", "s3cret-community")}
    return emulated, lambda port: section("snmp", f"{HOST}:{port}", outlet, model=model, **fields)


def modbus(folder, **options):
    made = strip("4", 3210.0, **options)
    contactor = {"coil": 0, "state": 0, "watts": 0, "watts_scale": 10}
    return EmulatedModbusCabinet(made), lambda port: section(
        "modbus", f"{HOST}:{port}", "4", contactor, watchdog={"register": 100, "opens_after": "10s"}
    )


def redfish(folder):
    fields = {"username": "op", "password_file": secret(folder, "password", PASSWORD)}
    return EmulatedRedfishPdu(strip("4"), "op", PASSWORD), lambda port: section(
        "redfish", f"http://{HOST}:{port}", "4", **fields
    )


MAKERS = {
    **{model: lambda folder, m=model: snmp(folder, m, v3=False) for model in MODELS},
    "apc-v3": lambda folder: snmp(folder, "apc-rpdu2"),
    "modbus": modbus,
    "redfish": redfish,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_outlet_is_read_switched_off_and_on_again(kind, tmp_path):
    emulated, make = MAKERS[kind](tmp_path)
    (outlet,) = emulated.strip.outlets

    async def scenario(pdu):
        first = (await pdu.read(["4"]))["4"]
        off = await pdu.switch("4", on=False)
        really_off = emulated.strip.on(outlet)
        on = await pdu.switch("4", on=True)
        return first, off, really_off, on, emulated.strip.on(outlet)

    first, off, really_off, on, really_on = drive(emulated, make, scenario)
    assert first.on is True
    assert first.watts_w == pytest.approx(emulated.strip.watts_w(outlet))
    assert (off.on, off.watts_w, really_off) == (False, 0.0, False)
    assert (on.on, really_on) == (True, True)


@pytest.mark.parametrize("kind", ["apc-rpdu2", "modbus", "redfish"])
def test_a_word_is_not_taken_for_the_deed(kind, tmp_path):
    emulated, make = MAKERS[kind](tmp_path)
    emulated.strip.fault = OutletFault.LIE

    async def scenario(pdu):
        with pytest.raises(PduRefused, match="still on"):
            await pdu.switch("4", on=False)

    drive(emulated, make, scenario)


@pytest.mark.parametrize("kind", ["apc-rpdu2", "modbus", "redfish"])
def test_a_declined_command_says_so(kind, tmp_path):
    emulated, make = MAKERS[kind](tmp_path)
    emulated.strip.fault = OutletFault.REFUSE

    async def scenario(pdu):
        with pytest.raises(PduRefused) as fault:
            await pdu.switch("4", on=False)
        return str(fault.value)

    assert "accepted" not in drive(emulated, make, scenario)


@pytest.mark.parametrize("kind", ["apc-rpdu2", "modbus", "redfish"])
def test_silence_costs_one_deadline_and_the_pdu_is_used_again_after_it(kind, tmp_path):
    emulated, make = MAKERS[kind](tmp_path)

    async def scenario(pdu):
        emulated.strip.fault = OutletFault.MUTE
        began_s = time.monotonic()
        with pytest.raises(PduUnreachable):
            await pdu.read(["4"])
        took_s = time.monotonic() - began_s
        emulated.strip.fault = OutletFault.NONE
        return took_s, await pdu.read(["4"])

    took_s, after = drive(emulated, lambda port: hurried(make(port)), scenario)
    assert took_s < 5.0
    assert after["4"].on is True


def test_the_sum_of_many_slow_answers_has_a_deadline_too():
    class Endless:
        async def read(self, outlets):
            for _ in range(1000):
                await asyncio.sleep(0.01)

    with pytest.raises(PduUnreachable, match="no answer within"):
        asyncio.run(
            asyncio.wait_for(Pdu("p", Endless(), deadline_s=0.2, settle_s=0.2).read(["4"]), 5.0)
        )


@pytest.mark.parametrize("kind", ["raritan-pdu2", "redfish"])
def test_watts_that_are_not_reported_are_unknown_and_not_zero(kind, tmp_path):
    emulated, make = MAKERS[kind](tmp_path)
    emulated.strip.fault = OutletFault.BLIND
    seen = drive(emulated, make, lambda pdu: pdu.read(["4"]))["4"]
    assert (seen.on, seen.watts_w) == (True, None)


@pytest.mark.parametrize("watts_w", [-1.0, float("nan"), float("inf"), 4.3e9, None])
def test_a_draw_that_no_outlet_can_carry_is_unknown(watts_w):
    assert sane_w(watts_w) is None
    assert sane_w(0.0) == 0.0


def test_an_outlet_that_the_pdu_does_not_have_is_unknown(tmp_path):
    emulated, _ = snmp(tmp_path, "apc-rpdu2", v3=False)
    community = tmp_path / "community"

    def make(port):
        address = f"{HOST}:{port}"
        return section("snmp", address, "9", model="apc-rpdu2", community_file=community)

    seen = drive(emulated, make, lambda pdu: pdu.read(["9"]))["9"]
    assert (seen.on, seen.watts_w) == (None, None)


def test_a_wrong_community_gets_nothing_and_stands_in_no_message(tmp_path):
    emulated, _ = snmp(tmp_path, "apc-rpdu2", v3=False)
    wrong = secret(tmp_path, "wrong", "guessed-it")

    async def scenario(pdu):
        with pytest.raises(PduUnreachable) as fault:
            await pdu.read(["4"])
        return str(fault.value) + repr(vars(pdu))

    said = drive(
        emulated,
        lambda p: hurried(section("snmp", f"{HOST}:{p}", model="apc-rpdu2", community_file=wrong)),
        scenario,
    )
    assert "guessed-it" not in said


def test_a_redfish_pdu_with_another_password_refuses(tmp_path):
    emulated, _ = redfish(tmp_path)
    wrong = secret(tmp_path, "wrong", "guessed-it")

    async def scenario(pdu):
        with pytest.raises(PduRefused, match="may not") as fault:
            await pdu.read(["4"])
        return str(fault.value)

    fields = {"username": "op", "password_file": wrong}
    said = drive(emulated, lambda p: section("redfish", f"http://{HOST}:{p}", **fields), scenario)
    assert "guessed-it" not in said


def test_a_row_of_the_owner_drives_a_pdu_that_no_table_knows(tmp_path):
    base = "1.3.6.1.4.1.99999.1"
    made = strip("4")
    objects = Objects(
        state=(f"{base}.1", 5, 6),
        on=(f"{base}.2", 9),
        off=(f"{base}.2", 10),
        watts=f"{base}.3.{{i}}.1",
    )
    emulated = EmulatedSnmpPdu(made, objects, community="s3cret-community")
    row = {
        "state": f"{base}.1",
        "state_on": 5,
        "state_off": 6,
        "on": f"{base}.2",
        "on_value": 9,
        "off": f"{base}.2",
        "off_value": 10,
        "watts": f"{base}.3.{{i}}.1",
    }
    community = secret(tmp_path, "community", "s3cret-community")

    async def scenario(pdu):
        return (await pdu.read(["4"]))["4"].watts_w, (await pdu.switch("4", on=False)).on

    found = drive(
        emulated,
        lambda port: section("snmp", f"{HOST}:{port}", row=row, community_file=community),
        scenario,
    )
    assert found == (3217.0, False)


def test_a_contactor_opens_by_itself_when_it_is_not_fed(tmp_path):
    emulated, make = modbus(tmp_path, opens_after_s=1.5)

    async def scenario(pdu):
        for _ in range(8):
            await pdu.feed()
            await asyncio.sleep(0.25)
        while_fed = (await pdu.read(["4"]))["4"].on
        await asyncio.sleep(1.7)
        return while_fed, (await pdu.read(["4"]))["4"]

    while_fed, after = drive(emulated, make, scenario)
    assert while_fed is True
    assert (after.on, after.watts_w) == (False, 0.0)
