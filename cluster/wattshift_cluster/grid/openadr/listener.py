"""Notices by MQTT: stays connected to the VTN's broker and passes on what is new.

A broker keeps nothing for us while we are away, so whoever listens polls once after each connection
(`on_connected`). What the broker had kept (retained messages) is old by nature and is dropped.
MQTT 5 is tried first, 3.1.1 next, as the protocol recommends.
"""

import asyncio
import random
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.exchange import trust
from wattshift_cluster.grid.openadr.notices import (
    MAX_NOTICE_BYTES,
    Heard,
    NoticeInvalid,
    OnNotice,
    read_notice,
)
from wattshift_cluster.grid.openadr.topics import Address, Broker, Greeting, Topics

AT_LEAST_ONCE = 1
REFUSED = 128
"""Reason codes from here on are refusals, in MQTT 3.1.1 and 5."""

ANSWER_S = 10.0
"""For the broker's answer to a connection or a subscription."""

AT_ONCE = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""A packet is sent when it is there, not when the last one was acknowledged."""

KEEP_ALIVE_S = 30
MAX_WAITING = 1000
"""Notices that have come and are not read yet; more are dropped, and come by polling."""

ROOM_BYTES = 64 * 1024
"""What a packet may hold beside the notice: its topic and properties."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LEAST_PAUSE_S = 0.05
CLIENT_ID = "{clientID}"

log = structlog.get_logger()

GiveToken = Callable[[], Awaitable[str | None]]


@dataclass(slots=True)
class Listened:
    """What came by MQTT since the listener was made.

    Attributes:
        taken: notices passed on.
        repeated: notices that had been heard, or were older than what was heard.
        retained: what the broker had kept.
        invalid: no notices at all.
        connections: how often the broker took us.
    """

    taken: int = 0
    repeated: int = 0
    retained: int = 0
    invalid: int = 0
    connections: int = 0


class Listener:
    """Follows the topics of one VTN.

    Attributes:
        counts: see `Listened`.
        fault: why it is not connected; None while it is.
    """

    def __init__(
        self,
        topics: Topics,
        on_notice: OnNotice,
        *,
        on_connected: Callable[[], None] = lambda: None,
        on_fault: Callable[[str | None], None] = lambda fault: None,
        client_id: str = "",
        token: GiveToken | None = None,
        verify: bool | str = True,
        heard: Heard | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing connects yet.

        Args:
            topics: as `VtnClient.topics` found them.
            on_notice: takes each notice that is new, in the event loop; quick.
            on_connected: called after each connection: poll now.
            on_fault: told why there is no connection, and None when there is one again.
            client_id: of the login, where the broker wants it as user name.
            token: gives a bearer token, where the broker wants one.
            verify: as of `VtnClient`, for a broker that sends no authority of its own.
            heard: what was heard already, shared with other ways in.
            rng: of the pauses between connections.
        """
        assert topics.names, "a listener has something to listen to"
        assert topics.broker.addresses, "a broker is somewhere"
        self.counts = Listened()
        self.fault: str | None = "not connected yet"
        self._topics = topics
        self._on_notice = on_notice
        self._on_connected = on_connected
        self._on_fault = on_fault
        self._client_id = client_id
        self._token = token
        self._verify = verify
        self._heard = heard or Heard()
        self._rng = rng or random.Random()
        self._protocol = aiomqtt.ProtocolVersion.V5

    async def run(self) -> None:
        """Listen until cancelled; a broker that is away is tried again."""
        failures = 0
        while True:
            address = self._topics.broker.addresses[failures % len(self._topics.broker.addresses)]
            before = self.counts.connections
            try:
                await self._listen(address)
                self.fault = "the broker closed the connection"
            except (aiomqtt.MqttError, WattshiftError, OSError, ValueError) as fault:
                end_if_cancelled()
                self.fault = str(fault) or type(fault).__name__
            if self.counts.connections > before:
                failures = 0
            elif self.counts.connections == 0:
                self._protocol = _other(self._protocol)
            most_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 16))
            failures += 1
            pause_s = self._rng.uniform(LEAST_PAUSE_S, most_s)
            log.warning("openadr_broker_lost", why=self.fault, again_in_s=round(pause_s, 2))
            self._on_fault(self.fault)
            await asyncio.sleep(pause_s)

    async def _listen(self, address: Address) -> None:
        broker = self._topics.broker
        username, password = await self._greeting(broker, address)
        async with aiomqtt.Client(
            address.host,
            address.port,
            username=username,
            password=password,
            protocol=self._protocol,
            timeout=ANSWER_S,
            socket_options=AT_ONCE,
            keepalive=KEEP_ALIVE_S,
            max_queued_incoming_messages=MAX_WAITING,
            tls_context=_tls(broker, self._verify) if address.tls else None,
            properties=_bounds() if self._protocol is aiomqtt.ProtocolVersion.V5 else None,
        ) as client:
            wanted = [(name, AT_LEAST_ONCE) for name in self._topics.names]
            codes = await client.subscribe(wanted)
            end_if_cancelled()
            answered = zip(self._topics.names, codes, strict=False)
            refused = [name for name, code in answered if _is_refusal(code)]
            if len(refused) == len(self._topics.names):
                raise ValueError("the broker refuses every topic")
            if refused:
                log.warning("openadr_topics_refused", topics=refused[:8], count=len(refused))
            self.counts.connections += 1
            self.fault = None
            self._on_fault(None)
            self._on_connected()
            async for message in client.messages:
                self._take(message)

    async def _greeting(self, broker: Broker, address: Address) -> tuple[str | None, str | None]:
        """User name and password. Raises what the token's giver raises, and ValueError."""
        if broker.greeting is not Greeting.OAUTH2_BEARER_TOKEN:
            return None, None
        token = None if self._token is None else await self._token()
        if token is None:
            raise ValueError("the broker wants a bearer token, and there is no login")
        named = broker.username in (None, CLIENT_ID)
        return self._client_id if named else broker.username, token

    def _take(self, message: aiomqtt.Message) -> None:
        if message.retain:
            self.counts.retained += 1
            return
        try:
            notice = read_notice(message.payload if isinstance(message.payload, bytes) else b"")
        except NoticeInvalid as wrong:
            self.counts.invalid += 1
            log.warning("openadr_notice_invalid", why=str(wrong))
            return
        if self._heard.is_news(notice):
            self.counts.taken += 1
            self._on_notice(notice)
        else:
            self.counts.repeated += 1


def end_if_cancelled() -> None:
    """Raise the cancellation of this task that an await of aiomqtt may have lost.

    It waits by asyncio.wait_for, which before Python 3.12 returns the answer where both come at
    once, and its farewell to the broker may fail instead of passing the cancellation on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _is_refusal(code: object) -> bool:
    value = code.value if isinstance(code, ReasonCode) else code
    return isinstance(value, int) and value >= REFUSED


def _other(protocol: aiomqtt.ProtocolVersion) -> aiomqtt.ProtocolVersion:
    """The version that was not tried last."""
    if protocol is aiomqtt.ProtocolVersion.V5:
        return aiomqtt.ProtocolVersion.V311
    return aiomqtt.ProtocolVersion.V5


def _bounds() -> Properties:
    """MQTT 5: the broker must not send a larger packet than this."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_NOTICE_BYTES + ROOM_BYTES
    return properties


def _tls(broker: Broker, verify: bool | str) -> ssl.SSLContext:
    """What to open TLS with. Raises ValueError where the VTN's certificates cannot be used."""
    context = trust(verify)
    try:
        if broker.ca_pem is not None:
            context.load_verify_locations(cadata=broker.ca_pem)
        if broker.cert_pem is not None and broker.key_pem is not None:
            # Python reads these from files alone; the folder is ours, and gone at once.
            with tempfile.TemporaryDirectory(prefix="wattshift-mqtt-") as folder:
                cert, key = Path(folder, "cert.pem"), Path(folder, "key.pem")
                cert.write_text(broker.cert_pem)
                key.touch(mode=0o600)
                key.write_text(broker.key_pem)
                context.load_cert_chain(cert, key)
    except OSError as fault:  # ssl.SSLError is one
        raise ValueError(f"the VTN's certificates for the broker: {fault.strerror}") from None
    return context
