"""Start, watch and end the processes of an embedded site.

Each child logs to a file of its own. A child that dies is started again with back-off, because a
site must outlive any of its parts; all of them end, in reverse order, when the supervisor does.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import structlog

from wattshift_cluster.errors import ConfigInvalid, WattshiftError

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0
STEADY_S = 30.0
"""A child that ran this long starts again without delay when it dies."""

STOP_S = 20.0
"""Time for a child to reach its safe point after SIGTERM before it is killed."""

log = structlog.get_logger()


class ChildFailed(WattshiftError):
    """A child did not become ready. `child` names it, `tail` is the end of its log."""

    def __init__(self, child: str, reason: str, tail: str) -> None:
        super().__init__(f"{child} {reason}; the end of its log:\n{tail}")
        self.child = child
        self.tail = tail


class ChildInvalid(ChildFailed):
    """A child refused its configuration; the end of its log names what it refused."""

    exit_code: ClassVar[int] = ConfigInvalid.exit_code


@dataclass(frozen=True, slots=True)
class Child:
    """One process to run.

    Attributes:
        name: for people and for its log file.
        argv: command line.
        ready: returns once it serves; called after each first start.
        env: variables on top of ours.
        stop_s: time to end after SIGTERM.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = STOP_S


class Children:
    """A group of supervised processes."""

    def __init__(self, log_dir: Path) -> None:
        """Logs go to `log_dir`, one file per child."""
        self._log_dir = log_dir
        self._tasks: list[tuple[Child, asyncio.Task[None]]] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._codes: dict[str, int] = {}
        self._log_begins: dict[str, int] = {}
        self._ending = False
        self.restarts: dict[str, int] = {}

    def pid(self, name: str) -> int | None:
        """Process id of a running child."""
        process = self._running.get(name)
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, child: Child, *, deadline_s: float = 60.0) -> None:
        """Start a child and wait until it is ready. Raises ChildFailed."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._ending = False
        first = asyncio.Event()
        task = asyncio.create_task(self._keep(child, first))
        self._tasks.append((child, task))
        await first.wait()
        if child.ready is None:
            return
        ends_s = time.monotonic() + deadline_s
        while not await child.ready():
            if child.name in self.restarts:
                invalid = self._codes.get(child.name) == ChildInvalid.exit_code
                kind = ChildInvalid if invalid else ChildFailed
                raise kind(child.name, "ended before it was ready", self.tail(child.name))
            if time.monotonic() > ends_s:
                reason = f"was not ready in {deadline_s:g} s"
                raise ChildFailed(child.name, reason, self.tail(child.name))
            await asyncio.sleep(0.1)

    async def _keep(self, child: Child, first: asyncio.Event) -> None:
        delay_s = BACKOFF_FIRST_S
        while not self._ending:
            began_s = time.monotonic()
            process = await self._spawn(child)
            self._running[child.name] = process
            first.set()
            code = await process.wait()
            if self._ending:
                return
            self._codes[child.name] = code
            self.restarts[child.name] = self.restarts.get(child.name, 0) + 1
            log.warning("child ended", child=child.name, code=code, again_in_s=delay_s)
            steady = time.monotonic() - began_s > STEADY_S
            delay_s = BACKOFF_FIRST_S if steady else min(delay_s * 2, BACKOFF_MOST_S)
            await asyncio.sleep(delay_s)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        with self._log(child.name).open("ab") as out:
            self._log_begins.setdefault(child.name, out.tell())
            return await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **child.env},
                # Ctrl-C reaches the supervisor alone, which then ends its children in order.
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a child's log, of what it has said since we started it."""
        with contextlib.suppress(OSError), self._log(name).open(errors="replace") as log_file:
            log_file.seek(self._log_begins.get(name, 0))
            return "\n".join(log_file.read().splitlines()[-lines:])
        return "(no log)"

    async def end(self, name: str) -> None:
        """End one child for good."""
        for child, task in self._tasks:
            if child.name == name:
                task.cancel()
                await self._end(child)

    async def stop(self) -> None:
        """End every child, the last started first."""
        self._ending = True
        for child, task in reversed(self._tasks):
            await self._end(child)
            task.cancel()
        await asyncio.gather(*(task for _, task in self._tasks), return_exceptions=True)
        self._tasks.clear()

    async def _end(self, child: Child) -> None:
        process = self._running.get(child.name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(child.stop_s):
                await process.wait()
        except TimeoutError:
            log.warning("child killed: it did not end in time", child=child.name)
            # Its session is its own, so that this reaches what it started, too.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def listens(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, port = address.rsplit(":", 1)
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
