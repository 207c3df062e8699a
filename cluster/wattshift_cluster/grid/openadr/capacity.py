"""The most that the site may take: limits while they are known, else what it has subscribed to.

OpenADR 3.1 User Guide 8.10.1: where the scheduled IMPORT_CAPACITY_LIMITs are exhausted the
IMPORT_CAPACITY_SUBSCRIPTION holds, and after a power outage all limits are disregarded until the
VTN has been asked again. Both are laid out ahead as plain caps with their spans, so that the change
comes to the second, whether or not anybody answers or even listens then.

A subscription that is displaced for a while is one cap in pieces: they share its id, so that an
operator's override of it holds through everything that is told meanwhile.

What was subscribed to in one program is displaced by that program's limits alone. A reservation
adds to its program's subscription; of several at once the smallest counts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from wattshift_cluster.grid.openadr.asked import Asked
from wattshift_cluster.grid.openadr.meanings import Becomes
from wattshift_cluster.grid.openadr.timeline import Held, Piece, bounds, cut, held
from wattshift_scheduler.signals.words import Cap, CapKind

FALLBACK_ID = "subscription"
_ALL = (Becomes.LIMIT, Becomes.SUBSCRIPTION, Becomes.RESERVATION)
_Amount = Callable[[Sequence[Asked]], float | None]


def capacity_caps(
    asked: Iterable[Asked], fallback_w: float | None, origin: str, *, outage: bool
) -> tuple[Cap, ...]:
    """The caps of all limits, subscriptions and reservations.

    Args:
        asked: what events ask; everything but those three is left out.
        fallback_w: cap where the VTN tells none, W; None: there is none.
        origin: of the caps.
        outage: whether the grid's power failed since the VTN was last heard.
    """
    wanted = (Becomes.SUBSCRIPTION,) if outage else _ALL
    told = [one for one in asked if one.becomes in wanted]
    programs: dict[str, list[Asked]] = defaultdict(list)
    for one in told:
        programs[one.program].append(one)
    caps = [_limit(one, origin) for one in told if one.becomes is Becomes.LIMIT]
    for program, asks in programs.items():
        caps += _subscribed(program, asks, origin)
    if fallback_w is not None:
        caps += _uncovered(told, fallback_w, origin)
    return tuple(caps)


def displaces(one: Asked) -> bool:
    """Whether a limit stands in place of a subscription; one that only a notice told does not."""
    return one.becomes is Becomes.LIMIT and one.confirmed


def _limit(one: Asked, origin: str) -> Cap:
    return Cap(
        one.id,
        origin,
        one.amount,
        one.starts_s,
        one.ends_s,
        kind=CapKind.CONTRACT,
        priority=one.priority,
        name=one.label,
    )


def _subscribed(program: str, asks: Sequence[Asked], origin: str) -> Iterator[Cap]:
    if not any(one.becomes is Becomes.SUBSCRIPTION for one in asks):
        return
    for piece in _joined(cut(_spans(asks)), _cap_of_piece):
        amount_w = piece.items[0]
        starts_s, ends_s = bounds(piece)
        name = f"{FALLBACK_ID}/{program}"
        yield Cap(name, origin, amount_w, starts_s, ends_s, kind=CapKind.CONTRACT)


def _cap_of_piece(items: Sequence[Asked]) -> float | None:
    """What holds beside the limits, W; None: a limit does, or nothing is subscribed to."""
    if any(displaces(one) for one in items):
        return None
    subscribed = [one.amount for one in items if one.becomes is Becomes.SUBSCRIPTION]
    if not subscribed:
        return None
    granted = [one.amount for one in items if one.becomes is Becomes.RESERVATION and one.confirmed]
    return min(subscribed) + min(granted, default=0.0)


def _uncovered(told: Sequence[Asked], fallback_w: float, origin: str) -> Iterator[Cap]:
    covers = [one for one in told if one.becomes is Becomes.SUBSCRIPTION or displaces(one)]

    def amount(items: Sequence[Asked]) -> float | None:
        return None if items else fallback_w

    for piece in _joined(cut(_spans(covers)), amount):
        starts_s, ends_s = bounds(piece)
        yield Cap(FALLBACK_ID, origin, fallback_w, starts_s, ends_s, kind=CapKind.CONTRACT)


def _spans(asks: Iterable[Asked]) -> Iterator[Held[Asked]]:
    return (held(one.starts_s, one.ends_s, one) for one in asks)


def _joined(pieces: Iterable[Piece[Asked]], amount: _Amount) -> Iterator[Piece[float]]:
    """Pieces that have an amount; neighbours with the same one are joined."""
    last: Piece[float] | None = None
    for piece in pieces:
        value = amount(piece.items)
        if last is not None and value == last.items[0]:
            last = Piece(last.starts_s, piece.ends_s, last.items)
            continue
        if last is not None:
            yield last
        last = None if value is None else Piece(piece.starts_s, piece.ends_s, (value,))
    if last is not None:
        yield last
