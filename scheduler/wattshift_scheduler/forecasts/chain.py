"""How a price moves on from where it lies: a Markov chain of its deviations, learnt by counting.

A deviation is sorted by its size into bins, finer towards the large ones. The largest are told
apart by how long they have lasted, too, for a spike of an hour goes on more often than one of a
quarter of an hour (a semi-Markov chain with few ages). What was seen seldom leans on what all ages
of its bin did.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints

QUANTILES = (0.05, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.98, 0.99)
"""Edges of the bins, by rank in the past."""

LARGE = 5
"""Bins from this one on, the largest quarter of deviations, have ages."""

AGES = 4
"""How many intervals of a large deviation are told apart; the last one holds from then on."""

LEANS = 10.0
"""What all ages of a bin did weighs as much as so many intervals that were seen of one age."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """Prices that may come, and how they follow each other.

    Attributes:
        price_usd_per_mwh: in each interval and state; shape (n, states).
        steps: chance of each state in the next interval, by that of this one; rows add up to 1;
            shape (states, states).
        state: that holds in the first interval, which is known.
    """

    price_usd_per_mwh: Floats
    steps: Floats
    state: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of deviations, in the unit of what it was learnt from.

    Attributes:
        edges: between bins, rising; shape (bins - 1,).
        middles: mean deviation of each state; shape (states,).
        steps: as of a `Prospect`.
    """

    edges: Floats
    middles: Floats
    steps: Floats

    @classmethod
    def learnt(cls, off: Floats) -> "Chain":
        """From the deviations of past intervals, one after the other; shape (past,)."""
        edges = np.quantile(off, QUANTILES)
        bins = len(edges) + 1
        bin_of = np.searchsorted(edges, off)
        counted = np.bincount(bin_of, minlength=bins)
        mean = np.bincount(bin_of, off, bins) / np.maximum(counted, 1)
        # A bin that equal figures leave empty is never reached; it stays at its edge.
        mean = np.where(counted > 0, mean, np.append(edges, edges[-1]))
        state, whose = _states(bin_of), _bins(bins)
        seen, usual = np.zeros((len(whose),) * 2), np.zeros((bins, bins))
        np.add.at(seen, (state[:-1], state[1:]), 1.0)
        np.add.at(usual, (bin_of[:-1], bin_of[1:]), 1.0)
        # What never went anywhere stays.
        usual += np.where(usual.sum(axis=1, keepdims=True) > 0, 0.0, np.eye(bins))
        usual /= usual.sum(axis=1, keepdims=True)
        for at, bin_ in enumerate(whose.tolist()):
            older = _of(np.arange(bins), np.full(bins, _age(at) + 1))
            np.add.at(seen[at], older, LEANS * usual[bin_])
        return cls(edges, mean[whose], seen / seen.sum(axis=1, keepdims=True))

    def state(self, off: Floats) -> int:
        """The state of the last of some deviations that followed each other; one at least."""
        return int(_states(np.searchsorted(self.edges, off))[-1])

    def over(self, share: float) -> Floats:
        """`steps` for intervals `share` times as long as those that it was learnt from."""
        whole = int(share)
        found = np.linalg.matrix_power(self.steps, whole)
        part = share - whole
        # A part of an interval: so much of one step, and else none.
        rest = (1.0 - part) * np.eye(len(found)) + part * self.steps
        return np.asarray(found @ rest, dtype=np.float64)


def _states(bin_of: Ints) -> Ints:
    """The state of each interval of a row: by its bin and for how long that has been large."""
    large = bin_of >= LARGE
    at = np.arange(len(bin_of))
    began = np.maximum.accumulate(np.where(large, -1, at))
    return _of(bin_of, at - began - 1)


def _of(bin_of: Ints, age: Ints) -> Ints:
    """The state of each bin and age; ages count from 0."""
    aged = LARGE + (bin_of - LARGE) * AGES + np.clip(age, 0, AGES - 1)
    return np.where(bin_of >= LARGE, aged, bin_of)


def _bins(bins: int) -> Ints:
    """The bin of each state."""
    return np.concatenate([np.arange(LARGE), np.repeat(np.arange(LARGE, bins), AGES)])


def _age(state: int) -> int:
    """For how many intervals the deviation had been large before that of a state; -1: it is not."""
    return (state - LARGE) % AGES if state >= LARGE else -1
