"""The ASGI middleware: raw messages, and a real uvicorn whose clients come and go."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from wattshift_cluster.gate import ClientGate
from wattshift_cluster.gate.hooks.asgi import BusyMiddleware
from wattshift_cluster.gate.readiness import ReadyListener


@pytest.fixture
def replica(gates: Any) -> Iterator[ClientGate]:
    made = ClientGate(gates.folder)
    yield made
    made.close()


def raw(
    gates: Any, app: Any, replica: ClientGate, path: str = "/v1/completions", **how: Any
) -> Any:
    """Serve one request; the requests in flight after each message that went out."""
    seen: list[int] = []
    came = asyncio.Queue[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        seen.append(gates.in_flight())

    middleware = BusyMiddleware(app, replica, **how.pop("options", {}))
    scope = {"type": "http", "path": path, "method": "POST", **how}
    return middleware(scope, came.get, send), seen, came


def body(more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": b"x", "more_body": more}


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for more in (True, True, False):
        await send(body(more))


def test_a_streamed_answer_is_busy_until_its_last_part(gates: Any, replica: ClientGate) -> None:
    after: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await streaming(scope, receive, send)
        after.append(gates.in_flight())  # work behind the answer disturbs nobody

    served, seen, _ = raw(gates, app, replica)
    asyncio.run(served)
    assert seen == [1, 1, 1, 1]
    assert after == [0]


def test_an_exception_a_cancellation_and_a_silent_end_free(gates: Any, replica: ClientGate) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert gates.in_flight() == 1
        raise ValueError

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        assert gates.in_flight() == 1

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(raw(gates, waiting, replica)[0])
        await asyncio.sleep(0.01)
        assert gates.in_flight() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        asyncio.run(raw(gates, failing, replica)[0])
    assert gates.in_flight() == 0
    asyncio.run(raw(gates, silent, replica)[0])
    assert gates.in_flight() == 0
    asyncio.run(cancelled())
    assert gates.in_flight() == 0


def test_an_answer_that_cannot_be_sent_frees(gates: Any, replica: ClientGate) -> None:
    async def send(message: Any) -> None:
        raise OSError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(OSError):  # noqa: PT011
            await send(body(False))
        assert gates.in_flight() == 0

    scope = {"type": "http", "path": "/generate"}
    asyncio.run(BusyMiddleware(app, replica)(scope, asyncio.Queue[Any]().get, send))


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("http", "http.request", "http.disconnect"),
        ("websocket", "websocket.connect", "websocket.disconnect"),
    ],
)
def test_a_disconnect_frees(
    gates: Any, replica: ClientGate, kind: str, first: str, last: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert gates.in_flight() == 1
        await receive()
        assert gates.in_flight() == 0

    served, _, came = raw(gates, app, replica, type=kind)
    came.put_nowait({"type": first})
    came.put_nowait({"type": last})
    asyncio.run(served)


@pytest.mark.parametrize(
    ("path", "how", "busy"),
    [
        ("/health", {}, 0),
        ("/metrics/", {}, 0),
        ("/v1/models", {}, 0),
        ("/v2/health/ready", {}, 0),
        ("/-/healthz", {}, 0),
        ("/api/health", {"root_path": "/api"}, 0),
        ("/health_generate", {}, 1),
        ("/v1/chat/completions", {}, 1),
        ("/v2/models/m/infer", {}, 1),
        ("/healthy", {}, 1),
        ("/", {}, 1),
        ("/ping", {"options": {"quiet_paths": ["/quiet"]}}, 1),
        ("/quiet", {"options": {"quiet_paths": ["/quiet/"]}}, 0),
    ],
)
def test_probes_do_not_count(
    gates: Any, replica: ClientGate, path: str, how: dict[str, Any], busy: int
) -> None:
    served, seen, _ = raw(gates, streaming, replica, path, **how)
    asyncio.run(served)
    assert seen == [busy] * 4


def test_without_a_gate_directory_it_says_so_and_serves(
    gates: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wattshift_cluster.gate import environment

    monkeypatch.delenv("WATTSHIFT_GATE_DIR", raising=False)
    monkeypatch.setattr(environment, "_asked", False)
    for _ in range(2):
        served, seen, _ = raw(gates, streaming, None)  # type: ignore[arg-type]
        asyncio.run(served)
        assert seen == [0] * 4
    assert [record.message.count("WATTSHIFT_GATE_DIR") for record in caplog.records] == [1]
    monkeypatch.setattr(environment, "_asked", False)


class Scene:
    """What the served application does, told from outside."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.failed_at = ""

    async def tokens(self) -> Any:
        yield b"first"
        await self.go_on.wait()
        yield b"last"

    async def stream(self, request: Any) -> StreamingResponse:
        self.loop = asyncio.get_running_loop()
        return StreamingResponse(self.tokens())

    async def whole(self, request: Any) -> JSONResponse:
        return JSONResponse({})

    async def chat(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.receive()

    def finish(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.go_on.set)


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The application behind a uvicorn on loopback; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    end_s = time.monotonic() + 20
    while not server.started and time.monotonic() < end_s:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def test_a_real_server_is_busy_as_long_as_somebody_is_answered(
    gates: Any, replica: ClientGate, eventually: Callable[..., bool]
) -> None:
    scene, listener = Scene(), ReadyListener()
    app = Starlette(
        routes=[
            Route("/stream", scene.stream, methods=["GET"]),
            Route("/whole", scene.whole, methods=["GET"]),
            WebSocketRoute("/chat", scene.chat),
        ]
    )
    app.add_middleware(BusyMiddleware, gate=replica)
    with served(app) as port:
        assert listener.heard(10), "its completed startup says that it is ready"

        def ask(path: str) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            return connection

        staying = ask("/stream")
        answer = staying.getresponse()
        assert answer.read(5) == b"first"
        assert gates.in_flight() == 1
        leaving = ask("/stream")
        leaving_answer = leaving.getresponse()
        assert leaving_answer.read(5) == b"first"
        assert gates.in_flight() == 2
        leaving_answer.close()
        leaving.close()
        assert eventually(lambda: gates.in_flight() == 1), "its client went away"
        scene.finish()
        assert answer.read() == b"last"
        assert eventually(lambda: gates.in_flight() == 0), "though the connection is kept"
        assert ask("/whole").getresponse().status == 200
        assert ask("/absent").getresponse().status == 404
        assert eventually(lambda: gates.in_flight() == 0)
        with connect(f"ws://127.0.0.1:{port}/chat") as websocket:
            websocket.send("hello")
            assert websocket.recv(10) == "hello"
            assert gates.in_flight() == 1
        assert eventually(lambda: gates.in_flight() == 0)
    listener.close()
