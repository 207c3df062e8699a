"""Who keeps a machine down: a lock-out, an operator's sleep, a limit. Pure rules, no files.

A lock is a person's safety: hands may be inside the machine. So only who locked it unlocks it, and
no wake, lease or controller goes past it. Who that is, is said by the token and not by its name:
names are given again. The administrator's override is a word of its own, never implied by anything,
and is kept beside the machine for whoever asks later.
"""

from dataclasses import dataclass, replace
from typing import Literal

from wattshift_cluster.errors import Refused


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock-out: `by` whom, why, and since when (UTC, s).

    `by_id` is the id of their token; None where the lock is older than ids.
    """

    by: str
    since_s: float
    reason: str | None
    by_id: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator's sleep: lasts until any operator wakes the machine."""

    by: str
    since_s: float
    reason: str | None


@dataclass(frozen=True, slots=True)
class Override:
    """A lock that was broken: by whom, when (UTC, s), and the lock."""

    by: str
    at_s: float
    lock: Lock


@dataclass(frozen=True, slots=True)
class Restraint:
    """All that keeps one machine down.

    Attributes:
        lock, hold: None where there is none.
        limit_w, limit_by: no point above these watts is offered, and whose word that is.
        override: the last lock that was broken.
    """

    lock: Lock | None = None
    hold: Hold | None = None
    limit_w: float | None = None
    limit_by: str | None = None
    override: Override | None = None

    @property
    def why_asleep(self) -> str | None:
        """Why it may do nothing but sleep; None when it may."""
        if self.lock is not None:
            return f"locked by {_who(self.lock)}"
        if self.hold is not None:
            return f"held asleep by {_who(self.hold)}"
        return None


def _who(word: Lock | Hold) -> str:
    return word.by if word.reason is None else f"{word.by}: {word.reason}"


Action = Literal["sleep", "wake", "lock", "unlock", "limit"]


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks. `override` matters to `unlock` alone, `watts_w` to `limit` alone.

    `by` is the name of their token and `by_id` its id; None where the controller tells none.
    """

    action: Action
    by: str
    reason: str | None = None
    watts_w: float | None = None
    override: bool = False
    by_id: str | None = None


def apply(order: Order, held: Restraint, now_s: float) -> Restraint:
    """What keeps the machine down after the order. Raises: Refused, with whom to ask.

    Args:
        order: what is asked.
        held: what keeps it down now.
        now_s: UTC, s.
    """
    match order.action:
        case "lock":
            return _locked(order, held, now_s)
        case "unlock":
            return _unlocked(order, held, now_s)
        case "sleep":
            return replace(held, hold=Hold(order.by, now_s, order.reason))
        case "wake":
            if held.lock is not None:
                raise Refused(f"{held.why_asleep}; only {_whose(held.lock, order)} unlocks it")
            return replace(held, hold=None)
        case "limit":
            by = order.by if order.watts_w is not None else None
            return replace(held, limit_w=order.watts_w, limit_by=by)


def _locked(order: Order, held: Restraint, now_s: float) -> Restraint:
    if held.lock is not None and not _same(held.lock, order):
        raise Refused(f"{held.why_asleep}; only {_whose(held.lock, order)} changes that")
    since_s = now_s if held.lock is None else held.lock.since_s
    return replace(held, lock=Lock(order.by, since_s, order.reason, order.by_id))


def _same(lock: Lock, order: Order) -> bool:
    """Whether it is who locked it that asks; by name alone only where the lock knows no more."""
    if lock.by_id is None:
        return lock.by == order.by
    return lock.by_id == order.by_id


def _whose(lock: Lock, order: Order) -> str:
    """Whom to ask, in words that also tell two tokens of one name apart."""
    namesake = lock.by == order.by and not _same(lock, order)
    return f"the token {lock.by} that locked it" if namesake else lock.by


def _unlocked(order: Order, held: Restraint, now_s: float) -> Restraint:
    lock = held.lock
    if lock is None:
        raise Refused("it is not locked")
    if _same(lock, order):
        return replace(held, lock=None)
    if not order.override:
        raise Refused(f"{held.why_asleep}; only {_whose(lock, order)} unlocks it")
    return replace(held, lock=None, override=Override(order.by, now_s, lock))
