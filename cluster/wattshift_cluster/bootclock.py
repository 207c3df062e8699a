"""The boot clock: seconds since this machine started, counted through suspend, never set by anyone.

Leases and gates expire on it, because a wall clock can be stepped and a monotonic clock stops while
the machine sleeps. Its values mean something only together with the boot id.
"""

import time
from functools import cache
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def boot_ns() -> int:
    """Nanoseconds since boot (CLOCK_BOOTTIME)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_s() -> float:
    """Seconds since boot (CLOCK_BOOTTIME)."""
    return boot_ns() / 1e9


@cache
def boot_id() -> str:
    """The kernel's random name for this boot; equal in all processes of one machine.

    Raises:
        OSError: there is no /proc.
    """
    return BOOT_ID_FILE.read_text(encoding="ascii").strip()
