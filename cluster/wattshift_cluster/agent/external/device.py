"""A GPU on which a foreign program mines: leases open and close its gate, watts show the rest.

It offers two points, idle and mine, and nothing between them. It is told as unfenced: a ceiling of
it falls by watts of the card, as an ASIC's does, although its wrapper obeys the gate's expiry. And
it names no host, so that nobody counts on it to make room for inference within milliseconds.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import structlog

from wattshift_cluster.agent.child import WorkerChild
from wattshift_cluster.agent.external.belief import Stood, doubt
from wattshift_cluster.agent.external.commands import orders_for
from wattshift_cluster.agent.external.hold import Phase
from wattshift_cluster.agent.external.jail import descendants
from wattshift_cluster.agent.external.miners import MINERS
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.meters import Draw, HashMeter
from wattshift_cluster.agent.protocol import Counters, DeviceInfo, Point, Reading
from wattshift_cluster.agent.specs import HashingSpec
from wattshift_cluster.agent.steering import IDLE
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.config.agent import Miner
from wattshift_cluster.gate import AgentGate, ClientsView
from wattshift_cluster.gate.clients import create_clients_file

log = structlog.get_logger()

MINE = "mine"
LOOK_S = 0.25
STOP_S = 5.0
"""A pause by HTTP, its settling, and a stop by signal after that, s: modelled, not measured."""

STILL = (Phase.PAUSED, Phase.STOPPED, Phase.OFF)
BY_THE_KERNEL = (Phase.STOPPED, Phase.OFF)
"""Then it does not compute whatever it says: its threads are halted, or it is gone."""


class ExternalDevice:
    """See `Device`."""

    def __init__(self, spec: HashingSpec, miner: Miner, gpus: HostGpus) -> None:
        """Make the gate, closed, and write the wrapper's orders.

        Args:
            spec: the card; its refusal holds.
            miner: the owner's section for it.
            gpus: the host's cards, this one among them.

        Raises:
            Refused: another agent writes this gate.
            GateInvalid, OSError: its files cannot be made.
        """
        assert spec.card is not None, "foreign programs are for cards"
        self.spec = spec
        self.inventory_version = 0
        self.clients_file = spec.gate_dir / f"{spec.id}.clients"
        create_clients_file(self.clients_file)
        self._miner, self._row = miner, MINERS[miner.program]
        self._gate = AgentGate(spec.gate_dir / f"{spec.id}.gate")
        self._gate.identify(spec.card.uuid, spec.card.index)
        self._clients = ClientsView(self.clients_file)
        self._lease: Lease | None = None
        self._phase, self._since_s = Phase.OFF, boot_s()
        self._why: str | None = None
        self._contained: bool | None = None
        self._said: Mapping[str, Any] = {}
        self.child = self._make_child(spec.card.uuid)
        self._meter = HashMeter(spec, self.child.totals, gpus.sampler)
        self._draw: Draw | None = None
        self._settle_s = self._row.settle_s

    @property
    def id(self) -> str:
        """See `Device`."""
        return self.spec.id

    def info(self) -> DeviceInfo:
        """See `Device`."""
        spec, points = self.spec, [Point(IDLE, self.spec.idle_w, 0.0, STOP_S)]
        if spec.refusal is None:
            earns = self._miner.revenue_usd_per_h
            points.append(Point(MINE, spec.nameplate_w, 0.0, STOP_S, earns))
        return DeviceInfo(
            id=spec.id,
            kind=spec.kind,
            model=spec.model,
            firmware=f"{spec.firmware}, {self._miner.program}",
            algorithm=self._miner.algorithm,
            nameplate_w=spec.nameplate_w,
            tolerance=0.05,
            continuous=False,
            fenced=False,
            safe_w=spec.idle_w,
            power_on_w=spec.idle_w,
            host=None,
            quality=spec.quality,
            points=tuple(points),
        )

    def terms(self) -> Terms:
        """See `Device`."""
        spec = self.spec
        modes = {IDLE: spec.idle_w, MINE: spec.nameplate_w}
        return Terms(modes, spec.nameplate_w * 1.001, continuous=False, closed=spec.refusal)

    def hold(self, lease: Lease) -> None:
        """See `Device`."""
        self._lease = lease
        self._gate.write(
            epoch=lease.epoch,
            leased_w=lease.watts_w,
            expires_boot_ns=int(lease.valid_until_boot_s * 1e9),
            intensity_idle_pct=100 if lease.mode == MINE else 0,
            intensity_busy_pct=0,
        )

    def safe(self) -> None:
        """See `Device`."""
        self._lease = None
        self._gate.close_gate()

    def reading(self) -> Reading:
        """See `Device`."""
        draw = self._draw
        if draw is None:
            return Reading(self.id, boot_s(), self.spec.quality, error=self._error(None))
        self._draw = draw = self._meter.look(boot_s())
        card, running = draw.card, self._phase in (Phase.RUNNING, Phase.PAUSING)
        rate = self._said.get("hashrate_h_per_s") if running else 0.0
        return Reading(
            device=self.id,
            at_boot_s=draw.at_s,
            quality=self.spec.quality,
            watts_w=self._own_w(draw),
            enforced_limit_w=None if card is None else card.enforced_limit_w,
            hashrate_h_per_s=rate,
            temperature_c=None if card is None else card.temperature_c,
            mode=MINE if running else IDLE,
            error=self._error(draw),
            note=self._note(draw),
            counters=Counters(
                accepted=self._said.get("accepted"), rejected=self._said.get("rejected")
            ),
        )

    def clients(self) -> tuple[int, ...]:
        """Process ids of those that mark its gate."""
        return self._clients.attached()

    def own_pids(self) -> frozenset[int]:
        """The wrapper and all that it holds."""
        wrapper = self.child.pid
        return frozenset() if wrapper is None else frozenset({wrapper, *descendants(wrapper)})

    def pids_on_card(self) -> frozenset[int]:
        """None for sure: which of its processes computes is the program's own affair."""
        return frozenset()

    async def run(self) -> None:
        """See `Device`."""
        async with asyncio.TaskGroup() as group:
            if self.spec.refusal is None:
                group.create_task(self.child.run())
            group.create_task(self._watch())

    async def close(self) -> None:
        """See `Device`: the wrapper ends with `run`, and the program with it."""
        self._lease = None
        self._gate.close()

    def _make_child(self, uuid: str) -> WorkerChild:
        spec = self.spec
        seat, orders = (spec.gate_dir / f"{spec.id}.{what}" for what in ("worker", "orders"))
        if spec.refusal is None:
            orders_for(self._miner, uuid, spec.gate_dir).write(orders)
        arguments = [f"--gate={self._gate.path}", f"--seat={seat}", f"--orders={orders}"]
        module = "wattshift_cluster.agent.external.wrapper"
        return WorkerChild(
            arguments, dict(os.environ), seat, self._heard, self._not_now, module=module
        )

    def _not_now(self) -> str | None:
        wanted = self._clients.memory_wanted()
        return "its memory is given to a starting server" if wanted else None

    def _heard(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "phase", "phase": str(name), "since_s": float(since_s)}:
                self._phase, self._since_s = Phase(name), since_s
                self._why = event.get("why")
                self._contained = event.get("contained")
                log.info("program.phase", device=self.id, phase=name, reason=self._why)
            case {"event": "summary"}:
                self._said = event
            case {"event": "ready" | "released"}:
                self._phase, self._since_s = Phase.OFF, boot_s()

    async def _watch(self) -> None:
        while True:
            self._draw = draw = self._meter.look(boot_s())
            reason = doubt(
                Stood(self._phase in STILL, self._since_s),
                watts_w=draw.watts_w,
                at_s=draw.at_s,
                idle_w=self.spec.idle_w,
                settle_s=self._settle_s,
                busy=self._busy(),
            )
            if reason is not None and self._phase is not Phase.OFF:
                log.warning("program.doubted", device=self.id, reason=reason)
                self.child.send({"op": "doubt", "why": reason})
                self._since_s = boot_s()  # the next step is given its time as well
            await asyncio.sleep(LOOK_S)

    def _busy(self) -> bool:
        return self._clients.busy(boot_ns())

    def _own_w(self, draw: Draw) -> float | None:
        """The card's watts; beside a busy client, and the program halted by the kernel, idle ones.

        The rest is inference's then, and is counted there.
        """
        if draw.watts_w is None or not (self._busy() and self._phase in BY_THE_KERNEL):
            return draw.watts_w
        return min(draw.watts_w, self.spec.idle_w)

    def _error(self, draw: Draw | None) -> str | None:
        fault = None if draw is None else draw.fault
        return self.spec.refusal or self.child.fault or fault

    def _note(self, draw: Draw) -> str | None:
        parts = [f"{self._miner.program} is {self._phase}"]
        if self._why:
            parts.append(self._why)
        if self._contained is False:
            parts.append("it has no process space of its own here")
        if self._own_w(draw) != draw.watts_w:
            parts.append(f"the card's {draw.watts_w:.0f} W are inference's")
        if self._said and self._phase is Phase.RUNNING:
            parts.append("shares by its own word")
        return "; ".join(parts)
