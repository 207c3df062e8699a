"""What the site's proxy says of this agent's machines: their shares, and whether anybody pays.

A machine is found there by its own id, or by `worker`. Shares are counted from the first answer on,
across restarts of the proxy. When the proxy has had no pool for its hold, the machines that mine
through it may be leased nothing but sleep: no watt is held for work that nobody pays. A proxy that
does not answer says nothing new: the last word stands, and `remark` says that it is old.

Looks run in a thread, one at a time, with a deadline and a limit on what is read.
"""

import asyncio
import json
import math
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog

from wattshift_cluster.agent.protocol import Counters
from wattshift_cluster.bootclock import boot_s

log = structlog.get_logger()

PERIOD_S = 5.0
READ_S = 4.0
"""For all pages together."""

STALE_S = 30.0
SURE_LOOKS = 2
"""Looks in a row that must say "unpaid": a machine that sleeps is gone for ten minutes."""

MAX_BODY_BYTES, CHUNK_BYTES = 2 << 20, 64 << 10
MAX_PAGES = 16
COUNTED = ("found", "accepted", "rejected", "lost")


class LookFailed(Exception):
    """The proxy gave no usable answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the proxy has counted of one device since it started."""

    found: int = 0
    accepted: int = 0
    rejected: int = 0
    lost: int = 0
    difficulty: float = 0.0

    def plus(self, other: "Tally", sign: int = 1) -> "Tally":
        """The sum of both; with -1 the difference."""
        return Tally(
            self.found + sign * other.found,
            self.accepted + sign * other.accepted,
            self.rejected + sign * other.rejected,
            self.lost + sign * other.lost,
            self.difficulty + sign * other.difficulty,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """One answer of the proxy.

    Attributes:
        started_s: names this life of the proxy.
        unpaid: why nobody pays for work there; None while somebody does.
        devices: their shares.
    """

    started_s: float
    unpaid: str | None
    devices: Mapping[str, Tally]


class Income:
    """What is known of all machines of this agent; `poll` it as often as you like."""

    def __init__(self, url: str, workers: Mapping[str, str], period_s: float = PERIOD_S) -> None:
        """Nothing is asked yet.

        Args:
            url: of the proxy's status page, without a path.
            workers: device → its name at the proxy.
        """
        self.fault: str | None = "not asked yet"
        self._url = url
        self._workers = dict(workers)
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None
        self._due_s = -math.inf
        self._heard_s = -math.inf
        self._first: Told | None = None
        self._told: Told | None = None
        self._before: dict[str, Tally] = {}
        self._unpaid_looks = 0

    def poll(self) -> None:
        """Ask again if it is time and nobody is asking."""
        now_s = boot_s()
        if now_s < self._due_s or (self._task is not None and not self._task.done()):
            return
        self._due_s = now_s + self._period_s
        self._task = asyncio.create_task(self.look())

    async def look(self) -> None:
        """Ask now; a failure is kept, not raised."""
        try:
            told = await asyncio.to_thread(read, self._url)
        except LookFailed as fault:
            if self.fault is None or self.fault == "not asked yet":
                log.warning("income.no_answer", proxy=self._url, reason=str(fault))
            self.fault = str(fault)
            return
        self.fault, self._heard_s = None, boot_s()
        self._take(told)

    def counters(self, device: str) -> Counters:
        """A machine's shares since this agent first asked; unknown before it was seen there."""
        name = self._workers.get(device, device)
        if self._told is None:
            return Counters()
        if name not in self._told.devices and name not in self._before:
            return Counters()
        total = self._since_first(name)
        return Counters(
            shares_found=total.found,
            accepted=total.accepted,
            rejected=total.rejected,
            lost=total.lost,
            accepted_difficulty=total.difficulty,
        )

    @property
    def remark(self) -> str | None:
        """That the proxy has been silent for long; None while it is not, or was never heard."""
        if self._told is None or boot_s() - self._heard_s <= STALE_S:
            return None
        return f"its proxy does not answer: {self.fault or 'not in time'}"

    def unpaid(self, device: str) -> str | None:
        """Why nobody pays for what this machine hashes; None where somebody may."""
        name = self._workers.get(device, device)
        told = self._told
        if told is None or self._unpaid_looks < SURE_LOOKS:
            return None
        # A machine that the proxy has never seen mines somewhere else.
        return told.unpaid if name in told.devices or name in self._before else None

    def _take(self, told: Told) -> None:
        last = self._told
        if last is None:
            self._first = told
        elif last.started_s != told.started_s:
            # Another life of the proxy: what was counted in the one before stays counted.
            for name in {*last.devices, *self._before}:
                self._before[name] = self._since_first(name)
            self._first = None
        self._told = told
        self._unpaid_looks = self._unpaid_looks + 1 if told.unpaid is not None else 0

    def _since_first(self, name: str) -> Tally:
        assert self._told is not None
        total = self._told.devices.get(name, Tally()).plus(self._before.get(name, Tally()))
        if self._first is not None:
            total = total.plus(self._first.devices.get(name, Tally()), -1)
        return total


def read(url: str) -> Told:
    """Read all pages of the proxy's accounts; blocks for a few seconds at most.

    Raises:
        LookFailed: no answer, or none that is understood.
    """
    devices: dict[str, Tally] = {}
    first: dict[str, Any] | None = None
    place, end_s = 0, time.monotonic() + READ_S
    for _ in range(MAX_PAGES):
        body = _page(url, place, end_s)
        first = first or body
        try:
            devices |= {str(name): _tally(row) for name, row in body["workers"].items()}
            following = body["next"]
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise LookFailed(f"the answer is not a proxy's: {fault!r:.80}") from fault
        if not isinstance(following, int) or following <= place:
            break
        place = following
    assert first is not None
    return Told(_number(first.get("started_s")), _unpaid(first), devices)


def _unpaid(body: Mapping[str, Any]) -> str | None:
    if body.get("unpaid") is not True:
        return None
    return f"its proxy has no pool, so nobody pays: {str(body.get('fault'))[:200]}"


def _page(url: str, place: int, end_s: float) -> dict[str, Any]:
    data = _fetch(url, f"/v1/workers?from={place}", end_s)
    head, found, text = data.partition(b"\r\n\r\n")
    status = head.split(maxsplit=2)[1:2]
    if not found or not head.startswith(b"HTTP/1."):
        raise LookFailed("the answer is not HTTP")
    if status != [b"200"]:
        raise LookFailed(f"HTTP status {status[0][:3].decode('latin-1') if status else 'missing'}")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise LookFailed("the answer is not JSON, or is cut off") from fault
    if not isinstance(body, dict):
        raise LookFailed("the answer is not a JSON object")
    return body


def _fetch(url: str, path: str, end_s: float) -> bytes:
    """All that the server says until it closes; HTTP/1.0, so that this is one answer."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    data = b""
    try:
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        with ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection((host, port), READ_S))
            if secure:
                context = ssl.create_default_context()
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=host))
            path = parts.path.rstrip("/") + path
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            while len(data) <= MAX_BODY_BYTES:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise LookFailed(f"no whole answer within {READ_S:g} s")
                sock.settimeout(left_s)
                if not (chunk := sock.recv(CHUNK_BYTES)):
                    return data
                data += chunk
    except (OSError, ValueError) as fault:
        raise LookFailed(str(fault) or type(fault).__name__) from fault
    raise LookFailed(f"an answer longer than {MAX_BODY_BYTES} bytes")


def _tally(row: Mapping[str, Any]) -> Tally:
    found, accepted, rejected, lost = (int(_number(row[key])) for key in COUNTED)
    return Tally(found, accepted, rejected, lost, _number(row["accepted_difficulty"]))


def _number(value: Any) -> float:
    """A count as the proxy sends it. Raises: LookFailed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LookFailed("a count is not a number")
    if not 0 <= value < 1e18:  # NaN is not
        raise LookFailed("a count makes no sense")
    return float(value)
