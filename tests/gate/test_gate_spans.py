"""`gate.busy()` as a decorator: of a function, a coroutine and both kinds of generators."""

import asyncio
import inspect
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from wattshift_cluster.gate import ClientGate


@pytest.fixture
def replica(gates: Any) -> Iterator[ClientGate]:
    made = ClientGate(gates.folder)
    yield made
    made.close()
    assert gates.in_flight() == 0


def test_a_function_is_busy_while_it_runs_and_when_it_raises(
    gates: Any, replica: ClientGate
) -> None:
    @replica.busy()
    def answer(depth: int) -> int:
        """Its own words."""
        assert gates.in_flight() == 3 - depth
        return 1 / 0 if depth == 0 else answer(depth - 1)  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        answer(2)
    assert gates.in_flight() == 0
    assert answer.__doc__ == "Its own words."


def test_a_coroutine_is_busy_until_it_is_done_or_cancelled(gates: Any, replica: ClientGate) -> None:
    @replica.busy()
    async def answer(wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        return "done"

    async def scene() -> None:
        called = answer(60)
        assert gates.in_flight() == 0, "called is not begun"
        first, second = asyncio.create_task(called), asyncio.create_task(answer(0.01))
        await asyncio.sleep(0)
        assert gates.in_flight() == 2
        assert await second == "done"
        assert gates.in_flight() == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert gates.in_flight() == 0

    assert inspect.iscoroutinefunction(answer)
    asyncio.run(scene())


def test_a_generator_is_busy_until_its_last_token_or_its_early_end(
    gates: Any, replica: ClientGate
) -> None:
    closed = []

    @replica.busy()
    def tokens() -> Iterator[str]:
        try:
            echoed = yield "a"
            yield echoed
        finally:
            closed.append(gates.in_flight())

    stream = tokens()
    assert gates.in_flight() == 0
    assert next(stream) == "a"
    assert gates.in_flight() == 1
    assert stream.send("b") == "b"  # type: ignore[attr-defined]
    assert list(stream) == []
    assert gates.in_flight() == 0
    stream = tokens()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert gates.in_flight() == 0
    assert closed == [1, 1], "its own clean-up is still within the span"
    stream = tokens()
    next(stream)
    del stream
    assert gates.in_flight() == 0, "collected"


def test_an_async_generator_is_busy_until_its_last_token_or_its_early_end(
    gates: Any, replica: ClientGate
) -> None:
    closed = []

    @replica.busy()
    async def tokens() -> AsyncIterator[str]:
        try:
            echoed = yield "a"
            await asyncio.sleep(0)
            yield echoed
        finally:
            await asyncio.sleep(0)
            closed.append(gates.in_flight())

    async def scene() -> None:
        stream = tokens()
        assert await anext(stream) == "a"
        assert gates.in_flight() == 1
        assert await stream.asend("b") == "b"  # type: ignore[attr-defined]
        assert [one async for one in stream] == []
        assert gates.in_flight() == 0
        early = tokens()
        await anext(early)
        await early.aclose()  # type: ignore[attr-defined]
        assert gates.in_flight() == 0
        assert closed == [1, 1], "the inner one was closed, within the span"

        async def read() -> None:
            async for _ in tokens():
                await asyncio.sleep(60)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        assert gates.in_flight() == 1
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    assert inspect.isasyncgenfunction(tokens)
    asyncio.run(scene())
    assert gates.in_flight() == 0


STREAMING = """
import sys, time
from wattshift_cluster.gate import ClientGate
@ClientGate(sys.argv[1]).busy()
def tokens():
    for number in range(1000):
        yield number
        time.sleep(0.01)
for token in tokens():
    print(token, flush=True)
"""


def test_kill_minus_9_in_the_middle_of_a_stream_frees(
    gates: Any, script: Callable[..., Any]
) -> None:
    server = script(STREAMING, str(gates.folder))
    assert [server.line(), server.line()] == ["0", "1"]
    assert gates.in_flight() == 1
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert gates.in_flight() == 0
