"""The controller's conversation with the compute bridge: what Ray should run, and what it runs.

The bridge is a process of its own, because a Ray driver dies when its cluster does. Commands go out
on one connection at once; on another a report is asked for that the bridge keeps back until it has
news, so that a burst or a finished job is seen in milliseconds. A job that the bridge no longer
knows is reported as lost after a while, so that the core starts it again.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wattshift_cluster.controller import bridge_words
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.wire.link import Link, LinkError, OpFailed
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import ComputeCommand

MISSING_S = 30.0
"""Time without a job before it counts as lost: the first deployment on a cold Ray takes a while,
and to start a job that is only slow once more would be worse than to notice late."""

WAIT_S = 1.0
"""How long the bridge may keep a report without news: well below the connection's deadline, and
short enough to notice in time that nobody is there."""

BETWEEN_S = 0.03
"""Least time between two reports: a cluster in turmoil costs the controller thirty a second."""

APPLY_MAX = 200
"""Commands in one request; the bridge takes 256."""

APPLY_BYTES = 512 << 10
"""Length of the commands of one request from which on the rest waits for the next: a line of the
wire holds 4 MiB, a specification at most 3, and watts must not wait for long behind either."""

FAULTS = (LinkError, KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""An answer that never came, and one that is not what the protocol says."""


class BridgeSession:
    """Hears the bridge's reports and carries commands to it until cancelled.

    Attributes:
        report: the last report; empty before the first.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[str],
        links: tuple[Link, Link],
        inbox: Inbox,
        active: Callable[[], Mapping[str, str]],
        period_s: float,
        epoch: int,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            name: the bridge's own node, for reports of bridges that know of one node only.
            nodes: names of the nodes that the site file has.
            links: for commands, and for reports that wait for news.
            active: names the jobs that the bridge should know, with their kind.
            period_s: between two reports of a bridge that cannot wait for news.
            epoch: the controller's fencing token (I6).
        """
        self.report: Mapping[str, Any] = {}
        self._names = bridge_words.Names(name, tuple(nodes))
        self._link, self._reports = links
        self._inbox = inbox
        self._active = active
        self._period_s = period_s
        self._epoch = epoch
        self._waiting: list[ComputeCommand] = []
        self._wake = asyncio.Event()
        self._carried = asyncio.Event()
        self._missing_s: dict[str, float] = {}
        self._strangers: set[str] = set()
        self._version: Any = None
        self._told: Mapping[str, Any] = {}
        self._told_s = 0.0

    def send(self, command: ComputeCommand) -> None:
        """Queue a command; it goes out at once."""
        self._waiting.append(command)
        self._wake.set()

    async def run(self) -> None:
        """Converse until cancelled."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._commanding())
                both.create_task(self._listening())
        finally:
            await self._link.close()
            await self._reports.close()

    async def _commanding(self) -> None:
        while True:
            await self._wake.wait()
            count = _together(self._waiting)
            commands, self._waiting = self._waiting[:count], self._waiting[count:]
            if not self._waiting:
                self._wake.clear()
            self._inbox.put(await self._apply(commands), urgent=True)
            self._carried.set()

    async def _apply(self, commands: list[ComputeCommand]) -> list[ev.Event]:
        rows = [bridge_words.command(command) for command in commands]
        try:
            answer = await self._link.call("apply", epoch=self._epoch, commands=rows)
            return bridge_words.ended(answer, commands)
        except FAULTS as fault:
            # First that nobody is there: what failed for that reason is no fault of the jobs.
            silent = isinstance(fault, LinkError) and not isinstance(fault, OpFailed)
            gone = self._names.down(str(fault)) if silent else []
            failed = [ev.CommandEnded(command.id, False, str(fault)) for command in commands]
            return [*gone, *failed]

    async def _listening(self) -> None:
        while True:
            began_s = asyncio.get_running_loop().time()
            self._carried.clear()
            version = self._version
            waits = {} if version is None else {"after": version, "wait_s": WAIT_S}
            try:
                report = await self._reports.call("report", **waits)
                events = self._heard(report)
                news = self._news(report)
            except FAULTS as fault:
                self._inbox.put(self._names.down(str(fault)), urgent=bool(self._told))
                self._version, self._told = None, {}
                await self._pause(self._period_s)
                continue
            self.report, self._version = report, report.get("version")
            self._inbox.put(events, urgent=news)
            took_s = asyncio.get_running_loop().time() - began_s
            keeps = self._version is not None and (
                self._version != version or took_s > 0.5 * WAIT_S
            )
            await self._pause(BETWEEN_S if keeps else self._period_s)

    def _news(self, report: Mapping[str, Any]) -> bool:
        """Whether the core should hear of it at once; compared with what it was last told so."""
        now_s = asyncio.get_running_loop().time()
        news = bridge_words.news(self._told, report)
        if news or now_s - self._told_s >= self._period_s:
            self._told, self._told_s = report, now_s
        return news

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next report; what was carried out is asked after at once."""
        try:
            async with asyncio.timeout(pause_s):
                await self._carried.wait()
        except TimeoutError:
            return

    def _heard(self, report: Mapping[str, Any]) -> list[ev.Event]:
        up = bool(report.get("ray", {}).get("up"))
        nodes = self._names.nodes(report)
        strangers = {seen.node for seen in nodes if seen.node not in self._names.site}
        left = [ev.ComputeSeen(name, False, None) for name in self._strangers - strangers]
        self._strangers = strangers
        jobs = bridge_words.jobs(report)
        known = {job.job for job in jobs}
        return [*nodes, *left, *jobs, *(self._lost(known) if up else ())]

    def _lost(self, known: set[str]) -> list[ev.JobReported]:
        now_s = asyncio.get_running_loop().time()
        absent = set(self._active()) - known
        self._missing_s = {job: self._missing_s.get(job, now_s) for job in absent}
        gone = [job for job, since_s in self._missing_s.items() if now_s - since_s >= MISSING_S]
        for job in gone:
            del self._missing_s[job]
        return [ev.JobReported(job, "lost") for job in gone]


def _together(waiting: Sequence[ComputeCommand]) -> int:
    """How many of the commands go out in one request: all that fit, and one at least."""
    size_b = 0
    for count, command in enumerate(waiting[:APPLY_MAX], 1):
        size_b += len(json.dumps(bridge_words.command(command)))
        if size_b >= APPLY_BYTES:
            return count
    return min(len(waiting), APPLY_MAX)
