"""What a hashing device is: the facts that are known of it before its worker runs."""

import os
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.power.model import MINING_SHARE
from wattshift_cluster.agent.power.steady import SteadySettings
from wattshift_cluster.agent.protocol import Kind, Quality

CPU_IDLE_SHARE = 0.02
"""Upper bound of what a closed worker's looking at the gate costs, as a share of one CPU."""

CPU_H_PER_S = {
    "sha256d": 25e6,
    "autolykos2": 1.3e4,
    "etchash": 9e2,
    "kheavyhash": 2.4e6,
    "blake3": 1.4e7,
}
GPU_H_PER_S_PER_W = {
    "sha256d": 1e7,
    "autolykos2": 1.7e6,
    "etchash": 7.5e5,
    "kheavyhash": 2.4e6,
    "blake3": 6e6,
}
"""Expected rates (modelled) by algorithm, until the device's own is known."""


@dataclass(frozen=True, slots=True)
class HashingSpec:
    """A hashing device of this host.

    Attributes:
        id: unique in the site.
        gate_dir: where its gate lies.
        idle_w, top_w: draw without hashing and at full intensity, W; the latter is a bound until
            the device's own curve is known.
        nameplate_w: the most it draws with anything on it, W.
        base_w: the part of `top_w` that is not hashing's, W.
        nice: of the worker.
        host: machine whose compute it overlaps.
        quality: how its watts are had.
        card: the GPU; None for the CPU.
        mps: whether its worker may join an MPS server of the host.
        steady: the draw it holds while inference comes and goes; None: it yields.
        refusal: why it must not mine; None when it may.
        algorithm: what it hashes.
    """

    id: str
    gate_dir: Path
    kind: Kind
    model: str
    firmware: str
    idle_w: float
    base_w: float
    top_w: float
    nameplate_w: float
    hashrate_h_per_s: float
    nice: int
    host: str | None
    quality: Quality
    card: Card | None = None
    mps: bool = False
    steady: SteadySettings | None = None
    refusal: str | None = None
    algorithm: str = "sha256d"


def cpu_spec(
    device: str,
    gate_dir: Path,
    cpu_w: float,
    nice: int,
    host: str | None,
    *,
    algorithm: str = "sha256d",
) -> HashingSpec:
    """One CPU of this host, of which `cpu_w` is the draw when busy, W."""
    return HashingSpec(
        id=device,
        gate_dir=gate_dir,
        kind="cpu",
        model=f"CPU core of {os.uname().machine}",
        firmware=os.uname().release,
        idle_w=CPU_IDLE_SHARE * cpu_w,
        base_w=0.0,
        top_w=cpu_w,
        nameplate_w=cpu_w,
        hashrate_h_per_s=CPU_H_PER_S[algorithm],
        nice=nice,
        host=host,
        quality="modelled",
        algorithm=algorithm,
    )


def gpu_spec(
    device: str,
    gate_dir: Path,
    card: Card,
    nice: int,
    host: str | None,
    *,
    emulated: bool = False,
    mps: bool = False,
    steady: SteadySettings | None = None,
    algorithm: str = "sha256d",
) -> HashingSpec:
    """One GPU of this host; `emulated` where its NVML is an emulator and a CPU hashes for it."""
    top_w = MINING_SHARE * card.limit_w
    rate_h_per_s = GPU_H_PER_S_PER_W[algorithm] * top_w
    return HashingSpec(
        id=device,
        gate_dir=gate_dir,
        kind="gpu",
        model=card.name,
        firmware=card.driver,
        idle_w=card.idle_w,
        base_w=card.idle_w,
        top_w=top_w,
        nameplate_w=card.limit_w,
        hashrate_h_per_s=CPU_H_PER_S[algorithm] if emulated else rate_h_per_s,
        nice=nice,
        host=host,
        quality="emulated" if emulated else "measured",
        card=card,
        mps=mps,
        steady=steady,
        refusal=mig_refusal(card),
        algorithm=algorithm,
    )


def mig_refusal(card: Card) -> str | None:
    """Why a card that is cut into slices does not hash: no slice has a power sensor of its own."""
    if not card.mig:
        return None
    return f"in MIG mode with {len(card.mig)} slices, which share one power sensor and one limit"
