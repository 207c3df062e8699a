"""What a load asks of a server, and what it makes of the answers: any HTTP service, or an LLM.

A body is a template: `{n}` in it becomes the number of the request, `{text}` a text of random
words. An answer tells how long its request waited by `Server-Timing: queue;dur=MS`, or by a key
`queue_ms` in its JSON.
"""

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.inference.arrivals import Arrival, text_of
from wattshift_cluster.inference.httplink import Answer, BadAnswer, HttpLink
from wattshift_cluster.inference.open_loop import Reply

ERROR_CHARS = 200
LINE_BYTES_MAX = 1 << 20
PARTS_MAX = 100_000
ANSWER_TOKENS_MAX = 100_000
QUEUE_MAX_MS = 86_400_000.0
"""A longer wait, a day, is no wait: one such header must not spoil the report."""

TEXTS_BODY = b'{"texts": ["{text}"]}'
"""What the demo's encoder is asked."""

_QUEUE_HEADER = re.compile(r"(?:^|,)\s*queue\s*;(?:[^,]*;)?\s*dur=([0-9.]+)")
_QUEUE_KEY = re.compile(rb'"queue_ms"\s*:\s*([0-9]+(?:\.[0-9]+)?)')


class PlainAsk:
    """Asks any HTTP service with one of some templates, in turn."""

    def __init__(self, link: HttpLink, bodies: Sequence[bytes], seed: int) -> None:
        """Prepare.

        Args:
            link: where to ask.
            bodies: templates; at least one, which may be empty.
            seed: of the texts.
        """
        assert bodies
        self._link = link
        self._bodies = bodies
        self._seed = seed

    async def __call__(self, number: int, arrival: Arrival) -> Reply:
        """Ask once. Raises BadAnswer and OSError."""
        template = self._bodies[number % len(self._bodies)]
        answer = await self._link.ask(filled(template, number, arrival, self._seed))
        cause, error = fault_of(answer)
        return Reply(answer.status, cause, error, queue_ms_of(answer))


@dataclass(frozen=True, slots=True)
class Model:
    """How an LLM is asked.

    Attributes:
        name: of the model.
        chat: whether of `chat/completions`, else of `completions`.
        answer_tokens: the most that an answer may have, where a trace does not say it.
        seed: of the prompts.
    """

    name: str
    chat: bool = True
    answer_tokens: int = 128
    seed: int = 7

    def body(self, number: int, arrival: Arrival) -> bytes:
        """The request, of which the answer is streamed."""
        prompt = text_of(arrival, number, self.seed)
        asked: dict[str, Any] = {"model": self.name, "temperature": 0, "stream": True}
        asked["stream_options"] = {"include_usage": True}
        tokens = arrival.answer_tokens or self.answer_tokens
        asked["max_tokens"] = max(1, min(ANSWER_TOKENS_MAX, tokens))
        if self.chat:
            asked["messages"] = [{"role": "user", "content": prompt}]
        else:
            asked["prompt"] = prompt
        return json.dumps(asked).encode()


class ModelAsk:
    """Asks an LLM by OpenAI's protocol and notes when each part of the answer came."""

    def __init__(self, link: HttpLink, model: Model, bodies: Sequence[bytes] = ()) -> None:
        """Prepare; `bodies` are templates in place of the model's own requests."""
        self._link = link
        self._model = model
        self._bodies = bodies

    async def __call__(self, number: int, arrival: Arrival) -> Reply:
        """Ask once. Raises BadAnswer and OSError."""
        if self._bodies:
            template = self._bodies[number % len(self._bodies)]
            body = filled(template, number, arrival, self._model.seed)
        else:
            body = self._model.body(number, arrival)
        stream = TokenStream()
        answer = await self._link.ask(body, stream.feed)
        cause, error = fault_of(answer)
        if cause is None and not answer.headers.get("content-type", "").startswith(
            "text/event-stream"
        ):
            return Reply(answer.status, tokens=_tokens(_json(answer.body)))
        if cause is None:
            cause, error = stream.fault
        return Reply(
            answer.status, cause, error, queue_ms_of(answer, header_only=True),
            stream.text_s, stream.tokens,
        )  # fmt: skip


class TokenStream:
    """Reads server-sent events of a streamed completion while they come."""

    def __init__(self) -> None:
        self.text_s: list[float] = []
        self.tokens: int | None = None
        self._rest = b""
        self._done = False
        self._error: str | None = None

    @property
    def fault(self) -> tuple[str | None, str | None]:
        """Why the answer is no good, in two words and in full; None if it is good."""
        if self._error is not None:
            return "error in stream", self._error
        if not self._done:
            return "stream cut", "the stream ended without its [DONE] or a finish_reason"
        return None, None

    def feed(self, part: bytes) -> None:
        """Take in what has just come. Raises BadAnswer when a line has no end."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise BadAnswer("a line of the stream is too long")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        event = _json(data)
        if event.get("error"):
            self._error = json.dumps(event["error"])[:ERROR_CHARS]
            return
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        if isinstance(choice, dict):
            self._done = self._done or bool(choice.get("finish_reason"))
            if _has_text(choice) and len(self.text_s) < PARTS_MAX:
                self.text_s.append(time.monotonic())
        tokens = _tokens(event)
        self.tokens = self.tokens if tokens is None else tokens


def filled(template: bytes, number: int, arrival: Arrival, seed: int) -> bytes:
    """The body of the n-th request."""
    body = template.replace(b"{n}", b"%d" % number)
    if b"{text}" in body:
        body = body.replace(b"{text}", text_of(arrival, number, seed).encode())
    return body


def fault_of(answer: Answer) -> tuple[str | None, str | None]:
    """Why an answer is no good by its status, in two words and in full; None if it is good."""
    if 200 <= answer.status < 300:
        return None, None
    cause = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        return cause, "a redirect, which is not followed"
    return cause, answer.body[:ERROR_CHARS].decode("utf-8", "replace")


def queue_ms_of(answer: Answer, *, header_only: bool = False) -> float | None:
    """How long the request waited at the server, if the answer says so."""
    found: Any = _QUEUE_HEADER.search(answer.headers.get("server-timing", ""))
    if found is None and not header_only:
        found = _QUEUE_KEY.search(answer.body)
    try:
        queue_ms = math.nan if found is None else float(found[1])
    except ValueError:
        return None
    return queue_ms if queue_ms <= QUEUE_MAX_MS else None


def _has_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    said = delta if isinstance(delta, dict) else {}
    texts = (choice.get("text"), *map(said.get, ("content", "reasoning_content", "reasoning")))
    return any(texts) or bool(said.get("tool_calls"))


def _tokens(event: dict[str, Any]) -> int | None:
    usage = event.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and 0 <= tokens <= ANSWER_TOKENS_MAX else None


def _json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
