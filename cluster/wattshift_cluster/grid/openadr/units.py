"""Amounts on the wire in the units of their descriptors, turned into W, USD/MWh and g/kWh.

An amount whose unit is unknown or does not fit is refused, not guessed. Units: units.schema.yaml of
OpenADR 3.1.1; W, MW and MWH are not in it but cannot be mistaken.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wattshift_cluster.grid.market.prices import SANE_USD_PER_MWH
from wattshift_cluster.grid.openadr.words import Value

WATTS: Mapping[str, float] = {"W": 1.0, "KW": 1e3, "MW": 1e6}
JOULES: Mapping[str, float] = {"WH": 3.6e3, "KWH": 3.6e6, "MWH": 3.6e9}
PER_MWH: Mapping[str, float] = {"KWH": 1e3, "MWH": 1.0}
MAX_W = 10e9
SANE_G_PER_KWH = (0.0, 5_000.0)
"""Lignite emits about 1,200 g/kWh."""


class AmountRefused(ValueError):
    """An amount that cannot be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How amounts of a payload type are to be read.

    Attributes:
        units: of the descriptor, or of the site's file where there is none; None is unknown.
        currency: of the descriptor; None is unknown.
        full_w: what 100 per cent is, W; None: nobody has told.
        usd_per: USD for one of each currency that is known.
    """

    units: str | None
    currency: str | None = None
    full_w: float | None = None
    usd_per: Mapping[str, float] | None = None


def number(value: Value) -> float:
    """A finite number. Raises: AmountRefused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AmountRefused(f"{str(value)[:40]!r} is no number")
    try:
        amount = float(value)
    except OverflowError:
        amount = math.inf
    if not math.isfinite(amount):
        raise AmountRefused(f"{str(value)[:40]} is no finite amount")
    return amount


def watts(value: Value, scale: Scale, lasts_s: float | None) -> float:
    """A power of the whole site, W.

    Args:
        lasts_s: length of the interval, s, over which an energy is spread; None: it has no end.

    Raises:
        AmountRefused: unknown or unfit unit, negative, or not finite.
    """
    amount = number(value)
    units = scale.units or ""
    if units in WATTS:
        amount_w = amount * WATTS[units]
    elif units in JOULES and lasts_s:
        amount_w = amount * JOULES[units] / lasts_s
    elif units == "PERCENT" and scale.full_w is not None:
        amount_w = amount * scale.full_w
    elif units == "PERCENT":
        raise AmountRefused("a percentage of what? set nominal")
    else:
        raise AmountRefused(f"unit {_shown(scale.units)} is no unit of power")
    if not 0 <= amount_w <= MAX_W:
        raise AmountRefused(f"{amount_w:g} W is not between 0 and {MAX_W:g} W")
    return amount_w


def share_of(value: Value) -> float:
    """A percentage, told as -1 to 1. Raises: AmountRefused."""
    share = number(value)
    if not 0 <= share <= 1:
        raise AmountRefused(f"{share:g} is no share between 0 and 1")
    return share


def usd_per_mwh(value: Value, scale: Scale) -> float:
    """A price of energy, USD/MWh; negative ones are normal. Raises: AmountRefused."""
    per_mwh = PER_MWH.get(scale.units or "")
    if per_mwh is None:
        raise AmountRefused(f"price per {_shown(scale.units)} is no price of energy")
    currency = scale.currency or ""
    rate = {"USD": 1.0, **(scale.usd_per or {})}.get(currency)
    if rate is None:
        raise AmountRefused(f"currency {_shown(scale.currency)} has no rate to USD here")
    price = number(value) * per_mwh * rate
    least, most = SANE_USD_PER_MWH
    if not least <= price <= most:
        raise AmountRefused(f"price outside {least:g} to {most:g} USD/MWh")
    return price


def g_per_kwh(value: Value) -> float:
    """Emissions, g/kWh, which is the unit of the type itself. Raises: AmountRefused."""
    grams = number(value)
    least, most = SANE_G_PER_KWH
    if not least <= grams <= most:
        raise AmountRefused(f"{grams:g} g/kWh is outside {least:g} to {most:g}")
    return grams


def _shown(text: str | None) -> str:
    return "that nobody tells" if text is None else repr(text[:20])
