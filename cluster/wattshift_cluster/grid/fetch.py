"""One GET with a deadline and a size limit, of a JSON object or of text: how this room reads."""

import asyncio
import json
from collections.abc import Mapping
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

    async def get(self, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read a JSON object once. Raises: FetchFailed."""
        try:
            body = json.loads(await self._read(headers, MAX_BODY_BYTES))
        except (ValueError, RecursionError) as fault:
            raise FetchFailed("the answer is not JSON") from fault
        if not isinstance(body, dict):
            raise FetchFailed("the answer is not a JSON object")
        return body

    async def text(
        self, headers: Mapping[str, str] | None = None, most_bytes: int = MAX_BODY_BYTES
    ) -> str:
        """Read text once. Raises: FetchFailed."""
        try:
            return (await self._read(headers, most_bytes)).decode("utf-8-sig")
        except UnicodeDecodeError as fault:
            raise FetchFailed("the answer is not UTF-8") from fault

    async def _read(self, headers: Mapping[str, str] | None, most_bytes: int) -> bytes:
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._client.stream("GET", self.url, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise _refused(response)
                data = b""
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > most_bytes:
                        raise FetchFailed(f"answer larger than {most_bytes} bytes")
                return data
        except TimeoutError as fault:
            raise FetchFailed(f"no answer within {self._deadline_s} s") from fault
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            raise FetchFailed(str(fault) or type(fault).__name__) from fault

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
