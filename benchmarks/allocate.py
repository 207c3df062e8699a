"""How fast and how well the ladder is walked: replan and cut times, and the gap to exact solvers.

The fleet is modelled by a seeded generator: ASICs with whole profiles, ASICs and gated GPUs that
take any number of watts, under a tree of rows and halls of which a known share binds. The same
instance goes to HiGHS as a linear program (an upper bound for whole rungs, exact for continuous
watts) and, small, as a mixed-integer program (exact for whole rungs).

Times are wall clock on the machine at hand (measured); the fleet is modelled.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import highspy
import numpy as np
import numpy.typing as npt

from wattshift_scheduler import events as ev
from wattshift_scheduler.allocate import Allocation, allocate
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder import Ladder
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

SEED = 7
DEVICES = 20_000
PER_AGENT = 100
PER_ROW = 100
ROWS_PER_HALL = 20
SMALL_DEVICES = 60
SMALL_INSTANCES = 20
REPEATS = 15
PRICE_USD_PER_MWH = 45.0
CAP_SHARE = 0.7
VALUES = Values(45.0, 0.02, 90.0, PRICE_USD_PER_MWH)

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """One allocation to solve: what `allocate` takes."""

    fleet: Fleet
    ladder: Ladder
    tree: FeederTree
    room_w: Floats
    price_usd_per_mwh: float = PRICE_USD_PER_MWH


def run(devices: int = DEVICES) -> dict[str, Any]:
    """All figures of the benchmark `allocate`, by the keys that INTERFACES names."""
    one = instance(devices, SEED)
    found = solved(one)
    replan_ms = _median_ms(lambda: solved(one))
    lp_value, lp_ms = _timed(lambda: lp(one))
    loaded = running_site(devices, SEED)
    cut_ms, grants = cut(loaded)
    small = [
        instance(SMALL_DEVICES, seed, per_row=10, rows_per_hall=3, whole=0.8)
        for seed in range(SMALL_INSTANCES)
    ]
    return {
        "devices": devices,
        "rungs": len(one.ladder),
        "binding_feeders_pct": round(100.0 * len(found.binding) / len(one.tree.names), 2),
        "replan_ms_p50": round(replan_ms, 3),
        "cut_ms_p50": round(cut_ms, 3),
        "cut_leases": grants,
        "step_ms_p50": round(_median_ms(lambda: step(loaded, [ev.Tick()], 101.0)), 3),
        "gap_vs_lp_pct": round(100.0 * (1.0 - value(one, found) / lp_value), 4),
        "gap_vs_milp_pct": round(
            max(100.0 * (1.0 - value(s, solved(s)) / lp(s, True)) for s in small), 4
        ),
        "lp_ms": round(lp_ms, 1),
        "speedup_vs_lp": round(lp_ms / replan_ms, 1),
        "quality": "measured times on a modelled fleet",
        "seed": SEED,
    }


def tree_of(devices: int, rng: np.random.Generator, per_row: int, rows_per_hall: int) -> FeederTree:
    """Site, halls, rows. A row's limit lies around what its devices want: a third of them bind."""
    rows = -(-devices // per_row)
    halls = -(-rows // rows_per_hall)
    full_w = 3500.0 * per_row
    limits_w = full_w * rng.uniform(0.45, 1.1, rows)
    feeders = [Feeder("site", None, 0.62 * full_w * rows)]
    feeders += [
        Feeder(f"hall{h}", "site", float(full_w * rows_per_hall * rng.uniform(0.5, 1.0)))
        for h in range(halls)
    ]
    feeders += [
        Feeder(f"row{r}", f"hall{r // rows_per_hall}", float(limits_w[r])) for r in range(rows)
    ]
    return FeederTree.of(feeders)


def devices_of(
    devices: int, rng: np.random.Generator, per_row: int, whole: float
) -> tuple[Device, ...]:
    """Modelled devices: whole-profile ASICs, continuous ASICs, and gated GPUs."""
    kinds = rng.choice(3, devices, p=[whole, 0.75 * (1.0 - whole), 0.25 * (1.0 - whole)])
    models = [_model(int(kind), rng) for kind in np.repeat(np.arange(3), 12)]
    picks = rng.integers(0, 12, devices)
    return tuple(
        dataclasses.replace(
            models[12 * kind + pick],
            id=f"d{i}",
            agent=f"agent{i // PER_AGENT}",
            feeder=f"row{i // per_row}",
        )
        for i, (kind, pick) in enumerate(zip(kinds.tolist(), picks.tolist(), strict=True))
    )


def _model(kind: int, rng: np.random.Generator) -> Device:
    top_w = float(rng.uniform(2800, 3600)) if kind < 2 else 700.0
    j_per_th = float(rng.uniform(16, 34))
    counts = (6, 4, 2)[kind]
    low_w = 30.0 if kind < 2 else 0.0
    watts = np.concatenate(
        ([low_w], np.linspace(0.35 * top_w if kind < 2 else top_w, top_w, counts - 1))
    )
    rising = 1.0 + 0.25 * np.linspace(0.0, 1.0, counts)
    hashes = np.where(watts > low_w, watts / (j_per_th * rising) * 1e12, 0.0)
    if kind == 2:
        hashes = hashes / 3000.0
    points = tuple(
        OperatingPoint(f"p{i}", float(w), float(h), 5.0 if kind < 2 else 0.01)
        for i, (w, h) in enumerate(zip(watts, hashes, strict=True))
    )
    gated = kind == 2
    return Device("", "gpu" if gated else "asic", "", "", points, top_w, 0.05, kind > 0, gated, 0.0)


def instance(
    devices: int,
    seed: int,
    per_row: int = PER_ROW,
    rows_per_hall: int = ROWS_PER_HALL,
    whole: float = 0.6,
) -> Instance:
    """A seeded allocation problem: every device may mine, nothing else is on the feeders."""
    rng = np.random.default_rng(seed)
    tree = tree_of(devices, rng, per_row, rows_per_hall)
    fleet = Fleet.of(devices_of(devices, rng, per_row, whole), tree)
    ladder = Ladder.of(fleet, VALUES)
    base_w = tree.totals(np.bincount(fleet.feeder, ladder.base_w, len(tree.names)))
    return Instance(fleet, ladder, tree, np.maximum(tree.limit_w - base_w, 0.0))


def solved(one: Instance) -> Allocation:
    """Our answer."""
    n = len(one.fleet)
    return allocate(
        one.fleet,
        one.ladder,
        one.tree,
        room_w=one.room_w,
        eligible=np.ones(n, dtype=np.bool_),
        credit_w=np.zeros(n),
        price_usd_per_mwh=one.price_usd_per_mwh,
    )


def value(one: Instance, found: Allocation) -> float:
    """Value of an allocation beyond its energy, USD/h."""
    ladder = one.ladder
    taken_w = np.clip(found.watts_w[ladder.device], ladder.start_w, ladder.end_w) - ladder.start_w
    return float(((ladder.usd_per_mwh - one.price_usd_per_mwh) * taken_w).sum() / 1e6)


def lp(one: Instance, whole: bool = False) -> float:
    """The best value that HiGHS finds, USD/h; with `whole`, profile devices take rungs whole.

    One variable a rung (its share, 0 to 1), one row a feeder; with `whole` one row more for each
    rung that must not be taken before the one below it.
    """
    ladder, tree = one.ladder, one.tree
    worth = ladder.worth_taking(one.price_usd_per_mwh)
    device, span_w = ladder.device[:worth], (ladder.end_w - ladder.start_w)[:worth]
    columns, rows, entries = _feeder_rows(one, device, span_w)
    upper = list(one.room_w)
    if whole:
        before = _rung_before(device)
        later = np.flatnonzero(before >= 0)
        at = len(tree.names) + np.arange(len(later))
        columns = np.concatenate((columns, later, before[later]))
        rows = np.concatenate((rows, at, at))
        entries = np.concatenate((entries, np.ones(len(later)), -np.ones(len(later))))
        upper += [0.0] * len(later)
    order = np.lexsort((columns, rows))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = worth, len(upper)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = (ladder.usd_per_mwh[:worth] - one.price_usd_per_mwh) * span_w / 1e6
    model.col_lower_, model.col_upper_ = np.zeros(worth), np.ones(worth)
    model.row_lower_, model.row_upper_ = np.full(len(upper), -np.inf), np.array(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.searchsorted(rows[order], np.arange(len(upper) + 1)).astype(
        np.int32
    )
    model.a_matrix_.index_ = columns[order].astype(np.int32)
    model.a_matrix_.value_ = entries[order]
    if whole:
        kinds = (highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous)
        model.integrality_ = [kinds[int(c)] for c in one.fleet.continuous[device]]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("mip_rel_gap", 1e-9)
    solver.passModel(model)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, "HiGHS found no optimum"
    return float(solver.getInfo().objective_function_value)


def _feeder_rows(
    one: Instance, device: npt.NDArray[np.int64], span_w: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Entries of the feeder rows: each rung stands in its feeder's row and in every ancestor's."""
    columns, rows, entries = [], [], []
    for depth in range(int(one.tree.depth.max()) + 1):
        at = one.tree.ancestors[depth][one.fleet.feeder[device]]
        inside = np.flatnonzero(at >= 0)
        columns.append(inside)
        rows.append(at[inside])
        entries.append(span_w[inside])
    return np.concatenate(columns), np.concatenate(rows), np.concatenate(entries)


def _rung_before(device: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each rung the one below it on the same device, -1 for a device's first."""
    last: dict[int, int] = {}
    before = np.full(len(device), -1, dtype=np.int64)
    for i, one in enumerate(device.tolist()):
        before[i] = last.get(one, -1)
        last[one] = i
    return before


def running_site(devices: int, seed: int) -> State:
    """A site whose devices all run where the allocation wants them, seen to obey, at 100 s."""
    rng = np.random.default_rng(seed)
    tree = tree_of(devices, rng, PER_ROW, ROWS_PER_HALL)
    fleet_devices = devices_of(devices, rng, PER_ROW, 0.6)
    state = initial(Site("bench", tree, (), Rules()), VALUES, 1)
    mining = Job("mining", JobKind.MINING, "mining", {"devices": ["*"]}, 0.0)
    events: list[ev.Event] = [ev.DeviceJoined(fleet_devices), ev.JobSubmitted(mining)]
    for turn in range(6):
        now_s = 80.0 + 4.0 * turn
        events += _world(fleet_devices, state, now_s)
        state, commands, _ = step(state, events, now_s)
        events = [_accepted(command) for command in commands if isinstance(command, GrantLeases)]
    return step(state, [*events, *_world(fleet_devices, state, 100.5)], 100.5)[0]


def _world(devices: tuple[Device, ...], state: State, now_s: float) -> list[ev.Event]:
    """Every agent answers, and every device draws what it was granted."""
    n = len(devices)
    drawn_w = state.ledger.lease_w if len(state.fleet) else np.full(n, 30.0)
    drawn_w = np.where(np.isnan(drawn_w), 30.0, drawn_w)
    told: list[ev.Event] = []
    for start in range(0, n, PER_AGENT):
        part = slice(start, min(start + PER_AGENT, n))
        ids = tuple(device.id for device in devices[part])
        nan, no = np.full(len(ids), np.nan), np.zeros(len(ids), dtype=np.bool_)
        told.append(ev.AgentSeen(devices[start].agent, "boot", now_s, now_s))
        told.append(
            ev.Readings(
                ids,
                np.full(len(ids), now_s),
                drawn_w[part],
                nan,
                nan,
                nan,
                nan,
                ("",) * len(ids),
                no,
                no,
            )
        )
    return told


def _accepted(command: GrantLeases) -> ev.LeasesReplied:
    n = len(command.devices)
    return ev.LeasesReplied(
        command.id, command.devices, command.sequence, np.ones(n, dtype=np.bool_), ("",) * n
    )


def cut(state: State) -> tuple[float, int]:
    """Median time from a cap to complete GrantLeases, ms, and how many leases those hold."""
    cap = Cap("cut", "schedule", CAP_SHARE * state.outlook.committed_w)
    signal = ev.SignalChanged("schedule", (cap,))
    grants = [c for c in step(state, [signal], 101.0)[1] if isinstance(c, GrantLeases)]
    moved = sum(len(command.devices) for command in grants)
    return _median_ms(lambda: step(state, [signal], 101.0)), moved


def _median_ms(work: Callable[[], object]) -> float:
    return statistics.median(_timed(work)[1] for _ in range(REPEATS))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin_s = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - begin_s) * 1e3
