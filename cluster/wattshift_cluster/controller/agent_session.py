"""The controller's conversation with one agent: leases out, readings in, once a second and at once.

One exchange at a time. A lease command goes out the moment it comes; every answer, whatever was
asked, also proves that the agent lives and what its boot clock says.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import structlog

from wattshift_cluster.config.site import AgentRef
from wattshift_cluster.controller import agent_words
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.refusals import Refusals
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.unseen import Unseen
from wattshift_cluster.wire.link import Link, LinkError
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.site import Device

WAITING_MAX = 8
"""Lease commands that may wait for one agent; older ones are superseded by newer leases anyway."""

log = structlog.get_logger()


class AgentSession:
    """Polls one agent and carries its leases until it is cancelled."""

    def __init__(
        self,
        ref: AgentRef,
        link: Link,
        inbox: Inbox,
        roster: Roster,
        clock: Clock,
        period_s: float,
        keep: Callable[[Iterable[Device]], None],
        asking: Link,
        heard: Callable[[str, Mapping[str, Any], float], None],
        refusals: Refusals,
        unseen: Unseen,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            link: for leases and readings alone.
            asking: for an operator's asks, so that a slow one holds up no lease.
            keep: remembers devices beyond a restart.
            heard: told each answer, of which agent and when on our clock, s.
            refusals: told what is announced, and says what of it may be leased.
            unseen: told what is read and cannot be announced.
        """
        self._unseen = unseen
        self._announced: Set[str] = frozenset()
        self._refusals = refusals
        self._asking = asking
        self._keep = keep
        self._heard = heard
        self._ref = ref
        self._link = link
        self._inbox = inbox
        self._roster = roster
        self._clock = clock
        self._period_s = period_s
        self._waiting: deque[GrantLeases] = deque(maxlen=WAITING_MAX)
        self._wake = asyncio.Event()
        self._version: Any = None

    def send(self, command: GrantLeases) -> None:
        """Queue a command and send it as soon as the exchange under way has ended."""
        if len(self._waiting) == WAITING_MAX:
            self._inbox.put([ev.CommandEnded(self._waiting[0].id, False, "superseded")])
        self._waiting.append(command)
        self._wake.set()

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask something else, beside the exchanges. Raises: LinkError."""
        return await self._asking.call(op, **fields)

    async def run(self) -> None:
        """Converse until cancelled. No answer is ever fatal: the agent counts as lost meanwhile."""
        try:
            while True:
                self._wake.clear()
                await self._round()
                await self._pause()
        finally:
            await self._link.close()
            await self._asking.close()

    async def _pause(self) -> None:
        if self._waiting:
            return
        try:
            async with asyncio.timeout(self._period_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _round(self) -> None:
        command = self._waiting.popleft() if self._waiting else None
        try:
            if self._version is None:
                await self._greet()
            events = await self._exchange(command)
            self._inbox.put(events, urgent=command is not None)
        except (LinkError, agent_words.AnswerInvalid) as fault:
            self._version = None
            lost: list[ev.Event] = [ev.AgentLost(self._ref.name, str(fault))]
            if command is not None:
                lost.append(ev.CommandEnded(command.id, False, str(fault)))
            self._inbox.put(lost, urgent=command is not None)

    async def _greet(self) -> None:
        answer = await self._link.call("hello")
        received_s = self._clock.now_s()
        infos = answer.get("devices", [])
        offer = agent_words.offer(self._ref, infos)
        devices = self._refusals.sifted(self._ref.name, offer, received_s)
        others = self._refusals.of_others(self._ref.name)
        self._roster.offered(self._ref.name, [i for i in infos if str(i["id"]) not in others])
        self._keep(devices)
        self._inbox.put(
            [agent_words.seen(self._ref.name, answer, received_s), ev.DeviceJoined(devices)]
        )
        self._heard(self._ref.name, answer, received_s)
        self._version = answer.get("inventory_version")
        self._announced = {str(info["id"]) for info in infos}
        log.info("agent joined", agent=self._ref.name, devices=len(devices))

    async def _exchange(self, command: GrantLeases | None) -> list[ev.Event]:
        leases = [] if command is None else agent_words.leases(command)
        boot_id = None if command is None else command.boot_id
        answer = await self._link.call("exchange", boot_id=boot_id, leases=leases)
        received_s = self._clock.now_s()
        events: list[ev.Event] = [agent_words.seen(self._ref.name, answer, received_s)]
        if command is not None:
            events.append(agent_words.replied(command, answer))
        events.append(self._read(answer, received_s))
        self._heard(self._ref.name, answer, received_s)
        changed = answer.get("inventory_version") != self._version
        if not changed:  # else a machine that has answered since the hello would be taken for one
            silent = agent_words.unannounced(self._ref, self._announced, answer)
            self._unseen.heard(self._ref, silent, received_s)
        if changed or self._refusals.freed(self._ref.name):
            self._version = None
        return events

    def _read(self, answer: Mapping[str, Any], received_s: float) -> ev.Readings:
        if others := self._refusals.of_others(self._ref.name):
            # What it says of another agent's device must not stand for what that one says.
            rows = [row for row in answer["readings"] if str(row.get("device")) not in others]
            answer = {**answer, "readings": rows}
        readings = agent_words.readings(answer, received_s)
        self._roster.read(answer["readings"], received_s)
        return readings
