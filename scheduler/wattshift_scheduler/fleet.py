"""All devices of the site as columns, one row per device, points in one flat table.

A fleet is rebuilt only when a device joins, leaves or changes its points. Everything that changes
each second (readings, leases) lives in columns of the same length elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from types import MappingProxyType

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, Texts, frozen
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.picked import Picked
from wattshift_scheduler.site import Device, FeederTree


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices as columns. `n` devices, `p` operating points over all of them.

    Attributes:
        devices: the devices in column order.
        index: device id to column.
        feeder: column of each device's feeder; shape (n,).
        first: where each device's points begin in the point table; shape (n + 1,).
        point_w: nominal draw of each point, W; shape (p,).
        point_limit_w: watts that a lease on the point allows (nominal plus tolerance); shape (p,).
        point_h_per_s: hashrate of each point; shape (p,).
        point_usd_per_h: what each point earns beside its hashes, USD/h; shape (p,).
        point_transition_s: time to reach each point, s; shape (p,).
        nameplate_w: nameplate plus tolerance, the ceiling of an unconfirmed device, W; shape (n,).
        tolerance, fenced, continuous, safe_w: as on Device; shape (n,).
        agents: names of all agents, sorted.
        agent: index into `agents`; shape (n,).
        hosts: names of all hosts whose compute a gated device overlaps, sorted.
        host: index into `hosts`, -1 where a device overlaps none; shape (n,).
        ids: device ids as a column, for quick picking; shape (n,).
        modes: name of each point; shape (p,).
        point_device: column of the device that each point belongs to; shape (p,).
        point_feeder: column of that device's feeder; shape (p,).
        worded: whether any point earns anything beside its hashes.
        points_each: how many points each device has, if all have as many; else 0.
        wear_usd_per_cycle, table_bytes, table_build_s, rests_apart: as on Device; shape (n,).
    """

    devices: tuple[Device, ...]
    index: Mapping[str, int]
    feeder: Ints
    first: Ints
    point_w: Floats
    point_limit_w: Floats
    point_h_per_s: Floats
    point_usd_per_h: Floats
    point_transition_s: Floats
    nameplate_w: Floats
    tolerance: Floats
    fenced: Bools
    continuous: Bools
    safe_w: Floats
    agents: tuple[str, ...]
    agent: Ints
    hosts: tuple[str, ...]
    host: Ints
    ids: Texts
    modes: Texts
    wear_usd_per_cycle: Floats
    table_bytes: Floats
    table_build_s: Floats
    rests_apart: Bools
    point_device: Ints
    point_feeder: Ints
    worded: bool
    points_each: int

    @classmethod
    def of(cls, devices: Iterable[Device], tree: FeederTree) -> "Fleet":
        """Build the columns. Raises SiteInvalid on a duplicate id or an unknown feeder."""
        rows = tuple(devices)
        index: dict[str, int] = {}
        for i, device in enumerate(rows):
            if device.id in index:
                raise SiteInvalid(device.id, "this device id exists twice")
            if device.feeder not in tree.index:
                raise SiteInvalid(device.id, f"its feeder {device.feeder!r} does not exist")
            index[device.id] = i
        agents, agent = _named([d.agent for d in rows])
        hosts, host = _named([d.host if d.fenced else None for d in rows])
        points = [point for device in rows for point in device.points]
        counts = np.array([len(device.points) for device in rows], dtype=np.int64)
        tolerance = np.array([d.tolerance for d in rows], dtype=np.float64)
        continuous = np.array([d.continuous for d in rows], dtype=np.bool_)
        nominal_w = np.array([p.watts_w for p in points], dtype=np.float64)
        # A continuous device's lease is the very limit that its gate or driver enforces.
        slack = np.repeat(np.where(continuous, 0.0, tolerance), counts)
        feeder = _ints([tree.index[d.feeder] for d in rows])
        return cls(
            devices=rows,
            index=MappingProxyType(index),
            feeder=feeder,
            first=frozen(np.concatenate(([0], np.cumsum(counts))).astype(np.int64)),
            point_w=frozen(nominal_w),
            point_limit_w=frozen(nominal_w * (1.0 + slack)),
            point_h_per_s=_floats([p.hashrate_h_per_s for p in points]),
            point_usd_per_h=_floats([p.revenue_usd_per_h for p in points]),
            point_transition_s=_floats([p.transition_s for p in points]),
            nameplate_w=_floats([d.nameplate_w * (1.0 + d.tolerance) for d in rows]),
            tolerance=frozen(tolerance),
            fenced=frozen(np.array([d.fenced for d in rows], dtype=np.bool_)),
            continuous=frozen(continuous),
            safe_w=_floats([d.safe_w for d in rows]),
            agents=agents,
            agent=agent,
            hosts=hosts,
            host=host,
            ids=_texts([d.id for d in rows]),
            modes=_texts([p.mode for p in points]),
            wear_usd_per_cycle=_floats([d.wear_usd_per_cycle for d in rows]),
            table_bytes=_floats([float(d.table_bytes) for d in rows]),
            table_build_s=_floats([d.table_build_s for d in rows]),
            rests_apart=frozen(np.array([d.rests_apart for d in rows], dtype=np.bool_)),
            point_device=frozen(np.repeat(np.arange(len(rows)), counts)),
            point_feeder=frozen(np.repeat(feeder, counts)),
            worded=any(p.revenue_usd_per_h for p in points),
            points_each=int(counts[0]) if len(rows) and (counts == counts[0]).all() else 0,
        )

    def __len__(self) -> int:
        return len(self.devices)

    def devices_of(self, points: Ints) -> Ints:
        """Columns of the devices that points belong to; to divide is faster than to look up."""
        return points // self.points_each if self.points_each else self.point_device[points]

    def divides(self, device: Ints, start: Ints) -> Bools:
        """Whether rungs can be taken in part: of these devices, each from a point of the table."""
        rests: Bools = self.rests_apart[device] & (start == self.first[device])
        return self.continuous[device] & ~rests

    def columns_of(self, ids: Iterable[str]) -> Ints:
        """Columns of the named devices; -1 for one that is not in the fleet."""
        if isinstance(ids, Picked):
            known = ids.rows_of(self.ids)
            if known is not None:
                return known
        if isinstance(ids, tuple) and ids:
            # An agent names its devices in the order in which it has offered them.
            begin = self.index.get(ids[0], -1)
            if begin >= 0 and tuple(self.ids[begin : begin + len(ids)].tolist()) == ids:
                return np.arange(begin, begin + len(ids))
        return np.fromiter(map(self.index.get, ids, repeat(-1)), dtype=np.int64)

    def mode_of(self, column: int, point: int) -> str:
        """Name of a device's point, counted from its first."""
        return self.devices[column].points[point].mode


def _named(names: list[str | None]) -> tuple[tuple[str, ...], Ints]:
    """The distinct names, sorted, and where each row's name stands among them; -1 for None."""
    distinct = tuple(sorted({name for name in names if name is not None}))
    at = {name: i for i, name in enumerate(distinct)}
    return distinct, _ints([-1 if name is None else at[name] for name in names])


def _texts(values: list[str]) -> Texts:
    column: Texts = np.empty(len(values), dtype=np.object_)
    column[:] = values
    return frozen(column)


def _floats(values: list[float]) -> Floats:
    return frozen(np.array(values, dtype=np.float64))


def _ints(values: list[int]) -> Ints:
    return frozen(np.array(values, dtype=np.int64))
