"""A GPU or CPU that hashes behind its gate: leases become intensity, hits become shares."""

import asyncio
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.agent.assignments import Assignments
from wattshift_cluster.agent.child import Totals, WorkerChild
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.meters import Draw, HashMeter
from wattshift_cluster.agent.power import store
from wattshift_cluster.agent.power.model import PowerModel
from wattshift_cluster.agent.power.steady import Intensities
from wattshift_cluster.agent.protocol import DeviceInfo, Point, Reading
from wattshift_cluster.agent.specs import HashingSpec
from wattshift_cluster.agent.steering import HASH, IDLE, NOTHING, Steering, top_w
from wattshift_cluster.agent.table import EMPTY, CardTable
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.errors import Refused
from wattshift_cluster.gate import AgentGate, ClientsView
from wattshift_cluster.gate.clients import create_clients_file

log = structlog.get_logger()

TRANSITION_S = 0.01
HOLD_S, STEER_S, REST_S = 0.1, 0.25, 1.0
"""From look to look: while a draw is held or measured, with a lease, and without one, where nothing
is to be steered and a card's reading is made when it is asked for."""

SAVE_EVERY_S = 300.0
RATE_AFTER_NS = 3_000_000_000
RATE_WRONG = 1.5
"""Only a rate off by this factor changes the inventory: each change makes all grants be renewed."""

MEMORY_GIVEN = "its memory is given to a starting server"


class HashingDevice:
    """See `Device`. Fenced: the gate's expiry stops the worker even if this process is dead."""

    def __init__(
        self,
        spec: HashingSpec,
        desk: PoolDesk | None,
        state_dir: Path,
        gpus: HostGpus | None = None,
    ) -> None:
        """Make the gate, closed, and take up what was learnt of the device.

        Args:
            spec: what it is.
            desk: where its work comes from; None where nothing may be mined.
            state_dir: where the learnt power curve is kept.
            gpus: the host's cards, this one among them; None for a CPU.

        Raises:
            Refused: another agent writes this gate.
            GateInvalid: its files cannot be made.
        """
        self.spec = spec
        self._desk = desk
        self._model_file = _curve_file(spec, state_dir)
        self._model = _model(spec, self._model_file)
        self.clients_file = spec.gate_dir / f"{spec.id}.clients"
        create_clients_file(self.clients_file)
        self._gate = AgentGate(spec.gate_dir / f"{spec.id}.gate")
        if spec.card is not None:
            self._gate.identify(spec.card.uuid, spec.card.index)
        self._clients = ClientsView(self.clients_file)
        self._hashrate_h_per_s = spec.hashrate_h_per_s
        self._rate_known = False
        self._hashed = self._last_totals = Totals()
        self._rate_changes = 0
        self._lease: Lease | None = None
        self._draw: Draw | None = None
        self._told = NOTHING
        self._saved_lessons = 0
        self.steering = Steering(spec, self._model)
        self._assignments = Assignments(spec.id, desk)
        self.table = CardTable(spec)
        self.child = self._make_child()
        self._gpus = gpus
        self._meter = HashMeter(spec, self.child.totals, None if gpus is None else gpus.sampler)
        self._assignments.serve(self.child)
        self.table.serve(self.child)

    @property
    def id(self) -> str:
        """See `Device`."""
        return self.spec.id

    @property
    def inventory_version(self) -> int:
        """See `Device`: it grows with a rate or curve that was wrong, and as pools come and go."""
        learnt = self._rate_changes + (0 if self._model is None else self._model.version)
        learnt += self.table.changes
        return learnt + (0 if self._desk is None else self._desk.changes)

    @property
    def _closed(self) -> str | None:
        """Why nothing but idle may be leased: no consent, or no pool that would pay for it."""
        return self.spec.refusal or (None if self._desk is None else self._desk.withdrawn)

    def info(self) -> DeviceInfo:
        """See `Device`."""
        spec = self.spec
        points = [Point(IDLE, spec.idle_w, 0.0, TRANSITION_S)]
        if self._closed is None:
            watts_w = top_w(spec, self._model)
            rate, earns_usd_per_h = self._worth()
            points.append(Point(HASH, watts_w, rate, TRANSITION_S, earns_usd_per_h))
        return DeviceInfo(
            id=spec.id,
            kind=spec.kind,
            model=spec.model,
            firmware=spec.firmware,
            algorithm=spec.algorithm,
            nameplate_w=spec.nameplate_w,
            tolerance=0.05,
            continuous=True,
            fenced=True,
            safe_w=spec.idle_w,
            power_on_w=spec.idle_w,
            host=spec.host,
            quality=spec.quality,
            points=tuple(points),
            table_bytes=self.table.size.held_bytes,
            table_build_s=self.table.size.build_s,
        )

    def _worth(self) -> tuple[float, float]:
        """Hashes per second that the site's hashprice pays, and what others earn, USD/h."""
        if self.spec.algorithm == "sha256d":
            return self._hashrate_h_per_s, 0.0
        price = 0.0 if self._desk is None else self._desk.usd_per_gh_per_day
        return 0.0, self._hashrate_h_per_s / 1e9 * price / 24.0

    def terms(self) -> Terms:
        """See `Device`."""
        spec = self.spec
        most_w = spec.nameplate_w * 1.001  # a curve that was just learnt may be news to the asker
        modes = {IDLE: spec.idle_w, HASH: top_w(spec, self._model)}
        if self.table.offered:
            modes[EMPTY] = spec.idle_w
        return Terms(modes, most_w, continuous=True, closed=self._closed)

    def hold(self, lease: Lease) -> None:
        """See `Device`; in force with the worker's next launch."""
        before_pct = self.steering.allowed_pct(self._lease)
        renewed = self._lease is not None and self._lease.mode == lease.mode
        self._lease = lease
        allowed_pct = self.steering.allowed_pct(lease, self._limit_w())
        told = self._told
        if allowed_pct > before_pct and self.spec.steady is None:
            told = Intensities(allowed_pct, 0)
        self._write(Intensities(min(told.idle_pct, allowed_pct), min(told.busy_pct, allowed_pct)))
        if lease.mode == EMPTY:
            self.table.empty(renewed=renewed)

    def safe(self) -> None:
        """See `Device`."""
        self._lease, self._told = None, NOTHING
        self._gate.close_gate()

    def reading(self) -> Reading:
        """See `Device`."""
        draw = self._draw
        if draw is None:
            return Reading(self.id, boot_s(), self.spec.quality, error=self._error())
        if self.spec.card is not None:
            self._draw = draw = self._meter.look(boot_s())  # the sampler has newer ones
        card = draw.card
        return Reading(
            device=self.id,
            at_boot_s=draw.at_s,
            quality=self.spec.quality,
            watts_w=draw.watts_w,
            enforced_limit_w=None if card is None else card.enforced_limit_w,
            hashrate_h_per_s=draw.hashrate_h_per_s,
            temperature_c=None if card is None else card.temperature_c,
            mode=HASH if draw.hashrate_h_per_s else IDLE,
            foreign_write=self._foreign(draw),
            error=self._error(),
            note=self._note(),
            table_held_bytes=self.table.held_bytes,
            table_progress=self.table.progress,
            clients=self._users() if self.table.offered else None,
            counters=replace(self._assignments.counts, hashes=draw.totals.hashes),
        )

    def clients(self) -> tuple[int, ...]:
        """Process ids of those that mark its gate."""
        return self._clients.attached()

    def own_pids(self) -> frozenset[int]:
        """Its worker's."""
        return frozenset() if self.child.pid is None else frozenset({self.child.pid})

    def pids_on_card(self) -> frozenset[int]:
        """Its worker's, once that is ready; an emulated card's worker hashes on a CPU."""
        on_card = self.spec.quality == "measured" and self.child.fault is None
        return self.own_pids() if on_card else frozenset()

    async def run(self) -> None:
        """See `Device`."""
        async with asyncio.TaskGroup() as group:
            if self.spec.refusal is None:
                group.create_task(self.child.run())
            group.create_task(self._steer())

    async def close(self) -> None:
        """See `Device`: stop the gate, let the last shares arrive, keep what was learnt."""
        self._lease = None
        self._gate.close()
        await self._assignments.settle()
        self._save()

    def profile(self, *, start: bool) -> dict[str, Any]:
        """Measure the power curve under the lease in force, or tell how that stands.

        Raises:
            Refused: it cannot be measured now; the text says why.
        """
        if start:
            if self.spec.refusal is not None:
                raise Refused(self.spec.refusal)
            lease = self._lease
            reason = "it has no lease" if lease is None else self.steering.begin(lease, boot_s())
            if reason is not None:
                raise Refused(f"{self.id} cannot be measured: {reason}")
        profile = self.steering.profile
        if profile is None:
            return {"device": self.id, "state": "none", "quality": self.spec.quality}
        state = "running" if not profile.done else "aborted" if profile.aborted else "done"
        result = profile.result
        return {
            "device": self.id,
            "state": state,
            "reason": profile.aborted,
            "quality": self.spec.quality,
            "points": [] if result is None else [asdict(point) for point in result.points],
            "fitted": [] if result is None else [asdict(one) for one in result.fitted],
            "residual_w": None if result is None else result.residual_w,
        }

    def _make_child(self) -> WorkerChild:
        spec = self.spec
        seat = spec.gate_dir / f"{spec.id}.worker"
        arguments = [
            f"--device={spec.kind}",
            f"--gate={self._gate.path}",
            f"--seat={seat}",
            f"--nice={spec.nice}",
            f"--algorithm={spec.algorithm}",
        ]
        if spec.quality == "emulated":
            arguments.append("--emulated")
        visible = "" if spec.card is None else spec.card.uuid
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        if not spec.mps:
            # CUDA joins any MPS server that it finds, and there one client's fault is everybody's.
            environment["CUDA_MPS_PIPE_DIRECTORY"] = str(spec.gate_dir / "no-mps")
        return WorkerChild(arguments, environment, seat, self._heard, self._not_now)

    def _heard(self, event: dict[str, Any]) -> None:
        self.table.heard(event)
        self._assignments.heard(event)

    def _note(self) -> str | None:
        table = self.table.note(None if self._lease is None else self._lease.mode)
        work = self._assignments.note or self.steering.note
        return "; ".join(filter(None, (table, work))) or None

    def _users(self) -> int:
        """Processes that use the device; an observer counts while it sees somebody do so."""
        states = self._clients.clients()
        return sum(one.kind == "client" or one.busy or one.memory_wanted for one in states)

    def _not_now(self) -> str | None:
        """Why no worker may be started now."""
        return MEMORY_GIVEN if self._clients.memory_wanted() else None

    async def _steer(self) -> None:
        saved_s = boot_s()
        while True:
            now_s = boot_s()
            self._draw = draw = self._meter.look(now_s)
            busy = self._clients.busy(boot_ns())
            wanted = self.steering.update(now_s, self._lease, draw, busy=busy, wall_s=time.time())
            if wanted != self._told and self._lease is not None:
                self._write(wanted)
            self._learn_rate(draw.totals)
            if now_s - saved_s > SAVE_EVERY_S:
                saved_s = now_s
                await asyncio.to_thread(self._save)
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        if self.spec.card is not None and (self._lease is None or self._lease.mode != HASH):
            return REST_S
        return HOLD_S if self.steering.holds else STEER_S

    def _write(self, wanted: Intensities) -> None:
        lease = self._lease
        assert lease is not None, "without a lease the gate is closed and stays so"
        self._told = wanted
        self._gate.write(
            epoch=lease.epoch,
            leased_w=lease.watts_w,
            expires_boot_ns=int(lease.valid_until_boot_s * 1e9),
            intensity_idle_pct=wanted.idle_pct,
            intensity_busy_pct=wanted.busy_pct,
        )

    def _foreign(self, draw: Draw) -> bool:
        card = self.spec.card
        if self._gpus is None or card is None or draw.card is None:
            return False
        return self._gpus.foreign(card.uuid, draw.card)

    def _limit_w(self) -> float | None:
        card = None if self._draw is None else self._draw.card
        return None if card is None else card.enforced_limit_w

    def _learn_rate(self, totals: Totals) -> None:
        """Once, and only if the expectation was badly wrong. A CPU's rate is per CPU second.

        Time in which nothing was hashed does not count: a table was built, however often.
        """
        since, self._last_totals = totals - self._last_totals, totals
        if self._rate_known or not since.hashes:
            return
        self._hashed = hashed = self._hashed + since
        busy_ns = hashed.cpu_ns if self.spec.card is None else hashed.launching_ns
        if hashed.launching_ns < RATE_AFTER_NS or not busy_ns:
            return
        self._rate_known = True
        rate = hashed.hashes / (busy_ns / 1e9)
        off = max(rate, 1.0) / self._hashrate_h_per_s
        if not 1 / RATE_WRONG < off < RATE_WRONG:
            self._hashrate_h_per_s = rate
            self._rate_changes += 1

    def _save(self) -> None:
        if self._model is None or self._model.lessons == self._saved_lessons:
            return
        lessons = self._model.lessons
        try:
            store.save(self._model_file, self._model)
        except OSError as fault:
            log.warning("power_model.not_saved", device=self.id, reason=str(fault))
            return
        self._saved_lessons = lessons

    def _error(self) -> str | None:
        fault = None if self._draw is None else self._draw.fault
        return self.spec.refusal or self.child.fault or fault or self._assignments.fault


def _curve_file(spec: HashingSpec, state_dir: Path) -> Path:
    """What reads memory draws other watts than what computes: a curve is of one algorithm."""
    coin = "" if spec.algorithm == "sha256d" else f".{spec.algorithm}"
    return state_dir / f"{spec.id}{coin}.power.json"


def _model(spec: HashingSpec, file: Path) -> PowerModel | None:
    """What is known of a GPU's draw; a curve of another card of that name is not taken."""
    if spec.card is None:
        return None
    prior = PowerModel.prior(spec.idle_w, spec.top_w, spec.nameplate_w)
    learnt = store.load(file, prior)
    same = (learnt.top_w, learnt.limit_w) == (prior.top_w, prior.limit_w)
    return learnt if same else prior
