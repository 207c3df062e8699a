"""What an agent tells of wear: the price of a cycle from its file, the cycles from its memory."""

import pytest
from pydantic import ValidationError
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.config.agent import Asic, AsicSection
from wattshift_cluster.fleet.memory import Memory


def _asic(**keys: object) -> Asic:
    return Asic.model_validate({"id": "rig1", "address": "127.60.0.9", **keys})


@pytest.mark.parametrize(
    ("section", "machine", "expected"),
    [
        ({}, {}, 0.0),
        ({}, {"emulated": True}, 0.0),
        ({"wear_usd_per_cycle": 0.4}, {}, 0.4),
        ({"wear_usd_per_cycle": "0.40USD"}, {"wear_usd_per_cycle": 0}, 0.0),
        ({}, {"emulated": True, "wear_usd_per_cycle": 1.5}, 1.5),
    ],
)
def test_the_machines_own_figure_comes_first_and_none_counts_nothing(
    section: dict[str, object], machine: dict[str, object], expected: float
) -> None:
    limits = AsicSection.model_validate(section)
    assert limits.wear_usd(_asic(**machine)) == expected


@pytest.mark.parametrize("wear", [-0.01, 1001, "two cycles", True, float("nan")])
def test_wear_that_cannot_be_is_refused_with_what_is_allowed(wear: object) -> None:
    for section in (AsicSection.model_validate, lambda keys: _asic(**keys)):
        with pytest.raises(ValidationError, match="allowed: 0USD to 1000USD"):
            section({"wear_usd_per_cycle": wear})


def test_wear_and_cycles_go_over_the_wire_and_each_wake_counts() -> None:
    machine = bench.Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        info = device.info()
        assert info is not None
        assert info.wire()["wear_usd_per_cycle"] == 0.4
        await bench.eventually(lambda: device.reading().watts_w is not None)
        assert device.reading().wire(None)["cycles"] == 7
        device.safe()
        await bench.eventually(lambda: machine.mode == SLEEP)
        assert device.reading().cycles == 7, "it is a cycle once it wakes again"
        device.hold(bench.lease("low", 1050.0))
        await bench.eventually(lambda: device.reading().cycles == 8)

    limits = AsicSection(wear_usd_per_cycle=0.4)
    bench.drive(
        machine,
        test,
        _asic(min_off="0s", found_asleep="wake"),
        lanes=lambda: Lanes(limits, rhythm=bench.FAST, pace=bench.QUICK),
        memory=Memory(cycles=7),
    )


def test_cycles_of_a_damaged_memory_are_unknown_and_not_none_so_far() -> None:
    machine = bench.Machine()

    async def test(device: AsicDevice) -> None:
        await bench.eventually(lambda: device.reading().watts_w is not None)
        assert device.reading().wire(None)["cycles"] is None

    bench.drive(machine, test, damage="damaged")
