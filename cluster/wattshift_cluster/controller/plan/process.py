"""The planner's process as the controller holds it: asked one question at a time, never waited on.

It is started when it is first asked, and ended and started anew where it has no answer in time, or
says what nobody understands. A process that is stopped or hangs is killed by its id.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from wattshift_cluster.controller.plan import wire as plan_wire
from wattshift_cluster.errors import WattshiftError

TOLD_MOST_CHARS = 300
STDERR_KEPT_BYTES = 4096
END_S = 5.0
"""How long a killed process is waited for: it cannot refuse, and a disk that hangs is no reason to
stop."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PLAN_CHILD = (sys.executable, "-m", "wattshift_cluster.controller.plan.child")

log = structlog.get_logger()


class PlannerFailed(WattshiftError):
    """No plan came of it; the text says why.

    Attributes:
        item: what of the question was refused; empty: it was not the question's fault.
    """

    def __init__(self, reason: str, item: str = "") -> None:
        super().__init__(reason)
        self.item = item


class Planner:
    """One planner's process; `close` it in the end.

    Attributes:
        pid: of the process; None while there is none.
        starts: how often it was started.
    """

    def __init__(self, argv: Sequence[str] = PLAN_CHILD) -> None:
        """Nothing is started yet. `argv`: of the process."""
        self._argv = tuple(argv)
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._said = bytearray()
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def ask(self, question: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Ask for a plan, one question at a time.

        Args:
            question: what `plan_child` takes.
            deadline_s: from here to the answer; the process is ended where it has none by then, s.

        Raises:
            PlannerFailed: it refused the question, has ended, or had no answer in time.
        """
        frame = await asyncio.to_thread(plan_wire.framed, question)
        try:
            async with asyncio.timeout(deadline_s):
                process = await self._started()
                text = await self._answer(process, frame)
            answer = await asyncio.to_thread(plan_wire.body_of, text)
        except TimeoutError:
            await self.close()
            raise PlannerFailed(f"no plan within {deadline_s:g} s: the planner is ended") from None
        except (asyncio.IncompleteReadError, OSError, plan_wire.NotOurs) as fault:
            raise PlannerFailed(await self._why(fault)) from None
        except asyncio.CancelledError:
            await asyncio.shield(self.close())
            raise
        if "failed" in answer:
            item = str(answer.get("item") or "")
            raise PlannerFailed(str(answer["failed"])[:TOLD_MOST_CHARS], item)
        return answer

    async def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        listening, self._listening = self._listening, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # works on one that is stopped, too
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self.close()
        self._said = bytearray()
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        self.starts += 1
        log.info("planner.started", pid=self._process.pid)
        self._listening = asyncio.create_task(self._listen(self._process))
        return self._process

    async def _answer(self, process: asyncio.subprocess.Process, frame: bytes) -> bytes:
        assert process.stdin is not None, "opened as a pipe"
        assert process.stdout is not None, "opened as a pipe"
        process.stdin.write(frame)
        await process.stdin.drain()
        header = await process.stdout.readexactly(plan_wire.HEADER.size)
        return await process.stdout.readexactly(plan_wire.length_of(header))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of what it says beside its answers: why it has ended stands there."""
        assert process.stderr is not None, "opened as a pipe"
        while said := await process.stderr.read(STDERR_KEPT_BYTES):
            self._said += said
            del self._said[:-STDERR_KEPT_BYTES]

    async def _why(self, fault: Exception) -> str:
        """Why there is no answer, for people; the process is ended."""
        process, listening = self._process, self._listening
        if process is not None and not isinstance(fault, plan_wire.NotOurs):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
                    if listening is not None:
                        await asyncio.shield(listening)
        code = None if process is None else process.returncode
        await self.close()
        if isinstance(fault, plan_wire.NotOurs):
            return f"the planner does not speak our language: {fault}"
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        lines = self._said.decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return f"the planner has ended{how}{last}"[:TOLD_MOST_CHARS]
