"""Figures from an HTTP server that speaks the JSON of the mempool project; the owner names which.

Four small GETs, one after the other: price, height, difficulty, and fees over the last day. The
project's code can be hosted by oneself; its public server answers 429 to those who ask too much,
so a refusal ends the round at once and is answered with patience.
Source of names and units: the project's REST documentation (satoshis come as text).
"""

from typing import Any
from urllib.parse import urlsplit

import httpx2

from wattshift_cluster.economics.figures import Answer, Seen, SourceFailed
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_scheduler.hashprice import SATOSHI_PER_BTC

DEADLINE_S = 5.0
"""Of each GET."""

FEE_BLOCKS = 144
"""A day of blocks: what pools that pay fees for certain average over, or near it."""

Parsed = dict[str, Seen]


class MempoolSource:
    """Asks one server. Its name is the URL without what may be secret in it."""

    def __init__(
        self, url: str, *, deadline_s: float = DEADLINE_S, client: httpx2.AsyncClient | None = None
    ) -> None:
        """Args: url: of the server, without `/api`; client: one of the caller's."""
        base = url.rstrip("/")
        self.name, self.local = _shown(base), False
        self._own = client is None
        self._client = client or httpx2.AsyncClient(timeout=deadline_s, trust_env=False)
        self._asked = [
            (JsonSource(base + path, deadline_s, self._client), parse)
            for path, parse in (
                ("/api/v1/prices", _prices),
                ("/api/v1/difficulty-adjustment", _height),
                ("/api/v1/mining/hashrate/3d", _difficulty),
                (f"/api/v1/mining/reward-stats/{FEE_BLOCKS}", _fees),
            )
        ]

    async def read(self, now_s: float) -> Answer:
        """See figures.Source. What came before a refusal is kept."""
        figures: Parsed = {}
        faults: list[str] = []
        retry_after_s: float | None = None
        for source, parse in self._asked:
            what = parse.__name__.strip("_")
            try:
                figures |= parse(await source.get(), now_s)
            except FetchFailed as fault:
                faults.append(f"{what}: {fault}")
                retry_after_s = fault.retry_after_s
                if fault.status is not None and (fault.status == 429 or fault.status >= 500):
                    break
            except (KeyError, TypeError, ValueError) as fault:
                faults.append(f"{what}: malformed: {fault!r}"[:200])
        text = "; ".join(faults)
        if not figures:
            raise SourceFailed(text, retry_after_s)
        return Answer(figures, text, retry_after_s)

    async def close(self) -> None:
        """See figures.Source."""
        if self._own:
            await self._client.aclose()


def _prices(body: dict[str, Any], now_s: float) -> Parsed:
    """`time` and `USD`: the price as it was at that time, or now where none is told."""
    at_s = _number(body["time"]) if "time" in body else now_s
    return {"usd_per_btc": Seen(_number(body["USD"]), at_s)}


def _height(body: dict[str, Any], now_s: float) -> Parsed:
    blocks = _number(body["nextRetargetHeight"]) - _number(body["remainingBlocks"])
    return {"height": Seen(blocks, now_s)}


def _difficulty(body: dict[str, Any], now_s: float) -> Parsed:
    return {"difficulty": Seen(_number(body["currentDifficulty"]), now_s)}


def _fees(body: dict[str, Any], now_s: float) -> Parsed:
    blocks = _number(body["endBlock"]) - _number(body["startBlock"]) + 1
    if not 1 <= blocks <= 10 * FEE_BLOCKS:
        raise ValueError(f"{blocks:g} blocks")
    return {"fees_btc": Seen(_number(body["totalFee"]) / blocks / SATOSHI_PER_BTC, now_s)}


def _number(value: object) -> float:
    """A JSON number, or one in text. NaN and infinity pass: the guard flags them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a number: {str(value)[:40]!r}")
    if isinstance(value, str) and len(value) > 40:
        raise ValueError("not a number: too long")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("not a number: too large") from None


def _shown(url: str) -> str:
    """The URL without user, password and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
