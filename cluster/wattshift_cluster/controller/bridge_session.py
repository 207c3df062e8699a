"""The controller's conversation with the compute bridge: what Ray should run, and what it runs.

The bridge is a process of its own, because a Ray driver dies when its cluster does. A job that the
bridge no longer knows is reported as lost after a few rounds, so that the core starts it again.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.wire.link import Link, LinkError
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    LimitUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.jobs import REPORTED

MISSING_ROUNDS = 30
"""Rounds without a job before it counts as lost: the first deployment on a cold Ray takes a while,
and to start a job that is only slow once more would be worse than to notice late."""


class BridgeSession:
    """Polls the bridge once a second and carries commands to it until cancelled."""

    def __init__(
        self,
        node: str,
        link: Link,
        inbox: Inbox,
        active: Callable[[], Mapping[str, str]],
        period_s: float,
    ) -> None:
        """Prepare; `active` names the jobs that the bridge should know, with their kind."""
        self.report: Mapping[str, Any] = {}
        self._node = node
        self._link = link
        self._inbox = inbox
        self._active = active
        self._period_s = period_s
        self._waiting: list[ComputeCommand] = []
        self._wake = asyncio.Event()
        self._missing: dict[str, int] = {}

    def send(self, command: ComputeCommand) -> None:
        """Queue a command; it goes out at once."""
        self._waiting.append(command)
        self._wake.set()

    async def run(self) -> None:
        """Converse until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._round()
                if not self._waiting:
                    await self._pause()
        finally:
            await self._link.close()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._period_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _round(self) -> None:
        commands, self._waiting = self._waiting, []
        try:
            if commands:
                answer = await self._link.call("apply", commands=[words(c) for c in commands])
                self._inbox.put(_ended(answer), urgent=True)
                commands = []
            self.report = await self._link.call("report")
            events = self._reported(self.report)
        except (LinkError, KeyError, TypeError, ValueError) as fault:
            failed: list[ev.Event] = [
                ev.CommandEnded(command.id, False, str(fault)) for command in commands
            ]
            self._inbox.put([*failed, ev.ComputeSeen(self._node, False, None, str(fault))])
            return
        self._inbox.put(events)

    def _reported(self, report: Mapping[str, Any]) -> list[ev.Event]:
        ray, node = report.get("ray", {}), report.get("node", {})
        up = bool(ray.get("up"))
        power_w = node.get("power_w_total")
        seen = ev.ComputeSeen(
            self._node,
            up,
            float(power_w) if up and power_w is not None else None,
            str(ray.get("error") or ""),
        )
        services = [_service(row) for row in report.get("services", ())]
        batches = [_batch(row) for row in report.get("jobs", ())]
        known = {one.job for one in (*services, *batches)}
        return [seen, *services, *batches, *(self._lost(known) if up else ())]

    def _lost(self, known: set[str]) -> list[ev.JobReported]:
        absent = set(self._active()) - known
        self._missing = {job: self._missing.get(job, 0) + 1 for job in absent}
        gone = [job for job, rounds in self._missing.items() if rounds >= MISSING_ROUNDS]
        for job in gone:
            del self._missing[job]
        return [ev.JobReported(job, "lost") for job in gone]


def words(command: ComputeCommand) -> dict[str, Any]:
    """A command in the bridge's words (docs/protocol.md)."""
    match command:
        case SetNodePower(number, node, watts_w):
            return {"id": number, "kind": "set_node_power", "node": node, "watts_w": watts_w}
        case SetReplicas(number, _, job, replicas, spec, nodes):
            return {
                "id": number,
                "kind": "set_replicas",
                "service": job,
                "spec": spec,
                "replicas": replicas,
                "nodes": dict(nodes),
            }
        case StartJob(number, _, job, spec, nodes):
            return {
                "id": number,
                "kind": "start_job",
                "job": job,
                "spec": spec,
                "nodes": dict(nodes),
            }
        case EvictUnits(number, node, job, units):
            return {"id": number, "kind": "evict_units", "node": node, "job": job, "units": units}
        case LimitUnits():
            raise AssertionError("power limits are the agents' and never reach the bridge")
        case PauseJob(number, _, job):
            return {"id": number, "kind": "pause_job", "job": job}
        case CancelJob(number, _, job):
            return {"id": number, "kind": "cancel_job", "job": job}


def _ended(answer: Mapping[str, Any]) -> list[ev.Event]:
    return [
        ev.CommandEnded(
            int(row["id"]),
            bool(row["ok"]),
            str(row.get("error") or ""),
            None if row.get("watts_w") is None else float(row["watts_w"]),
        )
        for row in answer["results"]
    ]


def _service(row: Mapping[str, Any]) -> ev.JobReported:
    running = int(row.get("running") or 0)
    waiting = [row.get("ongoing"), row.get("queued")]
    return ev.JobReported(
        job=str(row["name"]),
        state="running" if running > 0 else "starting",
        running=running,
        ongoing=float(sum(n for n in waiting if n is not None)),
        p95_ms=None if row.get("p95_ms") is None else float(row["p95_ms"]),
        error=row.get("error"),
    )


def _batch(row: Mapping[str, Any]) -> ev.JobReported:
    state = str(row["state"])
    if state not in REPORTED:
        raise ValueError(f"the bridge reports a job in state {state!r}")
    return ev.JobReported(
        job=str(row["job"]),
        state=state,
        done=row.get("done"),
        total=row.get("total"),
        error=row.get("error"),
    )
