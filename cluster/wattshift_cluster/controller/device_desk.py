"""What an operator asks of single devices: their power limits, their release, their power curve.

These go to the agents as they are; the agent's own rules hold (a limit is raised only as far as a
lease covers). Each is written down with what was asked and what came of it.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.views import known
from wattshift_cluster.errors import NotFound, Refused, Unreachable
from wattshift_cluster.wire.link import LinkError, OpFailed
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.in_force import carbon

View = dict[str, Any]


class DeviceDesk:
    """Between the API and the agents' sessions."""

    def __init__(self, controller: Controller) -> None:
        """Args: controller: running in this event loop."""
        self._c = controller

    async def limit(self, wanted_w: Mapping[str, float]) -> list[View]:
        """Set power limits, W by device, on all agents at once; one row per device.

        Where only some of the agents fail, the rows of their devices say so: the others' limits
        are in force and must be told.

        Raises:
            NotFound: no such device; nothing was asked of anybody.
            Refused: every agent refused, or did not answer; the text is the first one's. Or shadow
                mode: then nothing is written down, for nothing was asked.
            Unreachable: as Refused.
        """
        self._c.outlet.commanding()
        by_agent: dict[str, dict[str, float]] = {}
        for device, watts_w in wanted_w.items():
            by_agent.setdefault(self._agent(device), {})[device] = watts_w
        answers = await asyncio.gather(
            *(self._limit_on(agent, limits) for agent, limits in by_agent.items())
        )
        rows: list[View] = [row for found, _ in answers for row in found]
        for row in rows:
            self._note(row["device"], "limit", _limit_text(row), {"asked_w": row["asked_w"]})
        faults = [fault for _, fault in answers if fault is not None]
        if len(faults) == len(answers):
            raise faults[0]
        return rows

    async def release(self, device: str) -> View:
        """Bring a device to its safe point; a GPU gets its first power limit back.

        Raises: as `limit`.
        """
        self._c.outlet.commanding()
        answer = await self._act(device, "release")
        restored: View | None = answer.get("limit")
        if restored is not None and restored["asked_w"] is None:
            restored = None  # no limit of it was ever written here
        reason = "by an operator: to its safe point"
        if restored is not None:
            reason += f"; its first power limit: {_limit_text(restored)}"
        self._note(device, "release", reason, {})
        return {"device": device, "limit": restored}

    async def profile(
        self, device: str, *, start: bool, how: Mapping[str, Any] | None = None
    ) -> View:
        """Measure a device's power curve, or tell how that stands. Raises: as `limit`.

        Args:
            how: of an ASIC: `dry_run`, `with_sleep`, `points`; what is None or False is not said.
        """
        said = {key: value for key, value in (how or {}).items() if value}
        if start:
            self._c.outlet.commanding()
            answer = await self._act(device, "profile", "profile", start=True, **said)
            self._note(device, "profile", "by an operator: its power curve is measured", {})
        else:
            asked = {"device": device, "start": False, **said}
            agent = self._agent(device)
            answer = await self._ask(agent, "profile", "profile", reads=True, **asked)
        return self._priced(answer["profile"])

    async def stop_profile(self, device: str) -> View:
        """Break an ASIC's measurement off. Raises: as `limit`."""
        answer = await self._act(device, "profile", "profile", start=False, stop=True)
        view = self._priced(answer["profile"])
        self._note(device, "profile", "by an operator: its measurement was broken off", {})
        return view

    def _priced(self, view: View) -> View:
        """A measurement with what each of an ASIC's points would earn now, USD/h."""
        if view.get("kind") != "asic" or not isinstance(view.get("points"), list):
            return view
        state, now_s = self._c.state, self._c.clock.now_s()
        values = state.values
        energy = state.price_usd_per_mwh() + (carbon.usd_per_mwh(state, now_s) or 0.0)
        quoted = values.hashprice_usd_per_ph_day is not None
        usd_per_hash_hour = values.usd_per_hash_hour if quoted else math.nan
        rows = [{**row, **_earned(row, usd_per_hash_hour, energy)} for row in view["points"]]
        return {**view, "points": rows}

    def _agent(self, device: str) -> str:
        at = self._c.state.fleet.index.get(device)
        if at is None:
            raise NotFound(f"no device {device[:80]}; see wattshift fleet list")
        return self._c.state.fleet.devices[at].agent

    async def _limit_on(
        self, agent: str, limits: Mapping[str, float]
    ) -> tuple[list[View], Refused | Unreachable | None]:
        """One agent's rows; where it fails, rows that say so, and the failure itself."""
        began_s = time.monotonic()
        try:
            answer = await self._ask(agent, "limit", "limits", limits=limits)
        except (Refused, Unreachable) as fault:
            took_s = time.monotonic() - began_s
            failed = {"enforced_w": None, "error": str(fault), "took_s": took_s}
            rows = [{"device": one, "asked_w": asked, **failed} for one, asked in limits.items()]
            return rows, fault
        return answer["limits"], None

    async def _act(self, device: str, op: str, needs: str = "", **fields: Any) -> View:
        """Ask for a change of one device; a failure is written down, for it may still take hold."""
        try:
            return await self._ask(self._agent(device), op, needs, device=device, **fields)
        except (Refused, Unreachable) as fault:
            self._note(device, op, f"by an operator, and it failed: {fault}", {})
            raise

    async def _ask(
        self, agent: str, op: str, needs: str = "", *, reads: bool = False, **fields: Any
    ) -> View:
        """The answer of an agent; `needs` is a field that must be in it."""
        try:
            answer = await self._c.outlet.ask(agent, op, reads=reads, **fields)
        except OpFailed as refused:
            raise Refused(refused.reason) from None
        except LinkError as fault:
            raise Unreachable(f"agent {agent}: {fault.reason}") from None
        if needs and needs not in answer:
            raise Unreachable(f"agent {agent}: its answer to {op} has no {needs}")
        return answer

    def _note(self, device: str, action: str, reason: str, inputs: Mapping[str, float]) -> None:
        decision = Decision(self._c.clock.now_s(), device, action, reason, inputs)
        self._c.tell(decision)


def _earned(row: Mapping[str, Any], usd_per_hash_hour: float, energy_usd_per_mwh: float) -> View:
    """What a measured point earns, USD/h; None while a price or a figure of it is unknown."""
    hashes, watts_w = row.get("hashrate_h_per_s"), row.get("watts_w")
    income = math.nan if hashes is None else float(hashes) * usd_per_hash_hour
    cost = math.nan if watts_w is None else float(watts_w) / 1e6 * energy_usd_per_mwh
    return {"income_usd_per_h": known(income), "net_usd_per_h": known(income - cost)}


def _limit_text(row: Mapping[str, Any]) -> str:
    if row.get("error"):
        return f"asked {row['asked_w']:g} W: {row['error']}"
    enforced_w = row.get("enforced_w")
    held = "nothing was read back" if enforced_w is None else f"{enforced_w:g} W are enforced"
    return f"asked {row['asked_w']:g} W, {held}"
