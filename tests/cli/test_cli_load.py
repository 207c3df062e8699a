"""`wattshift load` against real servers: exit codes, figures, options, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from wattshift_cluster.cli import load_text

Command = Callable[..., Result]
PARTS = [{"choices": [{"delta": {"content": "word "}}]}] * 3
USAGE = {"choices": [], "usage": {"completion_tokens": 3}}


class Answers(BaseHTTPRequestHandler):
    """Answers by the path: an echo, an error, a redirect, a stream of tokens."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str], bytes]] = []  # noqa: RUF012 - cleared by the fixture

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.path.endswith("/chat/completions"):
            texts = [json.dumps(part) for part in [*PARTS, USAGE]] + ["[DONE]"]
            self.say(200, "".join(f"data: {t}\n\n" for t in texts), "text/event-stream")
        elif self.path.startswith("/moved"):
            self.say(302, "", location="/echo")
        elif self.path.startswith("/slow"):
            time.sleep(0.15)
            self.say(200, "{}")
        else:
            self.say(503 if self.path.startswith("/full") else 200, '{"queue_ms": 2.5}')

    do_GET = do_POST  # noqa: N815 - the name that http.server looks for

    def say(
        self, status: int, text: str, kind: str = "application/json", location: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as answering:
        answering.daemon_threads = True
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()


@pytest.fixture(autouse=True)
def fresh() -> None:
    Answers.seen.clear()


@pytest.fixture
def load(wattshift: Command, server: str) -> Callable[..., tuple[Result, Any]]:
    def run(path: str, *args: object) -> tuple[Result, Any]:
        rhythm = ("--rate", 100, "--seconds", "195ms", "--arrivals", "constant", "-o", "json")
        result = wattshift("load", server + path, *rhythm, *args)
        return result, json.loads(result.stdout) if result.stdout else None

    return run


def test_a_body_is_sent_filled_and_the_figures_come_back(load: Any) -> None:
    body = '{"n": {n}, "text": "{text}"}'
    result, view = load("/echo?key=secret", "--body", body, "--slo-p95", "10s")
    assert result.exit_code == 0, result.output
    assert (view["due"], view["answered"], view["failed"]) == (19, 19, 0)
    assert (view["ended"], view["method"]) == ("done", "POST")
    assert view["queue_ms"]["p50"] == 2.5
    assert view["objectives"][0]["met"] is True
    numbers = sorted(json.loads(body)["n"] for _, _, body in Answers.seen)
    assert numbers == list(range(19))
    assert "secret" not in result.output, "a query may hold a key"
    assert {seen[1]["content-type"] for seen in Answers.seen} == {"application/json"}


def test_an_objective_that_is_missed_ends_with_1(load: Any) -> None:
    result, view = load("/slow", "--slo-p95", "100ms")
    assert result.exit_code == 1
    assert view["objectives"][0]["met"] is False
    assert view["method"] == "GET"


def test_what_is_no_answer_is_counted_by_cause_and_a_redirect_is_not_followed(load: Any) -> None:
    result, view = load("/full")
    assert (result.exit_code, view["failed_by"]) == (5, {"HTTP 503": 19})
    result, view = load("/moved")
    assert view["failed_by"] == {"HTTP 302": 19}
    assert {path for path, _, _ in Answers.seen} == {"/full", "/moved"}


def test_a_model_is_asked_below_v1_and_its_tokens_are_timed(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret")
    args = ("--openai", "--model", "m", "--bearer-env", "THE_KEY", "--slo-ttft-p95", "9s")
    result, view = load("/v1", *args, "--slo-itl-p95", "9s", "--max-tokens", 3)
    assert result.exit_code == 0, result.output
    assert view["ttft_ms"]["n"] == 19
    assert view["itl_ms"]["n"] == 38
    assert view["tokens"] == 57
    assert [one["name"] for one in view["objectives"]] == ["ttft_p95", "itl_p95"]
    path, headers, body = Answers.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer sk-secret"
    assert json.loads(body)["max_tokens"] == 3
    assert "sk-secret" not in result.output


def test_two_loads_are_compared_and_shown(load: Any, wattshift: Command, tmp_path: Path) -> None:
    _, before = load("/echo")
    path, page = tmp_path / "before.json", tmp_path / "page.html"
    path.write_text(json.dumps(before))
    _, view = load("/echo", "--compare", path)
    assert view["compared"]["differ"] == []
    assert "p95" in {row["name"] for row in view["compared"]["figures"]}
    url = before["url"]
    args = ("--ramp", "50:200", "--seconds", "200ms", "--compare", path, "--report", page)
    table = wattshift("load", url, *args)
    assert table.exit_code == 0, table.output
    assert "differ in: arrivals, rate_per_s, ramp_per_s" in table.stdout
    assert "from the moment due" in table.stdout
    assert page.read_text().count("<svg") == 2
    path.write_text("[]")
    assert wattshift("load", url, "--compare", path).exit_code == 3
    path.write_text('{"latency_ms": {"p50": NaN, "p95": "x"}, "rate_due_per_s": 1e400}')
    _, view = load("/echo", "--compare", path)
    assert {row["before"] for row in view["compared"]["figures"]} == {None}


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    view = {"examples": {"HTTP 500": "a\x1b[2Jb\nc"}}
    assert load_text._failure(view, "HTTP 500", 3) == "3 HTTP 500: a\ufffd[2Jb c"


def test_bodies_of_a_file_take_turns(load: Any, tmp_path: Path) -> None:
    lines = tmp_path / "bodies.jsonl"
    lines.write_text('{"a": 1}\n\n{"b": {n}}\n')
    load("/echo", "--body", f"@{lines}", "--header", "X-Team: infra")
    sent = {body for _, _, body in Answers.seen}
    assert b'{"a": 1}' in sent
    assert b'{"b": 1}' in sent
    assert Answers.seen[0][1]["x-team"] == "infra"
    result, view = load("/echo", "--body", f"@{tmp_path}/none.json")
    assert (result.exit_code, view) == (3, None)


@pytest.mark.parametrize(
    "args",
    [
        ["ftp://127.0.0.1/"],
        ["http://user:secret@127.0.0.1/"],
        ["http://127.0.0.1/", "--openai"],
        ["http://127.0.0.1/", "--slo-ttft-p95", "1s"],
        ["http://127.0.0.1/", "--arrivals", "trace"],
        ["http://127.0.0.1/", "--ramp", "1:2", "--rate", "3"],
        ["http://127.0.0.1/", "--ramp", "5"],
        ["http://127.0.0.1/", "--rate", "0"],
        ["http://127.0.0.1/", "--seconds", "25h"],
        ["http://127.0.0.1/", "--rate", "9000", "--seconds", "1h"],
        ["http://127.0.0.1/", "--header", "Authorization Bearer secret"],
        ["http://127.0.0.1/", "--bearer-env", "NO_SUCH_VARIABLE"],
        ["http://127.0.0.1/", "--deadline", "0s"],
    ],
    ids=lambda args: " ".join(args[1:]) or args[0][:4],
)
def test_what_makes_no_sense_ends_with_2_and_tells_no_secret(
    wattshift: Command, args: list[str]
) -> None:
    result = wattshift("load", *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "secret" not in result.output


def test_ctrl_c_ends_with_the_report(server: str) -> None:
    code = "from wattshift_cluster.cli.main import main; main()"
    args = ["load", server + "/echo", "--rate", "50", "--seconds", "60s", "-o", "json"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        deadline_s = time.monotonic() + 20
        while len(Answers.seen) < 5:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    view = json.loads(out)
    assert view["ended"] == "interrupted"
    assert view["answered"] >= 5
    assert view["seconds"] < 40
