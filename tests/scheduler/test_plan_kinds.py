"""The kinds of a plan by columns are those that a look at each device gives."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.scheduler.decided_twice import DEVICES, SITE, VALUES

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.cycles import Turns
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan import classes
from wattshift_scheduler.plan import points as points_of
from wattshift_scheduler.plan.classes import Classes, kinds_of
from wattshift_scheduler.site import Device

NOW_S = 5000.0


def _mixed(n: int, seed: int) -> Fleet:
    """Devices of a few models that have from one point to all of them, mixed."""
    rng = np.random.default_rng(seed)
    made: list[Device] = []
    for i in range(n):
        one = DEVICES[int(rng.integers(len(DEVICES)))]
        points = one.points[: int(rng.integers(1, len(one.points) + 1))]
        made.append(replace(one, id=f"d{i}", points=points))
    return Fleet.of(made, SITE.tree)


def _plain(fleet: Fleet) -> Iterator[tuple[object, ...]]:
    """All that a plan asks of each device."""
    for i, one in enumerate(fleet.devices):
        points = tuple((p.hashrate_h_per_s, p.revenue_usd_per_h) for p in one.points)
        limits_w = tuple(fleet.point_limit_w[fleet.first[i] : fleet.first[i + 1]].tolist())
        up_s, wear = one.points[-1].transition_s, one.wear_usd_per_cycle
        yield (points, limits_w, up_s, wear, one.table_build_s, one.fenced, one.continuous)


@pytest.mark.parametrize("seed", range(8))
def test_devices_are_of_one_kind_if_all_that_is_asked_is_equal(seed: int) -> None:
    fleet = _mixed(120, seed)
    alike, first = classes._alike(fleet)
    by_figures: dict[tuple[object, ...], list[int]] = {}
    for i, figures in enumerate(_plain(fleet)):
        by_figures.setdefault(figures, []).append(i)
    groups = sorted(by_figures.values())
    assert sorted(np.flatnonzero(alike == k).tolist() for k in range(len(first))) == groups
    assert sorted(first.tolist()) == [rows[0] for rows in groups]


def test_devices_whose_sums_are_equal_by_accident_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = _mixed(60, 3)
    right = classes._alike(fleet)
    nothing = np.zeros(60, dtype=np.int64)
    monkeypatch.setattr(classes, "_renumbered", lambda _: (nothing, nothing[:1]))
    found = classes._alike(fleet)
    assert len(found[1]) == len(right[1]) > 5
    assert sorted(found[1].tolist()) == sorted(right[1].tolist())


@pytest.mark.parametrize("most", [4, 60])
def test_figures_of_a_kind_are_those_of_its_devices(most: int) -> None:
    fleet, rng = _mixed(150, 9), np.random.default_rng(4)
    turns = replace(Turns.none(150), turned_s=rng.uniform(0.0, NOW_S, 150))
    ledger = replace(Ledger.empty(fleet), point=rng.integers(-1, 2, 150))
    kinds, of = kinds_of(fleet, VALUES, ledger, Telemetry.unknown(150), NOW_S, most, turns=turns)
    assert len(kinds) == len(Classes.among(fleet, most).names) <= most
    points = np.diff(fleet.first)
    for i, kind in enumerate(kinds):
        rows = np.flatnonzero(of == i)
        assert kind.count == len(rows)
        assert {fleet.devices[row].fenced for row in rows} == {kind.fenced}
        assert kind.since_s == pytest.approx(float(np.median(NOW_S - turns.turned_s[rows])))
        assert kind.running == int((ledger.point[rows] > 0).sum())
        width = int(points[rows].max())
        assert len(kind.points_w) == width
        read_w = np.zeros(width)
        for row in rows:
            own_w = fleet.point_limit_w[fleet.first[row] : fleet.first[row + 1]]
            read_w += own_w @ points_of._between(len(own_w), width)
        assert kind.points_w == pytest.approx(read_w / len(rows))
