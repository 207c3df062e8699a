"""Whether every feeder carries at least what hangs on it with everything at its lowest.

A site that cannot be brought below a limit of its own is one that no decision can keep safe: it is
refused where it is stated, and where machines join a running site it is said which feeder it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, summed
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.site import Device, Site


@dataclass(frozen=True, slots=True)
class Lack:
    """A feeder that cannot carry its floor: what is drawn at least, and what it may carry, W."""

    feeder: str
    floor_w: float
    usable_w: float

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"what hangs on it draws {self.floor_w:,.0f} W with every device at its lowest point, "
            f"and it may carry {self.usable_w:,.0f} W after its margin"
        )


def floor_w(site: Site, fleet: Fleet) -> Floats:
    """What every feeder carries with each device at its lowest point, W; shape (feeders,).

    Watts are those of a lease on that point; load that nobody leases counts at the root.
    """
    feeders = len(site.tree.names)
    own_w = summed(fleet.feeder, fleet.point_limit_w[fleet.first[:-1]], feeders)
    own_w[0] += site.rules.other_load_w
    return site.tree.totals(own_w)


def lacking(site: Site, fleet: Fleet) -> tuple[Lack, ...]:
    """The feeders whose limit, after the margin, lies below their floor."""
    least_w, usable_w = floor_w(site, fleet), site.tree.usable_w(site.rules.margin_share)
    return tuple(
        Lack(site.tree.names[i], float(least_w[i]), float(usable_w[i]))
        for i in np.flatnonzero(least_w > usable_w + 1e-6)
    )


def check(site: Site, devices: Iterable[Device]) -> None:
    """Refuse devices that the site's feeders cannot carry at rest.

    Raises:
        SiteInvalid: naming the feeder; or a device that is there twice or on no feeder.
    """
    for one in lacking(site, Fleet.of(devices, site.tree)):
        raise SiteInvalid(one.feeder, one.words)
