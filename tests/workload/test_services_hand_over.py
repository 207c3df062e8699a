"""Putting an application to sleep and waking it, over real HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from wattshift_cluster.workload.serving import hand_over
from wattshift_cluster.workload.serving.hand_over import Sleeper


@pytest.fixture
def ingress() -> Iterator[Any]:
    """An application with `/sleep`, `/wakeup` and, if it has `models`, a list of them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = self.server.models  # type: ignore[attr-defined]
            rows = {"data": [{"id": one} for one in models or []]}
            self.answer(404 if models is None else 200, json.dumps(rows).encode())

        def do_POST(self) -> None:
            server: Any = self.server
            server.open.wait(5)
            length = int(self.headers["content-length"])
            server.asked.append((self.path, json.loads(self.rfile.read(length))))
            self.answer(server.status, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that gave up
    server.models, server.status, server.asked = None, 200, []
    server.open = threading.Event()
    server.open.set()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/app"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.open.set()
    server.shutdown()
    server.server_close()


def wait_for(check: Callable[[], object]) -> None:
    until_s = time.monotonic() + 10
    while not check():
        assert time.monotonic() < until_s, "it never came to pass"
        time.sleep(0.005)


def test_it_falls_asleep_once_and_wakes_once(ingress: Any) -> None:
    one = Sleeper()
    one.wake(ingress.url)
    assert one.state == "awake", "nobody slept"
    ingress.open.clear()
    one.sleep(ingress.url)
    one.sleep(ingress.url)
    assert one.state == "falling asleep"
    one.wake(ingress.url)
    ingress.open.set()
    wait_for(lambda: one.state == "asleep")
    one.wake(ingress.url)
    wait_for(lambda: one.state == "awake")
    assert ingress.asked == [("/app/sleep", {}), ("/app/wakeup", {})]
    assert one.row() == {"hand_over": "awake", "hand_over_error": None}


def test_each_model_of_an_llm_application_is_named(ingress: Any) -> None:
    ingress.models = ["a", "b"]
    hand_over.call(ingress.url, hand_over.SLEEP)
    bodies = [body for _, body in ingress.asked]
    assert bodies == [{"model": "a", "options": {}}, {"model": "b", "options": {}}]


def test_a_refusal_is_told_with_its_status(ingress: Any) -> None:
    ingress.status = 500
    one = Sleeper()
    one.sleep(ingress.url)
    wait_for(lambda: one.state == "refused")
    assert "/app/sleep" in str(one.error)
    assert "500" in str(one.error)


def test_a_sleep_that_takes_too_long_is_a_refusal(
    ingress: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "CALL_S", 0.05)
    ingress.open.clear()
    one = Sleeper()
    one.sleep(ingress.url)
    wait_for(lambda: one.state == "refused")
    assert "timed out" in str(one.error)
