"""A meter over MQTT: its messages are taken as they come, and `poll` gives the newest.

A message that the broker had kept (retained) was sent nobody knows when: without a time of its own
it is not taken, with one it is as old as that says.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.meters import pointer
from wattshift_cluster.grid.meters.latest import Latest, Sample
from wattshift_cluster.grid.meters.pause import Pause
from wattshift_cluster.grid.meters.reading import MeterReading, Quality
from wattshift_cluster.grid.meters.values import lowest
from wattshift_cluster.grid.openadr.exchange import trust
from wattshift_cluster.grid.openadr.listener import end_if_cancelled
from wattshift_cluster.grid.openadr.login import read_secret

ANSWER_S = 10.0
"""For the broker's answer to a connection or a subscription."""

KEEP_ALIVE_S = 15
MAX_WAITING = 256
"""Messages that have come and are not read yet; more are dropped: a newer one follows."""

ROOM_BYTES = 8 * 1024
"""What a packet may hold beside the message: its topic and properties."""

NOT_YET = "not connected yet"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one value comes: its topic, the steps into the JSON there, and what a unit of it is."""

    topic: str
    steps: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Spots:
    """Where all values come; `at` are the steps to the time in the message of the watts."""

    watts: Spot
    energy: Spot | None = None
    frequency: Spot | None = None
    voltages: tuple[Spot, ...] = ()
    at: tuple[str, ...] | None = None

    def others(self) -> Mapping[str, Spot]:
        """All but the watts, by name."""
        named = {"energy": self.energy, "frequency": self.frequency}
        named |= {f"voltage {at}": one for at, one in enumerate(self.voltages)}
        return {name: one for name, one in named.items() if one is not None}

    def topics(self) -> tuple[str, ...]:
        """Each topic once."""
        return tuple(dict.fromkeys([self.watts.topic, *(s.topic for s in self.others().values())]))


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how it is greeted; the password's file is read at each connection."""

    host: str
    port: int
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None


class MqttMeter:
    """Follows a meter's topics, from the first poll until it is closed."""

    def __init__(
        self,
        broker: Broker,
        spots: Spots,
        *,
        stale_after_s: float = 3.0,
        quality: Quality = "measured",
        pause: Pause | None = None,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing connects yet. Args: pause: between connections."""
        self._broker, self._spots = broker, spots
        self._stale_after_s = stale_after_s
        self._quality = quality
        self._wall_s, self._steady_s = wall_s, steady_s
        self._latest = Latest(stale_after_s, wall_s, steady_s)
        self._pause = pause or Pause(steady_s=steady_s)
        self._beside: dict[str, tuple[float | None, float]] = {}
        self._task: asyncio.Task[None] | None = None
        self._protocol = aiomqtt.ProtocolVersion.V5
        self._ever = False

    async def poll(self) -> MeterReading:
        """See `reading.Meter`. Messages come by themselves; this gives the newest."""
        if self._task is None:
            self._latest.fail(NOT_YET)
            self._task = asyncio.create_task(self._run())
        elif self._task.done():
            self._task.result()  # a programmer's mistake shows itself
        return self.reading()

    def reading(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._latest.reading()

    async def close(self) -> None:
        """See `reading.Meter`."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
                why = "the broker closed the connection"
            except (aiomqtt.MqttError, WattshiftError, OSError, ValueError) as fault:
                end_if_cancelled()
                why = str(fault) or type(fault).__name__
            if not self._ever:
                v5 = aiomqtt.ProtocolVersion.V5
                self._protocol = aiomqtt.ProtocolVersion.V311 if self._protocol is v5 else v5
            self._latest.fail(f"broker: {why}")
            rest_s = self._pause.failed()
            log.warning("meter_broker_lost", why=why, again_in_s=round(rest_s, 2))
            await asyncio.sleep(rest_s)

    async def _listen(self) -> None:
        broker = self._broker
        file = broker.password_file
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=None if file is None else read_secret(file),
            protocol=self._protocol,
            timeout=ANSWER_S,
            keepalive=KEEP_ALIVE_S,
            max_queued_incoming_messages=MAX_WAITING,
            tls_context=trust(str(broker.ca_file) if broker.ca_file else True)
            if broker.tls
            else None,
            properties=_bounds() if self._protocol is aiomqtt.ProtocolVersion.V5 else None,
        ) as client:
            codes = await client.subscribe([(topic, 0) for topic in self._spots.topics()])
            end_if_cancelled()
            if any(_refused(code) for code in codes):
                raise ValueError("the broker refuses a topic of the meter")
            self._ever = True
            self._pause.worked()
            self._latest.fail("no message yet")
            async for message in client.messages:
                self._take(message)

    def _take(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else b""
        try:
            found = pointer.parse(payload)
            self._take_others(message.topic.value, found)
            if message.topic.value == self._spots.watts.topic:
                self._latest.take(self._sample(found, retained=bool(message.retain)))
        except ValueError as fault:
            self._latest.fail(str(fault))

    def _take_others(self, topic: str, found: object) -> None:
        for name, spot in self._spots.others().items():
            if spot.topic == topic:
                value = pointer.number_at(found, spot.steps)
                self._beside[name] = (_times(value, spot.scale), self._steady_s())

    def _sample(self, found: object, *, retained: bool) -> Sample:
        """What a message says of the watts, with what came beside. Raises: ValueError."""
        spots = self._spots
        if spots.at is not None:
            at_s = pointer.time_at(found, spots.at)
        elif retained:
            raise ValueError("only a kept message, and nobody knows how old it is")
        else:
            at_s = self._wall_s()
        return Sample(
            _times(pointer.number_at(found, spots.watts.steps), spots.watts.scale),
            at_s,
            self._quality,
            energy_wh=self._fresh("energy"),
            hz=self._fresh("frequency"),
            volts_v=lowest([self._fresh(f"voltage {at}") for at in range(len(spots.voltages))]),
        )

    def _fresh(self, name: str) -> float | None:
        value, came_s = self._beside.get(name, (None, 0.0))
        return value if self._steady_s() - came_s <= self._stale_after_s else None


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _refused(code: object) -> bool:
    value = getattr(code, "value", code)
    return isinstance(value, int) and value >= 128


def _bounds() -> Properties:
    """MQTT 5: the broker must not send a larger packet than this."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = pointer.MAX_MESSAGE_BYTES + ROOM_BYTES
    return properties
