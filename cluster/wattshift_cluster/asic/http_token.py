"""An HTTP interface behind a login that is held: one token for every request of one machine.

The login happens once, however many requests wait for it; pyasic logs in once per request that it
sends at the same time. A token that the machine refuses costs one new login. A password that it
refuses is not tried again for a while: a machine that counts wrong passwords locks its owner out.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from wattshift_cluster.asic.driver import AsicRefused
from wattshift_cluster.asic.http import AsicUnauthorised, HttpSession
from wattshift_cluster.asic.http_auth import Auth, Fixed
from wattshift_cluster.asic.reported import Json

NO_PASSWORD = "no password: name it for this machine in the agent's configuration"
REFUSED = "the machine refuses the password that is configured for it"
WRONG_PASSWORD_S = 30.0
"""A refused password is not offered again so soon."""

T = TypeVar("T")
Login = Callable[[HttpSession], Awaitable[str]]


class TokenSession:
    """One machine's HTTP interface, logged in.

    Every method raises AsicUnreachable where no whole answer came in time, and AsicRefused where
    the machine declined, the password was refused or there is none.

    Args:
        address: IPv4 address of the machine.
        deadline_s: for each exchange.
        login: asks for a token and returns the Authorization header; raises AsicRefused for a
            refused password. None where the owner gave no password.
    """

    def __init__(self, address: str, *, deadline_s: float, login: Login | None) -> None:
        self.plain = HttpSession(address, deadline_s=deadline_s)
        self._web = HttpSession(address, deadline_s=deadline_s)
        self._login = login
        self._turn = asyncio.Lock()
        self._refused_s = float("-inf")

    async def prepare(self) -> None:
        """Hold token and connection ready; without a password the connection alone."""
        if self._login is None:
            await self.plain.connect()
        elif self._web.auth is None:
            await self._renew(None)
        else:
            await self._web.connect()

    async def close(self) -> None:
        """Let token and connections go."""
        self._web.auth = None
        await self._web.close()
        await self.plain.close()

    async def get(self, path: str) -> Json:
        """GET an object."""
        return await self._asked(lambda web: web.get_json(path))

    async def get_any(self, path: str) -> Any:
        """GET any JSON; None where the answer is none."""
        answer = await self._asked(lambda web: web.send("GET", path))
        try:
            return json.loads(answer)
        except ValueError:
            return None

    async def put(self, path: str, body: Any = None) -> bytes:
        """PUT and return the body of the answer, whatever it is."""
        return await self._asked(lambda web: web.send("PUT", path, body))

    async def post(self, path: str, body: Any = None) -> bytes:
        """POST and return the body of the answer, whatever it is."""
        return await self._asked(lambda web: web.send("POST", path, body))

    async def _asked(self, question: Callable[[HttpSession], Awaitable[T]]) -> T:
        held = self._web.auth
        if held is None:
            held = await self._renew(None)
        try:
            return await question(self._web)
        except AsicUnauthorised:
            await self._renew(held)
        return await question(self._web)

    async def _renew(self, refused: Auth | None) -> Auth:
        """Log in, unless somebody else did since `refused` was refused."""
        address = self._web.address
        if self._login is None:
            raise AsicRefused(address, "login", NO_PASSWORD)
        async with self._turn:
            if self._web.auth is not None and self._web.auth is not refused:
                return self._web.auth
            now_s = asyncio.get_running_loop().time()
            if now_s < self._refused_s + WRONG_PASSWORD_S:
                raise AsicRefused(address, "login", REFUSED)
            try:
                auth = Fixed(await self._login(self._web))
            except AsicRefused:
                self._refused_s = now_s
                self._web.auth = None
                raise AsicRefused(address, "login", REFUSED) from None
            self._web.auth = auth
            return auth
