"""What the ASICs of one agent share: rhythm, bounds on what goes on at once, the queue to wake."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from wattshift_cluster.agent.asics.rhythm import Rhythm
from wattshift_cluster.agent.asics.whereabouts import Whereabouts
from wattshift_cluster.config.agent import Asic, AsicSection
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.fleet.curtail import Pace
from wattshift_cluster.fleet.ranges import RangeForbidden, parse_ranges
from wattshift_cluster.fleet.safety import WakeQueue

MOST_LOWERING = 1024
"""Commands that lower, at once: a whole exchange of them, and yet a bound on open sockets."""

MOST_RAISING = 64
MOST_LOOKING = 128
MOST_CONNECTING = 32

WAKE_PER_MINUTE = 60
"""Real machines that wake in a minute where their owner names no figure: one a second."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """See the module.

    Attributes:
        section: `[asic]` of agent.toml.
        wakes: in which real machines wait to be woken; None: nobody waits.
        wakes_emulated: whether emulated ones wait there, too.
        whereabouts: finds machines that have moved; None: they are not looked for.
    """

    section: AsicSection = field(default_factory=AsicSection)
    rhythm: Rhythm = field(default_factory=Rhythm)
    pace: Pace = field(default_factory=Pace)
    wakes: WakeQueue | None = None
    wakes_emulated: bool = False
    whereabouts: Whereabouts | None = None
    lowering: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LOWERING))
    raising: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_RAISING))
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LOOKING))
    connecting: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MOST_CONNECTING)
    )

    @classmethod
    def of(cls, section: AsicSection) -> "Lanes":
        """As agent.toml has it. Each process draws its own phase.

        Raises:
            ConfigInvalid: its ranges are not private, or too large.
        """
        named = section.wake_per_minute is not None or section.wake_watts_per_minute_w is not None
        most = section.wake_per_minute if named else WAKE_PER_MINUTE
        seed = int.from_bytes(os.urandom(8))
        queue = WakeQueue(most, section.wake_watts_per_minute_w, seed)
        try:
            networks = parse_ranges(section.ranges)
        except (RangeForbidden, ValueError) as fault:
            raise ConfigInvalid(
                [Fault("agent.toml", "asic.ranges", ", ".join(section.ranges), str(fault))]
            ) from fault
        whereabouts = Whereabouts(networks, section.inventory_file)
        return cls(section, wakes=queue, wakes_emulated=named, whereabouts=whereabouts)

    def queue_of(self, asic: Asic) -> WakeQueue | None:
        """Where this machine waits to be woken; None: nowhere."""
        return self.wakes if self.wakes_emulated or not asic.emulated else None


def usual_pause_s(poll_s: float, machines: Sequence[object]) -> float:
    """Seconds between two looks at a machine that does what it should.

    One second up to 100 machines, five from 1,000 on: a sweep costs in proportion to their number.
    """
    share = min(max((len(machines) - 100) / 900.0, 0.0), 1.0)
    return poll_s * (1.0 + 4.0 * share)
