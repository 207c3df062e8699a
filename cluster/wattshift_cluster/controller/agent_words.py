"""Translate between the agents' wire (plain dicts, see docs/protocol.md) and the core's columns.

Pure, so that a malformed answer is a test and not an incident: whatever does not fit raises
`AnswerInvalid`, and the agent counts as lost for that round. Of an inventory that is one the bad
devices alone are refused; of a reading a figure that cannot be is unknown.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from wattshift_cluster.config.site import AgentRef
from wattshift_cluster.errors import WattshiftError
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.site import Device, OperatingPoint

DEVICES_MAX = 20_000
"""Devices that one agent may offer; more would not fit one message."""


class AnswerInvalid(WattshiftError):
    """An agent said something that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What an agent has: devices that this site may lease, and why each other one of it may not.

    `refused` holds reasons by the id of a device that cannot exist as it was told.
    """

    devices: tuple[Device, ...]
    refused: Mapping[str, str]


def offer(ref: AgentRef, infos: Sequence[Mapping[str, Any]]) -> Offer:
    """Sort out what an agent announces: one bad device does not keep the others out.

    Raises:
        AnswerInvalid: it is no list of devices with ids, or a longer one than fits.
    """
    if len(infos) > DEVICES_MAX:
        raise AnswerInvalid(f"{ref.name} offers {len(infos)} devices, at most {DEVICES_MAX} fit")
    try:
        named = [(str(info["id"]), info) for info in infos]
    except (KeyError, TypeError) as fault:
        raise AnswerInvalid(f"{ref.name}: its inventory is malformed: {fault!r}") from fault
    taken: dict[str, Device] = {}
    refused: dict[str, str] = {}
    for name, info in named:
        if not _ours(ref, name):
            continue
        if name in taken:
            refused[name] = "it is announced twice: the first holds"
            continue
        try:
            taken[name] = _device(ref, info)
        except SiteInvalid as fault:
            refused[name] = fault.reason
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            refused[name] = f"it is malformed: {fault!r}"
    return Offer(tuple(taken.values()), refused)


def unannounced(ref: AgentRef, announced: Set[str], answer: Mapping[str, Any]) -> dict[str, str]:
    """Machines that an agent reads and does not announce: why, by id.

    It cannot announce a machine of which not even the nameplate is known, and has a reading of it
    all the same, with an error. Agents of every age say so.

    Args:
        announced: ids of the inventory that it told last.
        answer: what it says now; it must be of that inventory.

    Raises:
        AnswerInvalid: the readings are malformed.
    """
    try:
        rows = {str(row["device"]): row.get("error") for row in answer.get("readings") or ()}
    except (KeyError, TypeError, AttributeError) as fault:
        raise AnswerInvalid(f"malformed readings: {fault!r}") from fault
    return {
        name: str(error or "its agent gives no reason")
        for name, error in rows.items()
        if name not in announced and _ours(ref, name)
    }


def _ours(ref: AgentRef, device: str) -> bool:
    return any(fnmatchcase(device, pattern) for pattern in ref.devices)


def _device(ref: AgentRef, info: Mapping[str, Any]) -> Device:
    points = tuple(
        OperatingPoint(
            mode=str(point["mode"]),
            watts_w=float(point["watts_w"]),
            hashrate_h_per_s=float(point["hashrate_h_per_s"]),
            transition_s=float(point["transition_s"]),
            revenue_usd_per_h=float(point.get("revenue_usd_per_h") or 0.0),
        )
        for point in info["points"]
    )
    return Device(
        id=str(info["id"]),
        kind=str(info["kind"]),
        agent=ref.name,
        feeder=ref.feeder,
        points=points,
        nameplate_w=float(info["nameplate_w"]),
        tolerance=float(info["tolerance"]),
        continuous=bool(info["continuous"]),
        fenced=bool(info["fenced"]),
        safe_w=float(info["safe_w"]),
        power_on_w=float(info["power_on_w"]),
        host=None if info.get("host") is None else str(info["host"]),
        # Agents of before this was told wear nothing off.
        wear_usd_per_cycle=float(info.get("wear_usd_per_cycle") or 0.0),
        # Nor can they free a table, so none is counted.
        table_bytes=int(info.get("table_bytes") or 0),
        table_build_s=float(info.get("table_build_s") or 0.0),
        # The least that an ASIC can be told to draw at work lies far above its sleep.
        rests_apart=bool(info["continuous"]) and str(info["kind"]) == "asic",
    )


def readings(answer: Mapping[str, Any], received_s: float) -> ev.Readings:
    """The readings of one answer, with sample times on our clock. Raises AnswerInvalid."""
    try:
        rows = answer["readings"]
        boot_s = float(answer["boot_s"])
        leases = [row.get("lease") or {} for row in rows]
        return ev.Readings(
            devices=tuple(str(row["device"]) for row in rows),
            # A sample cannot come from the future, whatever its clock says.
            at_s=received_s - np.maximum(boot_s - _column(rows, "at_boot_s"), 0.0),
            watts_w=_known(_column(rows, "watts_w")),
            limit_w=_known(_column(rows, "enforced_limit_w")),
            hashrate_h_per_s=_known(_column(rows, "hashrate_h_per_s")),
            held_w=_known(_column(leases, "watts_w")),
            held_for_s=_column(leases, "valid_until_boot_s") - boot_s,
            held_mode=tuple(str(lease.get("mode") or "") for lease in leases),
            foreign=np.array([bool(row.get("foreign_write")) for row in rows], dtype=np.bool_),
            failed=np.array([row.get("error") is not None for row in rows], dtype=np.bool_),
            table_held_bytes=_column(rows, "table_held_bytes"),
            clients=_column(rows, "clients"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise AnswerInvalid(f"malformed readings: {fault!r}") from fault


def _known(amounts: Floats) -> Floats:
    """The same with what cannot be, negative or without end, as unknown (I3)."""
    return np.where(np.isfinite(amounts) & (amounts >= 0), amounts, np.nan)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """A column of numbers; None and a missing key are unknown (NaN), never zero."""
    values = (row.get(key) for row in rows)
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def leases(command: GrantLeases) -> list[dict[str, Any]]:
    """A GrantLeases command in the agents' words."""
    return [
        {
            "device": device,
            "epoch": command.epoch,
            "sequence": int(sequence),
            "mode": mode,
            "watts_w": float(watts_w),
            "valid_until_boot_s": command.valid_until_boot_s,
        }
        for device, sequence, mode, watts_w in zip(
            command.devices, command.sequence, command.modes, command.watts_w, strict=True
        )
    ]


def replied(command: GrantLeases, answer: Mapping[str, Any]) -> ev.LeasesReplied:
    """An agent's verdict on each lease of a command. Raises AnswerInvalid."""
    try:
        rows = answer["results"]
        return ev.LeasesReplied(
            command=command.id,
            devices=tuple(str(row["device"]) for row in rows),
            sequence=np.array([int(row["sequence"]) for row in rows], dtype=np.int64),
            accepted=np.array([bool(row["accepted"]) for row in rows], dtype=np.bool_),
            reasons=tuple(str(row.get("reason") or "") for row in rows),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise AnswerInvalid(f"malformed results: {fault!r}") from fault


def seen(agent: str, answer: Mapping[str, Any], received_s: float) -> ev.AgentSeen:
    """That an agent answered, and its clock when it did. Raises AnswerInvalid."""
    try:
        return ev.AgentSeen(agent, str(answer["boot_id"]), float(answer["boot_s"]), received_s)
    except (KeyError, TypeError, ValueError) as fault:
        raise AnswerInvalid(f"malformed answer: {fault!r}") from fault
