"""The GPUs of one node in a division."""

import math

from wattshift_scheduler.compute.tenants import EPS_W


class Cards:
    """The GPUs of one node; shares are packed onto as few of them as possible."""

    def __init__(self, total: float) -> None:
        """All free. Half a GPU in `total` is one that half belongs to somebody else."""
        self.total = total
        self.held: list[float] = []
        self._pack()

    def _pack(self) -> None:
        self.free = math.floor(self.total + EPS_W)
        rest = self.total - self.free
        self._parts = [rest] if rest > EPS_W else []
        for gpus in sorted(self.held, reverse=True):
            self._take(gpus)

    def _take(self, gpus: float) -> None:
        if gpus >= 1.0:
            self.free -= math.ceil(gpus - EPS_W)
            return
        open_parts = [part for part in self._parts if part >= gpus - EPS_W]
        if open_parts:
            tightest = min(open_parts)
            self._parts.remove(tightest)
            self._parts.append(tightest - gpus)
        else:
            self.free -= 1
            self._parts.append(1.0 - gpus)

    def fits(self, gpus: float) -> bool:
        """Whether a unit with so many GPUs finds them."""
        if gpus <= 0:
            return True
        if gpus >= 1.0:
            return self.free >= gpus - EPS_W
        return self.free >= 1 or any(part >= gpus - EPS_W for part in self._parts)

    def take(self, gpus: float, units: int = 1) -> None:
        """Take the GPUs of so many units."""
        for _ in range(units if gpus > 0 else 0):
            self.held.append(gpus)
            self._take(gpus)

    def give(self, gpus: float, units: int = 1) -> None:
        """Give the GPUs of so many units back."""
        if gpus > 0:
            for _ in range(units):
                self.held.remove(gpus)
            self._pack()
