"""A client crowd: sends texts at seeded bursty times, whatever the server does, and logs each.

Open loop: a slow server does not slow the arrivals, and latency counts from the moment a request
was due. The log has one JSON object per line:

    {"sent_s": Unix time it was due, "latency_ms": n | null, "status": HTTP status | null,
     "error": text | null}

A burst file, read again a few times a second, holds {"factor": x}: load time runs x times faster.

    python -m wattshift_cluster.inference.load --url http://127.0.0.1:8000/embed --rate 16 \
        --seed 7 --log requests.jsonl [--burst-control FILE] [--trace FILE] [--seconds N]
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog

from wattshift_cluster.errors import ConfigInvalid, WattshiftError
from wattshift_cluster.inference.arrivals import (
    BURST_RATIO,
    BURST_RATIO_MAX,
    Arrival,
    bursts,
    from_trace,
    text_of,
)
from wattshift_cluster.inference.httplink import HttpLink
from wattshift_cluster.process import die_with_parent, stop_event

log = structlog.get_logger()

CONTROL_PERIOD_S = 0.2
FACTOR_MAX = 100.0
DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What to send and where.

    Attributes:
        url: POST target.
        seed: of arrivals and texts.
        log_path: where the log is appended.
        control_path: burst file; None if the rate never changes.
        seconds: how long to send; None until stopped.
        in_flight_max: beyond this a due request is not sent but logged as an overrun.
        deadline_s: after this an answer counts as failed.
    """

    url: str
    seed: int
    log_path: Path
    control_path: Path | None = None
    seconds: float | None = None
    in_flight_max: int = 128
    deadline_s: float = 10.0


def read_factor(path: Path | None, last: float) -> float:
    """The factor in a burst file; `last` when it is being written or makes no sense."""
    if path is None:
        return last
    try:
        factor = float(json.loads(path.read_text())["factor"])
    except FileNotFoundError:
        return 1.0
    except (OSError, ValueError, KeyError, TypeError):
        return last
    return factor if 0 <= factor <= FACTOR_MAX else last


class Crowd:
    """Sends arrivals at their time."""

    def __init__(self, settings: LoadSettings, arrivals: Iterator[Arrival], out: TextIO) -> None:
        self._settings = settings
        self._arrivals = arrivals
        self._out = out
        self._link = HttpLink(settings.url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.failed = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set or the time is over, then wait for the last answers."""
        ends = asyncio.create_task(self._send_all(stop))
        waits = asyncio.create_task(stop.wait())
        await asyncio.wait({ends, waits}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ends, waits):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await ends
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._link.close()

    async def _send_all(self, stop: asyncio.Event) -> None:
        start_s = now_s = time.monotonic()
        load_s, factor = 0.0, read_factor(self._settings.control_path, 1.0)
        for number, arrival in enumerate(self._arrivals):
            while load_s < arrival.at_s:
                left_s = (arrival.at_s - load_s) / factor if factor > 0 else CONTROL_PERIOD_S
                step_s = min(left_s, CONTROL_PERIOD_S)
                await asyncio.sleep(max(0.0, now_s + step_s - time.monotonic()))
                # Advanced by the step, not by the clock: oversleeping must not thin the load.
                now_s += step_s
                load_s = min(arrival.at_s, load_s + step_s * factor)
                factor = read_factor(self._settings.control_path, factor)
            if self._over(now_s - start_s) or stop.is_set():
                return
            self._start(number, arrival, due_s=time.time() - (time.monotonic() - now_s))

    def _over(self, elapsed_s: float) -> bool:
        return self._settings.seconds is not None and elapsed_s >= self._settings.seconds

    def _start(self, number: int, arrival: Arrival, due_s: float) -> None:
        self.sent += 1
        if len(self._tasks) >= self._settings.in_flight_max:
            self._write(due_s, None, None, "overrun: too many requests in flight")
            return
        task = asyncio.create_task(self._one(number, arrival, due_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, number: int, arrival: Arrival, due_s: float) -> None:
        text = text_of(arrival, number, self._settings.seed)
        status, error = None, None
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                status, answer = await self._link.post(json.dumps({"texts": [text]}).encode())
            if status != 200:
                error = answer[:200].decode("utf-8", "replace")
        except TimeoutError:
            error = f"no answer within {self._settings.deadline_s:g} s"
        except (WattshiftError, OSError) as fault:
            error = str(fault) or type(fault).__name__
        except asyncio.CancelledError:
            self._write(due_s, None, None, "no answer when the load generator stopped")
            raise
        self._write(due_s, (time.time() - due_s) * 1000, status, error)

    def _write(
        self, due_s: float, latency_ms: float | None, status: int | None, error: str | None
    ) -> None:
        self.failed += error is not None
        line = {
            "sent_s": round(due_s, 4),
            "latency_ms": None if latency_ms is None else round(latency_ms, 2),
            "status": status,
            "error": error,
        }
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process; returns its exit code."""
    options = _parser().parse_args(arguments)
    if not options.stay:
        die_with_parent(parent_pid=os.getppid())
    settings = LoadSettings(
        url=options.url,
        seed=options.seed,
        log_path=options.log,
        control_path=options.burst_control,
        seconds=options.seconds,
        in_flight_max=options.in_flight_max,
        deadline_s=options.deadline,
    )
    if options.trace is None:
        arrivals = bursts(
            options.rate or 16.0, options.seed, words=options.words, burst_ratio=options.burst_ratio
        )
    else:
        arrivals = from_trace(options.trace, options.rate)
    try:
        return asyncio.run(_run(settings, arrivals))
    except ConfigInvalid as fault:
        log.error("load.invalid", reason=str(fault))
        return fault.exit_code


async def _run(settings: LoadSettings, arrivals: Iterator[Arrival]) -> int:
    stop = stop_event()
    with settings.log_path.open("a", encoding="utf-8") as out:
        crowd = Crowd(settings, arrivals, out)
        log.info("load.started", url=settings.url, seed=settings.seed)
        await crowd.run(stop)
    log.info("load.ended", sent=crowd.sent, failed=crowd.failed)
    return 0


def _parser() -> argparse.ArgumentParser:
    def ratio(text: str) -> float:
        value = float(text)
        if not 1 <= value <= BURST_RATIO_MAX:
            raise argparse.ArgumentTypeError(f"allowed: 1 to {BURST_RATIO_MAX:g}")
        return value

    def positive(text: str) -> float:
        value = float(text)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError("allowed: above 0, below 1e6")
        return value

    def count(text: str) -> int:
        return int(positive(text))

    def web(text: str) -> str:
        if not text.startswith("http://"):
            raise argparse.ArgumentTypeError("allowed: an http:// URL")
        return text

    parser = argparse.ArgumentParser(prog="wattshift_cluster.inference.load")
    parser.add_argument("--url", required=True, type=web)
    parser.add_argument("--rate", type=positive, help="mean requests per second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--trace", type=Path, help="CSV with TIMESTAMP, ContextTokens")
    parser.add_argument("--burst-control", type=Path, help='file with {"factor": x}')
    parser.add_argument("--burst-ratio", type=ratio, default=BURST_RATIO)
    parser.add_argument("--words", type=count, default=12, help="mean words of a text")
    parser.add_argument("--seconds", type=positive)
    parser.add_argument("--deadline", type=positive, default=10.0)
    parser.add_argument("--in-flight-max", type=count, default=128)
    parser.add_argument("--stay", action="store_true", help="do not end with the parent process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
