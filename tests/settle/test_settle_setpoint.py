"""A utility's set point is an event, with a start and an end, over a restart too, and settled."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from wattshift_cluster.config.settlement import Settlement
from wattshift_cluster.config.utility import UtilityModbus
from wattshift_cluster.grid.said import Said
from wattshift_cluster.grid.utility import called
from wattshift_cluster.grid.utility.called import Called
from wattshift_cluster.grid.utility.modbus_server import UtilityModbusSource
from wattshift_cluster.settle.collect import Steps
from wattshift_cluster.settle.intervals import Samples
from wattshift_cluster.settle.settle import Facts, settle
from wattshift_scheduler.signals.words import GridEvent

ADDRESS = "127.72.3.1:0"
CONNECTION_W = 40e3


class Master:
    """A utility's server on a clock of the test's own, and what it says."""

    def __init__(self, folder: Path, at_s: float) -> None:
        self.folder, self.now_s = folder, at_s
        self.said: list[Said] = []
        config = UtilityModbus.model_validate(
            {"listen": ADDRESS, "peers": ["127.72.0.0/16"], "fallback": "30kW"}
        )
        self.source = UtilityModbusSource(
            config, folder, connection_w=CONNECTION_W, clock_s=lambda: self.now_s
        )

    async def __aenter__(self) -> "Master":
        self.task = asyncio.create_task(self.source.run(self.said.append))
        async with asyncio.timeout(20):
            while self.source.port is None:  # noqa: ASYNC110 - it has no event for tests
                await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def writes(self, watts_w: int, *, enable: int, after_s: float = 60.0) -> None:
        self.now_s += after_s
        await self.source.write(0, (watts_w >> 16, watts_w & 0xFFFF))
        await self.source.write(6, (enable,))

    @property
    def events(self) -> tuple[GridEvent, ...]:
        return self.said[-1].events


@pytest.fixture
def starts_s(noon_s: float) -> float:
    return noon_s + 60.0


async def curtailed(folder: Path, noon_s: float) -> tuple[GridEvent, ...]:
    """Told at noon and a minute, lowered at and 2, kept over a restart, lifted at and 34."""
    async with Master(folder, noon_s) as master:
        assert master.events == ()
        await master.writes(40_000, enable=1, after_s=0.0)
        assert master.events == (), "a set point at the connection curtails nothing"
        await master.writes(20_000, enable=1)
        await master.writes(15_000, enable=1)
        told = master.events[0]
    async with Master(folder, noon_s + 240.0) as master:
        assert master.events == (told,), "the same one after a restart"
        await master.writes(15_000, enable=0, after_s=1800.0)
        return master.events


def test_an_event_from_when_it_curtails_until_it_is_lifted(
    tmp_path: Path, noon_s: float, starts_s: float
) -> None:
    (one,) = asyncio.run(curtailed(tmp_path, noon_s))
    assert (one.id, one.source, one.program) == (f"setpoint-{starts_s:.3f}", "utility", "utility")
    assert (one.notified_s, one.starts_s, one.ends_s) == (starts_s, starts_s, noon_s + 2040.0)
    assert one.name == "utility set point"

    async def later() -> None:
        async with Master(tmp_path, noon_s + 3000.0) as master:
            assert master.events[0].ends_s == one.ends_s
            await master.writes(10_000, enable=1)
            (next_one,) = master.events
            assert (next_one.id, next_one.ends_s) == (f"setpoint-{noon_s + 3060:.3f}", None)

    asyncio.run(later())


def test_a_set_point_kept_by_an_older_version_begins_at_the_start(
    tmp_path: Path, noon_s: float
) -> None:
    (tmp_path / "utility-modbus.json").write_text(
        '{"version": 1, "setpoint_w": 9000, "enabled": true, "ramp_w_per_s": null, "priority": 0}'
    )

    async def begun(at_s: float) -> GridEvent:
        async with Master(tmp_path, at_s) as master:
            return master.events[0]

    first = asyncio.run(begun(noon_s))
    assert first.starts_s == noon_s
    assert asyncio.run(begun(noon_s + 500.0)).id == first.id


def test_one_that_is_over_is_told_for_a_day_and_a_clock_set_back_ends_it_at_its_start(
    noon_s: float,
) -> None:
    over = Called(noon_s).turned(curtails=False, now_s=noon_s - 3600.0)
    assert over == Called(noon_s, noon_s)
    assert over.events("u", noon_s + called.TOLD_S - 1.0)
    assert not over.events("u", noon_s + called.TOLD_S + 1.0)
    assert Called.at(None, noon_s) == Called.at(noon_s, noon_s - 1.0) == Called()


def test_it_is_settled_by_the_terms_of_its_program(tmp_path: Path, noon_s: float) -> None:
    (one,) = asyncio.run(curtailed(tmp_path, noon_s))
    at_s = np.arange(noon_s - 1800.0, noon_s + 3600.0, 10.0)
    assert one.ends_s is not None
    shed = (at_s > one.starts_s) & (at_s <= one.ends_s)
    watts_w = np.where(shed, 14e3, 30e3) + at_s % 7
    samples = Samples(at_s, watts_w, np.zeros(len(at_s)), np.zeros(len(at_s), dtype=np.int64))
    terms = Settlement.model_validate(
        {"programs": [{"name": "utility", "method": "before_after", "price": 100}]}
    )
    facts = Facts(terms, samples, Steps(np.empty(0), np.empty(0)), (one,), float(at_s[-1]))
    found = settle(one, terms.programs[0], facts)
    # 16 kW less for 33 minutes at 100 per MWh.
    assert found.payment == pytest.approx(16e-3 * 33 / 60 * 100, rel=0.01)
    assert not found.void
