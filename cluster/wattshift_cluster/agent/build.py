"""From an agent's file to its devices, its pool session and what watches the host's GPUs."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from wattshift_cluster.agent import consent
from wattshift_cluster.agent.asics.income import Income
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.device import Device
from wattshift_cluster.agent.external.build import external_devices
from wattshift_cluster.agent.gpus import HostGpus, open_gpus
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.neighbourhood import Neighbourhood
from wattshift_cluster.agent.power.steady import SteadySettings
from wattshift_cluster.agent.specs import HashingSpec, cpu_spec, gpu_spec
from wattshift_cluster.config.agent import AgentConfig, Asic
from wattshift_cluster.fleet.learnt_file import Kept, LearntDamaged, LearntFolder
from wattshift_cluster.fleet.memory import Memory, MemoryDamaged, MemoryFolder

if TYPE_CHECKING:
    from wattshift_cluster.agent.asics.fencing import Fencing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asics:
    """An agent's ASICs, and what runs beside them.

    Attributes:
        sweep: the task that runs them.
        keeper: who writes down what they must remember.
        fencing: their outlets; None without any.
    """

    devices: tuple[AsicDevice, ...]
    sweep: AsicSweep
    keeper: Keeper
    fencing: "Fencing | None" = None


@dataclass(frozen=True, slots=True)
class Parts:
    """All that an agent runs.

    Attributes:
        devices: with different ids.
        desk: the pool session of its hashing devices; None where there is none.
        gpus: this host's cards; None where there are none or none is wanted.
        neighbourhood: who else uses them; None without cards and observed servers.
        asics: the task and the memory of the ASICs; None where there are none.
    """

    devices: tuple[Device, ...]
    desk: PoolDesk | None
    gpus: HostGpus | None
    neighbourhood: Neighbourhood | None
    asics: Asics | None


def build(config: AgentConfig, surroundings: consent.Surroundings | None = None) -> Parts:
    """Make them; nothing runs yet but the sampler of the cards.

    Raises:
        ConfigInvalid: an observed server names a device that is not here; a PDU cannot be used.
        Refused: another agent writes one of the gates.
        GateInvalid: a gate cannot be made.
        OSError: the folder of the ASICs' memories cannot be made.
    """
    desk, refusal = _pool(config, surroundings)
    gpus = open_gpus(config) if config.hashing.devices == "auto" else None
    specs = _specs(config, gpus)
    external = external_devices(config, specs, gpus, surroundings)
    own = [_may(spec, refusal) for spec in specs if spec.id not in external]
    state_dir = config.agent.state_dir
    hashing = [HashingDevice(spec, desk, state_dir, gpus) for spec in own]
    asics = _asics(config, surroundings)
    return Parts(
        devices=(*hashing, *external.values(), *(asics.devices if asics else ())),
        desk=desk if own else None,
        gpus=gpus,
        neighbourhood=Neighbourhood.of(config, [*hashing, *external.values()], gpus),
        asics=asics,
    )


def _may(spec: HashingSpec, refusal: str | None) -> HashingSpec:
    return replace(spec, refusal=spec.refusal or refusal)


def _pool(
    config: AgentConfig, surroundings: consent.Surroundings | None
) -> tuple[PoolDesk | None, str | None]:
    """The pool session, or why there is none."""
    pool = config.pool
    if pool is None:
        return None, "no pool is configured"
    file = config.agent.consent_file
    for one in (pool, *pool.fallback):
        refused = consent.pool_refusal(one.url, one.user, file, surroundings)
        if refused is not None:
            return None, refused
    return PoolDesk(pool, consent.consented_pools(file, surroundings)), None


def _specs(config: AgentConfig, gpus: HostGpus | None) -> list[HashingSpec]:
    section, name, host = config.hashing, config.agent.name, config.agent.host
    if section.devices == "none":
        return []
    folder = config.agent.gate_dir
    folder.mkdir(parents=True, exist_ok=True)
    if gpus is None:
        return [cpu_spec(f"{name}-cpu0", folder, section.cpu_w, section.nice, host)]
    gpu = config.gpu
    steady = None if gpu.steady_w is None else SteadySettings(gpu.steady_w, gpu.steady_ramp_w_per_s)
    return [
        gpu_spec(
            f"{name}-gpu{card.index}",
            folder,
            card,
            section.nice,
            host,
            emulated=section.emulated,
            mps=gpu.mps,
            steady=steady,
        )
        for card in gpus.cards
    ]


def _asics(config: AgentConfig, surroundings: consent.Surroundings | None) -> Asics | None:
    if not config.asics:
        return None
    lanes, folder = Lanes.of(config.asic), MemoryFolder(config.agent.state_dir)
    learnt = LearntFolder(config.agent.state_dir)
    income = _income(config)
    devices = []
    for asic in config.asics:
        loopback = asic.emulated and asic.address.startswith("127.")
        why = None if loopback else consent.asic_refusal(config.agent.consent_file, surroundings)
        memory, damage = _memory(folder, asic)
        devices.append(
            AsicDevice(
                asic,
                why,
                lanes=lanes,
                memory=memory,
                damage=damage,
                shadow=config.agent.shadow,
                kept=_kept(learnt, asic),
            )
        )
        devices[-1].income = income
    keeper = Keeper(folder, learnt)
    sweep = AsicSweep(devices, lanes, keeper)
    return Asics(tuple(devices), sweep, keeper, _fencing(config, devices, keeper))


def _income(config: AgentConfig) -> Income | None:
    """What the proxy says of the machines; None where they mine through none."""
    url = config.asic.proxy_url
    workers = {asic.id: asic.worker for asic in config.asics if asic.worker is not None}
    return None if url is None else Income(url, workers)


def _fencing(config: AgentConfig, devices: list[AsicDevice], keeper: Keeper) -> "Fencing | None":
    """The outlets; without any, nothing of theirs is even imported."""
    if not config.pdus:
        return None
    from wattshift_cluster.agent.asics.fencing import Fencing

    return Fencing(config.pdus, devices, keeper, shadow=config.agent.shadow)


def _memory(folder: MemoryFolder, asic: Asic) -> tuple[Memory, str | None]:
    """What is remembered of a machine, or why that cannot be read: one file stops one machine."""
    try:
        return folder.load(asic.id), None
    except MemoryDamaged as fault:
        log.error("asic.memory_damaged", device=asic.id, reason=str(fault))
        return Memory(), str(fault)


def _kept(folder: LearntFolder, asic: Asic) -> Kept | None:
    """What was learnt of a machine. What cannot be read is learnt again."""
    try:
        return folder.load(asic.id)
    except LearntDamaged as fault:
        log.warning("asic.learnt_damaged", device=asic.id, reason=str(fault))
        return None
