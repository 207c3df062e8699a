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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import structlog

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.inference.arrivals import (
    BURST_RATIO,
    BURST_RATIO_MAX,
    Arrival,
    bursts,
    from_trace,
    text_of,
)
from wattshift_cluster.inference.httplink import HttpLink, web_url
from wattshift_cluster.inference.open_loop import Limits, OpenLoop, Outcome, Reply
from wattshift_cluster.process import die_with_parent, stop_event

log = structlog.get_logger()

FACTOR_MAX = 100.0


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What to send and where.

    Attributes:
        url: POST target.
        seed: of arrivals and texts.
        log_path: where the log is appended.
        control_path: burst file; None if the rate never changes.
        limits: of the open loop.
    """

    url: str
    seed: int
    log_path: Path
    control_path: Path | None = None
    limits: Limits = field(default_factory=Limits)


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
    """Texts for an encoder at the pace of a burst file, each outcome a line of the log."""

    def __init__(self, settings: LoadSettings, arrivals: Iterator[Arrival], out: TextIO) -> None:
        self._settings = settings
        self._out = out
        self._link = HttpLink(settings.url)
        self._last_factor = 1.0
        self._loop = OpenLoop(arrivals, self._ask, self._write, settings.limits, self._factor)
        self.due = 0
        self.failed = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set or the time is over, then wait for the last answers."""
        await self._loop.run(stop)
        await self._link.close()

    def _factor(self) -> float:
        self._last_factor = read_factor(self._settings.control_path, self._last_factor)
        return self._last_factor

    async def _ask(self, number: int, arrival: Arrival) -> Reply:
        text = text_of(arrival, number, self._settings.seed)
        answer = await self._link.ask(json.dumps({"texts": [text]}).encode())
        if answer.status == 200:
            return Reply(200)
        told = answer.body[:200].decode("utf-8", "replace")
        return Reply(answer.status, f"HTTP {answer.status}", told)

    def _write(self, outcome: Outcome) -> None:
        self.due += 1
        self.failed += outcome.error is not None
        latency_ms = outcome.latency_ms
        line = {
            "sent_s": round(outcome.due_s, 4),
            "latency_ms": None if latency_ms is None else round(latency_ms, 2),
            "status": None if outcome.reply is None else outcome.reply.status,
            "error": outcome.error,
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
        limits=Limits(options.seconds, options.in_flight_max, options.deadline),
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
    log.info("load.ended", due=crowd.due, failed=crowd.failed)
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
        try:
            web_url(text)
        except ValueError as fault:
            raise argparse.ArgumentTypeError(str(fault)) from None
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
