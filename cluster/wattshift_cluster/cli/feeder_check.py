"""What `doctor` says of the power tree: sides that carry less than hangs on them, and live alarms.

Alarms come from the running controller, which alone knows the machines on each feeder.
"""

from collections.abc import Iterator

from wattshift_cluster.cli.findings import Finding, Place
from wattshift_cluster.config import blueprint
from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.config.site import SiteConfig

ALARMS = (
    "feeder-below-floor:",
    "feeder-short",
    "feeder-over:",
    "feeder-differs:",
    "device-refused:",
    "device-unseen:",
)
"""Alarms that are about what hangs where."""


def feeders(place: Place) -> Finding:
    """Look at the site file's feeders, and at what the controller says of them."""
    running = place.controller.site
    alarms = [] if running is None else running["alarms"]
    raised = [one for one in alarms if str(one["id"]).startswith(ALARMS)]
    if raised:
        bad = any(one["severity"] == "critical" for one in raised)
        subject, text = raised[0]["id"], "; ".join(str(one["text"]) for one in raised)
        return Finding("feeders", "fail" if bad else "warn", text, f"wattshift explain {subject}")
    site = place.site
    if site is None:
        return Finding("feeders", "ok", "no valid site file")
    if weak := list(_weak_sides(site)):
        mend = f"wattshift config show {place.site_file}"
        return Finding("feeders", "warn", "; ".join(weak), mend)
    two = sum(one.second_parent is not None for one in site.feeders)
    both = f", {two} fed from two sides" if two else ""
    return Finding("feeders", "ok", f"{len(site.feeders)} feeder(s){both}")


def _weak_sides(site: SiteConfig) -> Iterator[str]:
    """Feeders with two sides of which one cannot carry alone what the feeder itself may."""
    tree = blueprint.site_of(site).tree
    usable_w = tree.usable_w(site.site.margin_pct / 100.0)
    for one in site.feeders:
        if one.second_parent is None:
            continue
        own = tree.index[one.name]
        weakest = min((at for at in tree.path(own) if at), key=lambda at: float(usable_w[at]))
        if weakest != own:
            yield (
                f"{one.name} may carry {format_watts(float(usable_w[own]))}, but "
                f"{tree.names[weakest]} alone carries {format_watts(float(usable_w[weakest]))}, so "
                "no more than that is ever leased there"
            )
