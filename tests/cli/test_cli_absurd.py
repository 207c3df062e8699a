"""What no controller takes is one clear line and a code of its own, never a traceback."""

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]


@pytest.mark.parametrize(
    "words",
    [["cap", "clear", ""], ["job", "show", ""], ["job", "pause", ""], ["fleet", "release", ""]],
    ids=" ".join,
)
def test_nothing_is_called_by_an_empty_id(wattshift: Command, reach: Any, words: list[str]) -> None:
    result = wattshift(*words)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "wattshift: an id was empty, and nothing is called so\n"


@pytest.mark.parametrize("key", [" ", "a ", "a\nb", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused(wattshift: Command, reach: Any, key: str) -> None:
    result = wattshift("submit", "mining", "--name", "m", "--devices", "*", "--key", key)
    assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1)
    assert "the key holds what none may" in result.stderr


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is no controller."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_is_no_controller_is_named(wattshift: Command, stranger: str) -> None:
    result = wattshift("status", "--url", stranger, "--token", "x")
    assert result.exit_code == 5
    assert result.stderr == f"wattshift: {stranger} answers with no JSON: it is no controller\n"
