"""One GET of a JSON object with a deadline and a size limit: how this room reads from others."""

import asyncio
import json
from typing import Any

import httpx2

MAX_BODY_BYTES = 256 * 1024


class FetchFailed(Exception):
    """No usable answer; the text says why."""


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
                    raise FetchFailed(f"HTTP status {response.status_code}")
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
