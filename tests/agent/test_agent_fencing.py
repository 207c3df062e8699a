"""An ASIC and its outlet, over real Modbus: cut when sleep is not proven, back up for a lease."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.agent import asic_machine as bench
from tests.ports import own_address

from wattshift_cluster.agent.asics import fences
from wattshift_cluster.agent.asics.fencing import Fencing
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import Asics, Parts, build
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.asic.driver import SLEEP, AsicUnreachable
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.config.outlets import Pdu
from wattshift_cluster.emulate.outlets.modbus import WATCHDOG, EmulatedModbusCabinet
from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.locks import Lock, Restraint
from wattshift_cluster.wire.epochs import EpochFile

eventually, lease = bench.eventually, bench.lease
Machine: Any = bench.Machine

HOST = own_address()
WAIT_S = 15.0
WATTS_W = {point.mode: point.watts_w for point in bench.POINTS}


class Plugged(Machine):  # type: ignore[misc]
    """A machine that lives on an outlet, and hashes at full power when that comes back.

    Attributes:
        strip: its outlets; None: it hangs elsewhere.
    """

    strip: Strip | None = None
    was_off = False

    def _answer(self, asked: str | None = None) -> None:
        if self.strip is not None and not self.strip.on("0"):
            self.was_off = True
            raise AsicUnreachable(self.address, "read", "no power")
        if self.was_off:
            self.mode, self.was_off = "high", False
        super()._answer(asked)


class Rig:
    """One machine, its agent's parts, and the cabinet that it hangs on."""

    def __init__(self, *, shadow: bool = False, opens_after_s: float | None = None) -> None:
        self.asic = bench.EMULATED
        self.machine = Plugged()
        self.lanes = Lanes(rhythm=bench.FAST, pace=bench.PATIENT)
        self.strip = Strip(["0"], clock=time.monotonic, opens_after_s=opens_after_s)
        self.strip.plug("0", lambda: WATTS_W[self.machine.mode])
        self.machine.strip = self.strip
        self.shadow = shadow
        self.opens_after_s = opens_after_s

    def pdu(self, port: int, *, cut: bool, metered: bool) -> Pdu:
        outlet = {"id": "0", "device": "rig1", "power_on": 3000, "coil": 0, "state": 0}
        meter = {"watts": 0, "watts_scale": 10} if metered else {}
        watchdog = {"register": WATCHDOG, "opens_after": self.opens_after_s}
        return Pdu.model_validate(
            {
                "name": "cabinet",
                "protocol": "modbus",
                "address": f"{HOST}:{port}",
                "feeder": "f",
                "feeder_limit": "20kW",
                "stagger": "100ms",
                "rest": "0s",
                "settle": "500ms",
                "deadline": "500ms",
                "cut": cut,
                "emulated": True,
                "outlets": [{**outlet, **meter}],
                "watchdog": None if self.opens_after_s is None else watchdog,
            }
        )

    def run(
        self,
        test: Callable[[AsicDevice], Awaitable[None]],
        *,
        cut: bool = True,
        metered: bool = False,
    ) -> None:
        """Run a test on the machine beside its sweep and its fencing."""

        async def main() -> None:
            cabinet = EmulatedModbusCabinet(self.strip)
            await cabinet.start(HOST, 0)
            device = AsicDevice(
                self.asic, None, self.machine.connect, lanes=self.lanes, shadow=self.shadow
            )
            self.fencing = Fencing(
                [self.pdu(cabinet.port, cut=cut, metered=metered)],
                [device],
                shadow=self.shadow,
                grace_s=0.4,
                look_s=0.03,
            )
            running = asyncio.create_task(self.fencing.run())
            try:
                await eventually(lambda: powered(device) is not None, WAIT_S)
                await bench.sweeping([device], self.lanes, test(device), within_s=30.0)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await cabinet.stop()

        asyncio.run(main())


def powered(device: AsicDevice) -> bool | None:
    assert device.supply is not None
    return device.supply.outlets.powered(device.id)


def fenced(device: AsicDevice) -> bool:
    info = device.info()
    return info is not None and info.fenced


async def asleep_in_silence(rig: Rig, device: AsicDevice) -> None:
    """A sleep that cannot be confirmed: the machine no longer answers, and draws on."""
    await device.identified.wait()
    await eventually(lambda: device.reading().watts_w == 3000.0)
    rig.machine.unreachable = True
    device.safe()


async def in_the_dark(device: AsicDevice) -> None:
    await eventually(lambda: device.reading().watts_w == 0.0, WAIT_S)


@pytest.mark.parametrize("metered", [True, False])
def test_a_silent_machine_is_cut_counts_as_nothing_and_comes_back_for_a_lease(
    metered: bool,
) -> None:
    rig = Rig()

    async def test(device: AsicDevice) -> None:
        await asleep_in_silence(rig, device)
        await eventually(lambda: not rig.strip.on("0"), WAIT_S)
        await in_the_dark(device)
        reading = device.reading()
        assert reading.error is None
        assert "cut at its outlet: set sleep: unreachable" in (reading.note or "")
        assert (reading.quality, reading.mode) == ("emulated", None)
        await eventually(lambda: device.command.state is State.CONFIRMED)
        await asyncio.wait_for(device.settled(), 1.0)  # what ends has nothing left to wait for
        await asyncio.sleep(0.5)
        assert not rig.strip.on("0"), "nothing but a lease brings it up"
        rig.machine.unreachable = False
        device.hold(lease("low", 1050.0))
        await eventually(lambda: rig.strip.on("0"), WAIT_S)
        await eventually(lambda: device.reading().watts_w == 1000.0, WAIT_S)
        await eventually(lambda: device.reading().note is None, WAIT_S)
        assert device.reading().error is None
        assert not device.reading().foreign_write, "that it booted was nobody's command"
        assert len(rig.strip.switchings("0")) == 2

    rig.run(test, metered=metered)


def test_a_sleep_that_failed_is_cut_though_the_machine_answers() -> None:
    rig = Rig()
    rig.machine.deaf = True
    rig.lanes = Lanes(rhythm=bench.FAST, pace=replace(bench.QUICK, tries=3))

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.safe()
        await in_the_dark(device)
        assert "cut at its outlet: sleep failed" in (device.reading().note or "")
        assert device.reading().error is None
        assert device.others.ours is None, "what boots there is not ours"
        await asyncio.wait_for(device.close(), 1.0)

    rig.run(test)
    assert not rig.strip.on("0")


def test_what_may_not_be_cut_is_not_and_counts_at_its_worst() -> None:
    rig = Rig()

    async def test(device: AsicDevice) -> None:
        await asleep_in_silence(rig, device)
        await asyncio.sleep(1.2)
        assert rig.strip.on("0")
        assert "silence" in (device.reading().error or "")
        assert device.reading().watts_w != 0.0
        assert "outlet" not in (device.reading().note or "")

    rig.run(test, cut=False)


def test_our_own_command_proves_nothing_only_the_outlets_state_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fences, "STALE_S", 0.6)
    rig = Rig()

    async def test(device: AsicDevice) -> None:
        rig.strip.fault = OutletFault.LIE
        await asleep_in_silence(rig, device)
        await eventually(lambda: "to be cut at its outlet" in (device.reading().note or ""), WAIT_S)
        await asyncio.sleep(0.8)
        assert rig.strip.on("0")
        assert device.reading().watts_w != 0.0
        assert device.reading().error is not None
        rig.strip.fault = OutletFault.NONE
        await in_the_dark(device)
        rig.strip.fault = OutletFault.MUTE
        await eventually(lambda: device.reading().error is not None, WAIT_S)
        assert device.reading().watts_w != 0.0, "an old 'off' is none"

    rig.run(test)


def test_a_machine_that_answers_while_its_outlet_is_off_hangs_elsewhere() -> None:
    rig = Rig()
    rig.machine.strip = None

    async def test(device: AsicDevice) -> None:
        rig.strip.command("0", on=False)
        await eventually(lambda: "hang on them" in (device.reading().error or ""), WAIT_S)
        assert device.reading().watts_w == 3000.0
        rig.machine.unreachable = True
        await asyncio.sleep(0.3)
        assert device.reading().watts_w == 3000.0, "a missed poll proves no darkness"

    rig.run(test, metered=True)


def test_a_lock_keeps_what_was_cut_without_power() -> None:
    rig = Rig()

    async def test(device: AsicDevice) -> None:
        await asleep_in_silence(rig, device)
        await in_the_dark(device)
        rig.machine.unreachable = False
        device.restrain(Restraint(lock=Lock("mona", 1.0, "fan")))
        device.hold(lease("high", 3150.0))
        await asyncio.sleep(0.7)
        assert not rig.strip.on("0")
        device.restrain(Restraint())
        await eventually(lambda: rig.strip.on("0"), WAIT_S)

    rig.run(test)


def test_it_rests_before_its_outlet_is_switched_on_as_before_any_wake() -> None:
    rig = Rig()
    rig.asic = bench.ASIC

    async def test(device: AsicDevice) -> None:
        await asleep_in_silence(rig, device)
        await in_the_dark(device)
        device.hold(lease("low", 1050.0))
        await eventually(lambda: "rests until" in (device.reading().note or ""), WAIT_S)
        await asyncio.sleep(0.4)
        assert not rig.strip.on("0")

    rig.run(test)


def test_the_outlet_tells_and_proves_what_a_machine_does_not_say() -> None:
    rig = Rig()
    rig.machine.blank = True

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        await eventually(lambda: device.reading().watts_w == 3000.0, WAIT_S)
        assert device.reading().quality == "emulated"
        device.hold(lease("low", 1050.0))
        await eventually(lambda: device.command.proven, WAIT_S)
        await eventually(lambda: device.reading().watts_w == 1000.0, WAIT_S)
        rig.machine.deaf = True
        device.hold(lease(SLEEP, 30.0))
        await asyncio.sleep(0.5)
        assert device.command.state is State.COMMANDED, "its outlet shows 1,000 W"
        rig.machine.deaf = False
        await eventually(lambda: device.command.proven, WAIT_S)

    rig.run(test, metered=True)


def test_a_watchdog_fences_the_machine_for_as_long_as_the_agent_lives(tmp_path: Path) -> None:
    rig = Rig(opens_after_s=1.5)

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        sweep = AsicSweep([device], rig.lanes, Keeper(None))
        parts = Asics((device,), sweep, Keeper(None), rig.fencing)
        agent = Agent("rack", [device], EpochFile(tmp_path), asics=parts)
        version = device.inventory_version
        await eventually(lambda: fenced(device), WAIT_S)
        hello = await agent.handle("hello", {})
        assert [row["fenced"] for row in hello["devices"]] == [True]
        assert hello["inventory_version"] >= version
        version = device.inventory_version
        await agent.close()
        await eventually(lambda: not rig.strip.on("0"), WAIT_S)
        await eventually(lambda: not fenced(device), WAIT_S)
        assert device.inventory_version > version
        await asyncio.sleep(0.3)
        assert not rig.strip.on("0"), "an ending agent closes no contactor"

    rig.run(test)


def test_in_shadow_mode_outlets_are_only_read() -> None:
    rig = Rig(shadow=True, opens_after_s=250.0)

    async def test(device: AsicDevice) -> None:
        await asleep_in_silence(rig, device)
        await asyncio.sleep(0.8)
        assert rig.strip.on("0")
        rig.strip.command("0", on=False)
        await in_the_dark(device)
        await asyncio.sleep(0.3)

    rig.run(test)
    assert rig.strip.feeds == 0
    assert [on for _, on in rig.strip.switchings("0")] == [False], "by hand"


CONFIG = """
[agent]
name = "rack"
listen = "127.0.0.1:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "none"
[[asics]]
id = "rig1"
address = "127.61.1.1"
emulated = true
"""
CABINET = """
[[pdus]]
name = "cabinet"
protocol = "modbus"
address = "127.61.1.2:1502"
feeder = "f"
feeder_limit = "20kW"
outlets = [{id = "k1", device = "rig1", power_on = "3500W", coil = 0}]
"""


def test_only_an_agent_with_pdus_knows_of_outlets(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG + CABINET)

    async def made() -> Parts:
        return build(load_agent(path, environ={}))

    parts = asyncio.run(made())
    assert parts.asics is not None
    assert parts.asics.fencing is not None
    assert parts.asics.devices[0].supply is not None
    path.write_text(CONFIG)
    program = (
        "import sys; from pathlib import Path; from wattshift_cluster.agent.build import build\n"
        "from wattshift_cluster.config.load import load_agent\n"
        f"assert build(load_agent(Path({str(path)!r}), environ={{}})).asics.fencing is None\n"
        "print([n for n in sys.modules if 'fenc' in n or 'wattshift_cluster.outlets' in n])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_running_agent_runs_its_fencing(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"

    async def scenario() -> None:
        strip = Strip(["0"], clock=time.monotonic, on=False)
        cabinet = EmulatedModbusCabinet(strip)
        await cabinet.start(HOST, 0)
        path.write_text(CONFIG + CABINET.replace("127.61.1.2:1502", f"{HOST}:{cabinet.port}"))
        parts = build(load_agent(path, environ={}))
        agent = Agent("rack", parts.devices, EpochFile(tmp_path), asics=parts.asics)
        running = asyncio.create_task(agent.run())
        await eventually(lambda: parts.devices[0].reading().watts_w == 0.0, WAIT_S)
        assert "its outlets are off" in (parts.devices[0].reading().note or "")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cabinet.stop()

    asyncio.run(scenario())
