"""From an agent's file to its devices, its pool session and what watches the host's GPUs."""

import re
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
from wattshift_cluster.config.agent import AgentConfig, Asic, Hashing, Pool
from wattshift_cluster.errors import ConfigInvalid, Fault
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
        desks: the pool sessions of its hashing devices, one for each coin that they mine.
        gpus: this host's cards; None where there are none or none is wanted.
        neighbourhood: who else uses them; None without cards and observed servers.
        asics: the task and the memory of the ASICs; None where there are none.
    """

    devices: tuple[Device, ...]
    desks: tuple[PoolDesk, ...]
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
    gpus = open_gpus(config) if config.hashing.devices == "auto" else None
    specs = _specs(config, gpus)
    external = external_devices(config, specs, gpus, surroundings)
    own = [spec for spec in specs if spec.id not in external]
    coins = sorted({spec.algorithm for spec in own})
    sessions = {coin: _session(config, coin, surroundings) for coin in coins}
    hashing = [_hashing(spec, sessions[spec.algorithm], config, gpus) for spec in own]
    asics = _asics(config, surroundings)
    return Parts(
        devices=(*hashing, *external.values(), *(asics.devices if asics else ())),
        desks=tuple(desk for desk, _ in sessions.values() if desk is not None),
        gpus=gpus,
        neighbourhood=Neighbourhood.of(config, [*hashing, *external.values()], gpus),
        asics=asics,
    )


Session = tuple[PoolDesk | None, str | None]
"""The pools of one coin, or why there is no session with any of them."""


def _hashing(
    spec: HashingSpec, session: Session, config: AgentConfig, gpus: HostGpus | None
) -> HashingDevice:
    desk, refusal = session
    spec = replace(spec, refusal=spec.refusal or refusal)
    return HashingDevice(spec, desk, config.agent.state_dir, gpus)


def _session(
    config: AgentConfig, algorithm: str, surroundings: consent.Surroundings | None
) -> Session:
    pool = _pools(config).get(algorithm)
    if pool is None:
        return None, "no pool is configured"
    file = config.agent.consent_file
    for one in (pool, *pool.fallback):
        refused = consent.pool_refusal(one.url, one.user, file, surroundings)
        if refused is not None:
            return None, refused
    return PoolDesk(pool, consent.consented_pools(file, surroundings)), None


def _pools(config: AgentConfig) -> dict[str, Pool]:
    """By algorithm, that of `[pool]` first."""
    every = (*(() if config.pool is None else (config.pool,)), *config.pools)
    return {one.algorithm: one for one in every}


def _mined(config: AgentConfig, device: str) -> str:
    """What a device hashes: the first of its algorithms that a pool is for, or what `[pool]` is."""
    paid = _pools(config)
    wanted = config.hashing.algorithms.get(device, tuple(paid))
    return next((one for one in wanted if one in paid), "sha256d")


def _specs(config: AgentConfig, gpus: HostGpus | None) -> list[HashingSpec]:
    section, name, host = config.hashing, config.agent.name, config.agent.host
    if section.devices == "none":
        return []
    folder = config.agent.gate_dir
    folder.mkdir(parents=True, exist_ok=True)
    if gpus is None:
        cpu = f"{name}-cpu0"
        _check_names(section, name, [cpu])
        mined = _mined(config, cpu)
        return [cpu_spec(cpu, folder, section.cpu_w, section.nice, host, algorithm=mined)]
    gpu = config.gpu
    steady = None if gpu.steady_w is None else SteadySettings(gpu.steady_w, gpu.steady_ramp_w_per_s)
    names = [f"{name}-gpu{card.index}" for card in gpus.cards]
    _check_names(section, name, names)
    return [
        gpu_spec(
            device,
            folder,
            card,
            section.nice,
            host,
            emulated=section.emulated,
            mps=gpu.mps,
            steady=steady,
            algorithm=_mined(config, device),
        )
        for device, card in zip(names, gpus.cards, strict=True)
    ]


def _check_names(section: Hashing, agent: str, devices: list[str]) -> None:
    """A slip in a name would leave a device with another coin than its owner wants.

    But a card that is named rightly and not here, because it is lost, stops no other one.
    """
    ours = re.compile(re.escape(agent) + r"-(cpu0|gpu\d{1,3})")
    for name in section.algorithms:
        if name in devices:
            continue
        if ours.fullmatch(name):
            log.warning("hashing.no_such_device", device=name)
        else:
            allowed = f"there is no such device here; allowed: {', '.join(devices)}"
            raise ConfigInvalid([Fault("agent.toml", f"hashing.algorithms.{name}", name, allowed)])


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
