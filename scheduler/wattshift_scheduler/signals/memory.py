"""What arbitration remembers between two decisions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.signals.minutes import Minutes
from wattshift_scheduler.signals.ramps import Pace


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of arbitration.

    Attributes:
        site: watts at the site meter by the minute; time without a meter at what was committed.
        most_w: the most that was committed since the last of that, W; NaN unknown.
        plan: watts leased to mining by the minute.
        pace: what ramps and holds go on from.
        plans: the plan before the notice of each committed event, by source and id, W.
    """

    site: Minutes = field(default_factory=Minutes)
    most_w: float = math.nan
    plan: Minutes = field(default_factory=Minutes)
    pace: Pace = field(default_factory=Pace)
    plans: Mapping[tuple[str, str], float] = field(default_factory=dict)
