"""Power limits of a service's replicas: from the core's word to the agents that own the GPUs.

A replica marks the gates of the GPUs that it uses, and the bridge reports them; the agent of each
of those devices is asked for the limit. What was confirmed is watched: when replicas move to other
GPUs, or a card's limit is no longer what was read back, the core hears that it no longer holds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.wire.link import LinkError
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import LimitUnits
from wattshift_scheduler.site import Device

SAME_W = 2.0
"""Limits that differ by less are the same: firmware rounds to a watt, and so does its reading."""

SETTLED_S = 3.0
"""A reading younger than this after a write may show the limit of before: cards are sampled twice a
second and agents asked once a second."""

WAITING_MAX = 256
"""Limit commands that wait; the core has one at a time for each job and node."""

NO_ANSWER = (KeyError, TypeError, ValueError, AttributeError)
"""What comes of an answer that is not what the protocol says: a failed command, and no more."""

Report = Mapping[str, Any]


class Asks(Protocol):
    """Asks an agent for what changes a device. Raises: LinkError."""

    async def __call__(self, agent: str, op: str, **fields: Any) -> dict[str, Any]: ...


class Unlimited(Exception):
    """The limit is not in force; the text says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """Limits that are in force for a job's units on a node.

    Attributes:
        command: the command that they answer.
        enforced_w: limit read back, by device, W.
        at_s: when, our clock.
    """

    command: int
    enforced_w: Mapping[str, float]
    at_s: float


class UnitLimits:
    """Between the core's LimitUnits and the agents' limits."""

    def __init__(
        self,
        ask: Asks,
        devices: Callable[[], Iterable[Device]],
        report: Callable[[], Report],
        roster: Roster,
        inbox: Inbox,
        clock: Clock,
        period_s: float,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            ask: reaches the agents.
            devices: what the agents have.
            report: the bridge's last report.
            roster: the agents' last readings.
            inbox: where ends of commands go.
            clock: where time comes from.
            period_s: how often what is in force is looked at.
        """
        self._ask, self._devices, self._report = ask, devices, report
        self._roster, self._inbox, self._clock = roster, inbox, clock
        self._period_s = period_s
        self._held: dict[tuple[str, str], Held] = {}
        self._touched: dict[tuple[str, str], set[str]] = {}
        self._waiting: asyncio.Queue[LimitUnits] = asyncio.Queue(WAITING_MAX)

    def send(self, command: LimitUnits) -> None:
        """Queue a command; its end comes through the inbox."""
        if self._waiting.full():
            self._inbox.put([ev.CommandEnded(command.id, False, "too many limits are waiting")])
        else:
            self._waiting.put_nowait(command)

    async def run(self) -> None:
        """Carry commands and watch what is in force until cancelled."""
        while True:
            commands = []
            try:
                async with asyncio.timeout(self._period_s):
                    commands.append(await self._waiting.get())
            except TimeoutError:
                self._watch()
                continue
            while not self._waiting.empty():
                commands.append(self._waiting.get_nowait())
            ends = await asyncio.gather(*(self._carry(one) for one in commands))
            self._inbox.put(ends, urgent=True)

    async def _carry(self, command: LimitUnits) -> ev.CommandEnded:
        key = (command.node, command.job)
        try:
            if command.watts_w is None:
                await self._lift(key)
                return ev.CommandEnded(command.id, True)
            units, devices = self._marked(*key)
            held = self._held.get(key)
            each_w = command.watts_w * units / len(devices)
            if held is not None and any(each_w > was + SAME_W for was in held.enforced_w.values()):
                await self._lift(key)  # an agent raises a limit only by giving its first one back
            self._touched.setdefault(key, set()).update(device.id for device in devices)
            enforced_w = await self._limit(devices, each_w)
        except (LinkError, Unlimited) as fault:
            return ev.CommandEnded(command.id, False, str(fault))
        except NO_ANSWER as fault:
            words = f"an answer that is none: {type(fault).__name__}: {fault}"
            return ev.CommandEnded(command.id, False, words)
        self._held[key] = Held(command.id, enforced_w, self._clock.now_s())
        return ev.CommandEnded(command.id, True, "", sum(enforced_w.values()) / units)

    async def _limit(self, devices: Iterable[Device], each_w: float) -> dict[str, float]:
        """Set the limit of every device; what is enforced, W. Raises: LinkError, Unlimited."""
        by_agent: dict[str, dict[str, float]] = {}
        for device in devices:
            by_agent.setdefault(device.agent, {})[device.id] = each_w
        answers = await asyncio.gather(
            *(self._ask(agent, "limit", limits=limits) for agent, limits in by_agent.items()),
            return_exceptions=True,
        )
        enforced_w: dict[str, float] = {}
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            for row in answer.get("limits", ()):
                enforced_w[str(row["device"])] = _enforced_w(row, each_w)
        missing = sorted(one for limits in by_agent.values() for one in limits.keys() - enforced_w)
        if missing:
            raise Unlimited(f"{', '.join(missing)}: its agent said nothing of the limit")
        return enforced_w

    async def _lift(self, key: tuple[str, str]) -> None:
        """Give the first limits back of what was ever limited for this job on this node; after a
        restart of the controller, of what the job marks there now. A GPU that another job shares
        keeps its limit until that job's is lifted, too. Raises: LinkError."""
        self._held.pop(key, None)
        agents = {device.id: device.agent for device in self._devices()}
        touched = self._touched.get(key)
        if touched is None:
            with contextlib.suppress(Unlimited):
                touched = {device.id for device in self._marked(*key)[1]}
        shared = {one for other, ids in self._touched.items() if other != key for one in ids}
        for device in sorted((touched or set()) & agents.keys() - shared):
            await self._ask(agents[device], "release", device=device)
        self._touched.pop(key, None)

    def _marked(self, node: str, job: str) -> tuple[int, list[Device]]:
        """Units of a job on a node, and the GPUs there that they mark. Raises: Unlimited."""
        rows = {row.get("name"): row for row in self._report().get("services", ())}
        row = rows.get(job, {})
        units = int((row.get("by_node") or {}).get(node, 0))
        gates = {str(gate) for gate in row.get("gates") or ()}
        found = [
            device
            for device in self._devices()
            if device.host == node and device.kind == "gpu" and device.id in gates
        ]
        if not units:
            raise Unlimited(f"no replica of {job} is on {node}")
        if not found:
            raise Unlimited(f"the replicas of {job} on {node} mark the gate of no GPU there")
        return units, found

    def _watch(self) -> None:
        """Tell the core of what is no longer in force."""
        for key, held in list(self._held.items()):
            devices: list[Device] = []  # not told where they are: the limit is watched all the same
            with contextlib.suppress(Unlimited):
                _, devices = self._marked(*key)
            strays = sorted({device.id for device in devices} - held.enforced_w.keys())
            raised = [
                one for one, limit_w in held.enforced_w.items() if self._above(one, limit_w, held)
            ]
            if strays or raised:
                del self._held[key]
                text = f"its units are on {', '.join(strays)}, which has no limit"
                if raised:
                    text = f"{', '.join(raised)}: its limit was raised by somebody else"
                self._inbox.put([ev.CommandEnded(held.command, False, text)], urgent=True)

    def _above(self, device: str, limit_w: float, held: Held) -> bool:
        entry = self._roster.entries.get(device)
        if entry is None or entry.read_s is None or entry.read_s < held.at_s + SETTLED_S:
            return False
        enforced_w = entry.reading.get("enforced_limit_w")
        return enforced_w is not None and float(enforced_w) > limit_w + SAME_W


def _enforced_w(row: Mapping[str, Any], asked_w: float) -> float:
    """What a card enforces now. Raises: Unlimited where that is more than was asked, or unknown."""
    enforced_w, error = row.get("enforced_w"), row.get("error")
    if enforced_w is None or not 0.0 <= float(enforced_w) <= asked_w + SAME_W:
        words = error or f"{enforced_w} W are enforced, {asked_w:g} W were asked for"
        raise Unlimited(f"{row['device']}: {words}")
    return float(enforced_w)
