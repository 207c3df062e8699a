"""Publishes the VTN's notices on a broker, and stays connected to it."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import structlog

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.exchange import trust
from wattshift_cluster.grid.openadr.listener import AT_ONCE, end_if_cancelled
from wattshift_cluster.grid.openadr.topics import PORTS, Greeting

MAX_WAITING = 1_000
"""Notices that wait for the broker; the oldest gives way."""

AT_LEAST_ONCE = 1
ANSWER_S = 10.0
LEAST_PAUSE_S, MOST_PAUSE_S = 0.1, 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """A broker, and what clients are told of it.

    Attributes:
        url: mqtt://host[:port] or mqtts://host[:port].
        ca_file: who signed its certificate; None: the system's authorities.
        greeting: how clients log in.
        client_username: for clients that log in with their token.
        client_cert, client_key: PEM text for clients that log in with a certificate.
        username, password: of the VTN itself.
        cert_file, key_file: of the VTN itself.
    """

    url: str
    ca_file: Path | None = None
    greeting: Greeting = Greeting.ANONYMOUS
    client_username: str = "{clientID}"
    client_cert: str = ""
    client_key: str = field(default="", repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        """Raises ConfigInvalid where `url` is none."""
        try:
            at = urlsplit(self.url)
            fine = at.scheme in PORTS and bool(at.hostname) and at.port != 0 and not at.username
        except ValueError:
            fine = False
        if not fine:
            what = "wanted mqtt://host[:port] or mqtts://host[:port]"
            raise ConfigInvalid([Fault("command line", "mqtt", self.url, what)])

    def binding(self) -> dict[str, Any]:
        """What `GET notifiers` tells."""
        greets: dict[str, Any] = {"method": self.greeting.value}
        if self.greeting is Greeting.OAUTH2_BEARER_TOKEN:
            greets["username"] = self.client_username
        if self.greeting is Greeting.CERTIFICATE:
            assert self.ca_file is not None, "clients are told whom to believe"
            greets |= {
                "caCert": self.ca_file.read_text(),
                "clientCert": self.client_cert,
                "clientKey": self.client_key,
            }
        return {"URIS": [self.url], "serialization": "JSON", "authentication": greets}


class Publisher:
    """Sends notices to one broker in order; `run` keeps the connection."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.published = 0
        self.dropped = 0
        self.connected = asyncio.Event()
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)
        self._unsent: tuple[str, bytes] | None = None
        self._rng = random.Random()

    def tell(self, topic: str, notice: Any) -> None:
        """Publish a notice, after those that wait."""
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait((topic, json.dumps(notice, separators=(",", ":")).encode()))

    async def run(self) -> None:
        """Publish until cancelled; a broker that is away is tried again."""
        while True:
            try:
                await self._publish()
            except (aiomqtt.MqttError, OSError) as fault:
                end_if_cancelled()
                log.warning("vtn_broker_lost", why=str(fault) or type(fault).__name__)
            finally:
                self.connected.clear()
            await asyncio.sleep(self._rng.uniform(LEAST_PAUSE_S, MOST_PAUSE_S))

    async def _publish(self) -> None:
        at = urlsplit(self.settings.url)
        assert at.hostname is not None, "checked when the settings were made"
        async with aiomqtt.Client(
            at.hostname,
            at.port or PORTS[at.scheme],
            username=self.settings.username,
            password=self.settings.password,
            timeout=ANSWER_S,
            socket_options=AT_ONCE,
            tls_context=self._tls() if at.scheme == "mqtts" else None,
        ) as client:
            self.connected.set()
            both = [asyncio.create_task(one) for one in (self._send(client), _until_lost(client))]
            try:
                ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
            for one in ended:
                one.result()

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            self._unsent = self._unsent or await self._queue.get()
            topic, payload = self._unsent
            await client.publish(topic, payload, qos=AT_LEAST_ONCE)
            self._unsent = None
            self.published += 1
            end_if_cancelled()

    def _tls(self) -> Any:
        ca_file = self.settings.ca_file
        context = trust(True if ca_file is None else str(ca_file))
        if self.settings.cert_file is not None:
            context.load_cert_chain(self.settings.cert_file, self.settings.key_file)
        return context


async def _until_lost(client: aiomqtt.Client) -> None:
    """Nothing is subscribed, so no message comes. Raises: MqttError, when the connection is lost.

    Whoever has nothing to publish would else not notice, and its loss would be nobody's to take.
    """
    async for _ in client.messages:
        pass
