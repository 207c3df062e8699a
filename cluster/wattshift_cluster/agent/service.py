"""The agent's process: one host's or LAN segment's devices, and the leases they obey.

    python -m wattshift_cluster.agent.service --config agent.toml

It answers the controller over the wire, watches the leases' ends by the boot clock, and on SIGTERM
leaves every device at its safe point.

    hello                  what it is, its devices and readings
    exchange {leases}      take leases, answer at once, with fresh readings (no leases: a poll)
    release {device}       to the safe point now; a GPU gets its first power limit back
    limit {limits}         set GPUs' power limits, W by device, all at once
    profile {device, start} measure a GPU's power curve under its lease, or tell how that stands;
                           an ASIC's points: also stop, dry_run, with_sleep, points
    asic {action, devices} an operator's order to ASICs: sleep, wake, lock, unlock, limit
    learn {devices, by}    take in what a commissioning found of ASICs
    learnt {device}        what is learnt of one
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.agent import consent
from wattshift_cluster.agent.asics.desk import AsicDesk
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lesson_desk import LessonDesk
from wattshift_cluster.agent.asics.machine import SHADOW, AsicDevice
from wattshift_cluster.agent.asics.profile_desk import Wanted, measure
from wattshift_cluster.agent.build import Asics, build
from wattshift_cluster.agent.device import Device
from wattshift_cluster.agent.frequency import FrequencyAssist
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.leases import Lease, LeaseBook, LeaseMalformed, judge
from wattshift_cluster.agent.limit_desk import LimitDesk
from wattshift_cluster.agent.neighbourhood import Neighbourhood
from wattshift_cluster.agent.shedding import Shedding
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.errors import NotFound, Refused, TryLater, WattshiftError
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire import server
from wattshift_cluster.wire.epochs import EpochFile
from wattshift_cluster.wire.token import read_token

log = structlog.get_logger()

MOST_LEASES = 4096
OBEYED = ("release", "limit", "asic")
LOOK_AGAIN_S = 0.25
FIRST_LOOK_S = 10.0
"""How long the start waits for the ASICs to say what they are."""


class BadRequest(WattshiftError):
    """A request that the protocol does not allow."""


class Agent:
    """Leases in, devices obeying, readings out."""

    def __init__(
        self,
        name: str,
        devices: Sequence[Device],
        epochs: EpochFile,
        gpus: HostGpus | None = None,
        neighbourhood: Neighbourhood | None = None,
        asics: Asics | None = None,
        *,
        assist: FrequencyAssist | None = None,
        shadow: bool = False,
    ) -> None:
        """Take over all parts.

        Args:
            devices: all with different ids.
            epochs: the fencing token on disk.
            gpus, neighbourhood: of this host; None without cards.
            asics: what runs those among the devices; None without any.
            assist: sheds when the grid's frequency falls; None where the site is not enrolled.
            shadow: it reads and tells, and obeys nobody.
        """
        self._name = name
        self._limits = LimitDesk(gpus)
        self._neighbourhood = neighbourhood
        self._devices = {device.id: device for device in devices}
        assert len(self._devices) == len(devices), "two devices have one id"
        self._asics = asics
        self._orders = AsicDesk(self._devices, asics.keeper if asics else Keeper(None))
        self._lessons = LessonDesk(self._devices)
        self._epochs = epochs
        self._book = LeaseBook()
        self._assist = assist
        self._shedding = Shedding(self._devices, self._book)
        self._ending = False
        self._shadow = shadow

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises: BadRequest, NotFound, Refused, TryLater."""
        if self._ending:  # connections outlive the listener, and no lease may undo a safe point
            raise TryLater("this agent is ending")
        if self._shadow and (op in OBEYED or fields.get("leases") or fields.get("start")):
            raise Refused(SHADOW)
        match op:
            case "hello":
                return self._hello()
            case "exchange":
                return self._exchange(fields)
            case "release":
                return await self._release(fields)
            case "limit":
                return await self._limit(fields)
            case "profile":
                return self._profile(fields)
            case "asic":
                return {**self._clock(), "results": await self._orders.act(fields)}
            case "learn":
                return {**self._clock(), "results": self._lessons.teach(fields)}
            case "learnt":
                device = self._lessons.learnt(fields.get("device"))
                return {**self._clock(), "learnt": device}
            case _:
                raise BadRequest(f"unknown op {op[:40]!r}")

    async def run(self) -> None:
        """Run all devices and end leases on time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for device in self._devices.values():
                group.create_task(_keep(device))
            group.create_task(self._end_leases())
            if self._assist is not None:
                group.create_task(self._assist.run(self._shedding.shed))
            if self._neighbourhood is not None:
                group.create_task(self._neighbourhood.run())
            if self._asics is not None:
                group.create_task(self._asics.sweep.run())
                if self._asics.fencing is not None:
                    group.create_task(self._asics.fencing.run())

    async def close(self) -> None:
        """Bring every device to its safe point; each has its own deadline."""
        self._ending = True
        if self._asics is not None and self._asics.fencing is not None:
            self._asics.fencing.end()
        closing = (device.close() for device in self._devices.values())
        results = await asyncio.gather(*closing, return_exceptions=True)
        for device, result in zip(self._devices, results, strict=True):
            if isinstance(result, Exception):
                log.error("agent.close_failed", device=device, reason=repr(result))

    def _hello(self) -> dict[str, Any]:
        infos = (device.info() for device in self._devices.values())
        return {
            "agent": self._name,
            **self._clock(),
            "epoch": self._epochs.highest,
            "devices": [info.wire() for info in infos if info is not None],
            "readings": self._readings(),
            **self._frequency(),
        }

    def _exchange(self, fields: dict[str, Any]) -> dict[str, Any]:
        leases = fields.get("leases", [])
        if not isinstance(leases, list) or len(leases) > MOST_LEASES:
            raise BadRequest(f"leases are not a list of at most {MOST_LEASES}")
        try:
            parsed = [Lease.parse(lease) for lease in leases]
        except LeaseMalformed as fault:
            raise BadRequest(str(fault)) from fault
        same_boot = fields.get("boot_id") == boot_id()
        results = [self._grant(lease, same_boot=same_boot) for lease in parsed]
        self._shedding.settle()
        readings = self._readings()
        return {**self._clock(), "results": results, "readings": readings, **self._frequency()}

    def _grant(self, lease: Lease, *, same_boot: bool) -> dict[str, Any]:
        reason = self._take(lease) if same_boot else "granted for another boot of this machine"
        return {
            "device": lease.device,
            "epoch": lease.epoch,
            "sequence": lease.sequence,
            "accepted": reason is None,
            "reason": reason,
        }

    def _take(self, asked: Lease) -> str | None:
        """Obey a lease if the rules let it through; the reason if not."""
        device, now_s = self._devices.get(asked.device), boot_s()
        terms = device.terms() if device is not None else None
        held = self._book.held(asked.device, now_s)
        verdict = judge(asked, held, terms, self._epochs.highest, now_s)
        if not verdict.accepted or verdict.lease is None or device is None:
            log.warning("lease.refused", device=asked.device, reason=verdict.reason)
            return verdict.reason or "refused"
        try:
            self._epochs.raise_to(verdict.lease.epoch)
        except OSError as fault:
            log.error("epoch.not_written", reason=str(fault))
            return f"the epoch cannot be written to disk: {fault.strerror}"
        self._book.take(verdict.lease)
        self._shedding.hold(verdict.lease)
        return None

    async def _release(self, fields: dict[str, Any]) -> dict[str, Any]:
        device = self._named(fields.get("device"))
        self._book.drop(device.id)
        device.safe()
        self._shedding.settle()
        restored = await self._limits.release(device)
        return {**self._clock(), "limit": restored, "readings": self._readings()}

    async def _limit(self, fields: dict[str, Any]) -> dict[str, Any]:
        limits = fields.get("limits")
        if not isinstance(limits, dict) or not 0 < len(limits) <= MOST_LEASES:
            raise BadRequest(f"limits are not watts of 1 to {MOST_LEASES} devices")
        now_s = boot_s()
        wanted = [
            (self._named(name), watts_w, self._book.held(str(name), now_s))
            for name, watts_w in limits.items()
        ]
        return {**self._clock(), "limits": await self._limits.set(wanted)}

    def _profile(self, fields: dict[str, Any]) -> dict[str, Any]:
        device = self._named(fields.get("device"))
        if isinstance(device, AsicDevice):
            return {**self._clock(), "profile": measure(device, Wanted.parse(fields))}
        if not isinstance(device, HashingDevice):
            raise Refused(f"{device.id} is no GPU: it has no power curve to be measured here")
        if fields.get("stop") or fields.get("dry_run"):
            raise Refused(f"{device.id} is no ASIC: its measurement takes a minute and ends itself")
        return {**self._clock(), "profile": device.profile(start=fields.get("start") is True)}

    def _named(self, name: object) -> Device:
        device = self._devices.get(str(name))
        if device is None:
            raise NotFound(f"no device {str(name)[:80]!r}")
        return device

    def _frequency(self) -> dict[str, Any]:
        """What is shed for the grid's frequency; nothing where the site is not enrolled."""
        if self._assist is None:
            return {}
        return {"frequency": {**self._assist.report(), "cut_w": self._shedding.cut_w}}

    def _clock(self) -> dict[str, Any]:
        version = sum(device.inventory_version for device in self._devices.values())
        return {"boot_id": boot_id(), "boot_s": boot_s(), "inventory_version": version}

    def _readings(self) -> list[dict[str, Any]]:
        now_s = boot_s()
        rows = []
        for device in self._devices.values():
            lease = self._book.held(device.id, now_s)
            reading = device.reading()
            why = self._neighbourhood and self._neighbourhood.why_busy(device.id)
            if why and reading.note is None:
                reading = replace(reading, note=f"it does not hash: {why}")
            rows.append(reading.wire(lease.wire() if lease is not None else None))
        return rows

    async def _end_leases(self) -> None:
        while not self._ending:
            for lease in self._book.expire(boot_s()):
                log.warning("lease.expired", device=lease.device, epoch=lease.epoch)
                self._devices[lease.device].safe()
                self._shedding.settle()
            wait_s = min(LOOK_AGAIN_S, max(0.005, self._book.next_expiry_s() - boot_s()))
            await asyncio.sleep(wait_s)


async def serve(config: AgentConfig, *, surroundings: consent.Surroundings | None = None) -> None:
    """Run an agent until SIGTERM or SIGINT, then leave its devices at their safe points.

    Args:
        config: the parsed agent.toml.
        surroundings: for the consent check; the real ones when None.

    Raises:
        ConfigInvalid: the token file cannot be used, or an observed server's device is not here.
        WattshiftError: damaged state, a gate that another agent writes, …
        OSError: the address cannot be listened on.
    """
    stop = stop_event()
    token = read_token(config.agent.token_file)
    epochs = EpochFile(config.agent.state_dir)
    parts = build(config, surroundings)
    agent = Agent(
        config.agent.name,
        parts.devices,
        epochs,
        parts.gpus,
        parts.neighbourhood,
        parts.asics,
        assist=FrequencyAssist.of(config),
        shadow=config.agent.shadow,
    )
    tasks = [asyncio.create_task(agent.run())]
    tasks += [asyncio.create_task(desk.run()) for desk in parts.desks]
    try:
        await _first_look(parts.devices, stop)
        host, _, port = config.agent.listen.rpartition(":")
        listener = await server.serve(
            host.strip("[]"), int(port), name=config.agent.name, token=token, handler=agent.handle
        )
        log.info("agent.ready", agent=config.agent.name, listen=config.agent.listen)
        async with listener:
            await _until(stop, tasks)
    finally:
        await agent.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if parts.gpus is not None:
            parts.gpus.close()
        log.info("agent.ended", agent=config.agent.name)


async def _keep(device: Device) -> None:
    """Run a device; a fault of ours in one device must not stop the others."""
    while True:
        try:
            await device.run()
        except Exception:
            log.exception("device.failed", device=device.id)
        device.safe()
        await asyncio.sleep(1.0)


async def _first_look(devices: Sequence[Device], stop: asyncio.Event) -> None:
    """Wait for the ASICs to say what they are, so that the first hello is complete."""
    asics = [device for device in devices if isinstance(device, AsicDevice)]
    known = asyncio.gather(*(asic.identified.wait() for asic in asics))
    stopping = asyncio.ensure_future(stop.wait())
    both: set[asyncio.Future[Any]] = {known, stopping}
    await asyncio.wait(both, timeout=FIRST_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    for future in both:
        future.cancel()
        with suppress(asyncio.CancelledError):
            await future


async def _until(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the stop; a task that ends before is a fault and is raised."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        stopping.cancel()


def main(argv: list[str] | None = None) -> int:
    """Run an agent as a child process; ends with its parent."""
    parser = argparse.ArgumentParser(prog="wattshift_cluster.agent.service", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    options = parser.parse_args(argv)
    die_with_parent()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(serve(load_agent(options.config)))
    except (WattshiftError, OSError) as fault:
        sys.stderr.write(f"{fault}\n")
        return getattr(fault, "exit_code", 1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
