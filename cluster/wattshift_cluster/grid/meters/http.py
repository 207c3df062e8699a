"""A meter over HTTP that speaks JSON.

GET url → {"watts_w": 9731.5 | null, "at_s": unix seconds, "quality": "measured" | "emulated" |
"modelled", "parts": [{"name", "watts_w", "quality"}]}, and where it has them "energy_wh" (imported,
a counter), "hz" and "volts_v" (the lowest phase).
"""

import math
import time
from collections.abc import Callable
from typing import Any, cast

import httpx2

from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_cluster.grid.meters.latest import Latest, Sample
from wattshift_cluster.grid.meters.reading import QUALITIES, MeterPart, MeterReading, Quality

MAX_PARTS = 256
MAX_WATTS_W = 1e11


class HttpMeter:
    """Polls a meter. `poll` asks, `reading` answers at once from the last sample."""

    def __init__(
        self,
        url: str,
        *,
        stale_after_s: float = 3.0,
        deadline_s: float = 1.0,
        client: httpx2.AsyncClient | None = None,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: wall_s: unix time, s; steady_s: a clock that nobody sets, s."""
        self._source = JsonSource(url, deadline_s, client)
        self._latest = Latest(stale_after_s, wall_s, steady_s)

    async def poll(self) -> MeterReading:
        """See `reading.Meter`."""
        try:
            self._latest.take(_sample(await self._source.get()))
        except (FetchFailed, ValueError) as fault:
            self._latest.fail(str(fault))
        return self.reading()

    def reading(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._latest.reading()

    async def close(self) -> None:
        """See `reading.Meter`."""
        await self._source.close()


def _sample(body: dict[str, Any]) -> Sample:
    """Check an answer. Raises: ValueError, what is wrong with it."""
    at_s = _number(body.get("at_s"), "at_s")
    if at_s is None:
        raise ValueError("at_s is missing")
    parts = body.get("parts", [])
    if not isinstance(parts, list) or len(parts) > MAX_PARTS:
        raise ValueError(f"parts is not a list of at most {MAX_PARTS}")
    return Sample(
        watts_w=_number(body.get("watts_w"), "watts_w"),
        at_s=at_s,
        quality=_quality(body.get("quality")),
        parts=tuple(_part(part) for part in parts),
        energy_wh=_beside(body.get("energy_wh")),
        hz=_beside(body.get("hz")),
        volts_v=_beside(body.get("volts_v")),
    )


def _part(part: Any) -> MeterPart:
    if not isinstance(part, dict) or not isinstance(part.get("name"), str):
        raise ValueError("a part without a name")
    watts_w = _number(part.get("watts_w"), "watts_w of a part")
    return MeterPart(part["name"][:80], watts_w, _quality(part.get("quality")))


def _number(value: Any, name: str) -> float | None:
    """A finite number, or None for null. Raises: ValueError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    if not math.isfinite(value) or abs(value) > MAX_WATTS_W:
        raise ValueError(f"{name} is not a possible number")
    return float(value)


def _beside(value: Any) -> float | None:
    """A figure beside the watts; one that is no number is unknown and spoils nothing else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) <= 1e18 else None


def _quality(value: Any) -> Quality:
    if value not in QUALITIES:
        raise ValueError(f"quality is not one of {', '.join(QUALITIES)}")
    return cast("Quality", value)
