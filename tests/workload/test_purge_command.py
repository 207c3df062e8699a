"""`wattshift purge` where there is nothing to purge, and where it must not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattshift_cluster.cli.main import main
from wattshift_cluster.cli.purge import purged_text
from wattshift_cluster.client import write_runtime

NOBODY = "127.0.0.1:9"


def purge(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["purge", *arguments])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WATTSHIFT_URL", f"http://{NOBODY}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Something that answers as a controller that does not know us: with 401."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("WATTSHIFT_URL", url)
    yield url
    server.shutdown()
    server.server_close()


def test_without_a_ray_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = purge()
    assert unknown.exit_code == 4
    assert "--address" in unknown.stderr
    for address in ("somewhere", "host:", "host:99999999"):
        assert purge("--address", address).exit_code == 3
    gone = purge("--address", NOBODY)
    assert gone.exit_code == 5, gone.output
    assert "nobody listens there" in gone.stderr
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    assert purge("--dry-run").exit_code == 5
    monkeypatch.delenv("RAY_ADDRESS")
    write_runtime("http://127.0.0.1:9", tmp_path / "token", tmp_path / "state")
    ended = purge()
    assert ended.exit_code == 4
    assert "runs no Ray of its own now" in ended.stderr


def test_it_refuses_while_a_controller_answers_unless_told(controller: str) -> None:
    refused = purge("--address", NOBODY)
    assert refused.exit_code == 6
    assert controller in refused.stderr
    assert "--yes" in refused.stderr
    assert purge("--address", NOBODY, "--yes").exit_code == 5
    assert purge("--address", NOBODY, "--dry-run").exit_code == 5


def test_what_was_found_is_told_for_people() -> None:
    things = [{"kind": "actor", "name": "batch:j:0"}, {"kind": "key", "name": "wattshift:app:s"}]
    told = {"address": "h:1", "found": things, "left": things[:1], "dry_run": False}
    assert [line.split()[-1] for line in purged_text(told).splitlines()] == [
        "STATE", "left", "ended",
    ]  # fmt: skip
    assert "would be ended" in purged_text({**told, "left": [], "dry_run": True})
    assert "nothing of wattshift" in purged_text({**told, "found": [], "left": []})
    assert json.dumps(told)
