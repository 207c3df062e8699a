"""A fleet that is made of the one before equals one that is read anew, device by device."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from tests.scheduler.decided_twice import DEVICES, MINING, SITE, VALUES

from wattshift_scheduler import events as ev
from wattshift_scheduler import leases
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.fleet_changes import Moved, joined, left
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.tables import Tables
from wattshift_scheduler.turn import reducers


def _some(rng: random.Random, names: range) -> list[Device]:
    """Devices of all sorts, with any number of points, agent, host and feeder."""
    made = []
    for i in names:
        one = rng.choice(DEVICES)
        points = one.points[: rng.randint(1, len(one.points))]
        if rng.random() < 0.2:
            points = (*points[:-1], dataclasses.replace(points[-1], revenue_usd_per_h=0.5))
        made.append(
            dataclasses.replace(
                one,
                id=f"d{i}",
                agent=f"agent{rng.randint(0, 6)}",
                feeder=rng.choice(("main", "west", "east")),
                host=rng.choice((None, "host", f"host{rng.randint(0, 3)}")),
                points=points,
                tolerance=rng.choice((0.0, 0.05)),
            )
        )
    return made


def _same(one: Any, other: Any) -> list[str]:
    """Fields that are not the same, bit for bit and in type."""
    found = []
    for part in dataclasses.fields(one):
        a, b = getattr(one, part.name), getattr(other, part.name)
        if isinstance(a, np.ndarray):
            same = a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
            same = same and a.flags.writeable == b.flags.writeable
        else:
            same = a == b and type(a) is type(b)
        if not same:
            found.append(part.name)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_has_come_and_gone_is_spliced_as_if_read_anew(seed: int) -> None:
    rng = random.Random(seed)
    tree = SITE.tree
    old = Fleet.of(_some(rng, range(rng.randint(0, 12))), tree)
    for turn in range(6):
        if rng.random() < 0.6:
            begin = rng.randint(0, 12)
            offered = _some(rng, range(begin, begin + rng.randint(0, 6)))
            offered += rng.sample(old.devices, min(2, len(old)))
            by_id = {device.id: device for device in offered}
            new, moved, came = joined(old, by_id, tree)
            anew = {device.id: device for device in old.devices} | by_id
            plain = Fleet.of(anew.values(), tree)
            assert [d.id for d in came] == [name for name in by_id if name not in old.index]
        else:
            gone = np.flatnonzero([rng.random() < 0.4 for _ in old.devices])
            new, moved = left(old, gone, tree)
            plain = Fleet.of([d for i, d in enumerate(old.devices) if i not in gone], tree)
        assert _same(new, plain) == [], turn
        assert _same(moved, Moved.of(old, new)) == [], turn
        old = new


def test_devices_that_are_offered_again_as_they_are_change_nothing() -> None:
    state, _, _ = step(initial(SITE, VALUES, 1), [ev.DeviceJoined(DEVICES)], 1000.0)
    again = tuple(dataclasses.replace(device) for device in DEVICES)
    after, told = reducers.reduce(state, ev.DeviceJoined(again), 1001.0)
    assert after is state
    assert told == ()
    after, told = reducers.reduce(state, ev.DeviceLeft(("nobody",), "sold"), 1001.0)
    assert after is state
    assert told == ()


def test_a_feeder_that_does_not_exist_and_an_id_given_twice_are_refused() -> None:
    state = initial(SITE, VALUES, 1)
    lost = dataclasses.replace(DEVICES[0], feeder="nowhere")
    for bad in ((lost,), (DEVICES[0], DEVICES[0])):
        with pytest.raises(SiteInvalid):
            reducers.reduce(state, ev.DeviceJoined(bad), 1000.0)


def test_what_is_known_of_devices_moves_with_them() -> None:
    rng = np.random.default_rng(3)
    old = Fleet.of(DEVICES, SITE.tree)
    other = dataclasses.replace(DEVICES[2], points=DEVICES[2].points[:2])
    between, moved, _ = joined(old, {other.id: other}, SITE.tree)
    assert moved.other.tolist() == [2]
    n = len(old)
    ledger = dataclasses.replace(
        Ledger.empty(old), point=np.ones(n, dtype=np.int64), lease_w=rng.random(n)
    )
    kept = leases.realigned(ledger, old, between, moved)
    assert kept.point.tolist() == [1, 1, -1, 1, 1]
    assert np.isnan(kept.lease_w[2])
    assert kept.lease_w[3] == ledger.lease_w[3]
    new, moved = left(between, np.array([0, 3]), SITE.tree)
    seen = dataclasses.replace(Telemetry.unknown(n), watts_w=rng.random(n))
    turns = dataclasses.replace(cycles.Turns.none(n), turned_s=rng.random(n))
    tables = dataclasses.replace(Tables.unknown(n), read_s=rng.random(n))
    rows = [1, 2, 4]
    found = leases.realigned_telemetry(seen, between, new, moved).watts_w
    assert found.tolist() == seen.watts_w[rows].tolist()
    assert turns.realigned(between, new, moved).turned_s.tolist() == turns.turned_s[rows].tolist()
    assert tables.realigned(between, new, moved).read_s.tolist() == tables.read_s[rows].tolist()


def test_a_join_decides_as_if_all_had_been_there_from_the_start() -> None:
    mining: list[ev.Event] = [ev.JobSubmitted(MINING)]
    state, _, _ = step(initial(SITE, VALUES, 1), [ev.DeviceJoined(DEVICES[:3]), *mining], 1000.0)
    late, commands, _ = step(state, [ev.DeviceJoined(DEVICES[3:])], 1000.0)
    whole, _, _ = step(initial(SITE, VALUES, 1), [ev.DeviceJoined(DEVICES), *mining], 1000.0)
    assert _same(late.fleet, whole.fleet) == []
    assert late.present.facts.ceiling_w.tolist() == whole.present.facts.ceiling_w.tolist()
    names = ("rank_usd_per_mwh", "worth_usd_per_mwh", "base_w", "awake", "cold", "cycle_usd")
    for name in names:
        assert getattr(late.ladder, name).tolist() == getattr(whole.ladder, name).tolist(), name
    assert late.ladder.horizon_s == whole.ladder.horizon_s
    assert commands == ()
