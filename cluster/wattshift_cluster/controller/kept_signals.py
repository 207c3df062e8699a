"""What sources of signals said, as the journal keeps it, so that a restart lifts no cap.

A word that a feed said holds after a restart until that source has spoken again; one that a person
injected holds until it is replaced. A source that the site file no longer names is dropped.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.events import SignalChanged
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.signals.words import (
    Cap,
    CapKind,
    GridEvent,
    Override,
    Signals,
    Target,
    Work,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One source's word; `fed`: a feed of the site file said it, and no person."""

    word: SignalChanged
    fed: bool

    @property
    def empty(self) -> bool:
        """Whether nothing is left of it: a price is not kept, since it is told anew or unknown."""
        word = self.word
        return not (word.caps or word.targets or word.overrides or word.events)


def told(word: SignalChanged) -> tuple[object, ...]:
    """What of a word is kept; two that are equal here need no new row."""
    return word.caps, word.targets, word.overrides, word.events


def body(word: SignalChanged) -> str:
    """A word as JSON."""
    return json.dumps(
        {
            "caps": [_row(one) for one in word.caps],
            "targets": [_row(one) for one in word.targets],
            "overrides": [_row(one) for one in word.overrides],
            "events": [_row(one) for one in word.events],
        }
    )


def read(source: str, text: str) -> SignalChanged:
    """The word of a row. Raises: ValueError, where it is none."""
    rows = json.loads(text)
    try:
        return SignalChanged(
            source,
            tuple(Cap(**{**row, "kind": CapKind(row["kind"])}) for row in rows["caps"]),
            targets=tuple(Target(**{**row, "work": Work(row["work"])}) for row in rows["targets"]),
            overrides=tuple(Override(**row) for row in rows["overrides"]),
            events=tuple(GridEvent(**row) for row in rows["events"]),
        )
    except (KeyError, TypeError, SiteInvalid) as fault:
        raise ValueError(f"what {source} said cannot be read: {fault}") from fault


def sorted_out(kept: Mapping[str, Kept], named: Iterable[str]) -> tuple[Signals, tuple[str, ...]]:
    """What a controller starts with, and the sources that are dropped.

    Args:
        kept: from the journal.
        named: sources of the site file.
    """
    stay = {OPERATOR, *named}
    gone = tuple(name for name, one in kept.items() if one.fed and name not in stay)
    words = {name: one.word for name, one in kept.items() if name not in gone}
    operator = words.get(OPERATOR)
    signals = Signals(
        {name: word.caps for name, word in words.items()},
        targets={name: word.targets for name, word in words.items()},
        overrides=() if operator is None else operator.overrides,
        events={name: word.events for name, word in words.items()},
    )
    return signals, gone


def _row(one: Cap | Target | Override | GridEvent) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}
