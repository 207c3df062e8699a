"""The agent's process: one host's or LAN segment's devices, and the leases they obey.

    python -m wattshift_cluster.agent.service --config agent.toml

It answers the controller over the wire, watches the leases' ends by the boot clock, and on SIGTERM
leaves every device at its safe point.

    hello                  what it is, its devices and readings
    exchange {leases}      take leases, answer at once, with fresh readings (no leases: a poll)
    release {device}       to the safe point now
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

from wattshift_cluster.agent import consent, hashing
from wattshift_cluster.agent.asics import AsicDevice
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.device import Device
from wattshift_cluster.agent.epochs import EpochFile
from wattshift_cluster.agent.gpu import find_gpus
from wattshift_cluster.agent.leases import Lease, LeaseBook, LeaseMalformed, judge
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.errors import NotFound, TryLater, WattshiftError
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire import server
from wattshift_cluster.wire.token import read_token

log = structlog.get_logger()

MOST_LEASES = 4096
LOOK_AGAIN_S = 0.25
FIRST_LOOK_S = 10.0
"""How long the start waits for the ASICs to say what they are."""


class BadRequest(WattshiftError):
    """A request that the protocol does not allow."""


class Agent:
    """Leases in, devices obeying, readings out."""

    def __init__(self, name: str, devices: Sequence[Device], epochs: EpochFile) -> None:
        """Args: devices: all with different ids; epochs: the fencing token on disk."""
        self._name = name
        self._devices = {device.id: device for device in devices}
        assert len(self._devices) == len(devices), "two devices have one id"
        self._epochs = epochs
        self._book = LeaseBook()
        self._ending = False

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises: BadRequest, NotFound, TryLater."""
        if self._ending:  # connections outlive the listener, and no lease may undo a safe point
            raise TryLater("this agent is ending")
        match op:
            case "hello":
                return self._hello()
            case "exchange":
                return self._exchange(fields)
            case "release":
                return self._release(fields)
            case _:
                raise BadRequest(f"unknown op {op[:40]!r}")

    async def run(self) -> None:
        """Run all devices and end leases on time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for device in self._devices.values():
                group.create_task(_keep(device))
            group.create_task(self._end_leases())

    async def close(self) -> None:
        """Bring every device to its safe point; each has its own deadline."""
        self._ending = True
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
        return {**self._clock(), "results": results, "readings": self._readings()}

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
        device.hold(verdict.lease)
        return None

    def _release(self, fields: dict[str, Any]) -> dict[str, Any]:
        name = str(fields.get("device"))
        device = self._devices.get(name)
        if device is None:
            raise NotFound(f"no device {name[:80]!r}")
        self._book.drop(name)
        device.safe()
        return {**self._clock(), "readings": self._readings()}

    def _clock(self) -> dict[str, Any]:
        version = sum(device.inventory_version for device in self._devices.values())
        return {"boot_id": boot_id(), "boot_s": boot_s(), "inventory_version": version}

    def _readings(self) -> list[dict[str, Any]]:
        now_s = boot_s()
        rows = []
        for device in self._devices.values():
            lease = self._book.held(device.id, now_s)
            rows.append(device.reading().wire(lease.wire() if lease is not None else None))
        return rows

    async def _end_leases(self) -> None:
        while not self._ending:
            for lease in self._book.expire(boot_s()):
                log.warning("lease.expired", device=lease.device, epoch=lease.epoch)
                self._devices[lease.device].safe()
            wait_s = min(LOOK_AGAIN_S, max(0.005, self._book.next_expiry_s() - boot_s()))
            await asyncio.sleep(wait_s)


async def serve(config: AgentConfig, *, surroundings: consent.Surroundings | None = None) -> None:
    """Run an agent until SIGTERM or SIGINT, then leave its devices at their safe points.

    Args:
        config: the parsed agent.toml.
        surroundings: for the consent check; the real ones when None.

    Raises:
        ConfigInvalid: the token file cannot be used.
        WattshiftError: damaged state, a gate that another agent writes, …
        OSError: the address cannot be listened on.
    """
    stop = stop_event()
    token = read_token(config.agent.token_file)
    epochs = EpochFile(config.agent.state_dir)
    desk, devices = build(config, surroundings)
    agent = Agent(config.agent.name, devices, epochs)
    tasks = [asyncio.create_task(agent.run())]
    if desk is not None:
        tasks.append(asyncio.create_task(desk.run()))
    try:
        await _first_look(devices, stop)
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
        log.info("agent.ended", agent=config.agent.name)


def build(
    config: AgentConfig, surroundings: consent.Surroundings | None = None
) -> tuple[PoolDesk | None, list[Device]]:
    """The pool session and the devices that a configuration names.

    Raises:
        Refused: another agent writes one of the gates.
        GateInvalid: a gate cannot be made.
    """
    pool, refusal = config.pool, "no pool is configured"
    desk: PoolDesk | None = None
    if pool is not None:
        file = config.agent.consent_file
        refused = consent.pool_refusal(pool.url, pool.user, file, surroundings)
        refusal = refused or ""
        desk = PoolDesk(pool) if refused is None else None
    specs = _hashing_specs(config)
    devices: list[Device] = [
        hashing.HashingDevice(replace(spec, refusal=refusal or None), desk) for spec in specs
    ]
    for asic in config.asics:
        loopback = asic.emulated and asic.address.startswith("127.")
        why = None if loopback else consent.asic_refusal(config.agent.consent_file, surroundings)
        devices.append(AsicDevice(asic, why))
    return (desk if specs else None), devices


def _hashing_specs(config: AgentConfig) -> list[hashing.HashingSpec]:
    section, name, host = config.hashing, config.agent.name, config.agent.host
    if section.devices == "none":
        return []
    folder = config.agent.gate_dir
    folder.mkdir(parents=True, exist_ok=True)
    gpus = find_gpus() if section.devices == "auto" else ()
    if gpus:
        return [
            hashing.gpu_spec(f"{name}-gpu{gpu.index}", folder, gpu, section.nice, host)
            for gpu in gpus
        ]
    return [hashing.cpu_spec(f"{name}-cpu0", folder, section.cpu_w, section.nice, host)]


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
