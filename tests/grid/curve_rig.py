"""A real server for tests of feeds, and what a source has said."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wattshift_cluster.grid.said import Said

NOON_S = 1_788_264_000.0
"""2026-09-01T12:00:00Z."""


class Rig:
    """Answers by path, and the requests that came: path with query, and headers in lower case."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, dict[str, str], str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def answer(self, path: str, body: str, status: int = 200, **headers: str) -> None:
        """From now on a path answers so."""
        self.answers[path] = (status, headers, body)


@contextmanager
def serving() -> Iterator[Rig]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            rig.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            missing: tuple[int, dict[str, str], str] = (404, {}, "")
            path = self.path.partition("?")[0]
            status, headers, body = rig.answers.get(path, missing)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    rig = Rig(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield rig
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Clock:
    """A clock that moves when somebody sleeps by it, and ends the run after some sleeps."""

    def __init__(self, now_s: float = NOON_S, sleeps: int = 1) -> None:
        self.now_s = now_s
        self.left = sleeps
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def pause(self, seconds_s: float) -> None:
        """Sleep by this clock."""
        self.slept.append(seconds_s)
        self.now_s += seconds_s
        self.left -= 1
        if self.left <= 0:
            raise Enough


class Enough(Exception):
    """The test has seen enough."""


async def said_by(source: Any) -> list[Said]:
    """What a source says until its clock has had enough."""
    heard: list[Said] = []
    with suppress(Enough):
        await source.run(heard.append)
    return heard
