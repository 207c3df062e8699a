"""A report with a version, and waiting for the next one.

The version rises when something changed that somebody would act on: states, counts, watts. Ages,
clocks and rates change by themselves all the time and do not count; a latency counts by two digits,
a metered draw by whole watts.
"""

import asyncio
import json
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger()

WAIT_MAX_S = 2.0
WAITERS_MAX = 16
"""More than the connections that a server of the wire admits."""

PASSING = frozenset({"boot_s", "age_s", "version", "checkpoint_age_s", "rate_per_s"})
COARSE = frozenset({"p95_ms", "ttft_p95_ms", "itl_p95_ms"})
WHOLE = frozenset({"unasked_w", "system_w"})


def essence(report: Mapping[str, Any]) -> str:
    """What of a report counts, as a text to compare."""
    return json.dumps(_part(report, ""), sort_keys=True, default=str)


def _part(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _part(part, name) for name, part in value.items() if name not in PASSING}
    if isinstance(value, list | tuple):
        # Words that name watts differ with each look; the watts themselves are compared.
        return len(value) if key == "unasked" else [_part(part, key) for part in value]
    if isinstance(value, float) and math.isfinite(value):
        if key in COARSE:
            return float(f"{value:.1e}")
        if key in WHOLE:
            return round(value)
    return value


class Bulletin:
    """The newest report's version, and those who wait for another one. Callable from any thread."""

    def __init__(self, build: Callable[[], dict[str, Any]], first: int) -> None:
        """Prepare.

        Args:
            build: makes the report as of now; never waits.
            first: the first version; another one than that of an earlier process.
        """
        self._build = build
        self._lock = threading.Lock()
        self._version = first
        self._essence = ""
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def report(self) -> dict[str, Any]:
        """The report as of now, with its version."""
        with self._lock:
            report = self._build()
            seen = essence(report)
            changed = seen != self._essence
            if changed:
                self._essence = seen
                self._version += 1
            report["version"] = self._version
            waiters = list(self._waiters) if changed else []
        for loop, event in waiters:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the loop ended while somebody waited
                log.debug("bulletin.loop_gone")
        return report

    def refresh(self) -> None:
        """Look whether there are news, if anybody waits for them."""
        with self._lock:
            awaited = bool(self._waiters)
        if awaited:
            self.report()

    async def after(self, version: int, wait_s: float) -> dict[str, Any]:
        """The first report of another version, or the one after `wait_s` at the latest."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        waiter = (loop, event)
        with self._lock:
            if len(self._waiters) < WAITERS_MAX:
                self._waiters.add(waiter)
        try:
            ends_s = loop.time() + min(wait_s, WAIT_MAX_S)
            while True:
                event.clear()
                report = self.report()
                left_s = ends_s - loop.time()
                if report["version"] != version or left_s <= 0:
                    return report
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), left_s)
        finally:
            with self._lock:
                self._waiters.discard(waiter)
