"""One request to a VTN and its answer: a deadline, a size limit, checked TLS, no redirects.

OpenADR 3 asks for TLS 1.2 or later, and for a VEN that checks certificates unless told otherwise.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused, VtnUnreachable

MAX_ANSWER_BYTES = 4 << 20
"""A page of 50 events with a day of 5-minute prices each is below 1 MB."""

MAX_CONNECTIONS = 4
TITLE_CHARACTERS = 200
TRY_LATER = (408, 429)
SECONDS_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        method: of HTTP.
        url: below the base, without a leading slash; or a whole address.
        query, body, form: of these, what is given is sent.
        headers: beside the usual ones. Never shown: they hold tokens.
    """

    method: str
    url: str
    query: tuple[tuple[str, str | int], ...] = ()
    body: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"{self.method} {self.url}"


class Exchange:
    """Speaks HTTP to one VTN; keeps its connections open between requests.

    Attributes:
        base_url: ends with a slash.
        skew_s: the VTN's clock less ours by its last Date header, s, to about half a second; None
            before there was one.
    """

    def __init__(
        self,
        base_url: str,
        verify: bool | str,
        deadline_s: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            base_url: where the VTN's paths begin.
            verify: True: the system's authorities; a file: those in it; False: no check at all.
            deadline_s: of one request and its whole answer, s.
            wall: unix time, s.

        Raises:
            ConfigInvalid: the address or the file of authorities cannot be used.
        """
        self.base_url = base_url.rstrip("/") + "/"
        self.skew_s: float | None = None
        self._deadline_s = deadline_s
        self._wall = wall
        try:
            at = httpx2.URL(self.base_url)
        except (httpx2.InvalidURL, ValueError) as fault:
            raise _invalid(base_url, str(fault)) from None
        if at.scheme not in ("http", "https") or not at.host or at.userinfo:
            raise _invalid(at.host, "wanted https://host[:port]/path, without a password")
        self._http = httpx2.AsyncClient(
            verify=trust(verify),
            timeout=deadline_s,
            trust_env=False,
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
        )

    async def send(self, request: Request) -> Any:
        """The parsed JSON of a 2xx answer; None where its body is empty.

        Raises:
            VtnUnreachable: no answer in time, or 5xx, 408, 429.
            VtnRefused: any other status that is not 2xx.
            VtnNonsense: too large, or not JSON.
        """
        response, data = await self._exchange(request)
        if response.status_code >= 500 or response.status_code in TRY_LATER:
            why = f"{request!r}: HTTP {response.status_code}"
            raise VtnUnreachable(why, response.status_code, _retry_after_s(response))
        if not response.is_success:
            raise VtnRefused(repr(request), response.status_code, _title(data))
        return None if not data else _json(request, data)

    async def _exchange(self, request: Request) -> tuple[httpx2.Response, bytes]:
        url = httpx2.URL(self.base_url).join(request.url)
        data = b""
        asked_s = self._wall()
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._http.stream(
                    request.method,
                    url,
                    params=request.query or None,
                    json=request.body,
                    data=request.form,
                    headers=request.headers,
                ) as response,
            ):
                self._compare_clocks(response, asked_s)
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise VtnNonsense(f"{request!r}: more than {MAX_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise VtnUnreachable(f"{request!r}: no answer within {self._deadline_s} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            why = str(fault) or type(fault).__name__
            raise VtnUnreachable(f"{request!r}: {why}") from None
        return response, data

    def _compare_clocks(self, response: httpx2.Response, asked_s: float) -> None:
        try:
            told_s = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError, OverflowError, OSError):
            return
        # The header drops the fraction of its second: half a second on average.
        self.skew_s = told_s + 0.5 - (asked_s + self._wall()) / 2

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def trust(verify: bool | str) -> ssl.SSLContext:
    """What to open TLS with. Raises ConfigInvalid where the file of authorities is unusable."""
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        try:
            context = ssl.create_default_context(cafile=None if verify is True else verify)
        except OSError as fault:  # ssl.SSLError is one
            raise _invalid(str(verify), f"no certificates: {fault}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _invalid(value: str, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault("openadr", "vtn", value, message)])


def _json(request: Request, data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise VtnNonsense(f"{request!r}: the answer is not JSON") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _title(data: bytes) -> str:
    """The words of a problem (RFC 9457) or of an OAuth2 error, for people; cut, on one line."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    words = [said[key] for key in ("title", "error", "detail") if isinstance(said.get(key), str)]
    line = " ".join(": ".join(words).split())
    return "".join(c for c in line if c.isprintable())[:TITLE_CHARACTERS]


def _retry_after_s(response: httpx2.Response) -> float | None:
    told = response.headers.get("retry-after", "")
    # The header may also hold a date: then our own back-off decides.
    usable = told.isascii() and told.isdigit() and len(told) <= SECONDS_DIGITS
    return float(told) if usable else None
