"""Who else uses this host's devices, and the busy marks that keep mining away from them.

A gate's client speaks for itself. Everybody else is watched: servers that are asked for their
metrics, and processes that only the driver knows of. Both hold busy marks in the gates, so the
worker learns of them as it learns of any request.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from wattshift_cluster.agent.gpu.processes import busy_pids, compute_pids
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.observe import (
    GpuUsers,
    Neighbours,
    NeighbourTerms,
    Observed,
    ObservedServer,
    Others,
    others,
    together,
)
from wattshift_cluster.agent.observe.processes import UNKNOWN
from wattshift_cluster.agent.specs import HashingSpec
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import AgentConfig, Server
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.gate import ClientGate

log = structlog.get_logger()

LOOK_S = 1.0
STALE_S = 3.0
"""An older look at a card's processes says nothing of now."""


class GateMark:
    """A busy mark of this agent's own in the gate of one device; see `Marker`."""

    def __init__(self, clients_file: Path) -> None:
        """Join the gate. Raises: GateInvalid."""
        self._client = ClientGate(clients_file, kind="observer", watch=False)
        self._span = 0

    def enter(self) -> None:
        """See `Marker`."""
        self._span = self._client.enter()

    def leave(self) -> None:
        """See `Marker`."""
        self._client.leave(self._span)


class Watched(Protocol):
    """A device whose card others may use; see `HashingDevice` and `ExternalDevice`."""

    spec: HashingSpec
    clients_file: Path

    @property
    def id(self) -> str:
        """Its name."""
        ...

    def clients(self) -> tuple[int, ...]:
        """Process ids of those that mark its gate."""
        ...

    def own_pids(self) -> frozenset[int]:
        """Process ids that are this agent's doing."""
        ...

    def pids_on_card(self) -> frozenset[int]:
        """Those of them that the card's driver must list, or its list is not to be believed."""
        ...


class Users:
    """Looks at the processes on each card, once a second and off the event loop."""

    def __init__(self, gpus: HostGpus, devices: Sequence[Watched]) -> None:
        """Nothing was seen yet. Args: devices: those that are cards."""
        self._gpus = gpus
        self._devices = tuple(devices)
        self._seen: dict[str, tuple[float, Others]] = {}
        self._waiting: dict[str, float] = {}
        """Since when a thread waits for a card's driver."""

    def newest(self, device: str) -> tuple[float, Others] | None:
        """See `Look`."""
        return self._seen.get(device)

    def now(self, device: str) -> Others:
        """The newest look, unless it is too old to say anything."""
        at_s, found = self._seen.get(device, (0.0, UNKNOWN))
        return found if boot_s() - at_s <= STALE_S else UNKNOWN

    async def run(self) -> None:
        """Look until cancelled. One thread takes the cards in turn.

        A card whose driver hangs keeps nobody else's waiting: its thread is left to it, and another
        one goes on with the other cards.
        """
        left: set[str] = set()
        while True:
            over = threading.Event()
            looking = threading.Thread(
                target=self._look, args=(over,), name="gpu-users", daemon=True
            )
            looking.start()
            try:
                while looking.is_alive() and not self._hanging() - left:
                    await asyncio.sleep(LOOK_S)
                    left &= self._hanging()
            finally:
                over.set()
            for device in self._hanging() - left:
                log.warning("card.silent", device=device)
            left = self._hanging()

    def _hanging(self) -> set[str]:
        """The cards that have not answered for too long."""
        oldest_s = boot_s() - STALE_S
        return {device for device, at_s in list(self._waiting.items()) if at_s < oldest_s}

    def _look(self, over: threading.Event) -> None:
        while True:
            began_s = boot_s()
            for device in self._devices:
                if device.id in self._waiting:  # another thread was left to it
                    continue
                at_s = self._waiting[device.id] = boot_s()
                try:
                    users = self._read(device)
                finally:
                    del self._waiting[device.id]
                if over.is_set():
                    return
                self._seen[device.id] = at_s, _sorted(device, users)
            if over.wait(max(0.0, LOOK_S - (boot_s() - began_s))):
                return

    def _read(self, device: Watched) -> GpuUsers:
        library, card = self._gpus.library, device.spec.card
        assert card is not None
        since_s = time.time() - 2 * LOOK_S
        return GpuUsers(compute_pids(library, card), busy_pids(library, card, since_s))


def _sorted(device: Watched, users: GpuUsers) -> Others:
    """Who of a card's users is neither ours nor a client of its gate."""
    ours = frozenset({os.getpid(), *device.own_pids()})
    return others(users, ours, frozenset(device.clients()), device.pids_on_card())


class Neighbourhood:
    """All watchers of one agent.

    Attributes:
        servers: observed servers, each with its verdict.
        strangers: one per GPU.
    """

    def __init__(
        self,
        users: Users | None,
        strangers: Sequence[Neighbours],
        servers: Sequence[Observed],
    ) -> None:
        """Every device that is watched is marked busy until it was looked at."""
        self.servers = tuple(servers)
        self.strangers = tuple(strangers)
        self._users = users

    @classmethod
    def of(
        cls, config: AgentConfig, devices: Sequence[Watched], gpus: HostGpus | None
    ) -> "Neighbourhood | None":
        """The watchers that a file asks for. Raises: ConfigInvalid, GateInvalid."""
        known = {device.id: device for device in devices}
        _check(config.servers, known)
        cards = [device for device in devices if device.spec.card is not None]
        users = Users(gpus, cards) if gpus is not None and cards else None
        served = {name for server in config.servers for name in server.devices}
        strangers = []
        if users is not None:
            strangers = [_strangers(config, card, users, card.id in served) for card in cards]
        servers = [_observed(server, known, users) for server in config.servers]
        if users is None and not servers:
            return None
        return cls(users, strangers, servers)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._users is not None:
                group.create_task(self._users.run())
            for stranger in self.strangers:
                group.create_task(stranger.run())
            for server in self.servers:
                group.create_task(server.run())

    def why_busy(self, device: str) -> str | None:
        """Who keeps mining away from a device now; None when nobody does."""
        for stranger in self.strangers:
            if stranger.device == device and stranger.verdict().busy:
                return stranger.verdict().why
        for server in self.servers:
            if device in server.server.devices and server.verdict().busy:
                return f"{server.server.name}: {server.verdict().why}"
        return None


def _check(servers: Iterable[Server], known: dict[str, Watched]) -> None:
    faults = [
        f"servers[{at}].devices: no device {name!r} here; there are {', '.join(known) or 'none'}"
        for at, server in enumerate(servers)
        for name in server.devices
        if name not in known
    ]
    if faults:
        raise ConfigInvalid(faults)


def _strangers(config: AgentConfig, device: Watched, users: Users, observed: bool) -> Neighbours:
    terms = NeighbourTerms(
        opt_in=config.gpu.strangers == "when_quiet",
        exclusive=config.gpu.exclusive,
        observed=observed,
        period_s=LOOK_S,
        stale_s=STALE_S,
    )
    look = partial(users.newest, device.id)
    return Neighbours(device.id, terms, GateMark(device.clients_file), look)


def _observed(server: Server, known: dict[str, Watched], users: Users | None) -> Observed:
    asked = ObservedServer(**server.model_dump(by_alias=False))
    marks = [GateMark(known[name].clients_file) for name in server.devices]

    def seen() -> Others:
        return together([UNKNOWN if users is None else users.now(n) for n in server.devices])

    return Observed(asked, marks, seen)
