"""The site of the bench `economics`: 20 MW of ASICs of six generations, and 200 GPUs.

A *bank* is a row of machines of one model that is switched as one: the smallest thing that any
policy moves here. Watts and hashes of the models are ratings and curves of the project's own tables
(`asic.models`, `emulate.specs`, which name their sources); times from rest to work are those of
`asic.models.ABILITIES`, unverified ones among them. Wear is assumed: the price of a used machine
over 5,000 cycles, as docs/fleet.md puts it.

    S19       34.2 J/TH  stock firmware: asleep or at work     300 s to work    break-even  51.5
    S19j Pro  29.5       profiles of VNish                     300 s                        59.7
    S19k Pro  22.9       profiles of LuxOS, recorded            10 s (claimed)              76.8
    M60S      18.5       any limit, straight line               10 s                        95.3
    S21       17.5       stock firmware: asleep or at work     300 s                       100.7
    S21 Pro   15.0       targets of Braiins OS                 300 s                       117.5

(break-even in USD/MWh at 42.3 USD per PH/s and day.) Hashing on GPUs earns nothing worth a watt
(docs/economics.md), so they serve and do batch work only.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints

TH = 1e12
HASHPRICE_USD_PER_PH_DAY = 42.3
"""As in docs/economics.md: difficulty 150T, 100,000 USD, fees of 0.03 BTC. Constant here, so that
what differs between policies is what they do."""

USD_PER_HASH_HOUR = HASHPRICE_USD_PER_PH_DAY / 24.0 / 1e15
BANK_W = 200_000.0
"""About: a row of a container."""

CYCLES_OF_A_LIFE = 5_000
GPUS, GPUS_A_UNIT, GPU_W = 200, 4, 1_000.0
"""A GPU of 700 W with its share of host and cooling. A replica, and a batch worker, have four."""

UNITS = GPUS // GPUS_A_UNIT
UNIT_W = GPUS_A_UNIT * GPU_W

S19K_STEPS = ((1414.0, 70.2 * TH), (1916.0, 90.8 * TH), (2794.0, 121.8 * TH))
S21_PRO_STEPS = ((2000.0, 146 * TH), (2750.0, 192 * TH), (3510.0, 234 * TH))


@dataclass(frozen=True, slots=True)
class Generation:
    """One model.

    Attributes:
        model: its name.
        share_w: what all of them draw together, W.
        steps: (W, H/s) of one machine at each point at work, rising.
        rest_w: what one draws asleep, W.
        up_s: from rest to work, s.
        machine_usd: price of one, for its wear (assumed).
    """

    model: str
    share_w: float
    steps: tuple[tuple[float, float], ...]
    rest_w: float
    up_s: float
    machine_usd: float


def _scaled(watts_w: float, rate: float) -> tuple[tuple[float, float], ...]:
    """The recorded profile of an S19k Pro, scaled to another rating of its family."""
    top_w, top = S19K_STEPS[-1]
    return tuple((w / top_w * watts_w, h / top * rate) for w, h in S19K_STEPS)


GENERATIONS = (
    Generation("S19", 2e6, ((3250.0, 95 * TH),), 75.0, 300.0, 250.0),
    Generation("S19j Pro", 4e6, _scaled(2950.0, 100 * TH), 60.0, 300.0, 500.0),
    Generation("S19k Pro", 3e6, S19K_STEPS, 30.0, 10.0, 900.0),
    Generation("M60S", 3e6, ((1204.0, 65.1 * TH), (3441.0, 186 * TH)), 30.0, 10.0, 2_000.0),
    Generation("S21", 4e6, ((3500.0, 200 * TH),), 75.0, 300.0, 2_500.0),
    Generation("S21 Pro", 4e6, S21_PRO_STEPS, 60.0, 300.0, 4_000.0),
)


@dataclass(frozen=True, slots=True)
class BankKind:
    """Banks of one generation; the first point is rest.

    Attributes:
        name: the model.
        count: how many banks.
        points_w, usd_per_h: of one bank, before energy.
        hashes_per_s: of one bank at each point, H/s.
        up_s: from rest to work, s: it draws already, and earns nothing.
        wear_usd: of one sleep and wake of a bank, USD.
    """

    name: str
    count: int
    points_w: tuple[float, ...]
    usd_per_h: tuple[float, ...]
    hashes_per_s: tuple[float, ...]
    up_s: float
    wear_usd: float

    @property
    def break_even_usd_per_mwh(self) -> float:
        """Price at which its top earns what it burns."""
        return self.usd_per_h[-1] / self.points_w[-1] * 1e6

    @property
    def cycle_usd(self) -> float:
        """Wear, and what a bank does not earn while it comes up, USD (as `Ladder.cycle_usd`)."""
        lost_usd = self.usd_per_h[-1] * self.up_s / 3600.0 if self.up_s >= 1.0 else 0.0
        return self.wear_usd + lost_usd


def bank_kind(one: Generation) -> BankKind:
    """The banks of a generation."""
    machines = round(BANK_W / one.steps[-1][0])
    rates = (0.0, *(rate * machines for _, rate in one.steps))
    return BankKind(
        name=one.model,
        count=round(one.share_w / (machines * one.steps[-1][0])),
        points_w=(one.rest_w * machines, *(watts_w * machines for watts_w, _ in one.steps)),
        usd_per_h=tuple(rate * USD_PER_HASH_HOUR for rate in rates),
        hashes_per_s=rates,
        up_s=one.up_s,
        wear_usd=one.machine_usd / CYCLES_OF_A_LIFE * machines,
    )


@dataclass(frozen=True)
class Yard:
    """All banks as columns, kind after kind; `b` banks, points padded with their top."""

    kinds: tuple[BankKind, ...]

    @cached_property
    def kind(self) -> Ints:
        """Which kind each bank is of; shape (b,)."""
        return np.repeat(np.arange(len(self.kinds)), [one.count for one in self.kinds])

    @cached_property
    def points_w(self) -> Floats:
        """Shape (b, points), W."""
        return self._padded([one.points_w for one in self.kinds])

    @cached_property
    def usd_per_h(self) -> Floats:
        """Shape (b, points)."""
        return self._padded([one.usd_per_h for one in self.kinds])

    @cached_property
    def top(self) -> Ints:
        """Number of each bank's highest point; shape (b,)."""
        return np.array([len(one.points_w) - 1 for one in self.kinds])[self.kind]

    @cached_property
    def top_w(self) -> Floats:
        """Shape (b,), W."""
        return self.points_w[:, -1]

    @cached_property
    def up_s(self) -> Floats:
        """Shape (b,)."""
        return np.array([one.up_s for one in self.kinds])[self.kind]

    @cached_property
    def wear_usd(self) -> Floats:
        """Shape (b,)."""
        return np.array([one.wear_usd for one in self.kinds])[self.kind]

    @cached_property
    def cycle_usd(self) -> Floats:
        """Shape (b,)."""
        return np.array([one.cycle_usd for one in self.kinds])[self.kind]

    def __len__(self) -> int:
        return len(self.kind)

    def draw_w(self, points: Ints) -> Floats:
        """What each bank draws at these points once it has come up, W; shape (b,)."""
        return self.points_w[np.arange(len(self)), points]

    def up(self, points: Ints) -> Bools:
        """Which are at work; shape (b,)."""
        return np.asarray(points > 0)

    def _padded(self, rows: list[tuple[float, ...]]) -> Floats:
        most = max(len(row) for row in rows)
        wide = np.array([row + row[-1:] * (most - len(row)) for row in rows])
        return wide[self.kind]


def yard() -> Yard:
    """The site's banks."""
    return Yard(tuple(bank_kind(one) for one in GENERATIONS))


def small_yard(banks: int = 2) -> Yard:
    """A site of a few banks of two kinds, for what is to be worked out by hand."""
    chosen = (GENERATIONS[0], GENERATIONS[5])
    kinds = [bank_kind(one) for one in chosen]
    return Yard(tuple(BankKind(k.name, banks, k.points_w, k.usd_per_h, k.hashes_per_s, k.up_s,
                               k.wear_usd) for k in kinds))  # fmt: skip
