"""Webhooks of the VTN: the handshake before an address is told anything, and delivery with retries.

Each subscription has a queue and a task of its own, so that one slow site delays no other and each
hears its notices in order. A notice that cannot be delivered after TRIES is dropped: its object is
there to be polled.
"""

import asyncio
import secrets
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2
import structlog

from wattshift_cluster.grid.openadr.exchange import trust
from wattshift_cluster.grid.vtn.problems import Problem, bad

HANDSHAKE_S = 5.0
DELIVERY_S = 10.0
TRIES = 4
FIRST_PAUSE_S = 0.2
MAX_WAITING = 256
"""Notices that wait for one subscription; the oldest gives way."""

MAX_ECHO_BYTES = 4096
ECHO_BYTES = 16

log = structlog.get_logger()


class Webhooks:
    """Delivers notices to callback addresses on this machine."""

    def __init__(self, verify: bool | str = True) -> None:
        """Args: verify: whose certificates are believed; see `exchange.Exchange`."""
        self._http = httpx2.AsyncClient(
            verify=trust(verify), timeout=DELIVERY_S, trust_env=False, follow_redirects=False
        )
        self._queues: dict[str, asyncio.Queue[tuple[str, str, Any]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.delivered = 0
        self.dropped = 0

    async def check(self, operations: list[Mapping[str, Any]]) -> None:
        """Shake hands with each callback address. Raises Problem (400)."""
        for url in {one["callbackUrl"] for one in operations}:
            await self._shake_hands(url)

    def tell(self, subscription_id: str, url: str, bearer: str, notice: Any) -> None:
        """Deliver a notice, after those that this subscription waits for."""
        queue = self._queues.get(subscription_id)
        if queue is None:
            queue = self._queues[subscription_id] = asyncio.Queue(MAX_WAITING)
            self._tasks[subscription_id] = asyncio.create_task(
                self._deliver(queue), name=f"webhook-{subscription_id}"
            )
        if queue.full():
            queue.get_nowait()
            self.dropped += 1
        queue.put_nowait((url, bearer, notice))

    def forget(self, subscription_id: str) -> None:
        """Deliver nothing more to a subscription."""
        self._queues.pop(subscription_id, None)
        task = self._tasks.pop(subscription_id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop every delivery."""
        tasks = list(self._tasks.values())
        for subscription_id in list(self._tasks):
            self.forget(subscription_id)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _deliver(self, queue: asyncio.Queue[tuple[str, str, Any]]) -> None:
        while True:
            url, bearer, notice = await queue.get()
            status = await self._try(url, bearer, notice)
            if status is not None and status < 300:
                self.delivered += 1
            else:
                self.dropped += 1
                log.warning("vtn_notice_dropped", host=urlsplit(url).netloc, status=status)

    async def _try(self, url: str, bearer: str, notice: Any) -> int | None:
        """The status of the answer; None where there was none. A refusal is not asked again."""
        status = None
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            status = await self._post(url, bearer, notice)
            if status is not None and status < 500:
                break
        return status

    async def _post(self, url: str, bearer: str, notice: Any) -> int | None:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            async with asyncio.timeout(DELIVERY_S):
                answer = await self._http.post(url, json=notice, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError):
            return None
        return answer.status_code

    async def _shake_hands(self, url: str) -> None:
        _check_address(url)
        word = secrets.token_urlsafe(ECHO_BYTES)
        at = urlsplit(url)
        query = urlencode([*parse_qsl(at.query), ("echo", word)])
        data = b""
        try:
            async with (
                asyncio.timeout(HANDSHAKE_S),
                self._http.stream("GET", urlunsplit(at._replace(query=query))) as answer,
            ):
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_ECHO_BYTES:
                        break
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as fault:
            raise bad(f"the callback address does not answer: {type(fault).__name__}") from None
        if answer.status_code != 200 or data.decode("utf-8", "replace").strip() != word:
            raise bad("the callback address does not answer its echo")


def _check_address(url: str) -> None:
    """Raises Problem where this VTN may not call that address."""
    try:
        at = urlsplit(url)
        host = at.hostname or ""
        port_is_fine = at.port is None or at.port > 0
    except ValueError:
        raise bad("callbackUrl is no address") from None
    if at.scheme not in ("http", "https") or at.username or not port_is_fine:
        raise bad("callbackUrl is no address")
    if host != "localhost" and not _is_loopback(host):
        # It is a demonstration: a request of its clients must not reach into anybody's network.
        raise _elsewhere()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _elsewhere() -> Problem:
    return bad("this VTN calls addresses of its own machine alone")
