"""What this host sheds by itself comes off what its leases allow, the fastest devices first.

A share of all leased watts above the least points is cut. Devices give in the order of their
transition, so gates close within a launch and ASICs go only for what gates cannot give. Leases stay
as they were granted: a device is told a lower one, and never a higher one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wattshift_cluster.agent.device import Device
from wattshift_cluster.agent.leases import WATTS_SLACK, Lease, LeaseBook, Terms
from wattshift_cluster.bootclock import boot_s

STEP = 0.005
"""A share that changes by less changes nothing: a machine is not commanded for half a percent."""

LEAST_CUT_W = 1.0
"""What is still missing below this is a rounding, and no machine loses a point for it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease in force, the device's terms, and how long it takes to obey, s."""

    lease: Lease
    terms: Terms
    transition_s: float

    @property
    def least_w(self) -> float:
        """Watts of its least point, W."""
        return min(self.terms.modes.values())

    @property
    def spare_w(self) -> float:
        """What it can give, W."""
        return max(0.0, self.lease.watts_w - self.least_w)


def lowered(held: Sequence[Held], share: float) -> tuple[dict[str, Lease], float]:
    """The leases to be told when a share of all that can be given is shed; and the watts cut, W.

    Args:
        held: of all devices.
        share: 0 to 1.
    """
    left_w = share * sum(one.spare_w for one in held)
    told, cut_w = {}, 0.0
    for one in sorted(held, key=lambda each: (each.transition_s, each.lease.device)):
        lease = _lower(one, left_w) if left_w >= LEAST_CUT_W else one.lease
        gave_w = one.lease.watts_w - lease.watts_w
        assert gave_w >= 0.0, "a shed never raises"
        told[one.lease.device] = lease
        left_w, cut_w = left_w - gave_w, cut_w + gave_w
    return told, cut_w


def _lower(one: Held, cut_w: float) -> Lease:
    """A lease less `cut_w`, or the nearest point below that; at the end its least one."""
    modes, lease = one.terms.modes, one.lease
    left_w = lease.watts_w - cut_w
    # The slack of a lease counts here, too, or a rounding would cost a whole point.
    if left_w <= one.least_w * (1.0 + WATTS_SLACK):
        least = min(modes, key=lambda mode: (modes[mode], mode != lease.mode))
        return replace(lease, mode=least, watts_w=min(lease.watts_w, one.least_w))
    if one.terms.continuous:
        return replace(lease, watts_w=left_w)
    # A lease may allow more watts than its point draws: they are no leave to go to a higher point.
    most_w = min(left_w, modes.get(lease.mode, math.inf))
    mode = max((m for m, watts_w in modes.items() if watts_w <= most_w), key=lambda m: modes[m])
    return replace(lease, mode=mode, watts_w=modes[mode])


class Shedding:
    """Between the leases of one agent and its devices.

    Attributes:
        share: shed now, 0 to 1.
        cut_w: what leases allow and devices were not told, W.
    """

    def __init__(self, devices: Mapping[str, Device], book: LeaseBook) -> None:
        """Nothing is shed."""
        self.share = 0.0
        self.cut_w = 0.0
        self._devices = devices
        self._book = book
        self._told: dict[str, Lease] = {}
        self._transitions: dict[str, tuple[int, float]] = {}

    def hold(self, lease: Lease) -> None:
        """Obey a lease that the book has taken; while something is shed, after `settle`."""
        if self.share == 0.0:
            self._devices[lease.device].hold(lease)

    def shed(self, share: float) -> None:
        """Shed this share from now on."""
        if share == self.share or (share > 0.0 and abs(share - self.share) < STEP):
            return
        self.share = share
        self._apply()

    def settle(self) -> None:
        """Leases have come or gone: share the cut anew. Without a shed there is nothing to do."""
        if self.share > 0.0:
            self._apply()

    def _apply(self) -> None:
        held = self._held()
        told, self.cut_w = lowered(held, self.share)
        for device, lease in told.items():
            if self._told.get(device) != lease:
                self._devices[device].hold(lease)
        self._told = told if self.share > 0.0 else {}

    def _held(self) -> list[Held]:
        now_s, rows = boot_s(), []
        for name, device in self._devices.items():
            lease, terms = self._book.held(name, now_s), device.terms()
            if lease is not None and terms is not None:
                rows.append(Held(lease, terms, self._transition_s(name, device)))
        return rows

    def _transition_s(self, name: str, device: Device) -> float:
        """How long it takes to obey, s; asked again only when what it offers has changed."""
        known = self._transitions.get(name)
        if known is None or known[0] != device.inventory_version:
            info = device.info()
            slowest_s = math.inf if info is None else max(p.transition_s for p in info.points)
            known = self._transitions[name] = (device.inventory_version, slowest_s)
        return known[1]
