"""Which target holds: the one of the highest priority in force, among equals the lowest.

All work and mining alone have each their own: solar surplus may bind mining below a set point that
the grid gave for the whole site.
"""

from collections.abc import Sequence
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


def chosen(targets: Sequence[Target], now_s: float) -> Chosen:
    """Choose among the targets of all sources."""
    highest = {work: _of_highest(targets, work, now_s) for work in Work}
    at_odds = [
        one.id
        for equals in highest.values()
        for one in equals
        if len({other.watts_w for other in equals}) > 1
    ]
    return Chosen(_lowest(highest[Work.ALL]), _lowest(highest[Work.MINING]), tuple(sorted(at_odds)))


def _of_highest(targets: Sequence[Target], work: Work, now_s: float) -> list[Target]:
    live = [one for one in targets if one.work == work and one.in_force(now_s)]
    highest = min((one.priority for one in live), default=0)
    return [one for one in live if one.priority == highest]


def _lowest(targets: list[Target]) -> Target | None:
    return min(targets, key=lambda one: (one.watts_w, one.id), default=None)
