"""The kernel's table of neighbours: which hardware address was seen at which address last.

Reading it costs nobody on the network a packet. It forgets slowly, so an entry says where to ask,
and no more; right after an address has answered, its entry is fresh.
"""

import math
from pathlib import Path

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.fleet.inventory import mac_of

NEIGHBOURS = Path("/proc/net/arp")
COMPLETE = 0x2
"""Flag of an entry whose hardware address has been answered for (ATF_COM, linux/if_arp.h)."""

MOST_BYTES = 4 * 1024 * 1024
"""Some 50,000 neighbours; the kernel keeps far fewer by itself."""

KEPT_S = 2.0
"""A thousand machines that are identified at once read the table once."""


class Neighbours:
    """The table as it stands; an empty one where there is none.

    Args:
        path: in the format of /proc/net/arp.
    """

    def __init__(self, path: Path = NEIGHBOURS) -> None:
        self._path = path
        self._read_s = -math.inf
        self._addresses: dict[str, list[str]] = {}

    def at(self, mac: str) -> tuple[str, ...]:
        """Addresses at which this hardware address was seen, some seconds old; upper case."""
        now_s = boot_s()
        if now_s >= self._read_s + KEPT_S:
            self._read_s, self._addresses = now_s, {}
            for address, seen in filter(None, map(_row, self._lines())):
                self._addresses.setdefault(seen, []).append(address)
        return tuple(self._addresses.get(mac, ()))

    def of(self, address: str) -> str | None:
        """The hardware address seen at this address now; None where none or several are."""
        lines = (line for line in self._lines() if line.startswith(f"{address} "))
        seen = {row[1] for row in map(_row, lines) if row is not None}
        return seen.pop() if len(seen) == 1 else None

    def _lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                return file.read(MOST_BYTES).decode("ascii", "replace").splitlines()[1:]
        except OSError:
            return []


def _row(line: str) -> tuple[str, str] | None:
    """Address and hardware address of a complete entry."""
    match line.split():
        case [address, _, flags, hardware, *_]:
            try:
                complete = int(flags, 16) & COMPLETE
            except ValueError:
                return None
            mac = mac_of(hardware)
            return (address, mac) if complete and mac is not None else None
    return None
