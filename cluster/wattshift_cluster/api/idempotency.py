"""Idempotency-Key: a POST that is sent twice acts once, and both get the first one's answer.

Answers are remembered in memory for KEEP_S, bounded; the controller itself remembers the keys of
jobs durably, so that a retry after its restart makes no second job. A key that comes back with
another body is a client's bug (422); one whose first request is still running waits for the client
to try again (409).
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from wattshift_cluster.api.problems import Problem

KEYS_MAX = 1024
KEEP_S = 24 * 3600.0
KEY_LENGTH_MAX = 255


@dataclass(slots=True)
class Remembered:
    """The first request under a key; `answer` is None while it runs."""

    body_sha256: str
    at_s: float
    answer: Response | None = None


class Answers:
    """Answers by token, path and key, oldest forgotten first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str], Remembered] = OrderedDict()

    async def once(self, request: Request, act: Callable[[], Awaitable[Response]]) -> Response:
        """Act, or return the answer of the earlier request with the same key.

        Raises:
            Problem: the key is too long (400), in use (409), or was used for another body (422).
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return await act()
        if not 1 <= len(key) <= KEY_LENGTH_MAX:
            raise Problem(400, f"Idempotency-Key must have 1 to {KEY_LENGTH_MAX} characters")
        slot = (request.state.token.id, request.url.path, key)
        digest = hashlib.sha256(await request.body()).hexdigest()
        self._forget()
        known = self._kept.get(slot)
        if known is not None:
            return self._replay(known, digest)
        self._kept[slot] = Remembered(digest, time.monotonic())
        try:
            answer = await act()
        except BaseException:
            del self._kept[slot]  # nothing was done, so the same key may try again
            raise
        self._kept[slot].answer = answer
        return answer

    def _replay(self, known: Remembered, digest: str) -> Response:
        if known.body_sha256 != digest:
            raise Problem(422, "this Idempotency-Key was used for another body", slug="key-reused")
        if known.answer is None:
            raise Problem(409, "the first request with this Idempotency-Key is still running")
        answer = Response(known.answer.body, known.answer.status_code)
        answer.raw_headers = [*known.answer.raw_headers, (b"idempotent-replayed", b"true")]
        return answer

    def _forget(self) -> None:
        oldest_s = time.monotonic() - KEEP_S
        done = [slot for slot, kept in self._kept.items() if kept.answer is not None]
        surplus = len(self._kept) - KEYS_MAX + 1
        for slot in done:
            if surplus <= 0 and self._kept[slot].at_s > oldest_s:
                break
            del self._kept[slot]
            surplus -= 1
        if len(self._kept) >= KEYS_MAX:
            raise Problem(503, "too many requests with an Idempotency-Key are running")
