"""A plain pass over all rungs in numpy, to compare a replan with in the same run.

It ranks every rung by value per watt, sorts all of them, and at each level of the tree, from the
leaves up, keeps the best prefix below each feeder that fits: what one writes down first. Nothing is
carried over, repaired or divided, and a cycle costs nothing. Machines differ several times over in
what memory costs them; the ratio of both says more than either figure.
"""

import statistics
import time

import numpy as np
from benchmarks.allocate_site import VALUES, Floats, Instance

from wattshift_scheduler.arrays import Ints


def plain_ms(one: Instance, repeats: int) -> float:
    """Median time of a plain pass over an instance whose devices have as many points each, ms."""
    times_ms = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        taken_w(one)
        times_ms.append((time.perf_counter() - begin_s) * 1e3)
    return statistics.median(times_ms)


def taken_w(one: Instance) -> Floats:
    """Watts that each rung is given, device by device; shape (n, points - 1)."""
    fleet, tree = one.fleet, one.tree
    watts_w = fleet.point_limit_w.reshape(-1, fleet.points_each)
    usd_per_h = fleet.point_h_per_s.reshape(watts_w.shape) * VALUES.usd_per_hash_hour
    span_w = np.diff(watts_w, axis=1)
    usd_per_mwh = np.diff(usd_per_h, axis=1) / span_w * 1e6
    order = np.argsort(-usd_per_mwh, axis=None, kind="stable")
    given_w = np.where(usd_per_mwh > one.price_usd_per_mwh, span_w, 0.0).ravel()[order]
    feeder = fleet.feeder[order // span_w.shape[1]]
    for at in tree.ancestors[::-1]:
        given_w *= _fits(given_w, at[feeder], one.room_w)
    found = np.empty(span_w.size)
    found[order] = given_w
    return found.reshape(span_w.shape)


def _fits(given_w: Floats, group: Ints, room_w: Floats) -> Floats:
    """1 for the rungs of each group, best first, whose sum fits its room, and 0 for the others."""
    # Few feeders: of short whole numbers numpy sorts the digits, which is fastest.
    by_group = np.argsort(group.astype(np.int16), kind="stable")
    sorted_w, sorted_group = given_w[by_group], group[by_group]
    climbed_w = np.cumsum(sorted_w)
    first = np.flatnonzero(np.diff(sorted_group, prepend=-2))
    below_w = np.append(0.0, climbed_w)[first]
    climbed_w -= np.repeat(below_w, np.diff(np.append(first, len(group))))
    found = np.empty(len(group))
    found[by_group] = (sorted_group < 0) | (climbed_w <= room_w[sorted_group])
    return found
