"""The load generator as a process of its own against a real socket."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from wattshift_cluster.inference.load import read_factor


class Server:
    """Answers POSTs after a delay, one way or another."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.delay_s = 0.0
        self.chunked = False
        self.status = 200
        self.url = ""
        self.asked = asyncio.Event()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                self.asked.set()
                await asyncio.sleep(self.delay_s)
                if self.chunked:
                    tail = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                else:
                    tail = b"content-length: 2\r\n\r\n{}"
                writer.write(b"HTTP/1.1 %d X\r\n" % self.status + tail)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    answering = Server()
    listening = await asyncio.start_server(answering.serve_one, "127.0.0.1", 0)
    answering.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/embed"
    try:
        yield answering
    finally:
        listening.close()


def lines_of(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def run_load(url: str, log: Path, *more: str) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, "-m", "wattshift_cluster.inference.load"]
    command += ["--url", url, "--log", str(log), *more]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    code = await asyncio.wait_for(process.wait(), 30)
    return code, lines_of(log)


def test_the_same_seed_sends_the_same_texts_and_logs_every_request(tmp_path: Path) -> None:
    async def twice() -> None:
        sent = []
        for name in ("one", "two"):
            async with server() as target:
                log = tmp_path / name
                code, lines = await run_load(
                    target.url, log, "--rate", "120", "--seed", "11", "--seconds", "0.75"
                )
            assert code == 0
            assert len(lines) == len(target.bodies) > 30
            assert all(line["status"] == 200 and line["error"] is None for line in lines)
            assert all(0 < line["latency_ms"] < 1000 for line in lines)  # type: ignore[operator]
            sent.append(target.bodies)
        shorter = min(map(len, sent))
        # Requests in flight together may arrive in another order; the texts are the same.
        assert abs(len(sent[0]) - len(sent[1])) <= 2
        assert len(set(sent[0][:shorter]) ^ set(sent[1][:shorter])) <= 4

    asyncio.run(twice())


def test_open_loop_latency_counts_from_the_due_time_and_overruns_are_failures(
    tmp_path: Path,
) -> None:
    async def slow() -> None:
        async with server() as target:
            target.delay_s, target.chunked = 0.4, True
            arguments = ("--rate", "60", "--seconds", "0.7", "--in-flight-max", "5")
            code, lines = await run_load(target.url, tmp_path / "log", *arguments)
        assert code == 0
        done = [line for line in lines if line["status"] == 200]
        overrun = [line for line in lines if line["error"]]
        assert done
        assert min(line["latency_ms"] for line in done) >= 400  # type: ignore[type-var]
        assert overrun
        assert all("in flight" in str(line["error"]) for line in overrun)

    asyncio.run(slow())


def test_errors_and_refusals_are_logged_as_failed(tmp_path: Path) -> None:
    async def failing() -> None:
        async with server() as target:
            target.status = 503
            _, lines = await run_load(
                target.url, tmp_path / "a", "--rate", "60", "--seconds", "0.5"
            )
        assert {line["status"] for line in lines} == {503}
        assert all(line["error"] for line in lines)
        gone = target.url
        _, lines = await run_load(gone, tmp_path / "b", "--rate", "60", "--seconds", "0.5")
        assert lines
        assert all(line["status"] is None and line["error"] for line in lines)

    asyncio.run(failing())


def count_while(check: Callable[[], int], seconds: float) -> float:
    before, start = check(), time.monotonic()
    time.sleep(seconds)
    return (check() - before) / (time.monotonic() - start)


def test_a_burst_file_raises_the_rate_while_running_and_sigterm_ends_it(tmp_path: Path) -> None:
    log, control = tmp_path / "log", tmp_path / "burst.json"

    async def burst() -> None:
        async with server() as target:
            command = [sys.executable, "-m", "wattshift_cluster.inference.load"]
            command += ["--url", target.url, "--log", str(log), "--rate", "40"]
            command += ["--burst-control", str(control), "--burst-ratio", "1"]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
            await asyncio.wait_for(target.asked.wait(), 10)
            calm = await asyncio.to_thread(count_while, lambda: len(target.bodies), 1.0)
            control.write_text('{"factor": 5}')
            await asyncio.sleep(0.5)
            fast = await asyncio.to_thread(count_while, lambda: len(target.bodies), 1.0)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
        assert 20 < calm < 64
        assert 3.2 * 40 < fast < 6.5 * 40
        assert len(log.read_text().splitlines()) == len(target.bodies)

    asyncio.run(burst())


@pytest.mark.parametrize(
    "text", ["", "{", '{"factor": "much"}', '{"factor": -1}', '{"factor": 1e9}']
)
def test_a_senseless_burst_file_changes_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "burst.json"
    path.write_text(text)
    assert read_factor(path, 2.5) == 2.5
    path.unlink()
    assert read_factor(path, 2.5) == 1.0
    assert read_factor(None, 2.5) == 2.5
