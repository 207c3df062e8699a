"""Handing a GPU's memory over while a service keeps its replicas: sleep and wake.

An application of `ray[llm]` with the development ingress (Ray 2.60: `ray.llm` `DevIngress`) takes
`POST /sleep` and `POST /wakeup` with `{"model": id, "options": {}}`, each for all replicas. vLLM
then frees the weights' and the cache's memory and keeps its process, which is back within seconds.
The model ids are those of `GET /v1/models`; an application without that path gets an empty object.

Run here against a small Serve application with these two paths. Not run with vLLM and a GPU.
"""

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import structlog

log = structlog.get_logger()

CALL_S = 60.0
"""vLLM copies weights of tens of gigabytes to host memory at some 10 GB/s."""

ANSWER_BYTES_MAX = 1 << 20
MODELS_MAX = 64
SLEEP, WAKE = "/sleep", "/wakeup"


class HandOverFailed(Exception):
    """The application did not do as it was asked; the text says why."""


def models(base_url: str) -> list[str]:
    """Model ids of an application; none if it has no list of them.

    Raises:
        HandOverFailed: it did not answer within the deadline.
    """
    try:
        with urllib.request.urlopen(f"{base_url}/v1/models", timeout=CALL_S) as answer:
            rows = json.loads(answer.read(ANSWER_BYTES_MAX))["data"]
            return [str(row["id"]) for row in rows][:MODELS_MAX]
    except (urllib.error.HTTPError, ValueError, KeyError, TypeError):
        return []  # it has no such path, or answers something of its own there
    except OSError as fault:
        raise HandOverFailed(f"{base_url}/v1/models: {fault}") from fault


def call(base_url: str, path: str) -> None:
    """Put all models to sleep, or wake them. Blocks.

    Raises:
        HandOverFailed: it refused, or did not answer within the deadline.
    """
    for body in [{"model": one, "options": {}} for one in models(base_url)] or [{}]:
        request = urllib.request.Request(
            f"{base_url}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as answer:
                answer.read(ANSWER_BYTES_MAX)
        except (OSError, ValueError) as fault:
            raise HandOverFailed(f"{base_url}{path}: {fault}") from fault


class Sleeper:
    """One service's sleep. The calls run in a thread; `state` tells how far they are.

    Attributes:
        state: "awake", "falling asleep", "asleep", "waking" or "refused" (until the next start).
        error: why it was refused.
    """

    def __init__(self) -> None:
        self.state = "awake"
        self.error: str | None = None

    def sleep(self, base_url: str) -> None:
        """Begin to put it to sleep, if it is awake."""
        self._begin("awake", "falling asleep", base_url, SLEEP, "asleep")

    def wake(self, base_url: str) -> None:
        """Begin to wake it, if it sleeps."""
        self._begin("asleep", "waking", base_url, WAKE, "awake")

    def _begin(self, before: str, meanwhile: str, base_url: str, path: str, after: str) -> None:
        if self.state != before:
            return
        self.state = meanwhile
        arguments = (base_url, path, after)
        threading.Thread(target=self._run, args=arguments, name="hand-over", daemon=True).start()

    def _run(self, base_url: str, path: str, after: str) -> None:
        try:
            call(base_url, path)
        except HandOverFailed as fault:
            self.error, self.state = str(fault)[:300], "refused"
            log.warning("hand_over.failed", reason=self.error)
            return
        self.error, self.state = None, after
        log.info("hand_over.done", state=after)

    def row(self) -> dict[str, Any]:
        """For the report."""
        return {"hand_over": self.state, "hand_over_error": self.error}
