"""Large tables on cards: which must be free for compute, and when building one again pays.

What is mined from a table (a memory-hard algorithm) keeps gigabytes of its card even while no watt
is leased. So the lowest point has a twin of the same watts, EMPTY, which asks for the table to be
freed, too. A card is leased so while a unit needs its memory, and counts as free only once a
reading says that nothing is held there: unknown is not free.

When nobody needs the card any more its table is not built at once, or a service that comes and goes
would have it built each time. What an absence costs grows with the time; what building costs is
known, for the device earns nothing meanwhile. So it waits until waiting has lost as much (the
ski-rental rule, see `cycles`), and as long as the quiet that is still expected would not pay for
it. That is the length of the last quiet, until it is outlasted, and what is known of waiting jobs.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.fleet_changes import Moved
from wattshift_scheduler.leases import Ledger

EMPTY = "empty"
"""Mode of a lease on the lowest point that also asks for the table to be freed."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Tables:
    """What is known and wanted of each device's table; shape (n,) each.

    Attributes:
        held_bytes: that its table takes of the card by its last reading; NaN unknown.
        clients: processes that mark its gate, by that reading; NaN unknown.
        read_s: when that was, our clock; -inf if never.
        empty: its memory is kept for compute.
        wanted: a unit needs it, as of the last decision.
        wanted_s: since when, our clock; -inf before the first time.
        quiet_s: when it was last needed, our clock; -inf before the first time.
        gap_s: how long it was not needed the last time, s; infinite while not known.
        regret_usd: what the card has not earned since `quiet_s`, USD.
    """

    held_bytes: Floats
    clients: Floats
    read_s: Floats
    empty: Bools
    wanted: Bools
    wanted_s: Floats
    quiet_s: Floats
    gap_s: Floats
    regret_usd: Floats

    @classmethod
    def unknown(cls, n: int) -> "Tables":
        """Nothing is known of `n` devices, and nobody needs them."""
        no = np.zeros(n, dtype=np.bool_)
        return cls(
            held_bytes=np.full(n, np.nan),
            clients=np.full(n, np.nan),
            read_s=np.full(n, -np.inf),
            empty=no,
            wanted=no.copy(),
            wanted_s=np.full(n, -np.inf),
            quiet_s=np.full(n, -np.inf),
            gap_s=np.full(n, np.inf),
            regret_usd=np.zeros(n),
        )

    def realigned(self, old: Fleet, new: Fleet, moved: Moved | None = None) -> "Tables":
        """The same for a changed fleet: kept devices keep their row."""
        fresh, moved = Tables.unknown(len(new)), moved or Moved.of(old, new)
        for one in fields(Tables):
            moved.realigned(getattr(fresh, one.name), getattr(self, one.name))
        # An agent that offers no table any more knows no such mode either.
        return replace(fresh, empty=fresh.empty & (new.table_bytes > 0))

    def read(self, columns: Ints, at_s: Floats, held_bytes: Floats, clients: Floats) -> "Tables":
        """The same after readings of some devices.

        Args:
            columns: which; shape (k,).
            at_s: when each was taken, our clock, s; shape (k,).
            held_bytes, clients: NaN unknown; shape (k,).
        """
        held, marks, read_s = self.held_bytes.copy(), self.clients.copy(), self.read_s.copy()
        held[columns], marks[columns], read_s[columns] = held_bytes, clients, at_s
        return replace(self, held_bytes=held, clients=marks, read_s=read_s)

    def vacant(self, fleet: Fleet, ledger: Ledger, now_s: float, stale_s: float) -> Bools:
        """Devices whose memory is free of mining: it has no table, or a fresh reading says so.

        Only a reading counts that was taken after the card was wanted, and after its agent took
        a lease on the lowest point: before that a table may have been begun behind its back.
        """
        asked = (ledger.point == 0) & ledger.acked & (self.read_s > ledger.acked_s)
        fresh = (now_s - self.read_s <= stale_s) & (self.read_s > self.wanted_s)
        vacant: Bools = (fleet.table_bytes <= 0) | (asked & fresh & (self.held_bytes == 0.0))
        return vacant

    def cold(self, fleet: Fleet) -> Bools:
        """Devices that must build a table before they earn; an unknown one is thought to."""
        return (fleet.table_bytes > 0) & ~(self.held_bytes > 0.0)


def weighed(
    tables: Tables,
    fleet: Fleet,
    *,
    wanted: Bools,
    margin_usd_per_h: Floats,
    cost_usd: Floats,
    next_s: Floats,
    elapsed_s: float,
    now_s: float,
) -> Tables:
    """Which cards' memory is kept free from now on.

    Args:
        tables: as of the last decision.
        fleet: the devices.
        wanted: those whose memory a unit needs now; shape (n,).
        margin_usd_per_h: what each would earn by hashing, energy paid; shape (n,).
        cost_usd: what it does not earn while it builds its table; shape (n,).
        next_s: when a job that waits is expected to need it, our clock; infinite: not known.
        elapsed_s: since the last decision, s.
        now_s: our clock, s.
    """
    wanted = wanted & (fleet.table_bytes > 0)
    came, went = wanted & ~tables.wanted, ~wanted & tables.wanted
    earns = np.fmax(margin_usd_per_h, 0.0)
    quiet_s = np.where(went, now_s, tables.quiet_s)
    gap_s = np.where(came & np.isfinite(quiet_s), now_s - quiet_s, tables.gap_s)
    waits = tables.empty & ~wanted
    regret_usd = np.where(waits & ~went, tables.regret_usd + earns * elapsed_s / HOUR_S, 0.0)
    return replace(
        tables,
        empty=(tables.empty | wanted)
        & ~(waits & _pays(fleet, earns, cost_usd, regret_usd, quiet_s, gap_s, next_s, now_s)),
        wanted=wanted,
        wanted_s=np.where(came, now_s, tables.wanted_s),
        quiet_s=quiet_s,
        gap_s=gap_s,
        regret_usd=regret_usd,
    )


def _pays(
    fleet: Fleet,
    earns_usd_per_h: Floats,
    cost_usd: Floats,
    regret_usd: Floats,
    quiet_s: Floats,
    gap_s: Floats,
    next_s: Floats,
    now_s: float,
) -> Bools:
    """Where both what was lost by waiting and what the quiet still promises reach the cost."""
    been_s = now_s - quiet_s
    with np.errstate(invalid="ignore"):  # for ever less for ever, nothing times for ever
        left_s = np.where(been_s < gap_s, gap_s - been_s, np.inf)
        hashes_s = np.maximum(np.minimum(left_s, next_s - now_s) - fleet.table_build_s, 0.0)
        gain_usd = earns_usd_per_h * hashes_s / HOUR_S
    return (earns_usd_per_h > 0.0) & (regret_usd >= cost_usd) & (gain_usd >= cost_usd)
