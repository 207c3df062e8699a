"""Power limits by device id, as the controller asks for them.

A limit may always be lowered. It is raised only as far as the device's lease covers, or back to
what it was before our first write by an explicit release (invariants I1 and I2).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from wattshift_cluster.agent.device import Device
from wattshift_cluster.agent.gpus import HostGpus
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.errors import Refused

MOST_W = 100_000.0


class LimitDesk:
    """Between the wire and the cards."""

    def __init__(self, gpus: HostGpus | None) -> None:
        """Args: gpus: None on a host without cards."""
        self._gpus = gpus

    async def set(
        self, wanted: Sequence[tuple[Device, object, Lease | None]]
    ) -> list[dict[str, Any]]:
        """Set the limits of several devices at once; one row each, with what is enforced now.

        Args:
            wanted: device, watts as they came over the wire, and its lease in force.

        Raises:
            Refused: a device has no such limit, the watts are none, or this agent only reads.
        """
        asked_w, covered_w, names = {}, {}, {}
        for device, watts_w, lease in wanted:
            uuid = _uuid(device)
            asked_w[uuid] = _watts(device.id, watts_w)
            if lease is not None:
                covered_w[uuid] = lease.watts_w
            names[uuid] = device.id
        if self._gpus is None:
            raise Refused("this agent has no GPUs")
        results = await self._gpus.limit(asked_w, covered_w)
        return [{"device": names[uuid], **asdict(result)} for uuid, result in results.items()]

    async def release(self, device: Device) -> dict[str, Any] | None:
        """Give a GPU its first limit back; None where there is nothing to give back."""
        if self._gpus is None or not isinstance(device, HashingDevice) or not device.spec.card:
            return None
        result = await self._gpus.release(device.spec.card.uuid)
        if result is None or result.asked_w is None:
            return None
        return {"device": device.id, **asdict(result)}


def _uuid(device: Device) -> str:
    if not isinstance(device, HashingDevice) or device.spec.card is None:
        raise Refused(f"{device.id} is no GPU: its power is set by its leases alone")
    return device.spec.card.uuid


def _watts(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{name}: a limit is a number of watts")
    if not math.isfinite(value) or not 0 < value <= MOST_W:
        raise Refused(f"{name}: {value} W is out of range; allowed: above 0 to {MOST_W:g} W")
    return float(value)
