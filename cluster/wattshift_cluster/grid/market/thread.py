"""One thread for whoever asks synchronously and cannot be interrupted.

Nobody waits for it: a question that is not answered in time is given up, and as long as it still
hangs nothing more is asked.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from wattshift_cluster.grid.curves.readers import CurveFailed

Answer = TypeVar("Answer")


class MarketThread:
    """The thread; a daemon, so that a question that hangs keeps no process from ending."""

    def __init__(self) -> None:
        """The thread begins with the first question."""
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1)
        self._thread: threading.Thread | None = None
        self._free = asyncio.Lock()
        self._hangs = threading.Event()

    async def call(self, ask: Callable[[], Answer], deadline_s: float) -> Answer:
        """Run `ask` there and wait for it.

        Raises: CurveFailed: not in time, or an earlier question still hangs; else what `ask` does.
        """
        async with self._free:
            if self._hangs.is_set():
                raise CurveFailed("an earlier question to the market still hangs")
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Answer] = loop.create_future()
            self._hangs.set()
            self._jobs.put_nowait(lambda: self._answer(ask, loop, answer))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="market", daemon=True)
                self._thread.start()
            try:
                async with asyncio.timeout(deadline_s):
                    return await answer
            except TimeoutError:
                raise CurveFailed(f"no answer within {deadline_s:g} s") from None

    def _answer(
        self,
        ask: Callable[[], Answer],
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[Answer]",
    ) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(_found, answer, ask())
        except Exception as fault:  # whatever a foreign library raises is its answer
            settle = partial(_failed, answer, fault)
        finally:
            self._hangs.clear()
        # A loop that is closed by now has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


def _found(answer: "asyncio.Future[Answer]", found: Answer) -> None:
    if not answer.done():
        answer.set_result(found)


def _failed(answer: "asyncio.Future[Answer]", fault: Exception) -> None:
    if not answer.done():
        answer.set_exception(fault)
