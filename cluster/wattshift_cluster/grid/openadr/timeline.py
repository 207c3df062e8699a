"""A timeline cut wherever anything begins or ends, with what holds in each piece."""

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Held(Generic[Item]):
    """Something that holds for a span, unix time, s; minus and plus infinity are open."""

    starts_s: float
    ends_s: float
    item: Item


@dataclass(frozen=True, slots=True)
class Piece(Generic[Item]):
    """A span within which nothing begins or ends, and what holds in it."""

    starts_s: float
    ends_s: float
    items: tuple[Item, ...]


def held(starts_s: float | None, ends_s: float | None, item: Item) -> Held[Item]:
    """Something that holds for a span whose ends may be open (None)."""
    return Held(
        -math.inf if starts_s is None else starts_s, math.inf if ends_s is None else ends_s, item
    )


def cut(everything: Iterable[Held[Item]]) -> Iterator[Piece[Item]]:
    """Pieces from minus to plus infinity, in order; pieces in which nothing holds are among them.

    Spans without a length are left out.
    """
    rising = sorted(
        (one for one in everything if one.starts_s < one.ends_s), key=lambda one: one.starts_s
    )
    ending: list[tuple[float, int]] = []
    holding: dict[int, Item] = {}
    at_s, begun = -math.inf, 0
    while True:
        while begun < len(rising) and rising[begun].starts_s <= at_s:
            holding[begun] = rising[begun].item
            heapq.heappush(ending, (rising[begun].ends_s, begun))
            begun += 1
        next_s = ending[0][0] if ending else math.inf
        if begun < len(rising):
            next_s = min(next_s, rising[begun].starts_s)
        yield Piece(at_s, next_s, tuple(holding.values()))
        if next_s == math.inf:
            return
        at_s = next_s
        while ending and ending[0][0] <= at_s:
            del holding[heapq.heappop(ending)[1]]


def bounds(piece: Piece[Item]) -> tuple[float | None, float | None]:
    """The ends of a piece, None where it is open."""
    return (
        None if piece.starts_s == -math.inf else piece.starts_s,
        None if piece.ends_s == math.inf else piece.ends_s,
    )
