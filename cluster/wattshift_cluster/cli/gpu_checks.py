"""What `doctor` looks at where there are GPUs."""

import importlib.util
import os
from pathlib import Path

from wattshift_cluster.cli.findings import Finding, Place


def driver(place: Place) -> Finding:
    """Look for NVIDIA's driver and its GPUs."""
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        name = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except Exception as missing:  # no library, no driver, no GPU: nvml has an error type for each
        return Finding("driver", "warn", f"no GPU can be used: {missing}")
    return Finding("driver", "ok", f"driver {name}, {count} GPU(s)")


def power_limits(place: Place) -> Finding:
    """Look whether this user may set GPU power limits, by rewriting none of them."""
    if driver(place).level != "ok":
        return Finding("power-limits", "ok", "no GPU, nothing to permit")
    if os.geteuid() == 0 or _has_sys_admin():
        return Finding("power-limits", "ok", "may be set")
    mend = "run the agent as root, or with AmbientCapabilities=CAP_SYS_ADMIN"
    return Finding("power-limits", "warn", "may not be set: GPUs are steered by gates alone", mend)


def _has_sys_admin() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    mask = next(
        (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0"
    )
    return bool(int(mask, 16) >> 21 & 1)  # CAP_SYS_ADMIN, linux/capability.h


def cupy(place: Place) -> Finding:
    """Look for CuPy, which GPUs need to hash."""
    if importlib.util.find_spec("cupy") is not None:
        return Finding("cupy", "ok", "installed")
    if driver(place).level != "ok":
        return Finding("cupy", "ok", "not installed; no GPU needs it")
    return Finding("cupy", "warn", "not installed: no GPU hashes", "pip install wattshift[cuda12]")
