"""Sites to walk the ladder on: racks of ASICs under halls, seeded, as large as is asked for.

Every device is one of two dozen models, and mostly of its own make: silicon differs, so that each
has its own watts and hashes at each of its points. A tenth of the watts divides. Rack limits lie
around what their devices want, so that a third of them bind; wear makes a cycle cost something.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, Filled, allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint
from wattshift_scheduler.values import Values

SEED = 7
PER_AGENT = 250
PER_RACK = 40
RACKS_PER_HALL = 40
MODELS = 24
RUNGS = 5
PRICE_USD_PER_MWH = 35.0
VALUES = Values(45.0, 0.02, 0.0, PRICE_USD_PER_MWH)
HORIZON_S = 3600.0
MODES = tuple(f"p{j}" for j in range(RUNGS))
TURN_S = 5.0
SILICON_SHARE = 0.03
"""Spread of machines of one model: watts one way, joules per hash the same way."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """One allocation to solve: what `allocate` takes."""

    fleet: Fleet
    ladder: Ladder
    tree: FeederTree
    room_w: Floats
    price_usd_per_mwh: float = PRICE_USD_PER_MWH

    def at_room(self, root_w: float) -> "Instance":
        """The same with other room at the root."""
        room_w = self.room_w.copy()
        room_w[0] = root_w
        return dataclasses.replace(self, room_w=room_w)


def tree_of(racks: int, rng: np.random.Generator, per_rack: int, per_hall: int) -> FeederTree:
    """Site, halls, racks."""
    halls = -(-racks // per_hall)
    limits_w = 3400.0 * per_rack * rng.uniform(0.6, 1.25, racks)
    feeders = [Feeder("site", None, 0.9 * 3000.0 * per_rack * racks)]
    for hall in range(halls):
        below_w = limits_w[hall * per_hall : (hall + 1) * per_hall].sum()
        feeders.append(Feeder(f"hall{hall}", "site", float(below_w * rng.uniform(0.7, 1.1))))
    feeders += [
        Feeder(f"rack{rack}", f"hall{rack // per_hall}", float(limits_w[rack]))
        for rack in range(racks)
    ]
    return FeederTree.of(feeders)


def devices_of(
    devices: int,
    rng: np.random.Generator,
    per_rack: int,
    whole: float,
    distinct: bool,
    by_rack: bool,
) -> tuple[Device, ...]:
    """ASICs with so many rungs each; a share `whole` of them takes whole rungs alone."""
    top_w, j_per_th = rng.uniform(2800.0, 3600.0, MODELS), rng.uniform(16.0, 34.0, MODELS)
    share = np.linspace(0.4, 1.0, RUNGS)
    dearer = 1.0 + 0.25 * np.linspace(0.0, 1.0, RUNGS)
    model = rng.integers(0, MODELS, devices)
    make = rng.normal(1.0, SILICON_SHARE, devices).clip(0.9, 1.1) if distinct else np.ones(devices)
    divides = rng.random(devices) >= whole
    if by_rack:
        first = np.arange(devices) // per_rack * per_rack
        model, divides = model[first], divides[first]
    alike: dict[int, tuple[OperatingPoint, ...]] = {}
    made = []
    for i in range(devices):
        of = int(model[i])
        points = alike.get(of)
        if points is None:
            watts = top_w[of] * share * make[i]
            hashes = watts / (j_per_th[of] * dearer * make[i]) * 1e12
            points = (
                OperatingPoint("sleep", 30.0, 0.0, TURN_S),
                *(
                    OperatingPoint(MODES[j], float(w), float(h), TURN_S)
                    for j, (w, h) in enumerate(zip(watts, hashes, strict=True))
                ),
            )
            if not distinct:
                alike[of] = points
        made.append(
            Device(
                f"d{i}",
                "asic",
                f"agent{i // PER_AGENT}",
                f"rack{i // per_rack}",
                points,
                points[-1].watts_w,
                continuous=bool(divides[i]),
                wear_usd_per_cycle=0.02,
            )
        )
    return tuple(made)


def site(
    devices: int,
    seed: int = SEED,
    per_rack: int = PER_RACK,
    racks_per_hall: int = RACKS_PER_HALL,
    whole: float = 0.9,
    distinct: bool = True,
    by_rack: bool = False,
) -> tuple[FeederTree, tuple[Device, ...]]:
    """A seeded site.

    Args:
        devices: how many.
        seed: of everything drawn.
        per_rack, racks_per_hall: how they hang.
        whole: share of devices that take whole rungs alone.
        distinct: each device is of its own make; else two dozen models are in common.
        by_rack: all devices of a rack are of one model, and all of them divide or none.
    """
    rng = np.random.default_rng(seed)
    tree = tree_of(-(-devices // per_rack), rng, per_rack, racks_per_hall)
    return tree, devices_of(devices, rng, per_rack, whole, distinct, by_rack)


def instance_of(tree: FeederTree, devices: tuple[Device, ...]) -> Instance:
    """Every device may mine, nothing else is on the feeders, nine of ten run."""
    fleet = Fleet.of(devices, tree)
    ladder = Ladder.of(fleet, VALUES, awake_of(len(fleet)), HORIZON_S)
    base_w = tree.totals(np.bincount(fleet.feeder, ladder.base_w, len(tree.names)))
    return Instance(fleet, ladder, tree, np.maximum(tree.limit_w - base_w, 0.0))


def instance(
    devices: int,
    seed: int = SEED,
    per_rack: int = PER_RACK,
    racks_per_hall: int = RACKS_PER_HALL,
    whole: float = 0.9,
    distinct: bool = True,
    by_rack: bool = False,
) -> Instance:
    """A seeded allocation problem; the arguments are those of `site`."""
    return instance_of(*site(devices, seed, per_rack, racks_per_hall, whole, distinct, by_rack))


def awake_of(devices: int) -> Bools:
    """Which devices run."""
    return np.arange(devices) % 10 != 0


def solved(one: Instance, last: Filled | None = None) -> Allocation:
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
        last=last,
    )


def value(one: Instance, found: Allocation) -> float:
    """What an allocation ranks above its energy, USD/h: what the linear program maximises."""
    rungs = one.ladder.ordered
    taken_w = np.clip(found.watts_w[rungs.device], rungs.start_w, rungs.end_w) - rungs.start_w
    return float(((rungs.usd_per_mwh - one.price_usd_per_mwh) * taken_w).sum() / 1e6)
