"""What the cards of a service's replicas show of the watts of one of them.

A reading counts only while it is fresh, of a sensor, and of the service alone: not of a card that
is leased to a miner or that another service marks, too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.controller.roster import Entry, Roster
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import State

SENSORS = ("measured", "emulated")
"""Qualities that a sensor has; a modelled figure teaches nothing that was not put into it."""

Row = Mapping[str, Any]


class Untaught(Exception):
    """Nothing can be learnt now; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The most that one replica draws by one look at the cards of one node.

    Attributes:
        watts_w: W.
        read_s: when the last of the cards was read, our clock.
        quality: the worst of the sensors'.
    """

    watts_w: float
    read_s: float
    quality: str


def cards(state: State, node: str, gates: frozenset[str]) -> list[Device]:
    """The GPUs of a node whose gates are among those."""
    return [
        device
        for device in state.fleet.devices
        if device.host == node and device.kind == "gpu" and device.id in gates
    ]


def alone(gates: frozenset[str], job: str, rows: Mapping[str, Row]) -> None:
    """See that no other service marks one of the gates. Raises: Untaught."""
    marks = Counter(
        str(gate) for name, row in rows.items() if name != job for gate in row.get("gates") or ()
    )
    if shared := sorted(gates & marks.keys()):
        raise Untaught(f"{', '.join(shared[:4])}: another service is on it, too")


def sample(
    state: State, roster: Roster, job: Job, cards: Sequence[Device], units: int, now_s: float
) -> Sample:
    """What the hottest replica on a node draws at most. Raises: Untaught."""
    if len(cards) < int(units * job.terms.gpus):
        raise Untaught("its replicas mark fewer GPUs than they hold")
    entries = [_read(state, roster, card, now_s) for card in cards]
    watts_w = sorted((float(one.reading["watts_w"]) for one in entries), reverse=True)
    # Which replica has which cards nobody tells; one has no more than the hottest so many.
    each = -(-len(cards) // units)
    most_w = sum(watts_w[:each]) if len(cards) >= units else sum(watts_w) / units
    worst = max((_quality(one) for one in entries), key=SENSORS.index)
    return Sample(most_w, min(one.read_s or 0.0 for one in entries), worst)


def _read(state: State, roster: Roster, card: Device, now_s: float) -> Entry:
    """The fresh reading of a card that no miner draws on. Raises: Untaught."""
    entry = roster.entries.get(card.id)
    stale_s = state.site.rules.stale_after_s
    sampled_s = float(state.seen.at_s[state.fleet.index[card.id]])
    if entry is None or entry.read_s is None or entry.reading.get("watts_w") is None:
        raise Untaught(f"{card.id}: its sensor is silent")
    # The time of the sample itself, too: a frozen sensor is read for ever.
    if now_s - entry.read_s > stale_s or now_s - sampled_s > stale_s:
        raise Untaught(f"{card.id}: its sensor is silent")
    if _quality(entry) not in SENSORS:
        raise Untaught(f"{card.id}: its watts are {_quality(entry)}, no sensor's")
    lease = entry.reading.get("lease") or {}
    mode = next((p for p in card.points if p.mode == lease.get("mode")), None)
    mines = mode is not None and mode.watts_w > card.points[0].watts_w
    if mines or entry.reading.get("hashrate_h_per_s"):
        raise Untaught(f"{card.id} is leased for mining, so its watts are not its replicas' alone")
    return entry


def _quality(entry: Entry) -> str:
    return str(entry.reading.get("quality") or entry.info.get("quality") or "unknown")
