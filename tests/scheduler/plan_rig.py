"""What tests of the look-ahead plan are made of: prices and caps over some quarters of an hour."""

import math

import numpy as np

from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.words import Ahead

STEP_S = 900.0
HOURS = STEP_S / 3600.0


def ahead(price: list[float], cap_w: float | list[float] = math.inf, **rest: object) -> Ahead:
    """A site without other load or services, if nothing else is said; caps in W."""
    n = len(price)
    none = Band.of(np.zeros(n))
    given = {"other": none, "services": none, **rest}
    cap = np.broadcast_to(np.asarray(cap_w, dtype=np.float64), (n,)).copy()
    return Ahead(0.0, STEP_S, Band.of(np.array(price, dtype=np.float64)), cap, **given)  # type: ignore[arg-type]
