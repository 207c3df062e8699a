"""A meter behind a Prometheus HTTP API, with the time of the sample itself.

An instant query answers with the time at which it was evaluated, and looks back up to five minutes
for a value: such a reading would always look fresh. So a plain selector is asked for its raw
samples of the last seconds, which carry their own times, and an expression needs a second query
that gives the time of what it rests on.

Source: Prometheus documentation, "HTTP API" and "Querying basics" (staleness).
"""

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_cluster.grid.meters.latest import Latest, Sample
from wattshift_cluster.grid.meters.reading import MeterReading, Quality
from wattshift_cluster.grid.meters.values import lowest
from wattshift_cluster.grid.openadr.login import read_secret

_MATCHERS = r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\}'
_SELECTOR = re.compile(rf"[A-Za-z_:][A-Za-z0-9_:]*(?:{_MATCHERS})?|{_MATCHERS}")
MAX_QUERY_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Query:
    """One value: its query, for an expression the query of its time, and what a unit of it is.

    Attributes:
        text: a selector, or an expression that gives one series or scalar.
        time_text: gives the unix time of the sample, s; None: `text` is a plain selector.
        scale: our unit for each of its units.
    """

    text: str
    time_text: str | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Queries:
    """What is asked; None where there is no such value."""

    watts: Query
    energy: Query | None = None
    frequency: Query | None = None
    voltages: tuple[Query, ...] = ()


def is_selector(query: str) -> bool:
    """Whether a query names one metric, with or without matchers, and computes nothing."""
    return _SELECTOR.fullmatch(query.strip()) is not None


class PrometheusMeter:
    """Polls a server: the watts first, then all that is beside them at once."""

    def __init__(
        self,
        url: str,
        queries: Queries,
        *,
        stale_after_s: float = 30.0,
        deadline_s: float = 2.0,
        quality: Quality = "measured",
        token_file: Path | None = None,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: url: of the server, without `/api`; token_file: holds a bearer token."""
        self._client = httpx2.AsyncClient(timeout=deadline_s, trust_env=False)
        self._token_file = token_file
        self._quality = quality
        self._latest = Latest(stale_after_s, wall_s, steady_s)
        self._window_s = math.ceil(stale_after_s) + 1
        self._root = f"{url.rstrip('/')}/api/v1/query?query="
        self._deadline_s = deadline_s
        self._queries = queries

    async def poll(self) -> MeterReading:
        """See `reading.Meter`."""
        try:
            self._greet()
            self._latest.take(await self._sample())
        except (FetchFailed, ConfigInvalid, ValueError) as fault:
            self._latest.fail(str(fault))
        return self.reading()

    def reading(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._latest.reading()

    async def close(self) -> None:
        """See `reading.Meter`."""
        await self._client.aclose()

    def _greet(self) -> None:
        """Take the token as it stands now: it may be changed under us. Raises ConfigInvalid."""
        if self._token_file is not None:
            self._client.headers["authorization"] = f"Bearer {read_secret(self._token_file)}"

    async def _sample(self) -> Sample:
        """Raises: FetchFailed, ValueError."""
        asked = self._queries
        beside = [asked.energy, asked.frequency, *asked.voltages]
        watts_w, at_s = await self._value(asked.watts)
        energy_wh, hz, *volts_v = await asyncio.gather(*(self._beside(one) for one in beside))
        return Sample(
            watts_w,
            at_s,
            self._quality,
            energy_wh=energy_wh,
            hz=hz,
            volts_v=lowest(volts_v),
        )

    async def _beside(self, query: Query | None) -> float | None:
        """A value beside the watts; one that does not come spoils nothing else."""
        if query is None:
            return None
        try:
            return (await self._value(query))[0]
        except (FetchFailed, ValueError):
            return None

    async def _value(self, query: Query) -> tuple[float, float]:
        """Value in our unit and its unix time, s. Raises: FetchFailed, ValueError."""
        if query.time_text is None:
            value, at_s = _one(await self._ask(f"{query.text}[{self._window_s}s]"))
            return value * query.scale, at_s
        # The time first: a sample that comes between makes the reading look older, not newer.
        at_s, _ = _one(await self._ask(query.time_text))
        value, _ = _one(await self._ask(query.text))
        return value * query.scale, at_s

    async def _ask(self, text: str) -> dict[str, Any]:
        """The answer to one instant query. Raises: FetchFailed."""
        url = self._root + quote(text, safe="")
        return await JsonSource(url, self._deadline_s, self._client).get()


def _one(body: dict[str, Any]) -> tuple[float, float]:
    """The one value of an answer, and the time beside it. Raises: ValueError."""
    data = body.get("data")
    if body.get("status") != "success" or not isinstance(data, dict):
        raise ValueError(f"the query failed: {str(body.get('errorType', 'no reason told'))[:80]}")
    kind, found = data.get("resultType"), data.get("result")
    if kind in ("vector", "matrix"):
        if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
            many = len(found) if isinstance(found, list) else 0
            raise ValueError(f"the query gives {many} series; a meter needs exactly one")
        found = (
            found[0].get("value") if kind == "vector" else (found[0].get("values") or [None])[-1]
        )
    elif kind != "scalar":
        raise ValueError("the query gives neither a series nor a number")
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError("the query gives no sample")
    try:
        at_s, value = float(found[0]), float(found[1])
    except (TypeError, ValueError):
        raise ValueError("the sample is no number") from None
    if not math.isfinite(at_s):
        raise ValueError("the sample has no time")
    return value, at_s
