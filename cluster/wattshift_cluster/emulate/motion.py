"""How a draw moves: straight pieces of watts over time, each in a phase, then rest.

A command lays the whole path at once; afterwards the draw at any moment is a matter of looking up,
so that a thousand machines cost nothing while nobody asks.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Phase(StrEnum):
    """What a machine is doing. Firmwares show it in their own words."""

    OFF = "off"
    """Its outlet is off."""
    BOOTING = "booting"
    """Its control board starts; nothing answers yet."""
    RESTARTING = "restarting"
    """Mining restarts because a set point changed; no hashes."""
    WARMING = "warming"
    """Boards are brought up; watts but no hashes."""
    RAMPING = "ramping"
    """On its way up or down, hashing."""
    TUNING = "tuning"
    """Settling in steps, hashing."""
    STEADY = "steady"
    """At its set point."""
    HOT = "hot"
    """Shut down by heat."""
    ASLEEP = "asleep"
    """Told to sleep, however far the draw has fallen."""

    @property
    def hashes(self) -> bool:
        """Whether a machine hashes in this phase, as far as its watts allow."""
        return self in _HASHING


_HASHING = frozenset((Phase.RAMPING, Phase.TUNING, Phase.STEADY))


@dataclass(frozen=True, slots=True)
class Leg:
    """One straight piece.

    Attributes:
        phase: meanwhile.
        ends_s: on the machine's clock.
        watts_w: at its end; it begins where the piece before ended.
    """

    phase: Phase
    ends_s: float
    watts_w: float


@dataclass(frozen=True, slots=True)
class Motion:
    """A path from `start_w` at `start_s` through `legs`, and `rest` at its end for ever."""

    start_s: float
    start_w: float
    legs: tuple[Leg, ...]
    rest: Phase

    def at(self, now_s: float) -> tuple[float, Phase]:
        """Watts and phase at a moment; the start holds for earlier ones."""
        legs = self.legs
        if not legs:
            return self.start_w, self.rest
        if now_s >= legs[-1].ends_s:
            return legs[-1].watts_w, self.rest
        from_s, from_w = self.start_s, self.start_w
        for leg in legs:
            if now_s < leg.ends_s:
                share = max(0.0, now_s - from_s) / (leg.ends_s - from_s)
                return from_w + (leg.watts_w - from_w) * share, leg.phase
            from_s, from_w = leg.ends_s, leg.watts_w
        raise AssertionError("the last leg's end was looked at first")

    @property
    def goal_w(self) -> float:
        """Where it ends, W."""
        return self.legs[-1].watts_w if self.legs else self.start_w

    def end_s(self, phase: Phase) -> float:
        """When the last leg of `phase` ends; the start where there is none."""
        return max((leg.ends_s for leg in self.legs if leg.phase is phase), default=self.start_s)


class Path:
    """Lays a motion leg by leg.

    Args:
        start_s, start_w: where it begins.
        down_w_per_s, up_w_per_s: how fast this machine moves.
    """

    def __init__(
        self, start_s: float, start_w: float, *, down_w_per_s: float, up_w_per_s: float
    ) -> None:
        self._start = start_s, start_w
        self._now_s, self._watts_w = start_s, start_w
        self._down_w_per_s, self._up_w_per_s = down_w_per_s, up_w_per_s
        self._legs: list[Leg] = []

    @property
    def watts_w(self) -> float:
        """Where it has come to, W."""
        return self._watts_w

    def hold(self, phase: Phase, for_s: float) -> Self:
        """Stay for a time."""
        if for_s > 0.0:
            self._now_s += for_s
            self._legs.append(Leg(phase, self._now_s, self._watts_w))
        return self

    def move(self, phase: Phase, watts_w: float) -> Self:
        """Go to other watts at the machine's own rate."""
        change_w = watts_w - self._watts_w
        rate_w_per_s = self._up_w_per_s if change_w > 0.0 else self._down_w_per_s
        self._watts_w = watts_w
        return self.hold(phase, abs(change_w) / rate_w_per_s)

    def spend(self, phase: Phase, watts_w: float, for_s: float) -> Self:
        """Be for a time at other watts: go there first, stay for what is left of it."""
        if for_s <= 0.0:
            return self
        began_s = self._now_s
        self.move(phase, watts_w)
        return self.hold(phase, began_s + for_s - self._now_s)

    def jump(self, watts_w: float) -> Self:
        """Be at other watts at once: only an outlet does that, at the very beginning."""
        assert not self._legs, "a path that has begun does not jump"
        self._start = self._now_s, watts_w
        self._watts_w = watts_w
        return self

    def end(self, rest: Phase) -> Motion:
        """The motion."""
        return Motion(*self._start, tuple(self._legs), rest)
