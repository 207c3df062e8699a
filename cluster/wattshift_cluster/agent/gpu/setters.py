"""Who writes a power limit, and whether this process may: NVML itself, or a daemon that can."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.library import FaultKind, GpuFault, Library

CAP_SYS_ADMIN = 21
"""Its bit in the capability sets (linux/capability.h)."""

REFUSED_S = 60.0
"""A driver that refused is not asked again for so long."""

STATUS_FILE = Path("/proc/self/status")


class LimitSetter(Protocol):
    """A way to set the power limit of a card. Its calls block."""

    def refusal(self) -> str | None:
        """Why no limit can be set; None when it seems that it can. Changes nothing."""

    def set_limit(self, card: Card, limit_w: float, deadline_s: float) -> None:
        """Set it; whoever calls reads back what is enforced.

        Raises:
            GpuFault: refused, or no answer within the deadline.
        """


def missing_privilege(euid: int | None = None, status_file: Path = STATUS_FILE) -> str | None:
    """Why this process may not set limits through NVML; None when it may.

    NVML lets root and holders of CAP_SYS_ADMIN do so (nvml.h,
    nvmlDeviceSetPowerManagementLimit). Root without it, as in a container, may still be refused:
    the first write then tells.
    """
    if (os.geteuid() if euid is None else euid) == 0:
        return None
    try:
        lines = status_file.read_text(encoding="ascii").splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError, IndexError):
        held = 0
    if held >> CAP_SYS_ADMIN & 1:
        return None
    return "power limits need root or CAP_SYS_ADMIN; without it they are only read"


class NvmlSetter:
    """Through NVML in this process. See `LimitSetter`.

    A call cannot be given a deadline; who calls it does not wait for it any longer than that.
    """

    def __init__(
        self, library: Library, privilege: Callable[[], str | None] = missing_privilege
    ) -> None:
        """Args: privilege: why this process may not; None when it may."""
        self._library = library
        self._privilege = privilege
        self._refused: str | None = None
        self._refused_s = 0.0

    def refusal(self) -> str | None:
        """See `LimitSetter`: what the driver lately said counts, too."""
        if time.monotonic() - self._refused_s > REFUSED_S:
            self._refused = None
        return self._privilege() or self._refused

    def set_limit(self, card: Card, limit_w: float, deadline_s: float) -> None:
        """See `LimitSetter`."""
        library = self._library
        limit_mw = round(limit_w * 1000)
        try:
            handle = library.handle(card.uuid)
            library.ask("nvmlDeviceSetPowerManagementLimit", handle, limit_mw)
        except GpuFault as fault:
            if fault.kind is FaultKind.NO_PERMISSION:
                self._refused = f"the driver refuses to set power limits: {fault.text}"
                self._refused_s = time.monotonic()
            raise
