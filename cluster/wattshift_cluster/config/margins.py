"""A margin in a file: a share of a limit, always with its sign: 0.05 is never taken for 5%."""

from __future__ import annotations

import re

from wattshift_cluster.config.fields import Within

_PERCENT = re.compile(r"\s*(\d{1,3}(\.\d{1,6})?)\s*%\s*")


def margin(low_pct: float, high_pct: float) -> Within:
    """A share of a limit between two bounds, in %."""
    return Within(_percent, low_pct, high_pct, "{:g}%".format, "%, as text such as 5%")


def _percent(value: object) -> float:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('not a share; write it as text with its sign, such as "5%"')
    return float(found[1])
