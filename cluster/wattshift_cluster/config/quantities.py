"""Quantities as people write them: `1.2MW`, `5m`, `41 USD/MWh`, and back.

A bare number is in the base unit: W, s, USD/MWh, USD. Case matters, because `mW` is not `MW`; a
spelling that differs only in case is refused with the right one named. There is no silent rounding
and no infinity: a quantity is a finite number or it is a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import ClassVar

from wattshift_cluster.errors import WattshiftError

WATT_UNITS: Mapping[str, float] = {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}
SECOND_UNITS: Mapping[str, float] = {
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
RAMP_UNITS: Mapping[str, float] = {
    "W/s": 1.0,
    "kW/s": 1e3,
    "MW/s": 1e6,
    "W/min": 1.0 / 60.0,
    "kW/min": 1e3 / 60.0,
    "MW/min": 1e6 / 60.0,
}
USD_PER_MWH_UNITS: Mapping[str, float] = {"USD/MWh": 1.0, "USD/kWh": 1e3}
USD_UNITS: Mapping[str, float] = {"USD": 1.0}

_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ONE = re.compile(rf"\s*({_NUMBER})\s*(\S*)\s*")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|[smhd])\s*")


class QuantityInvalid(WattshiftError, ValueError):
    """The text is not a quantity of the wanted kind. Its message says what would be."""

    exit_code: ClassVar[int] = 3


def parse_watts(value: object) -> float:
    """Power in W from `1.2MW`, `800kW`, `150W` or a number of watts. Raises QuantityInvalid."""
    return _parse(value, WATT_UNITS, "power", "150W, 800kW, 1.2MW")


def parse_seconds(value: object) -> float:
    """Duration in s from `250ms`, `5m`, `1h30m` or a number of seconds. Raises QuantityInvalid."""
    if isinstance(value, str):
        parts = _DURATION_PART.findall(value)
        if len(parts) > 1 and _DURATION_PART.sub("", value).strip() == "":
            return math.fsum(float(number) * SECOND_UNITS[unit] for number, unit in parts)
    return _parse(value, SECOND_UNITS, "duration", "250ms, 15s, 5m, 1h30m")


def parse_ramp(value: object) -> float:
    """Ramp in W/s from `30MW/min`, `500kW/s` or a number of W/s. Raises QuantityInvalid."""
    return _parse(value, RAMP_UNITS, "ramp", "30MW/min, 500kW/min, 2kW/s")


def parse_usd_per_mwh(value: object) -> float:
    """Price in USD/MWh from `41 USD/MWh`, `0.041 USD/kWh` or a number. Raises QuantityInvalid."""
    return _parse(value, USD_PER_MWH_UNITS, "price", "41, 41USD/MWh, 0.041USD/kWh")


def parse_usd(value: object) -> float:
    """Money in USD from `12.50USD`, `$12.50` or a number. Raises QuantityInvalid."""
    if isinstance(value, str) and value.strip().startswith("$"):
        value = value.strip()[1:]
    return _parse(value, USD_UNITS, "amount of money", "12.50, 12.50USD, $12.50")


def format_watts(watts_w: float) -> str:
    """`watts_w` in its handiest unit, exactly enough to be parsed back to the same shown value."""
    return _format(watts_w, (("GW", 1e9), ("MW", 1e6), ("kW", 1e3), ("W", 1.0)))


def format_seconds(seconds_s: float) -> str:
    """`seconds_s` in its handiest unit, for example `250ms`, `15s`, `5m`, `1.5h`."""
    return _format(
        seconds_s, (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3))
    )


def _parse(value: object, units: Mapping[str, float], kind: str, examples: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise QuantityInvalid(f"not a {kind}; write for example {examples}")
    if not isinstance(value, str):
        return _finite(float(value), kind)
    match = _ONE.fullmatch(value)
    if match is None:
        raise QuantityInvalid(f"not a {kind}; write for example {examples}")
    number, unit = match.groups()
    if unit and unit not in units:
        raise QuantityInvalid(_unit_fault(unit, units, kind))
    # Dividing by the exact reciprocal keeps 250ms at 0.25 and 0.1kW at 100.0.
    scale = units.get(unit, 1.0)
    amount = float(number)
    return _finite(amount / round(1 / scale) if scale < 1 else amount * scale, kind)


def _unit_fault(unit: str, units: Mapping[str, float], kind: str) -> str:
    for known in units:
        if known.lower() == unit.lower():
            return f"unknown unit {unit}; write {known}"
    return f"unknown unit {unit} of a {kind}; allowed: {', '.join(units)}"


def _finite(number: float, kind: str) -> float:
    if not math.isfinite(number):
        raise QuantityInvalid(f"not a finite {kind}")
    return number


def _format(amount: float, units: tuple[tuple[str, float], ...]) -> str:
    if not math.isfinite(amount):
        return "unknown"
    if amount == 0:
        return "0" + next(unit for unit, scale in units if scale == 1.0)
    unit, scale = next(((u, s) for u, s in units if abs(amount) >= s), units[-1])
    return f"{amount / scale:.6g}{unit}"
