"""What an operator asks of ASICs: sleep, wake, lock, unlock, limit; of one or of a thousand.

The agents decide by their own rules (a locked machine does not wake, one that has just gone to
sleep rests first); here the order is spread over them, all at the same time, each with its
deadline. Whatever happens there is a row for every machine, and each is written down.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wattshift_cluster.controller.outlet import SHADOW_TEXT
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import NotFound, Refused
from wattshift_cluster.wire.link import LinkError, OpFailed
from wattshift_scheduler.decisions import Decision

BATCH = 1000
"""Machines in one message: its answer stays far below the 4 MiB that a line may have."""

TEXT_MOST = 300
"""Characters of an agent's error or state that are kept."""

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FleetOrder:
    """One order of an operator.

    Attributes:
        action: "sleep", "wake", "lock", "unlock" or "limit".
        devices: ids and patterns.
        by, by_id: name and id of the token that asks; None where only the name is known.
        reason: in the operator's words; None without.
        watts_w: for "limit", W.
        override: an admin's word against a lock that somebody else has set.
        dry_run: only say what would be done.
    """

    action: str
    devices: tuple[str, ...]
    by: str
    reason: str | None = None
    watts_w: float | None = None
    override: bool = False
    dry_run: bool = False
    by_id: str | None = None

    def wire(self, devices: Sequence[str]) -> View:
        """As an agent is asked."""
        whose = {} if self.by_id is None else {"by_id": self.by_id}
        return {
            **whose,
            "action": self.action,
            "devices": list(devices),
            "by": self.by,
            "reason": self.reason,
            "watts_w": self.watts_w,
            "override": self.override,
            "dry_run": self.dry_run,
        }

    def inputs(self) -> dict[str, float | str | bool | None]:
        """What a decision about it rests on."""
        given = {"by": self.by, "reason": self.reason, "watts_w": self.watts_w}
        return {**given, "override": self.override}


class FleetDesk:
    """Between the API and the agents' sessions."""

    def __init__(self, controller: Controller) -> None:
        """Args: controller: running in this event loop."""
        self._c = controller

    async def command(self, order: FleetOrder) -> list[View]:
        """Carry an order to every machine that it names; one row each, in the order of the fleet.

        A row is {device, ok, error, state, fault}: `fault` is None, "refused" or "unreachable", and
        `state` is what the agent says of the machine now. A dry run leaves no trace on record.

        Raises:
            NotFound: a name or pattern that fits no device; nothing was asked of anybody.
            Refused: shadow mode.
        """
        self._c.outlet.commanding()
        named = self._named(order.devices)
        fleet = self._c.state.fleet
        by_agent: dict[str, list[str]] = {}
        rows: dict[str, View] = {}
        for device in named:
            found = fleet.devices[fleet.index[device]]
            if found.kind != "asic":
                text = f"{device} is a {found.kind}: only an ASIC can be asked to {order.action}"
                rows[device] = failed(device, "refused", text)
            else:
                by_agent.setdefault(found.agent, []).append(device)
        asked = (self._on(agent, devices, order) for agent, devices in by_agent.items())
        for found_rows in await asyncio.gather(*asked):
            rows.update((row["device"], row) for row in found_rows)
        result = [rows[device] for device in named]
        if not order.dry_run:
            now_s = self._c.clock.now_s()
            self._c.tell(*(_decision(now_s, order, row) for row in result))
        return result

    def _named(self, wanted: Sequence[str]) -> list[str]:
        """Ids in the order of the fleet. A pattern takes the ASICs among what it fits."""
        devices = self._c.state.fleet.devices
        index = self._c.state.fleet.index
        chosen: set[str] = set()
        for name in wanted:
            if name in index:
                chosen.add(name)
                continue
            fits = [one for one in devices if fnmatchcase(one.id, name)]
            if not fits:
                raise NotFound(f"no device matches {name[:80]!r}; see wattshift fleet list")
            chosen.update({one.id for one in fits if one.kind == "asic"} or {o.id for o in fits})
        return [one.id for one in devices if one.id in chosen]

    async def _on(self, agent: str, devices: Sequence[str], order: FleetOrder) -> list[View]:
        """One agent's rows. Once it fails, the rest of its machines are not asked for."""
        rows: list[View] = []
        for start in range(0, len(devices), BATCH):
            batch = devices[start : start + BATCH]
            try:
                answer = await self._c.outlet.ask(agent, "asic", reads=False, **order.wire(batch))
            except OpFailed as refused:
                rows += [failed(device, "refused", refused.reason) for device in batch]
            except Refused:
                rows += [failed(device, "refused", SHADOW_TEXT) for device in batch]
            except LinkError as fault:
                text = f"agent {agent}: {fault.reason}"
                left = devices[start:]
                return rows + [failed(device, "unreachable", text) for device in left]
            else:
                rows += rows_of(agent, batch, answer)
        return rows


def rows_of(agent: str, devices: Sequence[str], answer: Mapping[str, Any]) -> Iterator[View]:
    """An agent's answer, a row for each device that was asked for and for no other."""
    results = answer.get("results")
    told = {
        str(row["device"]): row
        for row in (results if isinstance(results, list) else ())
        if isinstance(row, Mapping) and "device" in row
    }
    for device in devices:
        row = told.get(device)
        if row is None or not isinstance(row.get("ok"), bool):
            text = f"agent {agent}: its answer does not tell of {device}"
            yield failed(device, "unreachable", text)
            continue
        state = None if row.get("state") is None else str(row["state"])[:TEXT_MOST]
        if row["ok"]:
            yield {"device": device, "ok": True, "error": None, "state": state, "fault": None}
        else:
            error = str(row.get("error") or "refused without a reason")[:TEXT_MOST]
            yield {**failed(device, "refused", error), "state": state}


def failed(device: str, fault: str, error: str) -> View:
    return {"device": device, "ok": False, "error": error, "state": None, "fault": fault}


def _decision(now_s: float, order: FleetOrder, row: Mapping[str, Any]) -> Decision:
    asked = f"by {order.by}"
    if order.watts_w is not None:
        asked += f", {order.watts_w:g} W"
    if order.override:
        asked += ", overriding"
    if order.reason:
        asked += f": {order.reason}"
    outcome = "taken" if row["ok"] else f"failed: {row['error']}"
    if row["state"] and row["ok"]:
        outcome = str(row["state"])
    inputs = {**order.inputs(), "ok": bool(row["ok"])}
    return Decision(now_s, row["device"], order.action, f"{asked} ({outcome})", inputs)
