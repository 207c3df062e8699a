"""The proxy's page: GET /v1/status, /v1/workers and /metrics, for a site's own eyes.

    /v1/status             the proxy, its pool and the sums over all devices
    /v1/workers?from=0     the accounts of at most WORKERS_PER_PAGE devices by name, and where the
                           next page begins
    /metrics               Prometheus text

Read-only and small: a limit on everything, one answer for each connection.
"""

import asyncio
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wattshift_cluster.jsonhttp import IDLE_S, MAX_CONNECTIONS, MAX_HEAD_BYTES, WRITE_DEADLINE_S
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.proxy.server import ProxyServer

WORKERS_PER_PAGE = 1_000
"""About half a megabyte of JSON."""

JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"

SHARED = ("at_s", "started_s", "upstream_lost_since", "unpaid", "fault")
"""What a page of accounts says of the proxy, so that one read tells all that an agent needs."""

COUNTED = ("accepted", "rejected", "lost")


async def serve_page(proxy: ProxyServer, at: Endpoint) -> asyncio.Server:
    """Serve it. Raises: OSError: the port is taken."""
    page = _Page(proxy)
    return await asyncio.start_server(page.serve, at.host, at.port, limit=MAX_HEAD_BYTES)


def metrics(proxy: ProxyServer) -> str:
    """The figures as Prometheus text."""
    return "\n".join([*_lines(proxy.status(), proxy.workers()), ""])


def workers_page(proxy: ProxyServer, first: int) -> dict[str, Any]:
    """One page of the accounts; `next` is where the following one begins, None after the last."""
    workers, count = proxy.workers(first, WORKERS_PER_PAGE), len(proxy.accounts.devices)
    after = first + len(workers)
    status = proxy.status()
    return {
        **{key: status[key] for key in SHARED},
        "workers": workers,
        "next": after if workers and after < count else None,
    }


class _Page:
    """The server's state: how many are being answered."""

    def __init__(self, proxy: ProxyServer) -> None:
        self._proxy = proxy
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(IDLE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.partition(b"\r\n")[0].split()))
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever leaves, stalls or sends a huge head gets no answer
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, request: list[bytes]) -> bytes:
        if len(request) != 3 or not request[2].startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        if request[0] != b"GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, more="Allow: GET\r\n")
        try:
            url = urlsplit(request[1].decode("latin-1"))
            first = int(parse_qs(url.query).get("from", ["0"])[0])
        except ValueError:
            return _response(HTTPStatus.BAD_REQUEST)
        proxy = self._proxy
        match url.path:
            case "/v1/status":
                return _response(HTTPStatus.OK, _json(proxy.status()))
            case "/v1/workers":
                return _response(HTTPStatus.OK, _json(workers_page(proxy, max(0, first))))
            case "/metrics":
                return _response(HTTPStatus.OK, metrics(proxy).encode(), TEXT)
        return _response(HTTPStatus.NOT_FOUND)


def _response(status: HTTPStatus, body: bytes = b"", kind: str = JSON, more: str = "") -> bytes:
    if status is not HTTPStatus.OK:
        kind = "application/problem+json"
        body = _json({"type": "about:blank", "title": status.phrase, "status": status.value})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _lines(status: dict[str, Any], workers: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from _head("wattshift_shares_total", "counter", "Shares, by what the pool said.")
    for pool in status["pools"]:
        for result in COUNTED:
            labels = f"pool={_quoted(pool['pool'])},result={_quoted(result)}"
            yield f"wattshift_shares_total{{{labels}}} {pool[result]}"
    yield from _head("wattshift_proxy_sessions", "gauge", "Miners connected.")
    yield f"wattshift_proxy_sessions {status['sessions']}"
    yield from _head("wattshift_proxy_upstream_lost_seconds", "gauge", "How long the pool is away.")
    since_s = status["upstream_lost_since"]
    away_s = 0.0 if since_s is None else max(0.0, status["at_s"] - since_s)
    yield f"wattshift_proxy_upstream_lost_seconds {away_s:.3f}"
    yield from _head("wattshift_proxy_shares_total", "counter", "Shares of a device.")
    for name, account in workers.items():
        for result in COUNTED:
            labels = f"device={_quoted(name)},result={_quoted(result)}"
            yield f"wattshift_proxy_shares_total{{{labels}}} {account[result]}"
    name = "wattshift_proxy_accepted_difficulty_total"
    yield from _head(name, "counter", "Accepted difficulty of a device; times 2^32: hashes.")
    for device, account in workers.items():
        yield f"{name}{{device={_quoted(device)}}} {account['accepted_difficulty']!r}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
