"""Which devices a benchmark's agent has: this host's GPUs, emulated ones, or a CPU."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import gpus

Kind = Literal["gpu", "emulated", "cpu"]

KIND_VARIABLE = "WATTSHIFT_BENCH_DEVICES"
EMULATED = 3
"""As many as the published figure's."""

NAME = "bench"
CPU_W = 100
CONFIG = """
[agent]
name = "{name}"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "{gates}"
host = "bench"
[hashing]
{hashing}
[pool]
url = "stratum+tcp://{pool}"
user = "bench"
"""
LIMITS_VARIABLE = "WATTSHIFT_BENCH_LIMITS"
LIMITS = os.environ.get(LIMITS_VARIABLE) == "1"
GPU = f"""
[gpu]
power_limits = "{"nvml" if LIMITS else "read_only"}"
exclusive = true
"""
"""Nobody else uses the cards while they are measured; limits are touched if asked for."""

HASHING: Mapping[Kind, str] = {
    "gpu": f'devices = "auto"{GPU}',
    "emulated": f'devices = "auto"\nemulated = true{GPU}',
    "cpu": f'devices = "cpu"\ncpu_w = "{CPU_W}W"',
}
QUALITY: Mapping[Kind, str] = {"gpu": "measured", "emulated": "emulated", "cpu": "modelled"}
BACKEND: Mapping[Kind, str] = {"gpu": "cuda", "emulated": "cpu", "cpu": "cpu"}


def devices(stack: ExitStack, folder: Path, gates: Path) -> tuple[Kind, Mapping[str, str]]:
    """Which devices there are, and the agent's environment."""
    asked = os.environ.get(KIND_VARIABLE)
    if asked not in (None, "gpu", "emulated", "cpu"):
        raise CannotRunHere(f"{KIND_VARIABLE} is {asked!r}; allowed: gpu, emulated, cpu")
    if asked != "emulated" and asked != "cpu" and gpus():
        return "gpu", os.environ
    if asked == "gpu":
        raise CannotRunHere("no GPU")
    if asked == "cpu":
        return "cpu", os.environ
    from wattshift_cluster.emulate.nvml import models
    from wattshift_cluster.emulate.nvml.build import NvmlNotBuilt, build, child_environment, load
    from wattshift_cluster.emulate.nvml.control import CONTROL_VARIABLE, EmulatedDriver

    try:
        library = build(folder)
    except NvmlNotBuilt as fault:
        if asked == "emulated":
            raise CannotRunHere(str(fault)) from fault
        return "cpu", os.environ
    driver = stack.enter_context(EmulatedDriver(folder / "cards", [models.H200] * EMULATED))
    for number, card in enumerate(driver.cards):
        card.follow(gates / f"{NAME}-gpu{number}.worker")
        card.privilege(LIMITS)
    load(library)
    os.environ[CONTROL_VARIABLE] = str(driver.path)
    stack.callback(os.environ.pop, CONTROL_VARIABLE)
    return "emulated", child_environment(library, driver.path)
