"""What is drawn at the least, by feeder, against the cap and each feeder's limit; in words.

Two figures tell it, under the same two names everywhere. *Asked* is what is drawn with every device
at its lowest point and all compute gone: what the site can be asked down to. *Counted* is what has
to be reckoned with now: a device that is not seen to obey at its ceiling, compute until it has left
(I3). A cap is held against the whole site, and its margin counts in neither figure; every other
feeder is held against its limit less its margin.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, summed
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.site import Site
from wattshift_scheduler.state import Outlook, State

LEAST_W = 0.5
"""Less is no shortfall, but how watts are rounded."""

NAMED = 5
"""Devices and nodes named in one sentence; the rest are counted."""

FEEDERS_MOST = 10
"""Feeders with an alarm of their own; the others share one. A controller that starts counts all
that has not answered yet, and so does one whose network is down."""

MEND = "hang some of it on another feeder, cut its supply, or raise the limit if the breaker allows"
SEE_TO = "see to it (wattshift explain ID), or cut its supply"

Cause = tuple[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Short:
    """A feeder whose limit lies below what is drawn there at the least, W.

    Attributes:
        feeder: its index in the tree.
        usable_w: what it may carry after its margin.
        asked_w, counted_w: what is drawn there at the least, as above.
    """

    feeder: int
    usable_w: float
    asked_w: float
    counted_w: float

    @property
    def for_good(self) -> bool:
        """Whether it stays short whatever obeys."""
        return self.asked_w > self.usable_w + LEAST_W

    @property
    def missed_w(self) -> tuple[float, float]:
        """By how much its limit is missed, asked and counted, W."""
        over_w = self.asked_w - self.usable_w
        return (over_w if self.for_good else 0.0), self.counted_w - self.usable_w


def asked_w(state: State, outlook: Outlook) -> Floats:
    """What is drawn under each feeder with everything asked down, W; shape (feeders,).

    Load that nobody leases counts as at the last decision: what the meter shows beyond all that is
    explained at the root, work on nodes that asked for no watts at theirs.
    """
    tree, fleet, unasked_w = state.site.tree, state.fleet, budget.unasked_w(state)
    lowest_w = summed(fleet.feeder, state.ladder.base_w, len(tree.names))
    found: Floats = tree.totals(lowest_w + unasked_w)
    found[0] += max(outlook.other_w - float(unasked_w.sum()), 0.0)
    return found


def missed(site: Site, least_w: Floats) -> tuple[float, ...]:
    """What is counted under each feeder at the least, where any may carry less; empty: none may.

    Args:
        site: its feeders and margins. A margin that is widened for a stale meter makes none short.
        least_w: what is counted; shape (feeders,).
    """
    usable_w = site.tree.usable_w(site.rules.margin_share)
    return tuple(least_w.tolist()) if (least_w > usable_w + LEAST_W).any() else ()


def short_feeders(state: State, outlook: Outlook) -> tuple[Short, ...]:
    """The feeders that are short, the root first.

    The root is one of them only where it is short for good: while something does not obey, the cap
    tells of it.

    Args:
        state: its site and devices.
        outlook: of this decision.
    """
    if not outlook.feeder_counted_w:
        return ()
    counted_w = np.array(outlook.feeder_counted_w)
    usable_w = state.site.tree.usable_w(state.site.rules.margin_share)
    least_w = asked_w(state, outlook)
    found = (
        Short(int(i), float(usable_w[i]), float(least_w[i]), float(counted_w[i]))
        for i in np.flatnonzero(counted_w > usable_w + LEAST_W)
    )
    return tuple(one for one in found if one.feeder or one.for_good)


def missed_w(state: State, outlook: Outlook) -> tuple[float, float]:
    """By how much the cap in force is missed at the least, asked and counted, W; 0: it is kept."""
    if not outlook.shortfall_w > LEAST_W:
        return 0.0, 0.0
    over_w = float(asked_w(state, outlook)[0]) - outlook.cap_w
    return (over_w if over_w > LEAST_W else 0.0), outlook.shortfall_w


def on_the_way(state: State, feeder: int) -> str:
    """The short feeder between one and the connection, in half a sentence; empty: none is.

    That nearest to the connection is told: while it is short nothing below it may rise.
    """
    tree, counted_w = state.site.tree, state.outlook.feeder_counted_w
    if not counted_w:
        return ""
    usable_w = tree.usable_w(state.site.rules.margin_share)
    for i in tree.path(feeder):
        if i and counted_w[i] > usable_w[i] + LEAST_W:
            told = f"feeder {tree.names[i]} may carry {usable_w[i]:,.0f} W, and {counted_w[i]:,.0f}"
            return f"{told} W are counted on it at the least (wattshift explain {tree.names[i]})"
    return ""


def causes(state: State, outlook: Outlook) -> Iterator[Cause]:
    """The alarms of a cap and of feeders that lie below what is drawn at the least."""
    if outlook.shortfall_w > LEAST_W:
        yield "cap-below-floor", ("critical", cap_words(state, outlook))
    found = short_feeders(state, outlook)
    for one in found[:FEEDERS_MOST]:
        kind = "feeder-below-floor" if one.for_good else "feeder-short"
        name = state.site.tree.names[one.feeder]
        yield f"{kind}:{name}", ("critical", feeder_words(state, one))
    if rest := [state.site.tree.names[one.feeder] for one in found[FEEDERS_MOST:]]:
        text = f"{len(rest)} more feeders may carry less than is counted there at the least: "
        yield "feeder-short", ("critical", text + _named(rest))


def cap_words(state: State, outlook: Outlook) -> str:
    """By how much the cap in force is missed, asked and counted, and what makes the difference."""
    cap_w, counted_w = outlook.cap_w, outlook.counted_w
    least_w = float(asked_w(state, outlook)[0])
    missed_w, why = counted_w - cap_w, _unsure(state, 0)
    if least_w > cap_w + LEAST_W:
        text = f"the cap of {cap_w:,.0f} W lies {least_w - cap_w:,.0f} W below the {least_w:,.0f} W"
        text += " that the site can be asked down to"
        if counted_w > least_w + LEAST_W:
            text += f", and {missed_w:,.0f} W below the {counted_w:,.0f} W that are counted{why}"
        return text
    return (
        f"the cap of {cap_w:,.0f} W lies {missed_w:,.0f} W below the {counted_w:,.0f} W that are "
        f"counted at the least{why}; the site can be asked down to {least_w:,.0f} W"
    )


def feeder_words(state: State, one: Short) -> str:
    """What a short feeder may carry, what stands under it at its least, and what to do."""
    tree = state.site.tree
    name, limit_w = tree.names[one.feeder], float(tree.limit_w[one.feeder])
    text = f"feeder {name} may carry {one.usable_w:,.0f} W (its limit of {limit_w:,.0f} W less its"
    text += " margin)"
    why = _unsure(state, one.feeder)
    if one.for_good:
        text += f", and what hangs on it can be asked down to {one.asked_w:,.0f} W"
        text += f": {_resting(state, one)}"
        if one.counted_w > one.asked_w + LEAST_W:
            text += f"; {one.counted_w:,.0f} W are counted{why}"
        return f"{text}; {MEND}"
    text += f", and {one.counted_w:,.0f} W are counted on it at the least{why}"
    return f"{text}; it can be asked down to {one.asked_w:,.0f} W: {SEE_TO}"


def _under(state: State, feeder: int) -> Bools:
    """Devices that hang on a feeder or below it; shape (n,)."""
    tree = state.site.tree
    found: Bools = np.isin(state.fleet.feeder, tree.below[tree.above == feeder])
    return found


def _resting(state: State, one: Short) -> str:
    """What stands under a feeder with everything asked down: its devices, and what is no device."""
    base_w, under = state.ladder.base_w, _under(state, one.feeder)
    rows = np.flatnonzero(under & (base_w > 0.0))
    rows = rows[np.argsort(-base_w[rows], kind="stable")]
    devices_w = float(base_w[rows].sum())
    parts = []
    if len(rows):
        named = [f"{state.fleet.devices[i].id} {base_w[i]:,.0f} W" for i in rows[:NAMED]]
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        count = f"{len(rows)} device{'' if len(rows) == 1 else 's'}"
        parts.append(f"{count} at the lowest point {devices_w:,.0f} W ({', '.join(named)}{more})")
    if one.asked_w - devices_w > LEAST_W:
        parts.append(f"load that nobody leases {one.asked_w - devices_w:,.0f} W")
    return ", ".join(parts)


def _unsure(state: State, feeder: int) -> str:
    """Why more is counted under a feeder than is asked; empty where nothing is."""
    facts, base_w, site = state.present.facts, state.ladder.base_w, state.site
    high = _under(state, feeder) & (facts.least_w > base_w + LEAST_W)
    parts = []
    if high.any():
        ids = [state.fleet.devices[i].id for i in np.flatnonzero(high)]
        parts.append(f"not seen to obey, and so counted at the ceiling: {_named(ids)}")
    works = [
        f"{node.name} {state.nodes[node.name].bound_w:,.0f} W"
        for node in site.nodes
        if feeder in site.tree.path(site.tree.index[node.feeder])
        and state.nodes[node.name].bound_w > LEAST_W
    ]
    if works:
        parts.append(f"not seen to leave its node: work on {_named(works)}")
    return f" ({'; '.join(parts)})" if parts else ""


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
