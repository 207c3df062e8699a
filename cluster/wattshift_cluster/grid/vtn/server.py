"""The loopback VTN as one thing: started, stopped, and driven from within where a test wants to."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from wattshift_cluster.grid.openadr.words import ObjectType
from wattshift_cluster.grid.serving import Certificate, Serving, serve
from wattshift_cluster.grid.vtn.app import build
from wattshift_cluster.grid.vtn.clients import Caller, Client, Clients
from wattshift_cluster.grid.vtn.desk import Desk
from wattshift_cluster.grid.vtn.kinds import BL_SCOPES, KINDS, VEN_SCOPES, Kind
from wattshift_cluster.grid.vtn.publisher import BrokerSettings, Publisher
from wattshift_cluster.grid.vtn.store import Row, Store
from wattshift_cluster.grid.vtn.telling import Telling
from wattshift_cluster.grid.vtn.webhooks import Webhooks

OPERATOR = "operator"
"""The client that acts from within; no login has this name."""

_BY_TYPE: dict[ObjectType, Kind] = {kind.type: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class VtnSettings:
    """How a VTN is set up.

    Attributes:
        clients: who may log in.
        token_life_s: of each token, s.
        broker: where notices are published; None: nowhere.
        certificate: None: plain HTTP.
        callback_verify: whose certificates of callback addresses are believed.
        clock: monotonic seconds, for tokens.
    """

    clients: Sequence[Client] = ()
    token_life_s: float = 3600.0
    broker: BrokerSettings | None = None
    certificate: Certificate | None = None
    callback_verify: bool | str = True
    clock: Callable[[], float] = time.monotonic


class LoopbackVtn:
    """A VTN in this process.

    Attributes:
        store: its objects.
        clients: who may log in, and the tokens they have.
        webhooks, publisher: how it tells; publisher None: it has no broker.
        url: its base address once it has started.
    """

    def __init__(self, settings: VtnSettings) -> None:
        """Prepare; nothing listens yet. Raises ConfigInvalid where a setting cannot be used."""
        assert all(client.id != OPERATOR for client in settings.clients), "that name is taken"
        self._settings = settings
        self.store = Store()
        self.clients = Clients(
            settings.clients, token_life_s=settings.token_life_s, clock=settings.clock
        )
        self.webhooks = Webhooks(settings.callback_verify)
        self.publisher = None if settings.broker is None else Publisher(settings.broker)
        telling = Telling(self.store, self.webhooks, self.publisher)
        self._desk = Desk(self.store, self.webhooks, telling)
        self._operator = Caller(OPERATOR, BL_SCOPES | VEN_SCOPES, float("inf"))
        self._serving: Serving | None = None
        self._publishing: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the base address. Raises WattshiftError where it cannot be had."""
        app = build(self._desk, self.clients, self._settings.broker)
        self._serving = await serve(
            app, host, port, name="vtn", certificate=self._settings.certificate
        )
        self.url = self._serving.url
        if self.publisher is not None:
            self._publishing = asyncio.create_task(self.publisher.run(), name="vtn-publisher")
        return self.url

    async def stop(self) -> None:
        """End all; objects stay, so that it can be started again as after a failure."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
            self._publishing = None
        if self._serving is not None:
            await self._serving.close()
            self._serving = None

    async def be_silent(self, seconds_s: float) -> None:
        """Answer nobody for a while, as if it had failed; then again at the same address."""
        at = urlsplit(self.url)
        assert at.hostname is not None, "it has started"
        await self.stop()
        await asyncio.sleep(seconds_s)
        await self.start(at.hostname, at.port or 0)

    async def close(self) -> None:
        """End all for good."""
        await self.stop()
        await self.webhooks.close()

    async def post(self, kind: ObjectType, body: dict[str, Any]) -> Row:
        """Create an object as the business logic would. Raises Problem."""
        return await self._desk.create(_BY_TYPE[kind], self._operator, body)

    async def put(self, kind: ObjectType, object_id: str, body: dict[str, Any]) -> Row:
        """Update an object as the business logic would. Raises Problem."""
        return await self._desk.update(_BY_TYPE[kind], self._operator, object_id, body)

    def delete(self, kind: ObjectType, object_id: str) -> Row:
        """Delete an object as the business logic would. Raises Problem."""
        return self._desk.delete(_BY_TYPE[kind], self._operator, object_id)

    def objects(self, kind: ObjectType) -> list[Row]:
        """Every object of a kind, with all that is kept of it."""
        return list(self.store.all(_BY_TYPE[kind]))
