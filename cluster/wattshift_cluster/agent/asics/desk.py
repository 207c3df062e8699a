"""What operators order of ASICs: sleep, wake, lock, unlock, limit; many machines at once.

What holds a machine down is in force at once and then written to disk; what lets it up is written
first, so that no crash can forget a lock or half an unlock. An order is answered once the disk has
it and, for one that lowers, once the machines have taken the command or a moment has passed.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import structlog

from wattshift_cluster.agent.asics import words
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.device import Device
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.errors import Refused, WattshiftError
from wattshift_cluster.fleet.locks import Action, Order, Restraint, apply

log = structlog.get_logger()

MOST_DEVICES = 4096
MOST_NAME = 80
MOST_REASON = 300
MOST_W = 1_000_000.0
TAKEN_S = 1.5
"""How long an order that lowers waits for the machines to take it."""

ACTIONS: tuple[str, ...] = get_args(Action)
LOWERING = ("sleep", "lock")


class OrderMalformed(WattshiftError):
    """An order that the protocol does not allow; nothing of it was done."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What came of the order at one machine."""

    device: str
    error: str | None
    state: str | None

    def wire(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "ok": self.error is None,
            "error": self.error,
            "state": self.state,
        }


class AsicDesk:
    """Between the wire and the ASICs."""

    def __init__(self, devices: Mapping[str, Device], keeper: Keeper) -> None:
        """Args: devices: all of the agent's, by id; those that are no ASIC are refused by name."""
        self._devices = devices
        self._keeper = keeper
        self._turn = asyncio.Lock()

    async def act(self, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Carry out one order; a row for each device, in the order's sequence.

        Args:
            fields: `action, devices, by, by_id, reason, watts_w, override, dry_run` as they came
                over the wire.

        Raises:
            OrderMalformed: a field is missing or of another type.
        """
        order, names, dry_run = parse(fields)
        async with self._turn:  # else an older order that waits for the disk undoes a newer lock
            rows, failed = await self._under(order, names, dry_run=dry_run)
        if order.action in LOWERING and not dry_run:
            await _taken([d for d in self._asics(names) if d.id not in rows])
        rows |= {
            d.id: _row(d, failed.get(d.id), order) for d in self._asics(names) if d.id not in rows
        }
        return [rows[name].wire() for name in names]

    def _asics(self, names: Sequence[str]) -> list[AsicDevice]:
        found = (self._devices.get(name) for name in names)
        return [device for device in found if isinstance(device, AsicDevice)]

    async def _under(
        self, order: Order, names: Sequence[str], *, dry_run: bool
    ) -> tuple[dict[str, _Row], dict[str, str]]:
        """Carry it out; rows of those that it did not touch, and whose memory could not be kept."""
        rows: dict[str, _Row] = {}
        after: dict[AsicDevice, Restraint] = {}
        for name in names:
            device = self._devices.get(name)
            try:
                after_one = _after(order, _asic(name, device), time.time())
            except Refused as refused:
                rows[name] = _Row(name, str(refused), _standing(device))
            else:
                after[_asic(name, device)] = after_one
        if dry_run:
            return rows | {d.id: _Row(d.id, None, _would(order, d)) for d in after}, {}
        return rows, await self._carry_out(order, after)

    async def _carry_out(
        self, order: Order, after: Mapping[AsicDevice, Restraint]
    ) -> dict[str, str]:
        """Put it in force and on disk; by device, why it could not be kept."""
        for device in after:
            level = log.warning if order.override else log.info
            level(
                "asic.order",
                device=device.id,
                action=order.action,
                by=order.by,
                reason=order.reason,
                override=order.override,
                was=device.memory.restraint.why_asleep or device.damage,
            )
        lowers = order.action in LOWERING
        if lowers:
            for device, restraint in after.items():
                device.restrain(restraint)
        failed = await self._keeper.save(
            {d: replace(d.memory, restraint=restraint) for d, restraint in after.items()}
        )
        if not lowers:
            for device in after:
                if device.id not in failed:
                    _let(order, device, after[device])
        return failed


def _row(device: AsicDevice, fault: str | None, order: Order) -> _Row:
    if fault is None:
        return _Row(device.id, None, words.standing(device))
    lowers = order.action in LOWERING
    kept = "in force, but it would be forgotten in a restart" if lowers else "nothing changed"
    return _Row(device.id, f"{kept}: {fault}", words.standing(device))


def parse(fields: Mapping[str, Any]) -> tuple[Order, tuple[str, ...], bool]:
    """An order from the wire: what, on which devices, and whether only to tell what would happen.

    Raises:
        OrderMalformed: with the field and what is allowed.
    """
    action = fields.get("action")
    if action not in ACTIONS:
        raise OrderMalformed(f"action is none of {', '.join(ACTIONS)}")
    order = Order(
        action=action,
        by=_text(fields, "by", MOST_NAME),
        reason=None if fields.get("reason") is None else _text(fields, "reason", MOST_REASON),
        watts_w=_watts(fields.get("watts_w"), action),
        override=_switch(fields, "override"),
        by_id=None if fields.get("by_id") is None else _text(fields, "by_id", MOST_NAME),
    )
    if order.override and action != "unlock":
        raise OrderMalformed("override belongs to unlock alone: nothing else goes past a lock")
    return order, _names(fields.get("devices")), _switch(fields, "dry_run")


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_DEVICES:
        raise OrderMalformed(f"devices are not a list of 1 to {MOST_DEVICES} names")
    if not all(isinstance(name, str) and 0 < len(name) <= 200 for name in value):
        raise OrderMalformed("devices are not names of 1 to 200 characters")
    return tuple(dict.fromkeys(value))


def _text(fields: Mapping[str, Any], name: str, most: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise OrderMalformed(f"{name} is not a text of 1 to {most} characters")
    if not value.isprintable():
        raise OrderMalformed(f"{name} holds characters that cannot be printed")
    return value.strip()


def _switch(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise OrderMalformed(f"{name} is neither true nor false")
    return bool(value)


def _watts(value: object, action: str) -> float | None:
    if value is None:
        return None
    if action != "limit":
        raise OrderMalformed("watts_w belongs to limit alone")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OrderMalformed("watts_w is not a number")
    if not 0 < value <= MOST_W:
        raise OrderMalformed(f"watts_w is not above 0 and at most {MOST_W:g} W; null lifts a limit")
    return float(value)


def _asic(name: str, device: Device | None) -> AsicDevice:
    """Raises: Refused."""
    if device is None:
        raise Refused(f"no device {name[:MOST_NAME]!r} at this agent")
    if not isinstance(device, AsicDevice):
        raise Refused(f"{name} is no ASIC: its leases alone say what it does")
    return device


def _after(order: Order, device: AsicDevice, now_s: float) -> Restraint:
    """What will hold the machine. Raises: Refused."""
    if device.damage is not None:
        if order.action != "unlock" or not order.override:
            raise Refused(device.damage)
        return Restraint()
    if device.barred is not None:
        raise Refused(f"it is never written: {device.barred}")
    return apply(order, device.memory.restraint, now_s)


def _let(order: Order, device: AsicDevice, restraint: Restraint) -> None:
    """What lets a machine up comes into force."""
    if device.damage is not None:
        device.forget_damage()
    if order.action == "wake":
        device.take_in()
    device.restrain(restraint)


async def _taken(devices: Sequence[AsicDevice]) -> None:
    waiting = [asyncio.create_task(d.settled()) for d in devices if d.command.goal is not None]
    if waiting:
        await asyncio.wait(waiting, timeout=TAKEN_S)
    for task in waiting:
        task.cancel()


def _standing(device: Device | None) -> str | None:
    return words.standing(device) if isinstance(device, AsicDevice) else None


def _would(order: Order, device: AsicDevice) -> str:
    seen = device.contact.seen
    draws = "unknown watts" if seen is None or seen.watts_w is None else f"{seen.watts_w:,.0f} W"
    match order.action:
        case "sleep" | "lock":
            return f"would go to {SLEEP} from {draws}, and stay there"
        case "wake":
            return f"would run again as leased; it draws {draws}"
        case "unlock":
            held = device.memory.restraint
            kept = " and stay asleep, as it is held" if held.hold else " and run again as leased"
            return f"would be unlocked{kept}"
        case "limit" if order.watts_w is None:
            return "would have no limit"
        case _:
            return f"would be limited to {order.watts_w:,.0f} W; it draws {draws}"
