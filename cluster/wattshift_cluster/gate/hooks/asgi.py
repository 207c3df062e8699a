"""ASGI middleware: busy from a request's admission until its answer is complete.

A request ends with the last part of its body, with the client's disconnect, or with the application
that returns, raises or is cancelled. A websocket is busy from its connect to its close. Written
against the ASGI specification 3.0 (HTTP and websocket message format 2.5).

    vllm serve MODEL --middleware wattshift_cluster.gate.hooks.asgi.BusyMiddleware
    app.add_middleware(BusyMiddleware)                                  # Starlette, FastAPI
    app = BusyMiddleware(app)                                           # any ASGI application
"""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from wattshift_cluster.gate.client_gate import ClientGate
from wattshift_cluster.gate.environment import gate_here
from wattshift_cluster.gate.readiness import ready
from wattshift_cluster.gate.spans import Span

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

QUIET_PATHS = frozenset(
    {
        "/-/healthz",
        "/-/routes",
        "/docs",
        "/favicon.ico",
        "/get_model_info",
        "/get_server_info",
        "/health",
        "/healthz",
        "/is_sleeping",
        "/livez",
        "/load",
        "/metrics",
        "/openapi.json",
        "/ping",
        "/ready",
        "/readyz",
        "/server_info",
        "/v1/models",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/version",
    }
)
"""Paths that cost the device nothing: plain probes, and those of vLLM, SGLang, Triton, Ray Serve.

`/health_generate` of SGLang is not among them: it generates a token.
"""


class BusyMiddleware:
    """Wraps an application. Its first completed startup also says that the server is ready."""

    def __init__(
        self,
        app: App,
        gate: ClientGate | None = None,
        quiet_paths: Collection[str] = QUIET_PATHS,
    ) -> None:
        """Wrap `app`.

        Args:
            app: an ASGI 3 application.
            gate: None for the one of WATTSHIFT_GATE_DIR.
            quiet_paths: paths, below the application's root, whose requests do not count as busy; a
                slash at the end makes no difference.
        """
        self.app = app
        self._gate = gate_here() if gate is None else gate
        self._quiet = frozenset(path.rstrip("/") for path in quiet_paths)
        self._said_ready = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection of the application."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._listening(send))
            return
        self._ready()
        if self._gate is None or kind not in ("http", "websocket") or self._is_quiet(scope):
            await self.app(scope, receive, send)
            return
        answer = _Answer(self._gate.busy(), receive, send)
        with answer:
            await self.app(scope, answer.receive, answer.send)

    def _listening(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._ready()

        return wrapped

    def _ready(self) -> None:
        if not self._said_ready:
            self._said_ready = True
            ready()

    def _is_quiet(self, scope: Message) -> bool:
        path: str = scope.get("path", "")
        root: str = scope.get("root_path", "")
        below = path.removeprefix(root) if root else path
        return below.rstrip("/") in self._quiet or path.rstrip("/") in self._quiet


class _Answer:
    """One connection's span, which ends once."""

    def __init__(self, span: Span, receive: Receive, send: Send) -> None:
        self._span: Span | None = span
        self._receive = receive
        self._send = send

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._span is not None:
            span, self._span = self._span, None
            span.__exit__(None, None, None)

    async def receive(self) -> Message:
        """Pass a message on; a disconnect ends the span."""
        message = await self._receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self.__exit__()
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; the last one ends the span, also when it cannot be delivered."""
        try:
            await self._send(message)
        finally:
            if _is_last(message):
                self.__exit__()


def _is_last(message: Message) -> bool:
    kind = message["type"]
    if kind in ("http.response.body", "http.response.zerocopysend"):
        return not message.get("more_body", False)
    return kind in ("http.response.pathsend", "websocket.close")
