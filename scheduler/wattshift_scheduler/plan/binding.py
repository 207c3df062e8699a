"""Which feeders below the connection can be full, and what devices under each may draw evenly.

A feeder can be full if the machines and the compute under it could draw more than it may carry
after its margin, once the feeders below it have taken their part of that away. That follows from
the site and its fleet alone: what a device's kind is must not change with what runs (`classes`).
"""

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.site import Site

NOMINAL_USD_PER_HASH_H = 50.0 / 24.0 / 1e15
"""A hashprice of 50 USD/PH/day: it only puts devices in order, hashes beside an owner's word."""

CENT_W = 1e-6


def can_be_full(site: Site, fleet: Fleet) -> Ints:
    """Columns of the feeders below the connection that can be full, the most value at stake first:
    what a feeder keeps out, at the mean value of a watt under it."""
    tree = site.tree
    usable_w = tree.usable_w(site.rules.margin_share)
    could_w = _could_w(tree, _own_w(site, fleet), usable_w)
    beyond_w = could_w - usable_w
    beyond_w[0] = 0.0
    full = np.flatnonzero(beyond_w > CENT_W)
    if not len(full):
        return full
    top = fleet.first[1:] - 1
    usd = fleet.point_h_per_s[top] * NOMINAL_USD_PER_HASH_H + fleet.point_usd_per_h[top]
    each_usd = tree.totals(summed(fleet.feeder, usd, len(tree.names)))
    at_stake = beyond_w * each_usd / np.maximum(could_w, CENT_W)
    return full[np.argsort(-at_stake[full], kind="stable")]


def _own_w(site: Site, fleet: Fleet) -> Floats:
    """The most that what hangs on each feeder itself could draw, W; shape (feeders,).

    Of devices behind gates and the compute of their host only the larger is drawn: then the compute
    at its most, or none of it.
    """
    tree, top_w = site.tree, fleet.point_limit_w[fleet.first[1:] - 1]
    own_w = summed(fleet.feeder, top_w, len(tree.names))
    hosts = {name: i for i, name in enumerate(fleet.hosts)}
    overlaps = fleet.host >= 0
    gated, host = np.flatnonzero(overlaps), fleet.host[overlaps]
    shared = np.bincount(host, minlength=len(hosts))
    for node in site.nodes:
        at, i = tree.index[node.feeder], hosts.get(node.name)
        if i is None:
            own_w[at] += node.max_w
            continue
        beside_w = top_w[gated[host == i]]
        mine_w = top_w[gated[(host == i) & (fleet.feeder[gated] == at)]]
        credit_w = node.max_w / shared[i] if len(beside_w) else 0.0
        both_w = node.max_w + float(np.maximum(mine_w - credit_w, 0.0).sum())
        own_w[at] += max(both_w - float(mine_w.sum()), 0.0)
    return own_w


def _could_w(tree: FeederTree, own_w: Floats, usable_w: Floats) -> Floats:
    """The most that could be drawn under each feeder within the limits of those below it, W."""
    passed_w, all_w = own_w.copy(), tree.totals(own_w)
    for i in range(len(own_w) - 1, 0, -1):
        # Fed from two sides it counts on both, but once where those meet: `totals` has that.
        passed_w[i] = min(passed_w[i], all_w[i])
        given_w = min(passed_w[i], usable_w[i])
        for parent in (tree.parent[i], tree.second[i]):
            if parent >= 0:
                passed_w[parent] += given_w
    return passed_w


def below(tree: FeederTree, feeder: int) -> Bools:
    """Which feeders it carries, itself among them; shape (feeders,)."""
    found = np.zeros(len(tree.names), dtype=np.bool_)
    found[tree.below[tree.above == feeder]] = True
    return found


def even_w(
    tree: FeederTree, fleet: Fleet, rooms_w: Floats, loose: Ints, able: Bools
) -> Floats | None:
    """The most that each device may draw if devices share the room of some feeders evenly, W.

    Each gets the same part of what lies between its rest and its top; under several of those
    feeders the least. So no such feeder carries more than its room, however devices are counted.

    Args:
        tree, fleet: the feeders and the devices.
        rooms_w: what devices under each feeder may draw, those at rest counted in, W.
        loose: columns of the feeders that are shared so; none: nothing is cut.
        able: devices that may leave their rest; shape (n,).

    Returns:
        Shape (n,); infinite where nothing is cut. None: it is cut nowhere.
    """
    if not len(loose):
        return None
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    rise_w = np.where(able, fleet.point_limit_w[fleet.first[1:] - 1] - base_w, 0.0)
    count = len(tree.names)
    rises_w = tree.totals(summed(fleet.feeder, rise_w, count))
    rests_w = tree.totals(summed(fleet.feeder, np.where(able, base_w, 0.0), count))
    part = np.full(count, np.inf)
    left_w = np.maximum(rooms_w - rests_w, 0.0)
    np.divide(left_w, rises_w, out=part, where=rises_w > CENT_W)
    share = np.full(count, np.inf)
    for feeder in loose.tolist():
        mine = below(tree, feeder)
        share[mine] = np.minimum(share[mine], part[feeder])
    each = share[fleet.feeder]
    cut = able & (each < 1.0)
    return np.where(cut, base_w + np.where(cut, each, 0.0) * rise_w, np.inf)
