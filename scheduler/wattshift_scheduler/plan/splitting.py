"""Kinds split by the feeders that can be full: a class hangs wholly under a limit, or not at all.

As many classes as a plan may have are given to the feeders with the most value at stake. The rest
are loose: they get no class of their own, and the points of the devices under them are cut instead.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Ints
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.plan.binding import below
from wattshift_scheduler.plan.limits import MOST_LIMITS


@dataclass(frozen=True, slots=True)
class Split:
    """Classes of devices by kind and by the limits that they hang under.

    Attributes:
        of: the class of each device; shape (n,).
        kind: the kind that each class is of; shape (classes,).
        limits, loose: columns of feeders with a limit of their own, and of the others.
        under: columns of the limits that each class hangs under, the nearest last.
    """

    of: Ints
    kind: Ints
    limits: Ints
    loose: Ints
    under: tuple[tuple[int, ...], ...]


def split(tree: FeederTree, feeder: Ints, alike: Ints, ranked: Ints, most: int) -> Split:
    """Split kinds by feeders as long as there are at most `most` classes.

    Args:
        tree: the feeders.
        feeder, alike: the feeder and the kind of each device, kinds from 0 on; shape (n,).
        ranked: columns of feeders that can be full, those first that go first.
        most: classes that there may be.
    """
    # All devices of one kind on one feeder fare alike.
    wide = len(tree.names)
    pairs, pair = np.unique(alike * wide + feeder, return_inverse=True)
    label, at = pairs // wide, pairs % wide
    kind = np.arange(int(label.max(initial=-1)) + 1)
    limits: list[int] = []
    loose: list[int] = []
    for one in ranked.tolist():
        inside = below(tree, one)[at]
        many = np.bincount(label, minlength=len(kind))
        some = np.bincount(label[inside], minlength=len(kind))
        mixed = np.flatnonzero((some > 0) & (some < many))
        if len(kind) + len(mixed) > most or len(limits) >= MOST_LIMITS:
            loose.append(one)
            continue
        limits.append(one)
        fresh = np.full(len(kind), -1)
        fresh[mixed] = len(kind) + np.arange(len(mixed))
        moves = inside & (fresh[label] >= 0)
        label = np.where(moves, fresh[label], label)
        kind = np.append(kind, kind[mixed])
    first = np.zeros(len(kind), dtype=np.int64)
    first[label[::-1]] = at[::-1]
    marks = [(one, below(tree, one)) for one in sorted(limits, key=lambda i: int(tree.depth[i]))]
    under = tuple(tuple(one for one, carried in marks if carried[i]) for i in first.tolist())
    whole = np.asarray(label[pair.reshape(-1)], dtype=np.int64)
    return Split(whole, kind, _columns(limits), _columns(loose), under)


def _columns(found: list[int]) -> Ints:
    return np.array(found, dtype=np.int64)
