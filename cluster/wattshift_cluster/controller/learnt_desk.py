"""What a commissioning found, handed to the machines' agents; and what those have learnt.

Findings command nothing, but watts that are leased rest on them: who handed them over, and what
came of each, is on record like any order.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.controller.fleet_desk import BATCH, failed, rows_of
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import NotFound, Refused, Unreachable
from wattshift_cluster.wire.link import LinkError, OpFailed
from wattshift_scheduler.decisions import Decision

View = dict[str, Any]
Findings = Mapping[str, Mapping[str, Any]]


class LearntDesk:
    """Between the API and the agents' sessions."""

    def __init__(self, controller: Controller) -> None:
        """Args: controller: running in this event loop."""
        self._c = controller

    async def teach(self, findings: Findings, *, by: str, reason: str | None) -> list[View]:
        """Hand findings to the agents of these machines, all at once; a row each.

        Args:
            findings: by device, see `fleet.learn.Learnt.to_dict`.
            by: the name of the token that asks.
            reason: in the operator's words; None without.

        Raises:
            NotFound: no such device; nothing was handed to anybody.
        """
        by_agent: dict[str, list[str]] = {}
        for device in findings:
            by_agent.setdefault(self._agent(device), []).append(device)
        asked = (self._on(agent, names, findings, by) for agent, names in by_agent.items())
        rows = {row["device"]: row for rows in await asyncio.gather(*asked) for row in rows}
        now_s = self._c.clock.now_s()
        self._c.tell(*(_decision(now_s, rows[device], by, reason) for device in findings))
        return [rows[device] for device in findings]

    async def learnt(self, device: str) -> View:
        """What an agent has learnt of a machine. Raises: NotFound, Refused, Unreachable."""
        agent = self._agent(device)
        try:
            answer = await self._c.outlet.ask(agent, "learnt", reads=True, device=device)
        except OpFailed as refused:
            raise Refused(refused.reason) from None
        except LinkError as fault:
            raise Unreachable(f"agent {agent}: {fault.reason}") from None
        view = answer.get("learnt")
        if not isinstance(view, dict):
            raise Unreachable(f"agent {agent}: its answer does not tell what it has learnt")
        return view

    def _agent(self, device: str) -> str:
        at = self._c.state.fleet.index.get(device)
        if at is None:
            raise NotFound(f"no device {device[:80]!r}; see wattshift fleet list")
        return self._c.state.fleet.devices[at].agent

    async def _on(self, agent: str, names: list[str], findings: Findings, by: str) -> list[View]:
        rows: list[View] = []
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            devices = {name: dict(findings[name]) for name in batch}
            try:
                # It changes what a machine is told to draw and commands nothing.
                answer = await self._c.outlet.ask(
                    agent, "learn", reads=True, devices=devices, by=by
                )
            except OpFailed as refused:
                rows += [failed(name, "refused", refused.reason) for name in batch]
            except LinkError as fault:
                text = f"agent {agent}: {fault.reason}"
                return rows + [failed(name, "unreachable", text) for name in names[start:]]
            else:
                rows += rows_of(agent, batch, answer)
        return rows


def _decision(now_s: float, row: Mapping[str, Any], by: str, reason: str | None) -> Decision:
    outcome = str(row["state"] or "taken") if row["ok"] else f"failed: {row['error']}"
    why = f"by {by}" + (f": {reason}" if reason else "")
    inputs = {"by": by, "reason": reason, "ok": bool(row["ok"])}
    return Decision(now_s, row["device"], "learn", f"{why} ({outcome})", inputs)
