"""What arbitration remembers between two decisions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.signals.minutes import Minutes
from wattshift_scheduler.signals.ramps import Pace
from wattshift_scheduler.signals.trim import Trim


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of arbitration.

    Attributes:
        site: watts at the site meter by the minute; time without a meter at what was committed.
        most_w: the most that was committed since the last of that, W; NaN unknown.
        plan: watts leased to mining by the minute, as far as they count as planned.
        pace: what ramps and holds go on from.
        plans: the plan before the notice of each committed event, by source and id, W.
        noticed_w: the plan that the last decision held mining to, W; infinite: it was not noticed.
        trim: what the meter has taught of the target in force.
    """

    site: Minutes = field(default_factory=Minutes)
    most_w: float = math.nan
    plan: Minutes = field(default_factory=Minutes)
    pace: Pace = field(default_factory=Pace)
    plans: Mapping[tuple[str, str], float] = field(default_factory=dict)
    noticed_w: float = math.inf
    trim: Trim = field(default_factory=Trim)
