"""The agent's outlets, over real Modbus and SNMP: cuts, watchdogs, bringing up, better watts."""

import asyncio
import time
from contextlib import suppress

from tests.ports import own_address

from wattshift_cluster.agent.asics.fences import Fences
from wattshift_cluster.config.outlets import Pdu as Section
from wattshift_cluster.emulate.outlets.modbus import WATCHDOG, EmulatedModbusCabinet
from wattshift_cluster.emulate.outlets.snmp import EmulatedSnmpPdu, Objects
from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip
from wattshift_cluster.outlets.driver import Pdu

HOST = own_address()
RIGS = ("0", "1", "2")
DRAW_W = 3000.0


async def until(true, wait_s=12.0):
    """Wait for something that other tasks do."""
    end_s = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < end_s, "it did not happen"
        await asyncio.sleep(0.02)


def section(port, opens_after=None, **fields):
    outlets = [
        {
            "id": rig,
            "device": f"rig-{rig}",
            "power_on": DRAW_W,
            "coil": int(rig),
            "state": int(rig),
            "watts": int(rig),
            "watts_scale": 10,
        }
        for rig in RIGS
    ]
    watchdog = {"register": WATCHDOG, "opens_after": opens_after} if opens_after else None
    values = {
        "name": "cabinet",
        "protocol": "modbus",
        "address": f"{HOST}:{port}",
        "feeder": "f",
        "feeder_limit": "20kW",
        "stagger": "300ms",
        "rest": "0s",
        "settle": "1s",
        "deadline": "1s",
        "emulated": True,
        "outlets": outlets,
        "watchdog": watchdog,
    }
    return Section.model_validate({**values, **fields})


def with_cabinet(
    test, *, opens_after=None, healthy=lambda: True, locked=frozenset, on=True, **more
):
    """Run a test beside a running `Fences` and the cabinet that it drives."""

    async def main():
        opens_after_s = None if opens_after is None else float(opens_after.rstrip("s"))
        strip = Strip(RIGS, clock=time.monotonic, opens_after_s=opens_after_s, on=on)
        for rig in RIGS:
            strip.plug(rig, lambda: DRAW_W)
        cabinet = EmulatedModbusCabinet(strip)
        await cabinet.start(HOST, 0)
        made = section(cabinet.port, opens_after, **more)
        fences = Fences([made], healthy=healthy, locked=locked, look_s=0.05)
        running = asyncio.create_task(fences.run())
        try:
            await until(lambda: fences.powered("rig-0") is not None, 15.0)
            return await asyncio.wait_for(test(fences, strip), 30)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await cabinet.stop()

    return asyncio.run(main())


def test_a_machine_that_did_not_sleep_loses_its_power_and_only_it():
    async def scenario(fences, strip):
        outcome = await fences.must_be_off("rig-1", "sleep not confirmed within 20 s")
        return outcome, [strip.on(rig) for rig in RIGS]

    assert with_cabinet(scenario, cut=True) == ("off", [True, False, True])


def test_a_machine_with_two_cords_loses_both_and_counts_with_both():
    two = [
        {"id": n, "device": "rig-0", "power_on": DRAW_W, "coil": int(n), "watts": int(n)}
        | {"watts_scale": 10}
        for n in ("0", "1")
    ]

    async def scenario(fences, strip):
        await until(lambda: fences.watts("rig-0") is not None)
        watts_w = fences.watts("rig-0").watts_w
        outcome = await fences.must_be_off("rig-0", "sleep not confirmed")
        return watts_w, outcome, [strip.on(rig) for rig in RIGS], fences.powered("rig-0")

    found = with_cabinet(scenario, cut=True, outlets=two)
    assert found == (2 * DRAW_W, "off", [False, False, True], False)


def test_nothing_is_cut_that_the_owner_did_not_allow():
    async def scenario(fences, strip):
        outcome = await fences.must_be_off("rig-1", "sleep not confirmed")
        await asyncio.sleep(0.3)
        return outcome, strip.on("1"), await fences.must_be_off("nobody", "no outlet")

    assert with_cabinet(scenario) == ("not allowed", True, "no outlet")


def test_a_cut_that_failed_is_tried_again_until_it_is_seen():
    async def scenario(fences, strip):
        strip.fault = OutletFault.LIE
        first = await fences.must_be_off("rig-1", "sleep not confirmed")
        complaint = fences.errors()["cabinet"]
        strip.fault = OutletFault.NONE
        await until(lambda: not strip.on("1"))
        return first, complaint

    first, complaint = with_cabinet(scenario, cut=True)
    assert first == "failed"
    assert "still on" in complaint


def test_what_was_cut_comes_up_again_only_when_it_may_and_is_not_locked():
    locked = set()

    async def scenario(fences, strip):
        await fences.must_be_off("rig-1", "sleep not confirmed")
        await asyncio.sleep(0.5)
        stayed_off = not strip.on("1")
        locked.add("rig-1")
        fences.may_be_on(["rig-1"])
        await asyncio.sleep(2.0)
        held_by_lock = not strip.on("1")
        locked.clear()
        await until(lambda: strip.on("1"))
        return stayed_off, held_by_lock

    found = with_cabinet(scenario, cut=True, locked=lambda: locked)
    assert found == (True, True)


def test_outlets_come_up_one_after_the_other_under_the_limit_of_their_feeder():
    async def scenario(fences, strip):
        fences.may_be_on([f"rig-{rig}" for rig in RIGS])
        await until(lambda: strip.on("0") and strip.on("1"))
        await asyncio.sleep(0.5)
        times_s = sorted(at_s for rig in RIGS for at_s, _ in strip.switchings(rig))
        return times_s, [strip.on(rig) for rig in RIGS]

    times_s, on = with_cabinet(scenario, on=False, feeder_limit="7kW")
    assert on == [True, True, False], "the third would not fit"
    assert times_s[1] - times_s[0] >= 0.3


def test_a_contactor_stays_closed_while_the_agent_is_healthy_and_opens_when_it_is_not():
    health = [True]

    async def scenario(fences, strip):
        await until(lambda: strip.feeds >= 4)
        fed = strip.on("0") and fences.fenced("rig-0")
        health[0] = False
        await until(lambda: not strip.on("0"))
        await asyncio.sleep(0.5)
        opened = [strip.on(rig) for rig in RIGS]
        fenced = fences.fenced("rig-0")
        health[0] = True
        await until(lambda: all(strip.on(rig) for rig in RIGS))
        return fed, opened, fenced

    fed, opened, fenced = with_cabinet(scenario, opens_after="3s", healthy=lambda: health[0])
    assert fed
    assert opened == [False, False, False]
    assert not fenced


def test_without_a_watchdog_nothing_counts_as_fenced():
    async def scenario(fences, _strip):
        return fences.fenced("rig-0"), fences.fenced("nobody")

    assert with_cabinet(scenario) == (False, False)


class Swallower:
    """A wire in which a cancellation is lost when it meets an answer."""

    def __init__(self):
        self.reads = 0

    async def read(self, outlets):
        self.reads += 1
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
        return dict.fromkeys(outlets, (True, None))

    async def feed(self):
        await self.read([])

    async def close(self):
        pass


def test_an_agent_ends_though_a_library_swallows_its_cancellation():
    async def main():
        wire = Swallower()
        made = section(502, "3s")
        fences = Fences(
            [made],
            healthy=lambda: True,
            connect=lambda one: Pdu(one.name, wire, deadline_s=1.0, settle_s=1.0),
            look_s=0.05,
        )
        running = asyncio.create_task(fences.run())
        await until(lambda: wire.reads >= 2)
        running.cancel()
        _, pending = await asyncio.wait({running}, timeout=3.0)
        return pending

    assert not asyncio.run(main())


class SlowToTell:
    """A wire that switches at once and takes its time to say so."""

    def __init__(self):
        self.on = False
        self.commanded = asyncio.Event()

    async def read(self, outlets):
        if self.commanded.is_set():
            await asyncio.sleep(0.4)
        return dict.fromkeys(outlets, (self.on, None))

    async def command(self, _outlet, *, on):
        self.on = on
        self.commanded.set()

    async def close(self):
        pass


def test_what_was_off_before_it_was_switched_on_is_not_off_any_more():
    async def main():
        wire = SlowToTell()
        fences = Fences(
            [section(502)],
            healthy=lambda: True,
            connect=lambda one: Pdu(one.name, wire, deadline_s=2.0, settle_s=1.0),
            look_s=0.02,
        )
        running = asyncio.create_task(fences.run())
        await until(lambda: fences.powered("rig-0") is False)
        before = fences.nothing("rig-0")
        fences.may_be_on(["rig-0"])
        await asyncio.wait_for(wire.commanded.wait(), 10.0)
        during = fences.nothing("rig-0")
        await until(lambda: fences.powered("rig-0"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return before, during

    before, during = asyncio.run(main())
    assert before.watts_w == 0.0
    assert during is None


def test_an_outlet_tells_the_watts_of_a_machine_that_reports_none(tmp_path):
    base = "1.3.6.1.4.1.534.6.6.7.6"
    objects = Objects(
        state=(f"{base}.6.1.2", 1, 0),
        on=(f"{base}.6.1.4", 0),
        off=(f"{base}.6.1.3", 0),
        watts=f"{base}.5.1.3",
    )
    community = tmp_path / "community"
    community.write_text("s3cret-community")
    community.chmod(0o600)

    async def main():
        strip = Strip(["0.7"], clock=time.monotonic)
        strip.plug("0.7", lambda: 3417.0)
        agent = EmulatedSnmpPdu(strip, objects, community="s3cret-community")
        await agent.start(HOST, 0)
        made = Section.model_validate(
            {
                "name": "pdu",
                "protocol": "snmp",
                "address": f"{HOST}:{agent.port}",
                "model": "eaton-epdu",
                "community_file": community,
                "feeder": "f",
                "feeder_limit": "20kW",
                "outlets": [{"id": "7", "device": "rig", "power_on": 3500}],
            }
        )
        fences = Fences([made], healthy=lambda: True, look_s=0.05)
        running = asyncio.create_task(fences.run())
        await until(lambda: fences.watts("rig") is not None)
        reading = fences.watts("rig")
        strip.fault = OutletFault.BLIND
        await until(lambda: fences.watts("rig") is None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await agent.stop()
        return reading

    reading = asyncio.run(main())
    assert (reading.watts_w, reading.source, reading.quality) == (3417.0, "pdu", "measured")
