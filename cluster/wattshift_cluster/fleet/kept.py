"""What outlives an agent of a machine's place and power: where it has moved, that we cut it off."""

import math
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from wattshift_cluster.asic.driver import AsicIdentity

MOST_POINTS = 64
MOST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a machine was followed to: its address in agent.toml then, and its address since."""

    home: str
    address: str


@dataclass(frozen=True, slots=True)
class KeptCut:
    """Power that we took from a machine at its outlet.

    Attributes:
        reason: why, in words.
        since_s: UTC, s.
        known: what it was: nobody can ask a machine that has no power.
        rising: whether its outlet was to be switched on again.
    """

    reason: str
    since_s: float
    known: AsicIdentity | None
    rising: bool = False


_MOVED, _CUT = TypeAdapter(Moved), TypeAdapter(KeptCut)


def moved(raw: Any) -> Moved | None:
    """From a machine's file. Raises: ValueError."""
    found = None if raw is None else _MOVED.validate_python(raw)
    if found is not None and max(len(found.home), len(found.address)) > MOST_TEXT:
        raise ValueError("an address is too long")
    return found


def cut(raw: Any) -> KeptCut | None:
    """From a machine's file. Raises: ValueError."""
    found = None if raw is None else _CUT.validate_python(raw)
    if found is None:
        return None
    if len(found.reason) > MOST_TEXT or not math.isfinite(found.since_s):
        raise ValueError("a cut with an impossible reason or time")
    known = found.known
    if known is not None:
        figures = [known.nameplate_w, known.tolerance, known.safe_w, known.power_on_w]
        for point in known.points:
            figures += [point.watts_w, point.hashrate_h_per_s, point.transition_s]
        if not 0 < len(known.points) <= MOST_POINTS or not all(map(math.isfinite, figures)):
            raise ValueError("a cut of a machine with impossible points")
    return found
