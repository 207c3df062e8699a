"""What each payload type of an OpenADR event becomes at this site, or why it is ignored.

One row for every enumeration of OpenADR 3.1.1 (event-interval-payloads.schema.yaml). A type that is
not here is a private string of somebody's program and is ignored with that reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Becomes(StrEnum):
    """What a payload turns into."""

    LIMIT = "limit"
    """A hard cap of the site while it lasts."""
    SUBSCRIPTION = "subscription"
    """The hard cap wherever no limit is known."""
    RESERVATION = "reservation"
    """Watts granted on top of the subscription."""
    LEVEL = "level"
    """A hard cap from the site's own ladder."""
    TARGET = "target"
    """A set point to hold, below the caps."""
    SHED = "shed"
    """A set point below the baseline."""
    PRICE = "price"
    CARBON = "carbon"
    LEAST = "least"
    """An alert that asks for the least possible draw."""
    NOTICE = "notice"
    """An alert that is shown to people."""
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a payload type becomes, and why."""

    becomes: Becomes
    why: str


_EXPORT = "the site takes power from the grid and sells none"
_MARKET = "the site buys no capacity by itself; an operator may"
_STORAGE = "the site has no storage to charge"
_CTA = "for devices with a CTA-2045 module, and the site has none"
_ALERT = "shown to people; it asks for nothing that can be told in watts"

MEANINGS: Mapping[str, Meaning] = {
    "SIMPLE": Meaning(Becomes.LEVEL, "levels 1 to 3 are caps of the site's own ladder"),
    "PRICE": Meaning(Becomes.PRICE, "what energy costs"),
    "PRICE_ALTERNATE": Meaning(Becomes.IGNORED, "the price of another form of energy"),
    "CHARGE_STATE_SETPOINT": Meaning(Becomes.IGNORED, _STORAGE),
    "DISPATCH_SETPOINT": Meaning(Becomes.TARGET, "the draw to hold"),
    "DISPATCH_SETPOINT_RELATIVE": Meaning(Becomes.SHED, "the draw to hold below the baseline"),
    "DISPATCH_INSTRUCTION": Meaning(
        Becomes.IGNORED, "texts whose meaning is agreed elsewhere; none is agreed here"
    ),
    "CONTROL_SETPOINT": Meaning(
        Becomes.IGNORED, "a device's own setting, whose meaning the program would have to tell"
    ),
    "CONTROL_LEVEL_OFFSET": Meaning(
        Becomes.IGNORED, "steps that are tied to no watts; SIMPLE has levels that are"
    ),
    "CONTROL_LEVEL_OFFSET_PERCENT": Meaning(
        Becomes.IGNORED, "a share of an operating level, tied to no watts"
    ),
    "EXPORT_PRICE": Meaning(Becomes.IGNORED, _EXPORT),
    "GHG": Meaning(Becomes.CARBON, "marginal emissions of energy"),
    "CURVE": Meaning(Becomes.IGNORED, "for inverters, and the site has none"),
    "OLS": Meaning(Becomes.IGNORED, "shares of a day's energy that no one here has fixed"),
    "IMPORT_CAPACITY_SUBSCRIPTION": Meaning(
        Becomes.SUBSCRIPTION, "the cap wherever no limit is known"
    ),
    "IMPORT_CAPACITY_RESERVATION": Meaning(
        Becomes.RESERVATION, "granted on top of the subscription"
    ),
    "IMPORT_CAPACITY_RESERVATION_FEE": Meaning(Becomes.IGNORED, _MARKET),
    "IMPORT_CAPACITY_AVAILABLE": Meaning(Becomes.IGNORED, _MARKET),
    "IMPORT_CAPACITY_AVAILABLE_PRICE": Meaning(Becomes.IGNORED, _MARKET),
    "EXPORT_CAPACITY_SUBSCRIPTION": Meaning(Becomes.IGNORED, _EXPORT),
    "EXPORT_CAPACITY_RESERVATION": Meaning(Becomes.IGNORED, _EXPORT),
    "EXPORT_CAPACITY_RESERVATION_FEE": Meaning(Becomes.IGNORED, _EXPORT),
    "EXPORT_CAPACITY_AVAILABLE": Meaning(Becomes.IGNORED, _EXPORT),
    "EXPORT_CAPACITY_AVAILABLE_PRICE": Meaning(Becomes.IGNORED, _EXPORT),
    "IMPORT_CAPACITY_LIMIT": Meaning(Becomes.LIMIT, "the most the site may take"),
    "EXPORT_CAPACITY_LIMIT": Meaning(Becomes.IGNORED, _EXPORT),
    "ALERT_GRID_EMERGENCY": Meaning(Becomes.LEAST, "the grid may fail: as little as possible"),
    "ALERT_BLACK_START": Meaning(Becomes.LEAST, "the grid comes back: as little as possible"),
    "ALERT_POSSIBLE_OUTAGE": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_FLEX_ALERT": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_FIRE": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_FREEZING": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_WIND": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_TSUNAMI": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_AIR_QUALITY": Meaning(Becomes.NOTICE, _ALERT),
    "ALERT_OTHER": Meaning(Becomes.NOTICE, _ALERT),
    "CTA2045_REBOOT": Meaning(Becomes.IGNORED, _CTA),
    "CTA2045_SET_OVERRIDE_STATUS": Meaning(Becomes.IGNORED, _CTA),
}

PRIVATE = Meaning(Becomes.IGNORED, "a private type whose meaning is agreed elsewhere")


def meaning(payload_type: str) -> Meaning:
    """What a payload type becomes; a private string is ignored."""
    return MEANINGS.get(payload_type, PRIVATE)
