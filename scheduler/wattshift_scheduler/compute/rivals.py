"""Which mining a batch job would displace, and whether that is worth more than the job.

Mining gives way to compute. The exception is a batch job whose owner has stated a value: where
mining is worth more over the time that the present limits are expected to hold, the job takes only
the watts that such mining leaves. A job without a value, one whose deadline would be missed, and
every service go before mining whatever it earns.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler import worth
from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import FeederTree


@dataclass(frozen=True, slots=True)
class Rivals:
    """Rungs that mining would take if it were alone, in no order.

    Attributes:
        tree: the feeder tree.
        usd_per_mwh: what each ranks by: value over the horizon, the cycle's cost with it.
        feeder: where it hangs; shape (rungs,).
        watts_w: its watts, W; shape (rungs,).
        lasts_s: the horizon, s.
        bridged: batch that runs may be paused for them. In a cut that is deeper than what gates
            draw it may not: until it has left its watts must come from machines, and those would
            have turned for nothing.
    """

    tree: FeederTree
    usd_per_mwh: Floats
    feeder: Ints
    watts_w: Floats
    lasts_s: float
    bridged: bool = True

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        ladder: Ladder,
        tree: FeederTree,
        free: Bools,
        price: float,
        *,
        bridged: bool = True,
    ) -> "Rivals":
        """The rungs of devices that are `free` to mine and earn more than the energy price.

        A device behind a gate draws beside the compute of its host and not in its place: of the two
        only the larger is drawn, so it is no rival.
        """
        mine = free & ~(fleet.fenced & (fleet.host >= 0))
        ends = np.flatnonzero(
            ladder.steps.on & mine[fleet.point_device] & (ladder.worth_usd_per_mwh > price)
        )
        return cls(
            tree,
            ladder.rank_usd_per_mwh[ends],
            fleet.feeder[fleet.point_device[ends]],
            fleet.point_limit_w[ends] - fleet.point_limit_w[ladder.steps.start[ends]],
            ladder.horizon_s,
            bridged,
        )

    def keeps_w(self, usd_per_mwh: float, room_w: Floats) -> Floats:
        """Watts of mining that is worth more, under each feeder and within its room, W.

        Args:
            usd_per_mwh: what the job is worth.
            room_w: what each feeder could give to mining and batch together, W; shape (feeders,).
        """
        better = self.usd_per_mwh > usd_per_mwh
        tree, rooms_w = self.tree, np.maximum(room_w, 0.0)
        own_w = summed(self.feeder[better], self.watts_w[better], len(tree.names))
        # What does not fit a feeder does not load those above it: from the leaves up.
        for ancestor in tree.ancestors[::-1]:
            over_w = np.maximum(tree.totals(own_w) - rooms_w, 0.0)
            here = np.unique(ancestor[ancestor >= 0])
            own_w[here] -= over_w[here]
        found: Floats = tree.totals(own_w)
        return found


def worth_usd_per_mwh(job: Job, now_s: float, lasts_s: float) -> float:
    """What a job is worth against mining; infinite where mining gives way to it in any case."""
    if job.kind is not JobKind.BATCH or not job.value_usd_per_h > 0:
        return math.inf
    return worth.of_batch(job, now_s, lasts_s).usd_per_mwh


def any_yields(jobs: Iterable[Job]) -> bool:
    """Whether any job may have to give way to mining: batch of a stated value."""
    return any(
        job.kind is JobKind.BATCH and job.value_usd_per_h > 0 and not job.state.final
        for job in jobs
    )
