"""One GET of a JSON object with a deadline and a size limit: how this room reads from others."""

import asyncio
import json
from typing import Any

import httpx2

MAX_BODY_BYTES = 256 * 1024


class FetchFailed(Exception):
    """No usable answer; the text says why.

    Attributes:
        status: HTTP status of the refusal; None where there was none.
        retry_after_s: how long the server asks to be left alone, s; None if it does not say.
    """

    def __init__(
        self, reason: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class JsonSource:
    """A URL that answers GET with a JSON object; keeps its connection open between reads."""

    def __init__(
        self, url: str, deadline_s: float, client: httpx2.AsyncClient | None = None
    ) -> None:
        """Args: deadline_s: of a whole read, s; client: one of the caller's, which stays open."""
        self.url = url
        self._deadline_s = deadline_s
        self._own = client is None
        # Feeds and meters are named by the site's owner; a proxy from the environment is not.
        self._client = client or httpx2.AsyncClient(timeout=deadline_s, trust_env=False)

    async def get(self) -> dict[str, Any]:
        """Read once. Raises: FetchFailed."""
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._client.stream("GET", self.url) as response,
            ):
                if response.status_code != 200:
                    raise _refused(response)
                data = b""
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_BODY_BYTES:
                        raise FetchFailed(f"answer larger than {MAX_BODY_BYTES} bytes")
        except TimeoutError as fault:
            raise FetchFailed(f"no answer within {self._deadline_s} s") from fault
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            raise FetchFailed(str(fault) or type(fault).__name__) from fault
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as fault:
            raise FetchFailed("the answer is not JSON") from fault
        if not isinstance(body, dict):
            raise FetchFailed("the answer is not a JSON object")
        return body

    async def close(self) -> None:
        """Close the connection, unless the client was given."""
        if self._own:
            await self._client.aclose()


def _refused(response: httpx2.Response) -> FetchFailed:
    told = response.headers.get("retry-after", "")
    # The header may also hold a date: then our own back-off decides.
    retry_after_s = float(told) if told.isascii() and told.isdigit() and len(told) <= 9 else None
    status = response.status_code
    return FetchFailed(f"HTTP status {status}", status, retry_after_s)
