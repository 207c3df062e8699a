"""How far the ladder with its repair is from the best: exact answers to small problems.

Sites are modelled by a seeded generator: machines of several generations with whole profiles, of
which some lie inside their envelope, devices that take any watts, watts that compute counts
already, under one to three levels of feeders of which most bind. Exact answers are over all
operating points, not the envelope's alone: up to nine devices by trying every combination, up to a
hundred by a mixed-integer program (HiGHS). Values are per hour, above everything at its lowest.
"""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import highspy
import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, allocate, beyond
from wattshift_scheduler.ladder.envelopes import envelopes
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint
from wattshift_scheduler.values import Values

VALUES = Values(45.0, 0.0, 0.0, 0.0)
PRICE_USD_PER_MWH = 40.0

MOST_COMBINATIONS = 1000
"""Of the points of one small problem's whole devices: more are not tried out."""

TOPS_W = (300.0, 700.0, 1400.0, 3300.0, 3500.0, 5900.0)
"""What devices draw at most, about: cards, old and new miners, and the two of the 6 kW feeders."""

CENT_W = 1e-3

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """What `allocate` is asked."""

    fleet: Fleet
    ladder: Ladder
    tree: FeederTree
    room_w: Floats
    credit_w: Floats
    price_usd_per_mwh: float = PRICE_USD_PER_MWH
    reserve_w: float = 0.0

    def answer(self) -> Allocation:
        """What the ladder says."""
        return allocate(
            self.fleet,
            self.ladder,
            self.tree,
            room_w=self.room_w,
            eligible=np.ones(len(self.fleet), dtype=np.bool_),
            credit_w=self.credit_w,
            price_usd_per_mwh=self.price_usd_per_mwh,
            reserve_w=self.reserve_w,
        )

    def points(self, device: int) -> tuple[Floats, Floats, Floats]:
        """Lease watts, watts that count, and value, of one device's points."""
        fleet, ladder = self.fleet, self.ladder
        at = slice(int(fleet.first[device]), int(fleet.first[device + 1]))
        lease_w = fleet.point_limit_w[at]
        usd = fleet.point_h_per_s[at] * ladder.values.usd_per_hash_hour
        usd = usd - usd[0] - self.price_usd_per_mwh / 1e6 * (lease_w - lease_w[0])
        usd[1:] += ladder.bonus_usd_per_h[device]
        counted_w = beyond(self.credit_w[device], lease_w)
        return lease_w, counted_w - counted_w[0], usd

    def rungs(self, device: int) -> Iterator[tuple[float, float, float]]:
        """Of one device's envelope each rung that pays: watts that do not count, that count, and
        its value by watt, USD/h per W."""
        lease_w, counted_w, usd = self.points(device)
        on = np.flatnonzero(envelopes(lease_w[None], usd[None])[0]).tolist()
        for low, high in itertools.pairwise(on):
            span_w = lease_w[high] - lease_w[low]
            count_w = counted_w[high] - counted_w[low]
            if usd[high] > usd[low]:
                yield span_w - count_w, count_w, (usd[high] - usd[low]) / span_w

    def worth(self, watts_w: Floats) -> Floats:
        """Value of each device at its lease, USD/h; a whole one must be at one of its points."""
        usd = np.zeros(len(self.fleet))
        for i in range(len(self.fleet)):
            lease_w, _, value = self.points(i)
            if self.fleet.continuous[i]:
                on = envelopes(lease_w[None], value[None])[0]
                usd[i] = np.interp(watts_w[i], lease_w[on], value[on])
            else:
                at = int(np.argmin(np.abs(lease_w - watts_w[i])))
                assert abs(lease_w[at] - watts_w[i]) < CENT_W, "a whole device between its points"
                usd[i] = value[at]
        return usd

    def loads_w(self, watts_w: Floats) -> tuple[Floats, float]:
        """What counts at each feeder, and what all that is not fenced takes of the root."""
        base_w = self.ladder.base_w
        counted_w = beyond(self.credit_w, watts_w) - beyond(self.credit_w, base_w)
        own_w = summed(self.fleet.feeder, counted_w, len(self.tree.names))
        return self.tree.totals(own_w), float(counted_w[~self.fleet.fenced].sum())


def gaps(instances: int = 20, devices: int = 60, seed: int = 7) -> dict[str, float]:
    """How much the ladder is below the mixed-integer optimum: mean and worst, per cent."""
    found = []
    for i in range(instances):
        one = problem(random.Random(seed * 1000 + i), devices)
        best = by_milp(one)
        found.append(100.0 * (1.0 - float(one.worth(one.answer().watts_w).sum()) / best))
    return {
        "gap_vs_milp_pct": round(float(np.mean(found)), 4),
        "gap_vs_milp_worst_pct": round(float(np.max(found)), 4),
    }


def problem(rng: random.Random, devices: int, reserve_share: float = 0.0) -> Question:
    """One site whose root binds; `reserve_share` of what it gives is kept for fenced devices."""
    feeders, rows = _branch(rng, "site", None, devices, math.inf)
    one = _question(rng, feeders, rows)
    return replace(one, reserve_w=reserve_share * float(one.room_w[0]))


def many(rng: random.Random, problems: int) -> tuple[Question, list[Ints]]:
    """Many small problems as branches of one site, whose root gives any watts; and the devices of
    each."""
    feeders = [Feeder("site", None, 1e12)]
    rows: list[Device] = []
    of: list[Ints] = []
    for i in range(problems):
        some, machines = _branch(rng, f"b{i}", "site", rng.randint(2, 9), MOST_COMBINATIONS)
        of.append(len(rows) + np.arange(len(machines)))
        feeders += some
        rows += machines
    return _question(rng, feeders, rows), of


def _question(rng: random.Random, feeders: list[Feeder], devices: list[Device]) -> Question:
    tree = FeederTree.of(feeders)
    fleet = Fleet.of(devices, tree)
    awake = np.array([rng.random() < 0.5 for _ in devices])
    ladder = Ladder.of(fleet, VALUES, awake, rng.choice([math.inf, 3600.0]))
    covers_w = [rng.uniform(0.0, 600.0) if rng.random() < 0.3 else 0.0 for _ in devices]
    credit_w = np.where(fleet.fenced, covers_w, 0.0)
    base_w = tree.totals(summed(fleet.feeder, ladder.base_w, len(tree.names)))
    return Question(fleet, ladder, tree, np.maximum(tree.limit_w - base_w, 0.0), credit_w)


def _branch(
    rng: random.Random, name: str, parent: str | None, devices: int, combinations: float
) -> tuple[list[Feeder], list[Device]]:
    """Feeders of one to three levels, and what hangs on the lowest; most of them bind."""
    parents = {name: parent}
    leaves = [name]
    for _ in range(rng.randrange(3)):
        below = {f"{leaf}.{i}": leaf for leaf in leaves for i in range(rng.randint(1, 3))}
        parents |= below
        leaves = list(below)
    divisible = rng.choice([0.0, 0.4])
    tops_w = dict.fromkeys(parents, 0.0)
    rows: list[Device] = []
    for i in range(devices):
        count, divides = rng.randint(2, 5), rng.random() < divisible
        if not divides:
            if combinations < 2:
                break
            count = int(min(count, combinations))
            combinations /= count
        rows.append(_device(rng, f"{name}-{i}", rng.choice(leaves), count, divides))
        at: str | None = rows[-1].feeder
        while at is not None and at in parents:
            tops_w[at] += rows[-1].points[-1].watts_w
            at = parents[at]
    feeders = [
        Feeder(one, above, max(tops_w[one], 100.0) * rng.uniform(0.25, 1.05))
        for one, above in parents.items()
    ]
    return feeders, rows


def _device(rng: random.Random, name: str, feeder: str, count: int, divides: bool) -> Device:
    """A machine of any age: 15 to 60 J/TH, and each of its points a little better or worse."""
    top_w = rng.choice(TOPS_W) * rng.uniform(0.8, 1.2)
    shares = sorted(rng.uniform(0.2, 0.98) for _ in range(count - 2))
    watts = [rng.choice([0.0, 30.0]), *(share * top_w for share in shares), top_w]
    j_per_h = rng.uniform(15.0, 60.0) / 1e12
    hashes = [0.0, *(w / (j_per_h * rng.uniform(0.8, 1.25)) for w in watts[1:])]
    fenced = divides or rng.random() < 0.5
    points = tuple(
        OperatingPoint(f"p{i}", w, h, 0.01 if fenced else 20.0)
        for i, (w, h) in enumerate(zip(watts, hashes, strict=True))
    )
    tolerance = 0.0 if divides else 0.05
    kind = "gpu" if fenced else "asic"
    return Device(name, kind, "a", feeder, points, top_w, tolerance, divides, fenced)


def by_trial(one: Question, devices: Ints) -> float:
    """The most that some devices can earn under the feeders that they hang on, by trying all.

    Divisible devices then take what each combination leaves, the best first: with nested limits
    nothing is better. Those that are not fenced would need more where there is a reserve.
    """
    feeder = one.fleet.feeder
    feeders: set[int] = set()
    for device in devices.tolist():
        feeders.update(one.tree.path(int(feeder[device])))
    at = {f: i for i, f in enumerate(sorted(feeders))}
    # One more limit for what is not fenced.
    room_w = np.append(one.room_w[sorted(feeders)], one.room_w[0] - one.reserve_w)
    used_w, usd = np.zeros((len(room_w), 1)), np.zeros(1)
    shares: list[tuple[float, float, list[int]]] = []
    for device in devices.tolist():
        path = [at[f] for f in one.tree.path(int(feeder[device]))]
        if not one.fleet.fenced[device]:
            path.append(len(at))
        if one.fleet.continuous[device]:
            for free_w, count_w, usd_per_wh in one.rungs(device):
                usd = usd + free_w * usd_per_wh
                shares.append((usd_per_wh, count_w, path))
            continue
        _, counted_w, value = one.points(device)
        on = np.zeros(len(room_w))
        on[path] = 1.0
        used_w = (used_w[:, :, None] + on[:, None, None] * counted_w).reshape(len(room_w), -1)
        usd = (usd[:, None] + value).reshape(-1)
        fits = (used_w <= room_w[:, None] + CENT_W).all(axis=0)
        used_w, usd = used_w[:, fits], usd[fits]
    for usd_per_wh, count_w, path in sorted(shares, key=lambda share: -share[0]):
        left_w = (room_w[path, None] - used_w[path]).min(axis=0)
        more_w = np.clip(left_w, 0.0, count_w)
        usd = usd + usd_per_wh * more_w
        used_w[path] += more_w
    return float(usd.max())


def by_milp(one: Question, whole: bool = True) -> float:
    """The most that all devices can earn, by HiGHS; without `whole` a bound on it.

    A variable a point of a whole device (it is at that one or not) and one a rung of a divisible
    one (its share); a row a feeder, one for what is not fenced, and one a whole device.
    """
    feeders = len(one.tree.names)
    costs: list[float] = []
    kinds: list[bool] = []
    entries: list[list[tuple[int, float]]] = [[] for _ in range(feeders + 1)]
    choices: list[list[tuple[int, float]]] = []
    fixed_usd = 0.0
    for device in range(len(one.fleet)):
        rows = [*one.tree.path(int(one.fleet.feeder[device]))]
        if not one.fleet.fenced[device]:
            rows.append(feeders)
        if one.fleet.continuous[device]:
            offers = [(count_w, count_w * by) for _, count_w, by in one.rungs(device)]
            fixed_usd += sum(free_w * by for free_w, _, by in one.rungs(device))
        else:
            _, counted_w, usd = one.points(device)
            offers = list(zip(counted_w[1:].tolist(), usd[1:].tolist(), strict=True))
            choices.append([(len(costs) + i, 1.0) for i in range(len(offers))])
        for count_w, usd_per_h in offers:
            for row in rows:
                entries[row].append((len(costs), count_w))
            costs.append(usd_per_h)
            kinds.append(not one.fleet.continuous[device])
    upper = [*one.room_w.tolist(), float(one.room_w[0]) - one.reserve_w, *[1.0] * len(choices)]
    return fixed_usd + _solved(costs, kinds if whole else [], entries + choices, upper)


def _solved(
    costs: list[float], whole: list[bool], rows: list[list[tuple[int, float]]], upper: list[float]
) -> float:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(costs), len(rows)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = np.array(costs)
    model.col_lower_, model.col_upper_ = np.zeros(len(costs)), np.ones(len(costs))
    model.row_lower_, model.row_upper_ = np.full(len(rows), -np.inf), np.array(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int32)
    model.a_matrix_.index_ = np.array([at for row in rows for at, _ in row], dtype=np.int32)
    model.a_matrix_.value_ = np.array([value for row in rows for _, value in row])
    if whole:
        integer, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        model.integrality_ = [integer if one else real for one in whole]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", 1e-6)
    solver.setOptionValue("time_limit", 60.0)
    solver.passModel(model)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, "HiGHS found no optimum"
    return float(solver.getInfo().objective_function_value)
