"""What a host sheds by itself: off its leases, gates first, never above them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.agent.frequency import FrequencyAssist
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Point, Reading
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.agent.shedding import Held, lowered
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.frequency import Frequency
from wattshift_cluster.grid.frequency.heard import Heard
from wattshift_cluster.wire.epochs import EpochFile
from wattshift_scheduler.frequency.response import Sample

GATE = Terms({"idle": 20.0, "hash": 320.0}, 400.0, continuous=True)
ASIC = Terms({"sleep": 30.0, "low": 2000.0, "high": 3000.0}, 3150.0)


def held(device: str, mode: str, watts_w: float, terms: Terms, transition_s: float) -> Held:
    return Held(Lease(device, 1, 1, mode, watts_w, 1e9), terms, transition_s)


SITE = (
    held("rig2", "high", 3000.0, ASIC, 30.0),
    held("gpu0", "hash", 320.0, GATE, 0.01),
    held("rig1", "high", 3000.0, ASIC, 30.0),
    held("gpu1", "hash", 220.0, GATE, 0.01),
)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.0, {"gpu0": 320.0, "gpu1": 220.0, "rig1": 3000.0, "rig2": 3000.0}),
        (0.03, {"gpu0": 126.8, "gpu1": 220.0, "rig1": 3000.0, "rig2": 3000.0}),
        (0.07, {"gpu0": 20.0, "gpu1": 69.2, "rig1": 3000.0, "rig2": 3000.0}),
        (500 / 6440, {"gpu0": 20.0, "gpu1": 20.0, "rig1": 3000.0, "rig2": 3000.0}),
        (0.2, {"gpu0": 20.0, "gpu1": 20.0, "rig1": 2000.0, "rig2": 3000.0}),
        (0.5, {"gpu0": 20.0, "gpu1": 20.0, "rig1": 30.0, "rig2": 3000.0}),
        (1.0, {"gpu0": 20.0, "gpu1": 20.0, "rig1": 30.0, "rig2": 30.0}),
    ],
)
def test_gates_give_first_and_asics_what_is_missing(share: float, told: dict[str, float]) -> None:
    leases, cut_w = lowered(SITE, share)
    assert {name: lease.watts_w for name, lease in leases.items()} == pytest.approx(told)
    assert cut_w >= share * 6440.0 - 1.0, "a machine of fixed points gives rather too much"
    if share == 1.0:
        assert {lease.mode for lease in leases.values()} == {"idle", "sleep"}


def test_watts_beyond_the_leased_point_never_lead_to_a_higher_one() -> None:
    terms = Terms({"sleep": 30.0, "low": 2000.0, "high": 2100.0}, 3150.0)
    leases, _ = lowered((held("rig", "low", 2250.0, terms, 30.0),), 100 / 2220)
    assert (leases["rig"].mode, leases["rig"].watts_w) == ("low", 2000.0)


points = st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=4, unique=True)


@given(st.lists(st.tuples(points, st.booleans(), st.floats(0.5, 1.2)), max_size=6), st.data())
def test_no_device_is_ever_told_more_than_its_lease(
    rows: list[tuple[list[float], bool, float]], data: st.DataObject
) -> None:
    share = data.draw(st.floats(0.0, 1.0))
    site = []
    for at, (watts_w, continuous, factor) in enumerate(rows):
        modes = {f"m{index}": one_w for index, one_w in enumerate(watts_w)}
        mode = data.draw(st.sampled_from(sorted(modes)))
        terms = Terms(modes, 6000.0, continuous=continuous)
        site.append(held(f"d{at}", mode, modes[mode] * factor, terms, float(at % 2)))
    leases, cut_w = lowered(site, share)
    for one in site:
        told = leases[one.lease.device]
        assert told.watts_w <= one.lease.watts_w
        assert one.terms.modes[told.mode] <= one.terms.modes[one.lease.mode]
        assert told.valid_until_boot_s == one.lease.valid_until_boot_s
    assert cut_w >= share * sum(one.spare_w for one in site) - 1.0 - 1e-6


class Recorder:
    """A device that writes down what it is told."""

    inventory_version = 1

    def __init__(self, device: str, terms: Terms, transition_s: float) -> None:
        self.id = device
        self.told: list[tuple[str, float]] = []
        self._terms, self._transition_s = terms, transition_s

    def info(self) -> DeviceInfo:
        found = [Point(m, w, 1.0, self._transition_s) for m, w in self._terms.modes.items()]
        return DeviceInfo(
            id=self.id,
            kind="cpu",
            model="m",
            firmware="f",
            algorithm="sha256d",
            nameplate_w=4000.0,
            tolerance=0.05,
            continuous=self._terms.continuous,
            fenced=True,
            safe_w=30.0,
            power_on_w=30.0,
            host=None,
            quality="emulated",
            points=tuple(found),
        )

    def terms(self) -> Terms:
        return self._terms

    def reading(self) -> Reading:
        return Reading(self.id, boot_s(), "emulated")

    def hold(self, lease: Lease) -> None:
        self.told.append((lease.mode, lease.watts_w))

    def safe(self) -> None:
        self.told.append(("safe", 0.0))

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.safe()


SECTION = Frequency(
    programme="test service",
    nominal_hz=60,
    dead_band_hz=0.1,
    full_at_hz=0.5,
    accuracy_hz=0.001,
    window_s=0.05,
    hold_s=1.0,
    delay_s=0.0,
    return_s=1.0,
    feed={"listen": "127.0.0.1:0"},
)


class Script:
    """A sensor that never speaks by itself; the test does."""

    fault: str | None = None

    async def run(self, heard: Heard) -> None:
        await asyncio.Event().wait()


class Rig:
    """An agent with a gated device and an ASIC, assisting; time is the test's."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 50.0
        self.gate, self.asic = Recorder("gpu0", GATE, 0.01), Recorder("rig1", ASIC, 30.0)
        self.assist = FrequencyAssist(SECTION, Script(), "host", clock=lambda: self.now_s)
        devices = [self.asic, self.gate]
        self.agent = Agent("host", devices, EpochFile(folder), assist=self.assist)
        self._sequence = 0

    async def grant(self, ttl_s: float = 30.0) -> dict[str, Any]:
        self._sequence += 1
        common = {"epoch": 1, "sequence": self._sequence, "valid_until_boot_s": boot_s() + ttl_s}
        leases = [
            {"device": "gpu0", "mode": "hash", "watts_w": 320.0, **common},
            {"device": "rig1", "mode": "high", "watts_w": 3000.0, **common},
        ]
        return await self.agent.handle("exchange", {"boot_id": boot_id(), "leases": leases})

    def feed(self, hz: float, for_s: float) -> None:
        for at in range(round(for_s / 0.05)):
            self.now_s += 0.05
            self.assist.heard(Sample(self.now_s, hz + 1e-5 * (at % 7), 1.0))


def run(folder: Path, scenario: Callable[[Rig], Any]) -> None:
    async def all_of_it() -> None:
        rig = Rig(folder)
        running = asyncio.create_task(rig.agent.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            await scenario(rig)
        finally:
            running.cancel()

    asyncio.run(all_of_it())


def test_a_shed_lowers_devices_at_once_and_renewals_do_not_lift_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.grant()
        assert answer["frequency"]["share"] == 0.0
        assert (rig.gate.told[-1], rig.asic.told[-1]) == (("hash", 320.0), ("high", 3000.0))
        rig.feed(60.0, 1.0)
        rig.feed(59.89, 0.2)  # surely 9 mHz below the dead band: 2.25 % of 3,270 W
        assert rig.gate.told[-1][1] == pytest.approx(320.0 - 0.0225 * 3270.0, abs=1.0)
        assert rig.asic.told[-1] == ("high", 3000.0)
        rig.feed(59.4, 0.2)
        assert (rig.gate.told[-1], rig.asic.told[-1]) == (("idle", 20.0), ("sleep", 30.0))

        answer = await rig.grant()
        assert all(result["accepted"] for result in answer["results"])
        assert (rig.gate.told[-1], rig.asic.told[-1]) == (("idle", 20.0), ("sleep", 30.0))
        assert [row["lease"]["watts_w"] for row in answer["readings"]] == [3000.0, 320.0]
        told = answer["frequency"]
        assert (told["programme"], told["share"], told["phase"]) == ("test service", 1.0, "shed")
        assert told["cut_w"] == pytest.approx(3270.0)
        assert [event["what"] for event in told["events"]] == ["found", "begins"]

        rig.feed(60.0, 3.0)
        assert (rig.gate.told[-1], rig.asic.told[-1]) == (("hash", 320.0), ("high", 3000.0))
        told = (await rig.grant())["frequency"]
        assert [one["what"] for one in told["events"]] == ["found", "begins", "returns", "ends"]
        assert [one["number"] for one in told["events"]] == [1, 2, 3, 4]

    run(tmp_path, scenario)


def test_a_lease_that_comes_during_a_shed_is_lowered_before_it_is_obeyed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.feed(60.0, 1.0)
        rig.feed(59.4, 0.2)
        assert rig.gate.told == [], "without leases there is nothing to lower"
        await rig.grant()
        assert rig.gate.told == [("idle", 20.0)]
        assert rig.asic.told == [("sleep", 30.0)]

    run(tmp_path, scenario)


def test_the_end_of_a_lease_during_a_shed_stays_the_end(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.grant(ttl_s=0.2)
        rig.feed(60.0, 1.0)
        rig.feed(59.4, 0.2)
        await asyncio.sleep(0.5)
        assert rig.gate.told[-1] == ("safe", 0.0)
        rig.feed(60.0, 3.0)
        assert rig.gate.told[-1] == ("safe", 0.0), "what is over does not return"

    run(tmp_path, scenario)


def test_a_sensor_that_fails_stops_no_agent() -> None:
    class Broken(Script):
        async def run(self, heard: Heard) -> None:
            raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        assist = FrequencyAssist(SECTION, Broken(), "host")
        running = asyncio.create_task(assist.run(lambda share: None))
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()

    asyncio.run(scenario())


def test_half_a_percent_commands_no_machine(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.grant()
        rig.feed(60.0, 1.0)
        rig.feed(59.88, 0.2)
        count = len(rig.gate.told)
        rig.feed(59.879, 0.2)
        assert len(rig.gate.told) == count
        rig.feed(59.875, 0.2)
        assert len(rig.gate.told) > count

    run(tmp_path, scenario)


def test_the_watts_of_a_lower_lease_renew_nothing() -> None:
    one = replace(SITE[1], lease=replace(SITE[1].lease, valid_until_boot_s=7.0))
    leases, _ = lowered([one], 1.0)
    assert leases["gpu0"].valid_until_boot_s == 7.0
