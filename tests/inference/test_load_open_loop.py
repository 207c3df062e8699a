"""The open loop and its HTTP client against real sockets that misbehave."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.inference.arrivals import Arrival, ramped, steady
from wattshift_cluster.inference.httplink import BadAnswer, HttpLink, header_of, web_url
from wattshift_cluster.inference.open_loop import Limits, OpenLoop, Outcome, Reply

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x?key=1"
    finally:
        server.close()


def says(*answers: bytes, close: bool = False) -> Talk:
    """Answers the n-th request of a connection with the n-th text."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    return talk


def ask(talk: Talk, *, times: int = 1, method: str = "GET") -> list[object]:
    """What each request ended with: a status and a body, or the error."""

    async def asking() -> list[object]:
        found: list[object] = []
        async with listening(talk) as url:
            link = HttpLink(url, method=method, headers=())
            for _ in range(times):
                try:
                    answer = await asyncio.wait_for(link.ask(), 5)
                    found.append((answer.status, answer.body))
                except WattshiftError as fault:
                    found.append(fault)
            await link.close()
        return found

    return asyncio.run(asking())


LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: %s\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (OK, (200, b"ok")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nsome: trailer\r\n\r\n",
            (200, b"abc"),
        ),
    ],
    ids=["length", "interim", "none", "chunked"],
)
def test_answers_are_read_and_the_connection_is_kept(answer: bytes, found: object) -> None:
    assert ask(says(answer, answer), times=2) == [found, found]


def test_a_body_may_end_with_its_connection_and_a_redirect_is_an_answer() -> None:
    assert ask(says(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", close=True)) == [
        (200, b"until the end")
    ]
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    assert ask(says(moved)) == [(302, b"")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "before its answer ended"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP/1"),
        (LENGTH % b"9" + b"short", "before its answer ended"),
        (LENGTH % b"-1", "a body of -1 bytes"),
        (LENGTH % b"many", "not HTTP/1.1"),
        (LENGTH % b"99999999999", "a body of 99999999999 bytes"),
        (CHUNKED + b"fffffffff\r\n", "more than 8 MiB"),
        (CHUNKED + b"-2\r\n", "more than 8 MiB"),
        (CHUNKED + (b"80000\r\n" + bytes(0x80000) + b"\r\n") * 17, "more than 8 MiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(9 << 20), "more than 8 MiB"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "other than chunked"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "interim answers"),
        (b"x" * (70 << 10), "not HTTP/1.1"),
    ],
    ids=[
        "nothing", "ssh", "cut", "less", "words", "huge", "chunk", "minus", "chunks", "endless",
        "gzip", "1xx", "head",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error(answer: bytes, told: str) -> None:
    (found,) = ask(says(answer, close=True))
    assert isinstance(found, BadAnswer)
    assert told in str(found)


def test_a_request_is_never_sent_twice() -> None:
    requests = itertools.count()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        next(requests)
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        next(requests)  # and dies over the second, as a killed replica would

    first, second = ask(talk, times=2)
    assert first == (200, b"ok")
    assert isinstance(second, BadAnswer)
    assert next(requests) == 2


def test_a_connection_that_the_server_closed_while_idle_is_not_used() -> None:
    async def twice() -> None:
        async with listening(says(OK, close=True)) as url:
            link = HttpLink(url, method="GET")
            for _ in range(2):
                answer = await asyncio.wait_for(link.ask(), 5)
                assert answer.status == 200
                await asyncio.sleep(0.05)
            await link.close()

    asyncio.run(twice())


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "http://", "http://a:b@x/", "http://x:0/", "http://x:99999/", "http://x/a b",
     "http://x/\r\nHost: y", "x", "http://[::1/"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        web_url(url)


@pytest.mark.parametrize("text", ["x", "a b: c", "a: secret\r\nb: c", "Host: x", ": secret"])
def test_what_is_no_header_is_refused_without_telling_its_value(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as told:
        header_of(text)
    assert "secret" not in str(told.value)


def send(
    arrivals: list[float], seconds: float, asks: Callable[[int, Arrival], Awaitable[Reply]]
) -> tuple[list[Outcome], OpenLoop, float]:
    found: list[Outcome] = []
    limits = Limits(seconds, in_flight_max=3, deadline_s=0.3)
    loop = OpenLoop(iter([Arrival(at, 1) for at in arrivals]), asks, found.append, limits)

    async def run() -> float:
        return await loop.run(asyncio.Event())

    return found, loop, asyncio.run(run())


def test_latency_counts_from_due_even_when_the_generator_was_held_up() -> None:
    async def asks(number: int, arrival: Arrival) -> Reply:
        if number == 0:
            time.sleep(0.2)  # noqa: ASYNC251 - the whole process stands still
        return Reply(200)

    found, _, _ = send([0.01, 0.02], 1.0, asks)
    assert len(found) == 2
    assert found[1].late_ms is not None
    assert found[1].late_ms > 150
    assert found[1].latency_ms is not None
    assert found[1].latency_ms >= found[1].late_ms


def test_what_is_due_is_counted_whatever_becomes_of_it() -> None:
    async def asks(number: int, arrival: Arrival) -> Reply:
        if number == 0:
            raise ConnectionRefusedError(111, "at 127.0.0.1")
        if number == 1:
            raise BadAnswer("cut")
        await asyncio.sleep(5)
        raise AssertionError

    found, loop, _ = send([0.01 * n for n in range(1, 9)], 0.2, asks)
    causes = sorted(str(outcome.cause) for outcome in found)
    assert causes == [
        "broken answer", "connection refused", *["no answer within 0.3 s"] * 3, *["overrun"] * 3
    ]  # fmt: skip
    assert (loop.sent, loop.in_flight, loop.in_flight_peak) == (5, 0, 3)


def test_it_sends_for_its_whole_time_and_not_longer() -> None:
    async def asks(number: int, arrival: Arrival) -> Reply:
        return Reply(200)

    found, _, sent_for_s = send([0.05, 0.1, 0.39, 0.41, 9.0], 0.4, asks)
    assert len(found) == 3
    assert sent_for_s >= 0.4


def test_a_steady_load_is_even_and_a_ramp_rises_in_a_line() -> None:
    even = [arrival.at_s for arrival in itertools.islice(steady(4.0), 3)]
    assert even == [0.25, 0.5, 0.75]
    times = [a.at_s for a in ramped(steady(100.0), 0.0, 200.0, 10.0)]
    assert len(times) == pytest.approx(1000, abs=2)
    assert times == sorted(times)
    assert times[-1] <= 10.0 + 1e-9
    early = sum(at < 5.0 for at in times)
    assert early == pytest.approx(250, abs=3)
    level = [a.at_s for a in ramped(steady(4.0), 3.0, 3.0, 0.8)]
    assert level == pytest.approx(even)
    falling = [a.at_s for a in ramped(steady(100.0), 200.0, 0.0, 10.0)]
    assert sum(at < 5.0 for at in falling) == pytest.approx(750, abs=3)
