"""Rack PDUs over Redfish: DMTF `Outlet` resources and their `Outlet.PowerControl` action.

Schema: DSP8010, Outlet: `PowerState` is On, Off, PoweringOn or PoweringOff, `PowerWatts.Reading` in
W, and the action's target stands in the resource itself. Only a target on the same PDU is followed,
so that no answer can send the owner's password elsewhere.
"""

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from wattshift_cluster.outlets.driver import PduRefused, PduUnreachable

BODY_LIMIT = 256 * 1024
ACTION = "#Outlet.PowerControl"
STATES = {"On": True, "Off": False}


@dataclass(frozen=True, slots=True)
class Login:
    """The owner's account on the PDU."""

    username: str
    password: str = field(repr=False)


class RedfishWire:
    """See `driver.Wire`.

    Args:
        name: of the PDU, in messages.
        url: `https://host[:port]`.
        path: its RackPDU resource.
        login: HTTP basic authentication, one account.
        ca_file: who signed its certificate; None: the system's authorities.
        deadline_s: of one exchange.
    """

    def __init__(
        self,
        name: str,
        url: str,
        path: str,
        login: Login,
        ca_file: str | None,
        *,
        deadline_s: float,
    ) -> None:
        self._name = name
        self._url = url.rstrip("/")
        self._path = path.rstrip("/")
        self._login = login
        self._ca_file = ca_file
        self._deadline_s = deadline_s
        self._session: aiohttp.ClientSession | None = None

    async def read(self, outlets: Sequence[str]) -> Mapping[str, tuple[bool | None, float | None]]:
        """See `driver.Wire`."""
        return {outlet: _seen(await self._outlet("read", outlet)) for outlet in outlets}

    async def command(self, outlet: str, *, on: bool) -> None:
        """See `driver.Wire`."""
        wanted = "On" if on else "Off"
        doing = f"switch outlet {outlet} {wanted.lower()}"
        actions = (await self._outlet(doing, outlet)).get("Actions")
        action = actions.get(ACTION) if isinstance(actions, dict) else None
        if not isinstance(action, dict):
            raise PduRefused(self._name, doing, "the outlet offers no PowerControl")
        target = action.get("target")
        if not isinstance(target, str) or not target.startswith("/redfish/") or ".." in target:
            raise PduRefused(self._name, doing, "the action's target is not on this PDU")
        allowed = action.get("PowerState@Redfish.AllowableValues")
        if isinstance(allowed, list) and wanted not in allowed:
            raise PduRefused(self._name, doing, f"the outlet does not allow {wanted}")
        await self._ask("POST", doing, target, {"PowerState": wanted})

    async def feed(self) -> None:
        """See `driver.Wire`."""
        raise PduRefused(self._name, "feed the watchdog", "a Redfish PDU has none")

    async def close(self) -> None:
        """See `driver.Wire`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _outlet(self, doing: str, outlet: str) -> dict[str, Any]:
        answer = await self._ask("GET", doing, f"{self._path}/Outlets/{outlet}", None)
        if not isinstance(answer, dict):
            raise PduUnreachable(self._name, doing, "the answer is not an Outlet resource")
        return answer

    async def _ask(self, method: str, doing: str, path: str, body: dict[str, str] | None) -> Any:
        session = self._session = self._session or self._opened()
        try:
            async with session.request(
                method, self._url + path, json=body, allow_redirects=False
            ) as answer:
                payload = await answer.content.read(BODY_LIMIT + 1)
                while len(payload) <= BODY_LIMIT and not answer.content.at_eof():
                    payload += await answer.content.read(BODY_LIMIT + 1)
                if answer.status in (401, 403):
                    raise PduRefused(self._name, doing, "the account may not do this")
                if 300 <= answer.status < 500:
                    raise PduRefused(self._name, doing, f"HTTP {answer.status}")
                if answer.status >= 500:
                    raise PduUnreachable(self._name, doing, f"HTTP {answer.status}")
                if len(payload) > BODY_LIMIT:
                    raise PduUnreachable(self._name, doing, f"answer above {BODY_LIMIT} bytes")
        except aiohttp.ClientError as fault:
            raise PduUnreachable(self._name, doing, type(fault).__name__) from None
        return _parsed(payload) if method == "GET" else None

    def _opened(self) -> aiohttp.ClientSession:
        trust = ssl.create_default_context(cafile=self._ca_file)
        account = f"{self._login.username}:{self._login.password}".encode()
        return aiohttp.ClientSession(
            headers={"Authorization": f"Basic {base64.b64encode(account).decode()}"},
            timeout=aiohttp.ClientTimeout(total=self._deadline_s),
            connector=aiohttp.TCPConnector(limit=1, ssl=trust),
        )


def _seen(resource: dict[str, Any]) -> tuple[bool | None, float | None]:
    watts = resource.get("PowerWatts")
    reading = watts.get("Reading") if isinstance(watts, dict) else None
    number = isinstance(reading, int | float) and not isinstance(reading, bool)
    state = resource.get("PowerState")
    return (
        STATES.get(state) if isinstance(state, str) else None,
        float(reading) if number and reading is not None else None,
    )


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return None
