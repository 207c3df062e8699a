"""Which outlet may be switched now: a pure decision over what is known of every outlet.

Off is a matter of safety and waits for nothing but the owner's word. On is a matter of care: one
outlet of a feeder at a time, only while the feeder can carry what the machine draws when its power
comes back, never what is locked out or in an unknown state, and not before the relay has rested. As
every cycle holds one switching on, the rest bounds the wear of both.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

RETRY_S = 1.0
"""An outlet that did not follow is commanded again so often."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """One outlet and what hangs on it.

    Attributes:
        key: PDU and outlet.
        device: behind it.
        feeder: that feeds it.
        power_on_w: draw of the device when its power comes back, W.
        cut: whether the owner allows to take its power away.
        rest_s: from its last switching to the next switching on, s.
    """

    key: Key
    device: str
    feeder: str
    power_on_w: float
    cut: bool
    rest_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one outlet.

    Attributes:
        wanted: True on, False off, None: left as it is.
        on: as last read; None: unknown.
        watts_w: draw, W; None: unknown.
        switched_s: when it was last commanded, or seen to change by itself.
        tried_s: when it was last commanded.
    """

    wanted: bool | None = None
    on: bool | None = None
    watts_w: float | None = None
    switched_s: float = -math.inf
    tried_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Carrier:
    """A feeder while outlets are switched on.

    Attributes:
        limit_w: what it may carry, W.
        stagger_s: least time between two switchings on, s.
        boot_s: after its switching on an outlet counts with at least its power-on watts, s.
    """

    limit_w: float
    stagger_s: float
    boot_s: float


@dataclass(frozen=True, slots=True)
class Switching:
    """One command to be given now."""

    place: Place
    on: bool


def decide(
    places: Sequence[Place],
    known: Mapping[Key, Known],
    carriers: Mapping[str, Carrier],
    locked: Collection[str],
    now_s: float,
) -> list[Switching]:
    """The commands of this moment: cuts first, then at most one switching on per feeder."""
    cuts = [Switching(place, on=False) for place in places if _cut(place, known[place.key], now_s)]
    rises: list[Switching] = []
    for feeder, carrier in carriers.items():
        mine = [place for place in places if place.feeder == feeder]
        raised_s = max(
            (known[p.key].switched_s for p in mine if known[p.key].on is not False),
            default=-math.inf,
        )
        if now_s < raised_s + carrier.stagger_s:
            continue
        free_w = carrier.limit_w - carried_w(mine, known, carrier, now_s)
        able = (p for p in mine if _rise(p, known[p.key], locked, now_s) and p.power_on_w <= free_w)
        first = next(able, None)
        if first is not None:
            rises.append(Switching(first, on=True))
    return cuts + rises


def carried_w(
    places: Sequence[Place], known: Mapping[Key, Known], carrier: Carrier, now_s: float
) -> float:
    """What a feeder must be counted with, W.

    An outlet whose state or draw is unknown, or that was switched on just now, counts with what its
    device draws when its power comes back.
    """
    total_w = 0.0
    for place in places:
        one = known[place.key]
        if one.on is False:
            continue
        fresh = now_s < one.switched_s + carrier.boot_s
        if one.on is None or one.watts_w is None:
            total_w += max(place.power_on_w, one.watts_w or 0.0)
        else:
            total_w += max(one.watts_w, place.power_on_w) if fresh else one.watts_w
    return total_w


def _cut(place: Place, one: Known, now_s: float) -> bool:
    due = now_s >= one.tried_s + RETRY_S
    return one.wanted is False and place.cut and one.on is not False and due


def _rise(place: Place, one: Known, locked: Collection[str], now_s: float) -> bool:
    rested = now_s >= one.switched_s + place.rest_s and now_s >= one.tried_s + RETRY_S
    return one.wanted is True and one.on is False and place.device not in locked and rested
