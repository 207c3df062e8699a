"""The event stream: resumable, bounded, and rid of readers that do not read."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import fakeport
import pytest

from wattshift_cluster.api import stream
from wattshift_cluster.client import ControllerClient, StreamEvent
from wattshift_cluster.errors import Refused, TryLater


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """A server of its own for each test, because what it has streamed is part of its state."""
    with fakeport.serving(tmp_path) as running:
        yield running


@contextlib.contextmanager
def reading(served: Any, last_id: int | None = None) -> Iterator[Iterator[StreamEvent]]:
    with ControllerClient(served.url, served.secrets["viewer"]) as client:
        source = client.stream(last_id)
        try:
            yield source
        finally:
            source.close()  # type: ignore[attr-defined]


def take(source: Iterator[StreamEvent], count: int) -> list[StreamEvent]:
    return [next(source) for _ in range(count)]


def wait_for_ring(served: Any, event_id: int) -> None:
    """Wait until the server has taken an event."""
    with reading(served, 0) as source:
        for event in source:
            if event.id == event_id:
                return


def test_events_come_in_order_with_ids(served: Any) -> None:
    with ControllerClient(served.url, served.secrets["viewer"]) as client:
        source = client.stream(0)
        assert next(source).event == "reset"
        ids = [served.port.publish("site", {"n": n}) for n in range(3)]
        got = take(source, 3)
    assert [event.id for event in got] == ids
    assert [event.data["n"] for event in got] == [0, 1, 2]


def test_a_reader_resumes_after_the_last_id_it_saw(served: Any) -> None:
    ids = [served.port.publish("site", {"n": n}) for n in range(6)]
    wait_for_ring(served, ids[-1])
    with reading(served, ids[2]) as source:
        assert [event.id for event in take(source, 3)] == ids[3:]


def test_an_id_that_is_not_held_resets_and_replays(served: Any) -> None:
    ids = [served.port.publish("site", {"n": n}) for n in range(3)]
    wait_for_ring(served, ids[-1])
    with reading(served, 5) as source:
        events = take(source, 4)
    assert [event.event for event in events] == ["reset", "site", "site", "site"]
    assert [event.id for event in events] == [None, *ids]


def test_unknown_figures_leave_as_null(served: Any) -> None:
    event_id = served.port.publish("site", {"power_w": float("nan"), "deep": [float("inf")]})
    wait_for_ring(served, event_id)
    with reading(served, 0) as source:
        assert take(source, 2)[1].data == {"power_w": None, "deep": [None]}


def test_a_bad_last_id_and_a_missing_token(call: Any, served: Any) -> None:
    headers = {"Last-Event-ID": "-4"}
    assert call("GET", "/v1/stream", headers=headers).status_code == 400
    with ControllerClient(served.url, None) as client, pytest.raises(Refused):
        next(client.stream())


def test_the_number_of_readers_is_limited(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "READERS_MAX", 1)
    with reading(served, 0) as source:
        next(source)
        second = ControllerClient(served.url, served.secrets["viewer"])
        with second, pytest.raises(TryLater):
            next(second.stream())
    deadline_s = time.monotonic() + 5
    while True:  # the place of a reader that left is free again
        try:
            with reading(served, 0) as source:
                next(source)
            return
        except TryLater:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_a_client_that_takes_nothing_is_dropped(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_DEADLINE_S", 0.5)
    dropped, answer = threading.Event(), stream.EventResponse.__call__

    async def told(*arguments: Any) -> None:
        try:
            await answer(*arguments)
        finally:
            dropped.set()

    monkeypatch.setattr(stream.EventResponse, "__call__", told)
    host, port = served.url.removeprefix("http://").split(":")
    request = (
        f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0\r\n"
        f"Authorization: Bearer {served.secrets['viewer']}\r\n\r\n"
    )
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((host, int(port)))
        stuck.sendall(request.encode())
        stuck.settimeout(10)
        assert stuck.recv(15) == b"HTTP/1.1 200 OK"
        for _ in range(200):
            served.port.publish("site", {"ballast": "x" * 100_000})
        assert dropped.wait(60), "whoever reads on before that keeps the stream alive"
        received = 0
        with contextlib.suppress(ConnectionError):  # a reset is as good as an end
            while data := stuck.recv(1 << 20):
                received += len(data)
        assert received < 200 * 100_000, "a dropped client does not get everything"


class Source:
    """A port of which only `subscribe` is used."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[int, str, dict[str, Any]]] = asyncio.Queue()

    async def subscribe(self, last_id: int | None) -> AsyncIterator[tuple[int, str, Any]]:
        while True:
            yield await self.queue.get()


async def drained(source: Source) -> None:
    """Let the fanout take what is in the queue."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.queue.empty()


def test_a_reader_that_falls_out_of_the_ring_is_dropped() -> None:
    async def scene() -> None:
        source = Source()
        fanout = stream.Fanout(source, ring_events=4)  # type: ignore[arg-type]
        fanout.start()
        reader = fanout.read(None)
        assert await anext(reader) == b": welcome\n\n"
        for event_id in range(1, 10):
            source.queue.put_nowait((event_id, "site", {}))
        await drained(source)
        assert [chunk async for chunk in reader] == [], "it ends instead of skipping silently"
        await fanout.close()

    asyncio.run(scene())


def test_a_restarted_controller_that_counts_anew_empties_the_ring() -> None:
    async def scene() -> None:
        source = Source()
        fanout = stream.Fanout(source)  # type: ignore[arg-type]
        fanout.start()
        for event_id in (70, 71, 1):
            source.queue.put_nowait((event_id, "site", {}))
        await drained(source)
        reader = fanout.read(70)
        assert b"event: reset" in await anext(reader)
        assert (await anext(reader)).startswith(b"id: 1\n")
        await fanout.close()
        assert [chunk async for chunk in reader] == []

    asyncio.run(scene())
