"""An agent learns what its ASICs really draw, uses it, keeps it, and unlearns what is disproved."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.agent import asic_machine as bench
from tests.ports import own_address

from wattshift_cluster.agent.asics.fencing import Fencing
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.lessons import Lessons
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.profile import Visit
from wattshift_cluster.agent.asics.profile_looks import Figures
from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint, AsicReading
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.outlets import Pdu
from wattshift_cluster.emulate.outlets.modbus import EmulatedModbusCabinet
from wattshift_cluster.emulate.outlets.strip import Strip
from wattshift_cluster.fleet.curtail import Goal, State
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.fleet.study import Tempo

eventually, lease = bench.eventually, bench.lease
Machine: Any = bench.Machine

HOST = own_address()
TEMPO = Tempo(window_s=0.06, samples=6, again_s=0.1)
RATE = 120e12
TAUGHT = Learnt().with_point("high", 2700.0, 5.0, RATE)
"""2,700 W where the driver says 3,000: told with 6 % of room, as a single look deserves."""

HONEST = Learnt().with_claim(3000.0, 3000.0)
"""A commissioning's step on a meter that agrees with the firmware."""


class Real(Machine):  # type: ignore[misc]
    """A machine that draws something else than its driver says.

    Attributes:
        real_w: W by point; the driver's figure where there is none.
        claims: its firmware's watts over the real ones.
        rate: its hashrate over the driver's.
        ramp_s: how long the draw moves after a command.
    """

    estimated = False

    def __init__(self, mode: str = "high", mac: str | None = None) -> None:
        super().__init__(mode, mac)
        self.real_w: dict[str, float] = {"high": 2700.0}
        self.claims = self.rate = 1.0
        self.ramp_s = 0.0
        self._from: tuple[float, float] = (0.0, 0.0)

    def draws_w(self) -> float:
        at_s, from_w = self._from
        point = next(point for point in bench.POINTS if point.mode == self.mode)
        to_w = self.real_w.get(point.mode, point.watts_w)
        share = min(1.0, (boot_s() - at_s) / self.ramp_s) if self.ramp_s else 1.0
        return float(from_w + (to_w - from_w) * share)

    def _take(self, mode: str) -> None:
        if mode != self.mode:
            self._from = boot_s(), self.draws_w()
        super()._take(mode)

    def _sample(self, board_c: float | None) -> AsicReading:
        sample: AsicReading = super()._sample(board_c)
        watts_w = None if sample.watts_w is None else self.draws_w() * self.claims
        rate = None if sample.hashrate_h_per_s is None else sample.hashrate_h_per_s * self.rate
        return replace(sample, watts_w=watts_w, hashrate_h_per_s=rate, estimated=self.estimated)


def drive(machine: Any, test: Callable[[AsicDevice], Awaitable[None]], **more: Any) -> AsicDevice:
    device: AsicDevice = bench.drive(machine, test, tempo=TEMPO, **more)
    return device


async def confirmed(device: AsicDevice, mode: str, watts_w: float) -> None:
    device.hold(lease(mode, watts_w))
    await eventually(lambda: _at(device, mode))


def _at(device: AsicDevice, mode: str) -> bool:
    goal = device.command.goal
    return goal is not None and goal.mode == mode and device.command.state is State.CONFIRMED


def seen(device: AsicDevice, mode: str) -> int:
    tally = device.lessons.learnt.points.get(mode)
    return 0 if tally is None else tally.n


def claimed(device: AsicDevice, mode: str) -> int:
    tally = device.lessons.learnt.claims.get(mode)
    return 0 if tally is None else tally.n


def offered_w(device: AsicDevice, mode: str) -> float:
    terms = device.terms()
    assert terms is not None
    return terms.modes[mode]


def test_a_machine_whose_word_was_checked_is_told_as_it_draws_and_is_not_commanded_for_it() -> None:
    machine = Real()

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        device.learn(HONEST)
        assert offered_w(device, "high") == 3000.0
        await eventually(lambda: claimed(device, "high") >= 2)
        version, commands = device.inventory_version, len(machine.written)
        device.retell()
        assert device.inventory_version == version + 1
        told_w = offered_w(device, "high")
        assert 2700.0 < told_w < 2700.0 * 1.08
        info = device.info()
        assert info is not None
        assert info.nameplate_w == 3000.0
        device.retell()
        assert device.inventory_version == version + 1, "what is no news bothers nobody"
        device.hold(lease("high", told_w * 1.05))
        await asyncio.sleep(0.2)
        assert len(machine.written) == commands, "some firmware restarts at every command"
        assert _at(device, "high")
        reading = device.reading()
        assert (reading.watts_w, reading.source, reading.quality) == (2700.0, "sensor", "measured")

    drive(machine, test)


def test_a_firmware_s_own_word_may_raise_its_point_and_not_lower_it() -> None:
    machine = Real()

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await eventually(lambda: claimed(device, "high") >= 2)
        device.retell()
        assert offered_w(device, "high") == 3000.0, "it may be a fifth off"
        machine.real_w["high"] = 3120.0
        await eventually(lambda: device.lessons.learnt.claims["high"].most == 3120.0)
        device.retell()
        assert offered_w(device, "high") == 3120.0

    drive(machine, test)


def test_a_draw_that_disproves_what_was_learnt_raises_it_at_once() -> None:
    machine = Real()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.learn(TAUGHT)
        assert offered_w(device, "high") == pytest.approx(2862.0)
        await confirmed(device, "high", 2862.0 * 1.05)
        commands = len(machine.written)
        with capture_logs() as logs:
            machine.real_w["high"] = 3040.0
            await eventually(lambda: offered_w(device, "high") >= 3040.0)
        assert [one["event"] for one in logs].count("asic.learnt_disproved") == 1
        await asyncio.sleep(0.1)
        assert _at(device, "high"), "it never drifted: it draws what its maker says"
        assert len(machine.written) == commands

    drive(machine, test)


def test_a_draw_on_its_way_down_disproves_nothing() -> None:
    machine = Real()
    machine.real_w["low"] = 1020.0

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        low = Learnt().with_point("low", 900.0, 1.0, 50e12).with_time("low", 30.0)
        device.learn(low)
        told_w = offered_w(device, "low")
        assert 900.0 < told_w < 960.0
        device.hold(lease("low", told_w * 1.05))
        await eventually(lambda: device.reading().watts_w == 1020.0)
        await asyncio.sleep(0.1)
        machine.real_w["low"] = 900.0
        await eventually(lambda: _at(device, "low"))
        assert device.lessons.learnt.points["low"].most == 900.0
        assert offered_w(device, "low") == told_w

    drive(machine, test)


def test_a_lie_of_a_machine_that_does_not_obey_teaches_nothing() -> None:
    machine = Real()
    machine.deaf = True

    async def test(device: AsicDevice) -> None:
        device.safe()
        await eventually(lambda: SLEEP in machine.written)
        await asyncio.sleep(0.3)
        assert device.lessons.learnt == Learnt()
        assert offered_w(device, SLEEP) == 30.0

    drive(machine, test)


def test_a_machine_held_back_by_heat_or_boot_teaches_nothing() -> None:
    machine = Real()
    machine.real_w["high"], machine.rate = 1900.0, 0.6

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await asyncio.sleep(0.3)
        assert device.lessons.learnt == Learnt()

    drive(machine, test)


def test_what_somebody_else_has_set_teaches_nothing() -> None:
    machine = Real()

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await asyncio.sleep(0.3)  # until another set point is no longer ours, settling
        machine.real_w["low"], machine.rate = 2650.0, 120.0 / 50.0  # as if it were ours
        machine.mode = "low"
        await eventually(lambda: device.reading().foreign_write)
        known = device.lessons.learnt
        await asyncio.sleep(0.25)
        assert device.reading().foreign_write
        assert device.lessons.learnt == known
        assert known.claims["high"].most == 2700.0 == known.claims["high"].mean

    drive(machine, test)


def test_an_estimate_is_no_meter() -> None:
    machine = Real()
    machine.estimated = True

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await asyncio.sleep(0.3)
        learnt = device.lessons.learnt
        assert (learnt.points, learnt.claims["high"].mean) == ({}, 2700.0)
        device.retell()
        assert offered_w(device, "high") == 3000.0
        reading = device.reading()
        assert (reading.quality, reading.source) == ("modelled", "estimate")

    drive(machine, test)


def test_times_are_learnt_by_point_from_the_accepted_command() -> None:
    machine = Real("high")
    machine.ramp_s = 0.5

    async def test(device: AsicDevice) -> None:
        await confirmed(device, SLEEP, 0.0)
        await eventually(lambda: device.lessons.learnt.down.n == 1)
        await confirmed(device, "high", 3150.0)
        await eventually(lambda: device.lessons.learnt.up.n == 1)
        learnt = device.lessons.learnt
        assert 0.4 <= learnt.down.mean < 2.0
        assert 0.4 <= learnt.times["high"].mean < 2.0
        assert learnt.up == learnt.times["high"]
        device.learn(Learnt().with_time("high", 30.0))
        (*_, row) = device.lessons.view()["points"]
        assert (row["mode"], row["settle_n"]) == ("high", 2)
        assert row["told_s"] == pytest.approx(30.0 * 1.25 + 1.0), "with room, until it is known"
        assert device.command.goal is not None
        assert device.command.goal.settle_s == row["told_s"]

    drive(machine, test, asic=bench.EMULATED)  # which needs no rest


# Machines that report no watts


def test_a_blind_machine_counts_what_was_learnt_once_it_was_seen_to_obey() -> None:
    machine = Real()
    machine.blind = True

    async def test(device: AsicDevice) -> None:
        await eventually(lambda: device.reading().hashrate_h_per_s == RATE)
        device.learn(TAUGHT)
        assert device.reading().watts_w is None, "nobody knows at which point it is"
        machine.slow_s = 0.3
        device.hold(lease("high", 3150.0))
        await asyncio.sleep(0.1)
        assert device.reading().watts_w is None, "what is only asked was not seen"
        await eventually(lambda: _at(device, "high"))
        reading = device.reading()
        assert reading.watts_w == 2700.0
        assert (reading.quality, reading.source) == ("modelled", "learnt")
        machine.rate = 0.5
        await eventually(lambda: device.reading().watts_w is None)
        machine.rate = 1.0
        await confirmed(device, SLEEP, 0.0)
        assert device.reading().watts_w == 30.0, "at most its driver's standby"
        machine.deaf = True
        device.hold(lease("high", 3150.0))
        machine.mode = "low"  # its owner's hand, while ours is commanded
        assert device.reading().watts_w is None

    drive(machine, test)


def test_a_blind_machine_in_its_owners_other_mode_is_back_at_its_nameplate() -> None:
    machine = Real()
    machine.blind, machine.rate = True, 0.85

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.learn(Learnt().with_point("high", 2000.0, 5.0, 0.85 * RATE))
        assert offered_w(device, "high") == pytest.approx(2120.0)
        await confirmed(device, "high", 2120.0 * 1.05)
        assert device.reading().watts_w == 2000.0
        machine.rate = 1.0
        await eventually(lambda: offered_w(device, "high") == 3000.0)
        assert device.reading().watts_w is None

    drive(machine, test)


def test_nothing_of_an_unmetered_figure_without_its_hashrate_lowers_a_blind_machine() -> None:
    machine = Real()
    machine.blind = True

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.learn(Learnt().with_point("high", 2700.0, 5.0))
        assert offered_w(device, "high") == 3000.0
        await confirmed(device, "high", 3150.0)
        assert device.reading().watts_w is None

    drive(machine, test)


def plugged(machine: Any, test: Callable[[AsicDevice], Awaitable[None]]) -> None:
    """Run a test on a machine whose outlet has a meter, over real Modbus."""

    async def main() -> None:
        strip = Strip(["0"], clock=time.monotonic)
        strip.plug("0", machine.draws_w)
        cabinet = EmulatedModbusCabinet(strip)
        await cabinet.start(HOST, 0)
        lanes = Lanes(rhythm=bench.FAST, pace=bench.QUICK)
        device = AsicDevice(bench.EMULATED, None, machine.connect, lanes=lanes, tempo=TEMPO)
        section = {
            "name": "cabinet",
            "protocol": "modbus",
            "address": f"{HOST}:{cabinet.port}",
            "feeder": "f",
            "feeder_limit": "20kW",
            "emulated": True,
            "outlets": [
                {
                    "id": "0",
                    "device": "rig1",
                    "power_on": 3000,
                    "coil": 0,
                    "state": 0,
                    "watts": 0,
                    "watts_scale": 10,
                }
            ],
        }
        fencing = Fencing([Pdu.model_validate(section)], [device], look_s=0.02)
        running = asyncio.create_task(fencing.run())
        try:
            await bench.sweeping([device], lanes, test(device))
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await cabinet.stop()

    asyncio.run(main())


def test_an_outlet_teaches_the_watts_of_a_machine_that_reports_none() -> None:
    machine = Real()
    machine.blind = True

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await eventually(lambda: seen(device, "high") >= 1, 15.0)
        assert device.reading().source == "outlet"
        device.retell()
        assert 2700.0 < offered_w(device, "high") < 2900.0
        device.supply = None  # the PDU is gone
        assert device.reading().source == "learnt"
        assert device.reading().watts_w == pytest.approx(2700.0, abs=5.0)

    plugged(machine, test)


def test_an_outlet_that_cannot_be_its_own_is_not_believed() -> None:
    machine = Real()
    machine.blind = True

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await eventually(lambda: seen(device, "high") >= 1, 15.0)
        device.retell()
        assert offered_w(device, "high") == 3000.0
        device.supply = None
        assert device.reading().watts_w is None

    machine.real_w["high"] = 310.0
    plugged(machine, test)


def test_an_outlet_teaches_how_far_a_firmware_is_off() -> None:
    machine = Real()
    machine.real_w, machine.claims, machine.estimated = {"high": 3100.0}, 0.9, True

    async def test(device: AsicDevice) -> None:
        await confirmed(device, "high", 3150.0)
        await eventually(lambda: device.lessons.learnt.factor.n >= 3, 15.0)
        assert device.lessons.learnt.factor.mean == pytest.approx(1.0 / 0.9, rel=0.01)
        device.retell()
        assert offered_w(device, "low") >= 1000.0 / 0.9, "and so of points that it never held"
        reading = device.reading()
        assert reading.watts_w == pytest.approx(3100.0, rel=0.01)
        assert reading.source == "estimate"
        info = device.info()
        assert info is not None
        assert info.nameplate_w >= 3000.0 / 0.9

    plugged(machine, test)


def test_a_continuous_machine_is_asked_in_its_own_watts() -> None:
    known: AsicIdentity = replace(bench.IDENTITY, continuous=True)
    lessons = Lessons(bench.ASIC)
    lessons.adopt(known)
    goal = Goal("high", 2500.0, RATE, 1.0, ask_w=2500.0)
    assert lessons.asking(goal).ask_w == 2500.0
    learnt = Learnt()
    for _ in range(5):
        learnt = learnt.with_claim(2000.0, 2200.0)
    lessons.merge(learnt)
    assert lessons.asking(goal).ask_w == pytest.approx(2500.0 / 1.1, rel=0.02)
    assert lessons.asking(goal).ask_w <= 2500.0 / 1.1 + 1e-6
    lessons.retell()
    assert lessons.identity is not None
    top: AsicPoint = lessons.identity.points[-1]
    assert lessons.asking(replace(goal, ask_w=top.watts_w)).ask_w == pytest.approx(3000.0)


def test_a_driver_that_wants_its_own_watts_gets_them() -> None:
    lessons = Lessons(bench.ASIC)
    lessons.adopt(bench.IDENTITY)
    lessons.merge(TAUGHT)
    goal = Goal("high", 3000.0, RATE, 1.0, ask_w=2862.0 * 1.05)
    assert lessons.asking(replace(goal, ask_w=2700.0)).ask_w == 3000.0


def test_a_second_commissioning_is_measured_against_corrected_watts() -> None:
    lessons = Lessons(bench.ASIC)
    lessons.adopt(bench.IDENTITY)
    learnt = Learnt()
    for _ in range(3):
        learnt = learnt.with_claim(2000.0, 2200.0)
    lessons.merge(learnt)
    assert lessons.corrected(AsicReading(0.0, 2000.0, None, None, None)).watts_w == 2200.0
    lessons.merge(Learnt().with_claim(2200.0, 2200.0))
    assert lessons.learnt.factor.mean == pytest.approx(1.1)


def test_a_measurement_of_its_points_teaches() -> None:
    lessons = Lessons(bench.ASIC)
    lessons.adopt(bench.IDENTITY)
    figures = Figures(2640.0, 2.0, 2700.0, 3.0, True, RATE, None)
    visit = Visit("high", "down", 3000.0, figures, settle_s=31.0, seconds=60.0, settled=True)
    lessons.visited(replace(visit, settled=False))
    lessons.visited(replace(visit, mode="strange"))
    assert not lessons.learnt
    lessons.visited(visit)
    learnt = lessons.learnt
    assert learnt.points["high"].mean == 2700.0
    assert learnt.times["high"].mean == 31.0
    assert learnt.factor.mean == pytest.approx(2700.0 / 2640.0)
    lessons.visited(replace(visit, figures=replace(figures, outlet_w=None, outlet_error_w=None)))
    assert lessons.learnt.claims["high"].mean == 2640.0
    assert lessons.learnt.points == learnt.points, "a firmware is no meter"
