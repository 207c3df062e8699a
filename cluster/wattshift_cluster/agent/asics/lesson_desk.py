"""What others measured of this agent's ASICs, taken in; and what is learnt of one, told.

A commissioning hands its findings here. They are of the machine that answers now; set points that
it does not have are left out and named.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.device import Device
from wattshift_cluster.errors import NotFound, Refused
from wattshift_cluster.fleet.learn import Learnt, Tally

log = structlog.get_logger()

MOST_DEVICES = 4096
MOST_NAME = 80


class LessonDesk:
    """Between the wire and what is learnt."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        """Args: devices: all of the agent's, by id; those that are no ASIC are refused by name."""
        self._devices = devices

    def teach(self, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take findings in; a row {device, ok, error, state} for each device.

        Args:
            fields: `devices`, what was learnt by device (see `Learnt.to_dict`), and `by`.

        Raises:
            Refused: that is not what came.
        """
        findings, by = fields.get("devices"), fields.get("by")
        if not isinstance(findings, dict) or not 0 < len(findings) <= MOST_DEVICES:
            raise Refused(f"devices are not findings of 1 to {MOST_DEVICES} machines")
        if not isinstance(by, str) or not 0 < len(by) <= MOST_NAME:
            raise Refused(f"by is not a text of 1 to {MOST_NAME} characters")
        return [self._row(str(name), raw, by) for name, raw in findings.items()]

    def learnt(self, name: object) -> dict[str, Any]:
        """What is learnt of one machine. Raises: NotFound, Refused."""
        return self._asic(name).lessons.view()

    def _row(self, name: str, raw: object, by: str) -> dict[str, Any]:
        try:
            state = self._take(self._asic(name), raw, by)
        except (Refused, NotFound) as refused:
            return {"device": name, "ok": False, "error": str(refused), "state": None}
        return {"device": name, "ok": True, "error": None, "state": state}

    def _take(self, device: AsicDevice, raw: object, by: str) -> str:
        """Returns what it is told to draw now. Raises: Refused."""
        if device.identity is None:
            raise Refused(f"it is not known yet: {device.contact.error or 'not looked at'}")
        try:
            learnt = Learnt.from_dict(raw)
        except (ValueError, OverflowError) as fault:
            raise Refused(f"nothing to learn: {fault}") from None
        modes = {point.mode for point in device.identity.points}
        strange = sorted({*learnt.points, *learnt.claims, *learnt.times} - modes)
        learnt = replace(
            learnt,
            points=_of(modes, learnt.points),
            claims=_of(modes, learnt.claims),
            rates=_of(modes, learnt.rates),
            times=_of(modes, learnt.times),
        )
        if not learnt:
            raise Refused(f"nothing to learn: it has no set point {', '.join(strange)[:MOST_NAME]}")
        device.learn(learnt)
        log.info("asic.taught", device=device.id, by=by, points=sorted(learnt.points))
        told = [
            f"{point.mode} at most {point.watts_w:,.0f} W"
            for point in device.identity.points
            if point.mode in learnt.points
        ]
        left = [f"without {', '.join(strange)[:MOST_NAME]}"] if strange else []
        return "; ".join([*told, *left]) or "times and factors"

    def _asic(self, name: object) -> AsicDevice:
        """Raises: NotFound, Refused."""
        device = self._devices.get(str(name))
        if device is None:
            raise NotFound(f"no device {str(name)[:MOST_NAME]!r} at this agent")
        if not isinstance(device, AsicDevice):
            raise Refused(f"{device.id} is no ASIC: nothing is learnt of it here")
        return device


def _of(modes: set[str], tallies: Mapping[str, Tally]) -> Mapping[str, Tally]:
    return {mode: tally for mode, tally in tallies.items() if mode in modes}
