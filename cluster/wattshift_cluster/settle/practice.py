"""What a drill came to: practice, shown beside the events and never settled for money."""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.settle.intervals import Doubts, Samples, metered
from wattshift_scheduler.signals.notice import BEFORE_S
from wattshift_scheduler.signals.words import DRILL, GridEvent


@dataclass(frozen=True, slots=True)
class Practised:
    """One drill.

    Attributes:
        event: as it was told.
        ended_s: when it ended, as far as is known, unix time, s; infinite: it goes on.
        before_kw, during_kw: the site's mean in the quarter of an hour before it, and while it ran;
            NaN: unknown, or it did not run.
    """

    event: GridEvent
    ended_s: float
    before_kw: float
    during_kw: float

    @property
    def called_off(self) -> bool:
        """Whether it ended before its time, or never began."""
        return self.event.cancelled_s is not None


def is_drill(event: GridEvent) -> bool:
    """Whether an event is one of the site's own drills, whatever terms name its program."""
    return event.program == DRILL


def practised(event: GridEvent, samples: Samples, doubts: Doubts) -> Practised:
    """What the site's meter showed of a drill."""
    ends = (event.ends_s, event.cancelled_s)
    ended_s = min((end_s for end_s in ends if end_s is not None), default=math.inf)
    upto_s = min(ended_s, float(samples.at_s.max())) if len(samples.at_s) else -math.inf
    starts_s = np.array([event.starts_s - BEFORE_S, event.starts_s])
    ends_s = np.array([event.starts_s, max(upto_s, event.starts_s + 1e-3)])
    mean_w = metered(samples, starts_s, ends_s, doubts).mean_w
    ran = upto_s > event.starts_s
    return Practised(
        event, ended_s, float(mean_w[0]) / 1e3, float(mean_w[1]) / 1e3 if ran else math.nan
    )
