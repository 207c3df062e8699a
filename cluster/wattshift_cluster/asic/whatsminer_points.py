"""What a Whatsminer offers: sleep and a range of power limits, whatever its firmware's API.

Any limit in the range may be set; six evenly spread ones are offered. MicroBT publishes neither the
smallest limit nor a power curve, so the range begins at 35 % of the rating and the hashrate of a
point is MODELLED as a straight line through the machine's factory hashrate. The low and high modes
of the firmware are left out: no table of what they draw was found.
"""

from dataclasses import dataclass

from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint, AsicRefused
from wattshift_cluster.asic.models import Ability, rating
from wattshift_cluster.asic.setup import Setup

LOWEST_SHARE = 0.35
POINTS = 6


@dataclass(frozen=True, slots=True)
class Stated:
    """What a machine said about itself; None where it did not.

    Attributes:
        model: e.g. "M60S_VK40"; on some firmware "M50SVH30".
        firmware: its version.
        mac, serial: as reported.
        factory_h_per_s: the hashrate that it was sold with.
    """

    model: str
    firmware: str
    mac: str | None
    serial: str | None
    factory_h_per_s: float | None


def identity(setup: Setup, stated: Stated) -> AsicIdentity:
    """Identity and points from what the machine said and what our table rates it at.

    The limit in force is no rating: it sinks with each lower limit that is set, and the range would
    sink with it. So a model that the table lacks needs its owner's word.

    Raises:
        AsicRefused: the power range cannot be known.
    """
    rated, ability = rating(stated.model), setup.ability
    top_w = rated.watts_w if rated else setup.nameplate_w
    top_h = stated.factory_h_per_s or (rated.hashrate_h_per_s if rated else None)
    if not top_w or not top_h:
        reason = f"our table does not rate a {stated.model}: name its nameplate_w"
        raise AsicRefused(setup.address, "identify", reason)
    return AsicIdentity(
        address=setup.address,
        model=stated.model,
        firmware=f"Whatsminer {stated.firmware}",
        mac=stated.mac.upper() if stated.mac else None,
        serial=stated.serial,
        algorithm="sha256d",
        nameplate_w=top_w,
        tolerance=ability.tolerance,
        safe_w=ability.standby_w,
        power_on_w=top_w,
        continuous=False,
        points=_offered(top_w, top_h, ability),
    )


def limit_of(identity: AsicIdentity, mode: str, watts_w: float) -> int:
    """The limit to set for the point `mode`, W.

    Raises:
        AsicRefused: there is no such point, or it draws more than `watts_w`.
    """
    point = next((p for p in identity.points if p.mode == mode), None)
    if point is None:
        raise AsicRefused(identity.address, f"set {mode}", "the machine has no such point")
    if watts_w < point.watts_w * 0.999:
        raise AsicRefused(identity.address, f"set {mode}", f"the lease allows {watts_w:.0f} W")
    return round(point.watts_w)


def _offered(top_w: float, top_h_per_s: float, ability: Ability) -> tuple[AsicPoint, ...]:
    points = [AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s)]
    for i in range(POINTS):
        share = LOWEST_SHARE + (1.0 - LOWEST_SHARE) * i / (POINTS - 1)
        limit_w = round(top_w * share)
        hashrate = top_h_per_s * limit_w / top_w
        points.append(AsicPoint(f"limit:{limit_w}", float(limit_w), hashrate, ability.settle_s))
    return tuple(points)
