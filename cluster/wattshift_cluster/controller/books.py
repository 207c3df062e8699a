"""What each device has earned and burnt, in all and under each lease, since the controller started.

Revenue is counted from the difficulty of accepted shares where a device has that counter: it is
what a pool of the site's scheme owes for them at the hashprice of that second. An ASIC whose pool
we do not see is estimated from its hashrate, and marked modelled. What had no price when it was
drawn or found stays unpriced and is said so; it is never valued later.

A reading that comes after a lease has changed may hold shares of the lease before: accounts of
neighbouring leases are true to about one sample.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wattshift_scheduler.decisions import AnyDecision, Decision, Input, Moves
from wattshift_scheduler.hashprice import HASHES_PER_DIFFICULTY
from wattshift_scheduler.state import State

LEASES_KEPT = 2_000
"""Ended leases kept for people; the journal has the longer ones."""

JOURNALED_LEAST_S = 60.0
"""Shorter leases are not journaled: a gate's lease may change every second."""

JOURNALED_MOST = 256
"""Accounts journaled of one change: a cap that moves 100,000 leases must not fill the disk."""

PENDING_MOST = 256
"""Changes that wait to be booked; they wait a fraction of a second."""

JOULES_PER_MWH = 3.6e9
MODELLED = "modelled"


@dataclass(slots=True)
class Account:
    """Sums over a stretch of time.

    Attributes:
        seconds_s: time between samples that were counted, s.
        energy_j, energy_usd: drawn, and what it cost.
        unpriced_j: the part of it for which no price was known.
        revenue_usd: after the pool's fee, by quality: measured, emulated, modelled.
        unvalued_hashes: hashes for which no hashprice was known.
        metered_s: the part of `seconds_s` in which watts were read, s.
    """

    seconds_s: float = 0.0
    energy_j: float = 0.0
    energy_usd: float = 0.0
    unpriced_j: float = 0.0
    revenue_usd: dict[str, float] = field(default_factory=dict)
    unvalued_hashes: float = 0.0
    metered_s: float = 0.0

    def copy(self) -> "Account":
        """The sums as they stand."""
        return Account(
            self.seconds_s,
            self.energy_j,
            self.energy_usd,
            self.unpriced_j,
            dict(self.revenue_usd),
            self.unvalued_hashes,
            self.metered_s,
        )

    def since(self, before: "Account") -> "Account":
        """What has been added since."""
        usd = {k: v - before.revenue_usd.get(k, 0.0) for k, v in self.revenue_usd.items()}
        return Account(
            seconds_s=self.seconds_s - before.seconds_s,
            energy_j=self.energy_j - before.energy_j,
            energy_usd=self.energy_usd - before.energy_usd,
            unpriced_j=self.unpriced_j - before.unpriced_j,
            revenue_usd={k: v for k, v in usd.items() if v},
            unvalued_hashes=self.unvalued_hashes - before.unvalued_hashes,
            metered_s=self.metered_s - before.metered_s,
        )

    def plus(self, other: "Account") -> None:
        """Add another's sums to these."""
        self.seconds_s += other.seconds_s
        self.energy_j += other.energy_j
        self.energy_usd += other.energy_usd
        self.unpriced_j += other.unpriced_j
        self.unvalued_hashes += other.unvalued_hashes
        self.metered_s += other.metered_s
        for quality, usd in other.revenue_usd.items():
            self.revenue_usd[quality] = self.revenue_usd.get(quality, 0.0) + usd

    @property
    def earned_usd(self) -> float:
        """Revenue of every quality, USD."""
        return sum(self.revenue_usd.values())

    @property
    def net_usd(self) -> float | None:
        """Revenue less energy, USD; None where either is not wholly known."""
        whole = self.unpriced_j == 0 and self.unvalued_hashes == 0
        return self.earned_usd - self.energy_usd if whole else None


@dataclass(frozen=True, slots=True)
class LeaseAccount:
    """What came of one lease; `ended_s` is None while it holds. Times are our clock."""

    device: str
    mode: str
    watts_w: float
    began_s: float
    ended_s: float | None
    account: Account


@dataclass(slots=True)
class _Open:
    """A lease that holds, with its device's sums when it began."""

    mode: str
    watts_w: float
    began_s: float
    before: Account


@dataclass(slots=True)
class _Pending:
    """A change that waits to be booked: which row is next, and how many were journaled."""

    moves: Moves
    now_s: float
    row: int = 0
    told: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one reading adds to a device.

    Attributes:
        at_s: when it came, our clock.
        gap_s: since the one before; 0 where the gap is too long to be filled.
        energy_j: drawn meanwhile; None where no watts were read.
        difficulty: of shares accepted meanwhile; None where nobody counts them.
        hashes: hashrate times gap; None where no hashrate was read.
        quality: how the device's figures are had.
        mode: of the lease in force; None where it has none.
    """

    at_s: float
    gap_s: float
    energy_j: float | None
    difficulty: float | None
    hashes: float | None
    quality: str
    mode: str | None = None


class Books:
    """The accounts of all devices; one per device that any agent ever offered.

    Attributes:
        devices: sums by device.
        ended: leases that have ended, newest last.
    """

    def __init__(self) -> None:
        """Nothing is priced before the first turn."""
        self.devices: dict[str, Account] = {}
        self.ended: deque[LeaseAccount] = deque(maxlen=LEASES_KEPT)
        self._open: dict[str, _Open] = {}
        self._pending: deque[_Pending] = deque(maxlen=PENDING_MOST)
        self._usd_per_hash: float | None = None
        self._usd_per_j: float | None = None

    def priced(self, state: State) -> None:
        """What hashes and joules are worth from now on."""
        values, price = state.values, state.price_usd_per_mwh()
        known = values.hashprice_usd_per_ph_day is not None
        self._usd_per_hash = values.usd_per_hash_hour / 3600.0 if known else None
        self._usd_per_j = price / JOULES_PER_MWH if math.isfinite(price) else None

    def add(self, device: str, sample: Sample) -> None:
        """Book one reading."""
        account = self.devices.get(device)
        if account is None:
            account = self.devices[device] = Account()
        if device not in self._open:
            mode = sample.mode or "no lease"
            self._open[device] = _Open(mode, math.nan, sample.at_s, account.copy())
        account.seconds_s += sample.gap_s
        if sample.energy_j is not None and math.isfinite(sample.energy_j):
            account.metered_s += sample.gap_s
        if sample.energy_j:
            account.energy_j += sample.energy_j
            if self._usd_per_j is None:
                account.unpriced_j += sample.energy_j
            else:
                account.energy_usd += sample.energy_j * self._usd_per_j
        if sample.difficulty is not None:
            quality = "emulated" if sample.quality == "emulated" else "measured"
            self._earn(account, sample.difficulty * HASHES_PER_DIFFICULTY, quality)
        elif sample.hashes:
            self._earn(account, sample.hashes, MODELLED)

    def _earn(self, account: Account, hashes: float, quality: str) -> None:
        # A counter that is no number earns nothing, and must not spoil the sums.
        if not (hashes > 0 and math.isfinite(hashes)):
            return
        if self._usd_per_hash is None:
            account.unvalued_hashes += hashes
            return
        usd = account.revenue_usd
        usd[quality] = usd.get(quality, 0.0) + hashes * self._usd_per_hash

    def moved(self, decisions: Iterable[AnyDecision], now_s: float) -> None:
        """Leases have changed as decided. Cheap: it is booked by `settle`, after the commands."""
        for one in decisions:
            if isinstance(one, Moves):
                self._pending.append(_Pending(one, now_s))

    @property
    def pending(self) -> bool:
        """Whether a change waits to be booked."""
        return bool(self._pending)

    def settle(self, most: int) -> list[Decision]:
        """End and begin up to `most` leases; returns the accounts that are worth a journal row."""
        told: list[Decision] = []
        while self._pending and most > 0:
            one = self._pending[0]
            moves, stop = one.moves, min(one.row + most, len(one.moves.devices))
            for i in range(one.row, stop):
                if moves.from_w[i] == moves.to_w[i]:
                    continue  # told why it stays: the same lease goes on
                ended = self._turned(moves.devices[i], moves.modes[i], moves.to_w[i], one.now_s)
                if ended is not None and one.told < JOURNALED_MOST:
                    found = list(_told(ended, one.now_s))
                    told += found
                    one.told += len(found)
            most -= stop - one.row
            one.row = stop
            if stop == len(moves.devices):
                self._pending.popleft()
        return told

    def _turned(self, device: str, mode: str, watts_w: float, now_s: float) -> LeaseAccount | None:
        """Begin a lease; returns the one that it ends."""
        account, before = self.devices.get(device), self._open.get(device)
        sums = Account() if account is None else account.copy()
        self._open[device] = _Open(mode, float(watts_w), now_s, sums)
        if before is None:
            return None
        came = sums.since(before.before)
        ended = LeaseAccount(device, before.mode, before.watts_w, before.began_s, now_s, came)
        self.ended.append(ended)
        return ended

    def lease(self, device: str) -> LeaseAccount | None:
        """What the lease in force has come to so far."""
        held = self._open.get(device)
        if held is None:
            return None
        came = self.devices.get(device, Account()).since(held.before)
        return LeaseAccount(device, held.mode, held.watts_w, held.began_s, None, came)

    def total(self) -> Account:
        """The sums of all devices."""
        total = Account()
        for account in self.devices.values():
            total.plus(account)
        return total


def _told(ended: LeaseAccount, now_s: float) -> Iterable[Decision]:
    account, lasted_s = ended.account, now_s - ended.began_s
    if lasted_s < JOURNALED_LEAST_S:
        return
    earned = ", ".join(f"{usd:.4f} USD {q}" for q, usd in sorted(account.revenue_usd.items()))
    cost = f"energy {account.energy_j / 3.6e6:,.3f} kWh for {account.energy_usd:.4f} USD"
    reason = f"{ended.mode} for {lasted_s:,.0f} s: earned {earned or 'nothing'}, {cost}"
    if account.net_usd is None:
        reason += "; a part had no price and is not counted"
    inputs: dict[str, Input] = {
        "mode": ended.mode,
        "seconds_s": lasted_s,
        "energy_j": account.energy_j,
        "energy_usd": account.energy_usd,
        "unpriced_j": account.unpriced_j,
        "unvalued_hashes": account.unvalued_hashes,
        **{f"revenue_{quality}_usd": usd for quality, usd in account.revenue_usd.items()},
    }
    yield Decision(now_s, ended.device, "account", reason, inputs)
