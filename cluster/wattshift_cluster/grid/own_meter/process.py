"""An independent site meter as a program, for a site that has no meter with an interface.

    python -m wattshift_cluster.grid.own_meter.process --listen 127.0.0.1:7500 \\
        --truth http://127.0.0.1:7600/v1/truth --host-idle-w 100 --host-core-w 150 \\
        --log samples.jsonl

It adds up the emulators' true power, this host's CPU (modelled) and its GPUs (measured), and reads
no figure of any controller. GET /v1/power and each line of the log hold the same body: {"watts_w",
"at_s" (unix), "at_boot_s", "window_s", "quality", "parts"}. `watts_w` is null while any part is
unknown. `quality` is the weakest of the parts: modelled, emulated, measured.

When it listens and has a sample, one line goes to stdout: {"ready": true, "power": "host:port"}.
Exit codes: 0 after SIGTERM or SIGINT (the parent's death sends SIGTERM), 1 where the port is in use
or the log cannot be written, 3 where a flag is invalid.
"""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.grid.own_meter.draws import (
    GpuSource,
    HostSource,
    Part,
    PowerSource,
    TruthSource,
)
from wattshift_cluster.jsonhttp import address, serve_json
from wattshift_cluster.process import die_with_parent, stop_event

log = structlog.get_logger()

MAX_LOG_BYTES = 256 * 1024 * 1024
QUALITIES = ("modelled", "emulated", "measured")


class SampleLog:
    """JSON lines, flushed one by one; past MAX_LOG_BYTES the file moves to NAME.1."""

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        """Open for appending. Raises: OSError."""
        self._path, self._max_bytes = path, max_bytes
        self._file = path.open("a", encoding="ascii", buffering=1)

    def write(self, body: dict[str, Any]) -> None:
        """Append one sample. Raises: OSError, for example on a full disk."""
        self._file.write(json.dumps(body, separators=(",", ":")) + "\n")
        if self._file.tell() > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("a", encoding="ascii", buffering=1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def body_of(
    parts: Sequence[Part], *, at_s: float, at_boot_s: float, window_s: float | None
) -> dict[str, Any]:
    """One sample as it is served and logged; the total is unknown where any part is."""
    known = [part.watts_w for part in parts if part.watts_w is not None]
    total_w = round(math.fsum(known), 3) if len(known) == len(parts) and parts else None
    return {
        "watts_w": total_w,
        "at_s": round(at_s, 4),
        "at_boot_s": round(at_boot_s, 4),
        "window_s": None if window_s is None else round(window_s, 3),
        "quality": min((part.quality for part in parts), key=QUALITIES.index, default="modelled"),
        "parts": [_part_body(part) for part in parts],
    }


class SiteMeter:
    """Samples all sources at a period and keeps the latest sample."""

    def __init__(self, sources: Sequence[PowerSource], host: HostSource | None) -> None:
        """Args: host: the source, also among `sources`, whose window is the sample's."""
        self._sources, self._host = sources, host
        self._log_failed = False
        self._latest: dict[str, Any] = body_of(
            [], at_s=time.time(), at_boot_s=boot_s(), window_s=None
        )

    def latest(self) -> dict[str, Any]:
        """The latest sample."""
        return self._latest

    async def sample(self) -> dict[str, Any]:
        """Read every source and add up."""
        read = await asyncio.gather(*(source.read() for source in self._sources))
        self._latest = body_of(
            [part for parts in read for part in parts],
            at_s=time.time(),
            at_boot_s=boot_s(),
            window_s=self._host.window_s if self._host else None,
        )
        return self._latest

    async def run(self, period_s: float, samples: SampleLog | None, stop: asyncio.Event) -> None:
        """Sample until `stop`; a missed beat is skipped, never made up for."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while not stop.is_set():
            body = await self.sample()
            if samples is not None:
                self._log(samples, body)
            due_s = max(due_s + period_s, loop.time())
            try:
                async with asyncio.timeout_at(due_s):
                    await stop.wait()
            except TimeoutError:
                continue

    def _log(self, samples: SampleLog, body: dict[str, Any]) -> None:
        """Write to the log; a full disk is said once and must not stop the meter."""
        try:
            samples.write(body)
            self._log_failed = False
        except OSError as fault:
            if not self._log_failed:
                log.error("meter.log_failed", reason=str(fault))
            self._log_failed = True


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # stdout carries the ready line only.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        host, port = _listen(arguments.listen)
        sources, host_source = _sources(arguments)
        if not 0.02 <= arguments.period_s <= 60:
            raise ValueError("--period-s must be 0.02 to 60")
    except ValueError as fault:
        sys.stderr.write(f"meter: {fault}\n")
        return 3
    die_with_parent()
    try:
        samples = SampleLog(arguments.log) if arguments.log else None
        meter = SiteMeter(sources, host_source)
        return asyncio.run(_run(meter, host, port, arguments.period_s, samples))
    except OSError as fault:
        sys.stderr.write(f"meter: {arguments.listen}, {arguments.log}: {fault}\n")
        return 1


async def _run(
    meter: SiteMeter, host: str, port: int, period_s: float, samples: SampleLog | None
) -> int:
    stop = stop_event()
    server = await serve_json(host, port, {"/v1/power": meter.latest})
    await asyncio.sleep(0.1)  # the CPU model needs a first window
    await meter.sample()
    sys.stdout.write(json.dumps({"ready": True, "power": address(server)}) + "\n")
    sys.stdout.flush()
    try:
        await meter.run(period_s, samples, stop)
    finally:
        server.close()
        if samples is not None:
            samples.close()
    return 0


def _sources(arguments: argparse.Namespace) -> tuple[list[PowerSource], HostSource | None]:
    """The sources that the flags ask for. Raises: ValueError."""
    sources: list[PowerSource] = [TruthSource(url) for url in arguments.truth]
    host: HostSource | None = None
    if arguments.host_idle_w is not None or arguments.host_core_w is not None:
        idle_w, core_w = arguments.host_idle_w or 0.0, arguments.host_core_w or 0.0
        if not (0 <= idle_w < 1e6 and 0 <= core_w < 1e6):
            raise ValueError("--host-idle-w and --host-core-w must be 0 to 1e6 W")
        host = HostSource(idle_w, core_w)
        sources.append(host)
    gpus = GpuSource.find() if arguments.gpus == "auto" else None
    if gpus is not None:
        sources.append(gpus)
    if not sources:
        raise ValueError("nothing to measure: give --truth or --host-idle-w")
    return sources, host


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattshift meter", description=__doc__)
    add = parser.add_argument
    add("--listen", default="127.0.0.1:7500", help="host:port of GET /v1/power")
    add("--truth", action="append", default=[], metavar="URL", help="emulators' truth; repeatable")
    add("--host-idle-w", type=float, help="host without load, W")
    add("--host-core-w", type=float, help="each busy core, W")
    add("--gpus", choices=("auto", "none"), default="auto", help="measure GPUs by NVML")
    add("--period-s", type=float, default=0.2, help="time between samples, s")
    add("--log", type=Path, help="JSON lines file to append every sample to")
    return parser


def _listen(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--listen {text}: wanted host:port")
    return host.strip("[]"), int(port)


def _part_body(part: Part) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": part.name,
        "watts_w": None if part.watts_w is None else round(part.watts_w, 3),
        "quality": part.quality,
    }
    return body if part.fault is None else {**body, "fault": part.fault[:120]}


if __name__ == "__main__":
    sys.exit(main())
