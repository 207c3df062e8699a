"""The worker's process, kept alive: started, watched by its heartbeat, started again with back-off.

Its counters lie in shared memory, so those of a killed worker are read from there and none is lost.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.agent.voice import EXIT_RELEASED
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.gate import GateInvalid, SeatView

log = structlog.get_logger()

READY_S = 120.0
"""Compiling a kernel for the first time takes long."""

SILENT_S = 10.0
END_S = 2.0
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_S = 60.0
ASK_AGAIN_S = 0.2
UNSENT_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Totals:
    """Counted over all workers of a device."""

    hashes: int = 0
    launching_ns: int = 0
    cpu_ns: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.hashes + other.hashes,
            self.launching_ns + other.launching_ns,
            self.cpu_ns + other.cpu_ns,
        )

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(
            self.hashes - other.hashes,
            self.launching_ns - other.launching_ns,
            self.cpu_ns - other.cpu_ns,
        )


class WorkerChild:
    """One device's worker.

    Attributes:
        fault: why there is no worker now; None while one is ready.
        hasher: what the worker hashes with, once it said so.
        progress: of the table that it hashes with, 0 to 1; 1 where it needs none.
        pid: of the running process, None between two.
        restarts: workers that ended although nobody told them to.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        seat: Path,
        on_event: Callable[[dict[str, Any]], None],
        not_now: Callable[[], str | None] = lambda: None,
        *,
        module: str = "wattshift_cluster.agent.worker",
    ) -> None:
        """Prepare; `run` starts it.

        Args:
            arguments: of the worker module.
            environment: the whole environment of the child.
            seat: the device's worker file.
            on_event: called with each line of the worker, "ready" included.
            not_now: why no worker may be started now; None when one may.
            module: the worker's program, which speaks as `agent.worker` does.
        """
        self.fault: str | None = "the worker is starting"
        self.hasher: str | None = None
        self.progress = 1.0
        self.pid: int | None = None
        self.restarts = 0
        self._arguments = tuple(arguments)
        self._environment = dict(environment)
        self._seat = seat
        self._on_event = on_event
        self._not_now = not_now
        self._module = module
        self._past = Totals()
        self._view: SeatView | None = None
        self._process: Process | None = None

    def totals(self) -> Totals:
        """Counters of all workers until now."""
        return self._past + self._live()

    def send(self, message: dict[str, Any]) -> None:
        """Tell the worker; without one, or with one that does not listen, nothing happens."""
        process = self._process
        if process is None or self._view is None or process.stdin is None:
            return
        if process.stdin.transport.get_write_buffer_size() > UNSENT_LIMIT_BYTES:
            return  # it hangs, and its heartbeat will tell
        process.stdin.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Keep a worker running until cancelled; the last one is ended then."""
        attempt = 0
        while True:
            while (reason := self._not_now()) is not None:
                self.fault = reason
                await asyncio.sleep(ASK_AGAIN_S)
            began_s = boot_s()
            if await self._one_life() == EXIT_RELEASED:
                log.info("worker.released", seat=str(self._seat))
                continue
            self.restarts += 1
            attempt = 0 if boot_s() - began_s > STEADY_S else attempt + 1
            wait_s = BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1] if attempt else BACKOFF_S[0]
            log.warning("worker.ended", seat=str(self._seat), reason=self.fault, again_in_s=wait_s)
            await asyncio.sleep(wait_s)

    async def _one_life(self) -> int | None:
        """Run one worker to its end and return its exit code; None if it could not be started."""
        command = (sys.executable, "-m", self._module, *self._arguments)
        self.fault = "the worker is starting"
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, env=self._environment
            )
        except OSError as fault:
            self.fault = f"the worker cannot be started: {fault}"
            return None
        self._process, self.pid, self.progress = process, process.pid, 1.0
        watch = asyncio.create_task(self._watch(process))
        said: str | None = None
        try:
            said = await self._listen(process)
            code = await process.wait()
            self.fault = said or self.fault or f"the worker ended with {code}"
        finally:
            watch.cancel()
            await asyncio.shield(self._end(process))
        return code

    async def _listen(self, process: Process) -> str | None:
        """Follow the worker's lines to their end; the reason if it refused to work."""
        assert process.stdout is not None
        reason: str | None = None
        async for line in process.stdout:
            try:
                event = json.loads(line)
                name = event["event"]
            except (ValueError, KeyError, TypeError):
                log.warning("worker.garbage", line=line[:80])
                continue
            if name == "ready":
                self._view = SeatView(self._seat)
                self.hasher, self.fault = str(event.get("hasher")), None
                log.info("worker.ready", pid=process.pid, hasher=self.hasher)
            elif name == "refused":
                reason = str(event.get("reason"))
            elif name == "table":
                self.progress = float(event.get("progress", 1.0))
            self._on_event(event)
        return reason

    async def _watch(self, process: Process) -> None:
        """Kill a worker that neither gets ready nor beats."""
        started_ns = boot_ns()
        while True:
            await asyncio.sleep(1.0)
            ready = self._view is not None
            limit_s = SILENT_S if ready else READY_S
            last_ns = max(started_ns, self._view.read().heartbeat_ns if self._view else 0)
            if boot_ns() - last_ns > limit_s * 1e9:
                self.fault = f"the worker was silent for {limit_s:g} s"
                process.kill()
                return

    async def _end(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._past += self._live()
        if self._view is not None:
            self._view.close()
        self._view, self._process, self.pid = None, None, None

    def _live(self) -> Totals:
        if self._view is None:
            return Totals()
        with suppress(GateInvalid):
            state = self._view.read()
            return Totals(state.hashes, state.launching_ns, state.cpu_ns)
        return Totals()
