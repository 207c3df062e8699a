"""Devices that agents announce and that no lease may name: what is wrong with each, as alarms.

A device that cannot exist as it was told (points that do not rise, watts that are no number) is
kept out by itself; the others of its agent go on. One that another agent has is refused until that
one no longer announces it: two agents would otherwise command one machine (I6).
"""

from collections.abc import Callable, Mapping, Set

from wattshift_cluster.controller.agent_words import Offer
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import Alarm

NAMED = 5
"""Devices named in one alarm; the rest are counted."""


class Refusals:
    """What of the agents' inventories is refused.

    Attributes:
        alarms: that hold now, by id: one for each agent with a refused device.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        """Start with nothing. Args: tell: takes decisions, to be written down and told."""
        self.alarms: Mapping[str, Alarm] = {}
        self._tell = tell
        self._owner: dict[str, str] = {}
        self._refused: dict[str, Mapping[str, str]] = {}
        self._twice: dict[str, Set[str]] = {}

    def sifted(self, agent: str, offer: Offer, now_s: float) -> tuple[Device, ...]:
        """The devices of an inventory that may be leased; tells of those that may not, once each.

        Args:
            agent: who announces it; what it announced before is forgotten.
            offer: the inventory.
            now_s: our clock, s.
        """
        for name in [name for name, owner in self._owner.items() if owner == agent]:
            del self._owner[name]
        taken = tuple(one for one in offer.devices if one.id not in self._owner)
        twice = {one.id for one in offer.devices} - {one.id for one in taken}
        self._owner.update((one.id, agent) for one in taken)
        refused = dict(offer.refused)
        for name in twice:
            refused[name] = f"agent {self._owner[name]} has a device of that id"
        before = self._refused.get(agent, {})
        self._refused[agent], self._twice[agent] = refused, twice
        told = [
            Decision(now_s, name, "refused", f"its agent {agent} announces it, but {why}", {})
            for name, why in refused.items()
            if before.get(name) != why
        ]
        told += self._alarmed(agent, refused, now_s)
        if told:
            self._tell(*told)
        return taken

    def of_others(self, agent: str) -> Set[str]:
        """The devices that an agent announces and another one has."""
        return self._twice.get(agent, frozenset())

    def freed(self, agent: str) -> bool:
        """Whether a device that this agent has is no longer another one's, so that it must be asked
        again what it has."""
        return any(name not in self._owner for name in self.of_others(agent))

    def _alarmed(self, agent: str, refused: Mapping[str, str], now_s: float) -> list[Decision]:
        key = f"device-refused:{agent}"
        before = self.alarms.get(key)
        kept = {name: alarm for name, alarm in self.alarms.items() if name != key}
        if not refused:
            self.alarms = kept
            return [] if before is None else [Decision(now_s, key, "all clear", before.text, {})]
        rows = [f"{name}: {why}" for name, why in sorted(refused.items())]
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        text = f"agent {agent} announces what nobody can lease: {'; '.join(rows[:NAMED])}{more}"
        since_s = now_s if before is None else before.since_s
        self.alarms = {**kept, key: Alarm(key, "critical", text, since_s)}
        if before is not None and before.text == text:
            return []
        return [Decision(now_s, key, "alarm", text, {"severity": "critical"})]
