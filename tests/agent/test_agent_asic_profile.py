"""The measurement of an ASIC's operating points: down and back, within its lease, or not at all."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.profile import Tempo, Walk, steps_of
from wattshift_cluster.agent.asics.profile_desk import Wanted, measure
from wattshift_cluster.agent.asics.profile_looks import Look
from wattshift_cluster.agent.asics.wish import Asked
from wattshift_cluster.asic.driver import SLEEP, AsicPoint
from wattshift_cluster.config.agent import AsicSection
from wattshift_cluster.errors import Refused
from wattshift_cluster.fleet.curtail import Command, Goal
from wattshift_cluster.fleet.locks import Lock, Restraint

eventually, lease, drive = bench.eventually, bench.lease, bench.drive
Machine: Any = bench.Machine

QUICK = Tempo(looks=16, window_s=0.1, patience_s=3.0)
GO = Wanted(start=True)


async def at_work(device: AsicDevice, mode: str = "high", watts_w: float = 3150.0) -> None:
    await device.identified.wait()
    device.hold(lease(mode, watts_w))
    await eventually(lambda: device.command.proven and device.command.goal is not None)
    await eventually(lambda: device.contact.error is None)


async def ended(device: AsicDevice) -> dict[str, Any]:
    await eventually(lambda: measure(device, Wanted())["state"] != "running", 10.0)
    return measure(device, Wanted())


def test_every_point_down_and_back_to_what_the_lease_says() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device)
        plan = measure(device, Wanted(dry_run=True))
        assert plan["state"] == "planned"
        assert [one["mode"] for one in plan["plan"]] == ["high", "low"]
        assert device.walk is None
        assert measure(device, GO, QUICK)["state"] == "running"
        with pytest.raises(Refused, match="already"):
            measure(device, GO, QUICK)
        found = await ended(device)
        assert (found["state"], found["reason"], found["at"]) == ("done", None, None)
        rows = [(p["mode"], p["way"], p["watts_w"], p["settled"]) for p in found["points"]]
        assert rows == [
            ("high", "down", 3000.0, True),
            ("low", "down", 1000.0, True),
            ("high", "back", 3000.0, True),
        ]
        low = found["points"][1]
        assert (low["source"], low["outlet_w"]) == ("sensor", None)
        assert low["hashrate_h_per_s"] == pytest.approx(50e12)
        assert low["j_per_th"] == pytest.approx(20.0)
        assert low["settle_s"] is not None
        assert low["error_w"] == pytest.approx(1.96), "a figure that stands still is not exact"
        assert found["points"][0]["settle_s"] is None, "nothing was commanded there"
        assert machine.mode == "high"

    drive(machine, test)
    assert machine.written == ["high", "low", "high"], "sleep is not for a walk that was not told"


class Warm(Machine):  # type: ignore[misc]
    """Its boards are as warm as its point, and only a full read tells."""

    async def read(self) -> Any:
        self.board_c = {"high": 70.0, "low": 50.0, SLEEP: 30.0}[self.mode]
        return await super().read()


def test_a_temperature_is_of_its_own_point() -> None:
    async def test(device: AsicDevice) -> None:
        await at_work(device)
        measure(device, GO, QUICK)
        found = await ended(device)
        assert [p["temperature_c"] for p in found["points"]] == [70.0, 50.0, 70.0]

    rhythm = replace(bench.FAST, surprise_s=0.05)
    drive(Warm(), test, lanes=lambda: Lanes(rhythm=rhythm, pace=bench.QUICK))


def test_with_sleep_and_the_rest_that_a_wake_needs() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device)
        measure(device, replace(GO, with_sleep=True), QUICK)
        await eventually(lambda: machine.mode == SLEEP)
        await eventually(lambda: measure(device, Wanted())["at"] is None)
        await asyncio.sleep(0.2)
        assert machine.mode == SLEEP, "it rests before it wakes, walk or no walk"
        assert "rests until" in (device.reading().note or "")
        stopped = measure(device, Wanted(stop=True))
        assert stopped["state"] == "aborted"
        assert [p["mode"] for p in stopped["points"]] == ["high", "low", SLEEP]

    asic = bench.ASIC.model_copy(update={"min_off_s": 60.0})
    drive(machine, test, asic)


def test_a_lower_lease_ends_it_and_holds_at_once() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device)
        measure(device, GO, replace(QUICK, window_s=30.0))
        device.hold(lease("low", 1050.0))
        found = await ended(device)
        assert found["state"] == "aborted"
        assert found["reason"] == "its lease fell to low at 1,050 W"
        await eventually(lambda: machine.mode == "low")
        device.safe()
        await eventually(lambda: machine.mode == SLEEP)
        with pytest.raises(Refused, match="no lease to work"):
            measure(device, GO)

    drive(machine, test)


def test_a_renewed_lease_changes_nothing_and_a_higher_one_waits() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device, "low", 1050.0)
        with pytest.raises(Refused, match="points"):
            Wanted.parse({"start": True, "points": 1})
        measure(device, replace(GO, with_sleep=True), QUICK)
        device.hold(lease("high", 3150.0))
        await eventually(lambda: machine.mode == SLEEP)
        assert "high" not in machine.written, "a raise in mid-measure is kept for its end"
        await eventually(lambda: machine.mode == "high")
        assert (await ended(device))["state"] == "done"

    drive(machine, test, bench.EMULATED)


@pytest.mark.parametrize("how", ["lock", "limit", "silence", "stop", "heat"])
def test_what_holds_a_machine_down_ends_it(how: str) -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device)
        measure(device, GO, replace(QUICK, window_s=30.0))
        match how:
            case "lock":
                device.restrain(Restraint(lock=Lock("kim", 0.0, "fan")))
            case "limit":
                device.restrain(Restraint(limit_w=1200.0))
            case "silence":
                machine.unreachable = True
            case "heat":
                machine.board_c = 99.0
                device.contact.surprised()
            case _:
                measure(device, Wanted(stop=True))
        found = await ended(device)
        assert found["state"] == "aborted"
        said = {
            "lock": "locked by kim: fan",
            "limit": "it is held at low",
            "silence": "it does not answer",
            "heat": "it is held at low",
            "stop": "stopped by an operator",
        }
        assert said[how] in found["reason"]
        if how == "lock":
            await eventually(lambda: machine.mode == SLEEP)
        if how != "stop":
            with pytest.raises(Refused, match="cannot be measured"):
                measure(device, GO, QUICK)

    hot = AsicSection(board_limit_c=80.0)
    lanes = lambda: Lanes(section=hot, rhythm=bench.FAST, pace=bench.QUICK)  # noqa: E731
    drive(machine, test, lanes=lanes)


def test_a_machine_that_does_not_obey_is_given_up_and_goes_on_as_leased() -> None:
    machine = Machine()

    async def test(device: AsicDevice) -> None:
        await at_work(device)
        machine.deaf = True
        measure(device, GO, replace(QUICK, patience_s=0.4))
        found = await ended(device)
        assert found["state"] == "aborted"
        assert "low was not confirmed" in found["reason"]
        assert [p["mode"] for p in found["points"]] == ["high"]
        machine.deaf = False
        await eventually(lambda: device.command.proven)
        assert device.command.goal is not None
        assert device.command.goal.mode == "high"

    patient = lambda: Lanes(rhythm=bench.FAST, pace=bench.PATIENT)  # noqa: E731
    drive(machine, test, lanes=patient)


def test_a_machine_that_is_never_written_is_not_measured() -> None:
    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        device.hold(lease("high", 3150.0))
        with pytest.raises(Refused, match="protected"):
            measure(device, GO)

    machine = Machine()
    drive(machine, test, bench.ASIC.model_copy(update={"protected": True}))
    assert machine.written == []


# The walk alone, on a clock of its own

POINTS = tuple(AsicPoint(f"p{i}", 500.0 * i, i * 20e12, 10.0 * (i > 0)) for i in range(1, 7))
ALL = (AsicPoint(SLEEP, 30.0, 0.0, 5.0), *POINTS)


def test_points_are_spread_from_the_lease_down() -> None:
    asked = Asked("p5", 2500.0)
    modes = [one.mode for one in steps_of(ALL, asked, most=8, with_sleep=False)]
    assert modes == ["p5", "p4", "p3", "p2", "p1"], "never above the lease, and no sleep unasked"
    modes = [one.mode for one in steps_of(ALL, asked, most=3, with_sleep=True)]
    assert modes in (["p5", "p3", SLEEP], ["p5", "p2", SLEEP])
    assert steps_of(ALL, Asked(SLEEP, 0.0), most=8, with_sleep=True) == ()
    assert steps_of(ALL[:4], asked, most=8, with_sleep=True) == (), "its limit forbids the lease"


def confirmed(mode: str, order: int, at_s: float) -> Command:
    goal = Goal(mode, 3000.0, 1e15, 10.0, 3000.0)
    command = replace(Command(), order=order - 1).want(goal, at_s).sent(at_s)
    return command.accepted(order, at_s).sample(100.0, None, at_s + 0.5, at_s + 0.5)


def played(walk: Walk, draws: Any, seconds: int = 400) -> None:
    """One look a second; the machine takes 1 s to take a command and draws as `draws` says."""
    commands: dict[str, tuple[Command, float]] = {}
    for second in range(seconds):
        mode = walk.under(Asked("p3", 1500.0)).mode
        if mode not in commands:
            commands = {mode: (confirmed(mode, second + 1, second + 0.1), second + 0.1)}
        command, at_s = commands[mode]
        own_w, outlet_w, rate = draws(mode, second - at_s)
        look = Look(second + 0.6, command, second + 0.6, own_w, outlet_w, True, rate, 61.0)
        walk.looked(look)
        if walk.done:
            return


def test_a_ramp_is_waited_for_and_timed_and_the_outlet_is_believed() -> None:
    rng = random.Random(3)
    steps = steps_of(ALL, Asked("p3", 1500.0), most=8, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=ALL, tempo=Tempo(patience_s=60.0))
    mode_was, was_w, drawn_w = "p3", 1500.0, 1500.0

    def draws(mode: str, since_s: float) -> tuple[float, float, float]:
        nonlocal mode_was, was_w, drawn_w
        if mode != mode_was:
            mode_was, was_w = mode, drawn_w
        share = min(max(since_s / 24.0, 0.0), 1.0)
        watts_w = drawn_w = was_w * (1 - share) + 500.0 * int(mode[1]) * share
        noise_w = rng.gauss(0.0, 4.0)
        return 0.9 * watts_w + noise_w, watts_w + noise_w, watts_w * 4e10

    played(walk, draws)
    assert walk.aborted is None
    assert [(v.mode, v.way) for v in walk.visits] == [
        ("p3", "down"),
        ("p2", "down"),
        ("p1", "down"),
        ("p3", "back"),
    ]
    for visit in walk.visits:
        truth_w = 500.0 * int(visit.mode[1])
        assert visit.settled
        assert visit.figures.source == "outlet"
        assert visit.figures.watts_w == pytest.approx(truth_w, abs=8.0)
        assert visit.figures.own_w == pytest.approx(0.9 * truth_w, abs=8.0)
        assert visit.figures.error_w is not None
        assert visit.figures.temperature_c == 61.0
        assert visit.figures.j_per_th == pytest.approx(25.0, rel=0.02)
    times_s = [visit.settle_s for visit in walk.visits]
    assert times_s[0] is None
    assert times_s[1:] == pytest.approx([23.0, 23.0, 23.0], abs=1.6)


def test_a_machine_that_never_holds_still_is_told_without_an_error_and_the_walk_goes_on() -> None:
    steps = steps_of(ALL, Asked("p2", 1000.0), most=8, with_sleep=False)
    walk = Walk(Asked("p2", 1000.0), steps, 0.0, points=ALL)
    rng = random.Random(4)

    def draws(mode: str, since_s: float) -> tuple[float, None, None]:
        restless_w = 30.0 * since_s if mode == "p1" else 0.0
        return 500.0 * int(mode[1]) - restless_w / 10 + rng.gauss(0.0, 0.2), None, None

    for second in range(600):
        mode = walk.under(Asked("p2", 1000.0)).mode
        at_s = second - second % 100
        own_w, _, _ = draws(mode, second - at_s)
        command = confirmed(mode, int(mode[1]), 0.1)
        walk.looked(Look(second + 0.6, command, second + 0.6, own_w))
        if walk.done:
            break
    assert walk.aborted is None
    settled = {(visit.mode, visit.way): visit.settled for visit in walk.visits}
    assert settled == {("p2", "down"): True, ("p1", "down"): False, ("p2", "back"): True}
    unsure = walk.visits[1].figures
    assert unsure.watts_w is not None
    assert (unsure.error_w, unsure.hashrate_h_per_s) == (None, None)


def test_a_blind_machine_is_measured_by_its_hashes_alone() -> None:
    steps = steps_of(ALL, Asked("p3", 1500.0), most=2, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=ALL)
    played(walk, lambda mode, since_s: (None, None, 20e12 * int(mode[1])))
    assert walk.aborted is None
    low = walk.visits[1].figures
    assert (low.watts_w, low.source, low.j_per_th) == (None, None, None)
    assert low.hashrate_h_per_s == pytest.approx(20e12)


def test_a_sample_is_one_look_however_often_it_is_shown() -> None:
    steps = steps_of(ALL, Asked("p2", 1000.0), most=8, with_sleep=False)
    walk = Walk(Asked("p2", 1000.0), steps, 0.0)
    command = confirmed("p2", 1, 0.1)
    for second in range(40):
        walk.looked(Look(second + 1.0, command, 1.0, 1000.0))
    assert walk.visits == [], "a frozen sample is no window"


def test_one_sample_shown_many_times_makes_no_window() -> None:
    steps = steps_of(ALL, Asked("p2", 1000.0), most=8, with_sleep=False)
    walk = Walk(Asked("p2", 1000.0), steps, 0.0)
    command = confirmed("p2", 1, 0.1)
    for second in range(1, 60):
        walk.looked(Look(float(second), command, 1.0 + 20.0 * (second // 20), 1000.0))
    assert walk.visits == [], "three samples are no window, however often they are told"


def slow_to_move(hold_s: float) -> Any:
    """A machine that goes on as before for so long, then jumps."""
    mode_was, was_w, drawn_w = "p3", 1500.0, 1500.0

    def draws(mode: str, since_s: float) -> tuple[float, None, None]:
        nonlocal mode_was, was_w, drawn_w
        if mode != mode_was:
            mode_was, was_w = mode, drawn_w
        drawn_w = was_w if since_s < hold_s else 500.0 * int(mode[1])
        return drawn_w, None, None

    return draws


def test_a_machine_that_has_not_moved_yet_is_not_measured() -> None:
    slow = tuple(replace(one, transition_s=60.0) for one in ALL)
    steps = steps_of(slow, Asked("p3", 1500.0), most=8, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=slow)
    played(walk, slow_to_move(40.0))
    assert [(v.mode, v.figures.watts_w) for v in walk.visits] == [
        ("p3", 1500.0),
        ("p2", 1000.0),
        ("p1", 500.0),
        ("p3", 1500.0),
    ]


def test_on_the_way_back_it_is_waited_for_until_it_is_back() -> None:
    steps = steps_of(ALL, Asked("p3", 1500.0), most=2, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=ALL)
    down = slow_to_move(0.0)

    def draws(mode: str, since_s: float) -> tuple[float, None, None]:
        starting = mode == "p3" and walk.at is None and since_s < 45.0
        return (500.0, None, None) if starting else down(mode, since_s)

    played(walk, draws)
    back = walk.visits[-1]
    assert (back.mode, back.way, back.figures.watts_w) == ("p3", "back", 1500.0)
    assert back.settle_s == pytest.approx(45.5, abs=1.5)


def test_a_command_that_was_given_again_is_timed_from_the_first() -> None:
    steps = steps_of(ALL, Asked("p3", 1500.0), most=2, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=ALL)
    played(walk, slow_to_move(0.0), seconds=18)
    assert walk.at is not None
    assert walk.at.mode == "p1"
    first = confirmed("p1", 9, 20.0)
    for second in range(20, 70):
        again = first if second < 35 else replace(first, proof_from_s=35.0)
        own_w = 1500.0 if second < 38 else 500.0
        walk.under(Asked("p3", 1500.0))
        walk.looked(Look(second + 0.6, again, second + 0.6, own_w))
    low = walk.visits[1]
    assert (low.mode, low.figures.watts_w) == ("p1", 500.0)
    assert low.settle_s == pytest.approx(18.6)


def test_a_wake_that_rests_is_waited_for_and_not_for_ever() -> None:
    steps = steps_of(ALL, Asked("p3", 1500.0), most=2, with_sleep=False)
    walk = Walk(Asked("p3", 1500.0), steps, 0.0, points=ALL, tempo=Tempo(gate_s=600.0))
    resting = Command().want(Goal("p3", 3000.0, 1e15, 10.0, 3000.0), 0.0)
    for second in range(0, 590, 10):
        walk.looked(Look(float(second), resting, float(second), 30.0))
    assert not walk.done, "ten minutes of rest are no fault"
    for second in range(600, 800, 10):
        walk.looked(Look(float(second), resting, float(second), 30.0))
    assert walk.aborted is not None
    assert "not confirmed" in walk.aborted
