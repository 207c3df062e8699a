"""Reach a controller over HTTP, and find the local one.

Every request has a deadline. Every answer that is not a success becomes one of our exceptions, so
that a caller sees the same errors as beside the controller. Writes carry an Idempotency-Key and are
tried once more after a broken connection, which the key makes safe.

Precedence: explicit arguments > WATTSHIFT_URL / WATTSHIFT_TOKEN > the runtime file that
`wattshift up` writes (mode 0600, in a directory of mode 0700).
"""

import contextlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2

from wattshift_cluster.errors import (
    ConfigInvalid,
    Fault,
    NotFound,
    Refused,
    TryLater,
    Unreachable,
    WattshiftError,
)

DEADLINE_S = 10.0
CONNECT_S = 3.0
STREAM_SILENCE_S = 30.0  # the controller sends a heartbeat every 10 s
EVENT_BYTES_MAX = 16 << 20
PROBLEM_PREFIX = "urn:wattshift:problem:"
DEFAULT_URL = "http://127.0.0.1:8080"
NAMELESS = re.compile("/(?:[/:]|$)")
"""A path in which an id is empty."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a controller is and how to enter; `token` is None where none was found."""

    url: str
    token: str | None


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of /v1/stream; `id` is None for events that cannot be resumed from."""

    id: int | None
    event: str
    data: dict[str, Any]


def runtime_dir() -> Path:
    """Return the directory of this user's runtime files; it may not exist yet."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        return Path(base) / "wattshift"
    return Path(tempfile.gettempdir()) / f"wattshift-{os.getuid()}"


def runtime_file() -> Path:
    """Return the path of the file in which `up` leaves {url, token_file, state_dir}."""
    return runtime_dir() / "controller.json"


def write_runtime(url: str, token_file: Path, state_dir: Path) -> Path:
    """Leave word of a running controller for this user's commands, and return the file.

    Raises:
        Refused: the directory belongs to somebody else or lets others in.
    """
    path = runtime_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path.parent)
    word = {"url": url, "token_file": str(token_file), "state_dir": str(state_dir)}
    draft = path.with_name(f".controller.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(word, file)
    draft.replace(path)
    return path


def remove_runtime(url: str) -> None:
    """Take back the word, if it is still the one about `url`."""
    if read_runtime().get("url") == url:
        runtime_file().unlink(missing_ok=True)


def read_runtime() -> dict[str, str]:
    """Return what `up` left; empty when no controller was started by this user.

    Raises:
        Refused: somebody else could have written it: a token must not be sent where they say.
    """
    path = runtime_file()
    try:
        check_private(path.parent)
        check_private(path)
        word = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {key: str(value) for key, value in word.items()} if isinstance(word, dict) else {}


def check_private(path: Path) -> None:
    """Raise Refused unless `path` is ours alone. Raises FileNotFoundError where it is not."""
    found = path.lstat()
    ours = found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode)
    if not ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise Refused(f"{path} is not private to this user; remove it")


def find_controller(url: str | None = None, token: str | None = None) -> Endpoint:
    """Return the controller to talk to: arguments, then environment, then the runtime file.

    A token from the runtime file goes only to the address in that file.
    """
    url = url or os.environ.get("WATTSHIFT_URL")
    token = token or os.environ.get("WATTSHIFT_TOKEN")
    if url and token:
        return Endpoint(url.rstrip("/"), token)
    word = read_runtime()
    found_url = (url or word.get("url") or DEFAULT_URL).rstrip("/")
    if token is None and found_url == word.get("url", "").rstrip("/"):
        with contextlib.suppress(OSError):
            token = Path(word["token_file"]).read_text().strip() or None
    return Endpoint(found_url, token)


class ControllerClient:
    """One controller over HTTP. Use as a context manager, or call `close`."""

    def __init__(self, url: str, token: str | None, *, deadline_s: float = DEADLINE_S) -> None:
        self.url = url
        headers = {"Accept": "application/json"}
        if token:
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigInvalid(["the token holds characters that no token has"])
            headers["Authorization"] = f"Bearer {token}"
        deadlines = httpx2.Timeout(deadline_s, connect=min(CONNECT_S, deadline_s))
        try:
            # The environment's proxies must not see a token that is meant for our own controller.
            self._http = httpx2.Client(
                base_url=url,
                headers=headers,
                timeout=deadlines,
                trust_env=False,
                verify=not url.lower().startswith("http:"),  # loading authorities takes 50 ms
            )
        except (httpx2.InvalidURL, ValueError, UnicodeError) as error:
            fault = Fault("command line", "url", url, f"not an address: {error}")
            raise ConfigInvalid([fault]) from None

    @classmethod
    def find(cls, url: str | None = None, token: str | None = None) -> Self:
        """Return a client of the controller that `find_controller` names."""
        endpoint = find_controller(url, token)
        return cls(endpoint.url, endpoint.token)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at `path`. Raises a WattshiftError by kind of problem."""
        asked = {key: value for key, value in query.items() if value is not None}
        return self._told(self._send("GET", path, params=asked))

    def text(self, path: str) -> str:
        """Return the text at `path`, such as /metrics."""
        return self._send("GET", path).text

    def post(self, path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Any:
        """Post once, whatever the network does: one Idempotency-Key for every try."""
        if key and not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ConfigInvalid(["the key holds what none may: only ASCII that can be printed"])
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return self._told(self._send("POST", path, json=dict(body or {}), headers=headers))

    def delete(self, path: str) -> None:
        """Delete what is at `path`."""
        self._send("DELETE", path)

    def _told(self, answer: httpx2.Response) -> Any:
        try:
            return answer.json()
        except (ValueError, RecursionError):
            raise Unreachable(f"{self.url} answers with no JSON: it is no controller") from None

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        if NAMELESS.search(path):
            raise NotFound("an id was empty, and nothing is called so")
        try:
            try:
                answer = self._http.request(method, path, **request)
            except httpx2.RemoteProtocolError:
                answer = self._http.request(method, path, **request)
        except httpx2.TimeoutException:
            raise Unreachable(f"no answer from {self.url} within its deadline") from None
        except httpx2.TransportError as error:
            raise Unreachable(f"cannot reach {self.url}: {error}") from None
        if not answer.is_success:
            raise as_error(answer.status_code, problem_of(answer))
        return answer

    def stream(self, last_id: int | None = None) -> Iterator[StreamEvent]:
        """Yield events until the controller ends the stream. Raises Unreachable when it breaks."""
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        deadlines = httpx2.Timeout(STREAM_SILENCE_S, connect=CONNECT_S)
        try:
            with self._http.stream(
                "GET", "/v1/stream", headers=headers, timeout=deadlines
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise as_error(answer.status_code, problem_of(answer))
                yield from events(answer.iter_lines())
        except httpx2.TransportError as error:
            raise Unreachable(f"the stream of {self.url} broke: {error}") from None


def events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    """Parse server-sent events: blank line ends one, a line with a leading colon is a heartbeat."""
    event_id: int | None = None
    name, data = "message", ""
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield StreamEvent(event_id, name, json.loads(data))
            event_id, name, data = None, "message", ""
        elif field == "id":
            event_id = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            data = f"{data}\n{value}" if data else value
            if len(data) > EVENT_BYTES_MAX:
                raise Unreachable("the stream sent an event larger than 16 MiB")


def problem_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the problem details of an answer; a bare one where it holds none."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "detail" in problem:
        return problem
    return {"detail": f"HTTP {answer.status_code} from {answer.url.path}"}


def as_error(status: int, problem: Mapping[str, Any]) -> WattshiftError:
    """Return the exception that a problem stands for."""
    detail = str(problem["detail"])
    slug = str(problem.get("type", "")).removeprefix(PROBLEM_PREFIX)
    if slug == "invalid" or status in (400, 413, 415, 422):
        entries = problem.get("errors") or []
        found = [
            Fault("controller", str(one.get("path", "")), one.get("value"), str(one["message"]))
            for one in entries
        ]
        return ConfigInvalid(found or [detail])
    if status in (401, 403):
        return Refused(f"{detail}; give one with --token or WATTSHIFT_TOKEN")
    kinds: dict[int, type[WattshiftError]] = {
        404: NotFound,
        409: Refused,
        412: TryLater,
        502: Unreachable,
        503: TryLater,
        504: Unreachable,
    }
    return kinds.get(status, WattshiftError)(detail)
