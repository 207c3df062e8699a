"""Which target holds: the one of the highest priority in force, among equals the lowest."""

from collections.abc import Iterable
from dataclasses import dataclass

from wattshift_scheduler.signals.words import Target, Work


@dataclass(frozen=True, slots=True)
class Chosen:
    """Targets that hold now.

    Attributes:
        all_work, mining: the one that binds all work, and the one that binds mining alone.
        conflict: ids of targets of equal priority that contradict each other.
    """

    all_work: Target | None = None
    mining: Target | None = None
    conflict: tuple[str, ...] = ()


def chosen(targets: Iterable[Target], now_s: float) -> Chosen:
    """Choose among the targets of all sources."""
    live = [one for one in targets if one.in_force(now_s)]
    if not live:
        return Chosen()
    highest = min(one.priority for one in live)
    live = [one for one in live if one.priority == highest]
    by_work = {work: [one for one in live if one.work == work] for work in Work}
    at_odds = [
        one.id
        for equals in by_work.values()
        for one in equals
        if len({other.watts_w for other in equals}) > 1
    ]
    return Chosen(_lowest(by_work[Work.ALL]), _lowest(by_work[Work.MINING]), tuple(sorted(at_odds)))


def _lowest(targets: list[Target]) -> Target | None:
    return min(targets, key=lambda one: (one.watts_w, one.id), default=None)
