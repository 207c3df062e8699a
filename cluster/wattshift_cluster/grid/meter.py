"""The site meter over HTTP: the one measurement that closes the loop (I9), with its age always.

GET url → {"watts_w": 9731.5 | null, "at_s": unix seconds, "quality": "measured" | "emulated" |
"modelled", "parts": [{"name", "watts_w", "quality"}]}. A reading that is missing, malformed, null
or stale is unknown, and unknown is None, never zero (I3).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import httpx2

from wattshift_cluster.grid.fetch import FetchFailed, JsonSource

Quality = Literal["measured", "emulated", "modelled"]
QUALITIES: tuple[str, ...] = ("measured", "emulated", "modelled")

MAX_CLOCK_AHEAD_S = 2.0
MAX_PARTS = 256
MAX_WATTS_W = 1e11


@dataclass(frozen=True, slots=True)
class MeterPart:
    """One part of the site's power; `watts_w` None is unknown."""

    name: str
    watts_w: float | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class MeterReading:
    """The meter as it can be trusted now.

    Attributes:
        watts_w: site power, W; None is unknown or stale.
        at_s: when the meter took it, unix time, s; None if it never answered.
        age_s: how old that is; None if it never answered.
        quality: how it was obtained; None if it never answered.
        parts: what it is made of, as told.
        fault: why the reading is unknown, or why no newer one came; None when all is well.
    """

    watts_w: float | None
    at_s: float | None
    age_s: float | None
    quality: Quality | None
    parts: tuple[MeterPart, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    watts_w: float | None
    at_s: float
    quality: Quality
    parts: tuple[MeterPart, ...]
    received_s: float
    age_at_receipt_s: float


class HttpMeter:
    """Polls a meter. `poll` asks, `reading` answers at once from the last sample.

    Age counts from the meter's own time stamp at receipt, then on our monotonic clock, so a step of
    the wall clock neither freshens nor ages a reading.
    """

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
        self._stale_after_s = stale_after_s
        self._wall_s, self._steady_s = wall_s, steady_s
        self._last: _Sample | None = None
        self._fault: str | None = "never read"

    async def poll(self) -> MeterReading:
        """Ask the meter once, within its deadline, and return the reading. Does not raise."""
        try:
            body = await self._source.get()
            self._last = self._sample(body)
            self._fault = None
        except (FetchFailed, ValueError) as fault:
            self._fault = str(fault)
        return self.reading()

    def reading(self) -> MeterReading:
        """The last sample, with its present age; stale ones have no watts."""
        last = self._last
        if last is None:
            return MeterReading(None, None, None, None, (), self._fault)
        age_s = last.age_at_receipt_s + max(0.0, self._steady_s() - last.received_s)
        stale = age_s > self._stale_after_s
        fault = self._fault or ("stale" if stale else None)
        if last.watts_w is None:
            fault = fault or "the meter does not know"
        watts_w = None if stale else last.watts_w
        return MeterReading(watts_w, last.at_s, age_s, last.quality, last.parts, fault)

    async def close(self) -> None:
        """Close the connection."""
        await self._source.close()

    def _sample(self, body: dict[str, Any]) -> _Sample:
        """Check an answer. Raises: ValueError, what is wrong with it."""
        at_s = _number(body.get("at_s"), "at_s")
        if at_s is None:
            raise ValueError("at_s is missing")
        age_s = self._wall_s() - at_s
        if age_s < -MAX_CLOCK_AHEAD_S:
            raise ValueError(f"the meter's clock is {-age_s:.1f} s ahead of ours")
        parts = body.get("parts", [])
        if not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise ValueError(f"parts is not a list of at most {MAX_PARTS}")
        return _Sample(
            watts_w=_number(body.get("watts_w"), "watts_w"),
            at_s=at_s,
            quality=_quality(body.get("quality")),
            parts=tuple(_part(part) for part in parts),
            received_s=self._steady_s(),
            age_at_receipt_s=max(0.0, age_s),
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


def _quality(value: Any) -> Quality:
    if value not in QUALITIES:
        raise ValueError(f"quality is not one of {', '.join(QUALITIES)}")
    return cast("Quality", value)
