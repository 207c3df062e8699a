"""One ASIC's walk down its operating points and back, measured: what it really draws at each.

The walk only ever lowers what a lease asks: `under` stands between the lease and the command, and
locks, limits, heat and rests hold as always. A point is measured once the machine was seen to obey,
has had its settling time and holds still. The way back is one step, to what the lease says then,
because some firmware restarts its work at every command. Pure: looks and times come in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.agent.asics.profile_looks import (
    Figures,
    Levels,
    Look,
    figures_of,
    levels_of,
    settle_s,
    steady,
)
from wattshift_cluster.agent.asics.wish import Asked
from wattshift_cluster.asic.driver import SLEEP, AsicPoint
from wattshift_cluster.fleet.curtail import Command, State

LEASE_SLACK = 0.001
"""Share by which a renewed lease may lie below a point: both sides round."""

BACK_SHARE = 0.9
"""Of what it drew before, from which on it counts as back."""

MOST_LOOKS = 8192
"""Kept of one point: more than two hours at one a second."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """How long each point is looked at, s.

    Attributes:
        looks, window_s: a settled window has at least so many looks and lasts so long. Firmware
            renews its watts every few seconds; a shorter window would show one value. The figures
            are those of its second half: the end of a ramp may hide at its beginning. Below 16
            looks a straight ramp passes for noise.
        patience_s: with three times the point's own settling time, until it is given up.
        gate_s: for a wake, which rests, cools and queues before it is even commanded.
    """

    looks: int = 16
    window_s: float = 15.0
    patience_s: float = 60.0
    gate_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One point as it was measured.

    Attributes:
        way: "down", or "back" at the end.
        offered_w: what it is said to draw, W.
        figures: what it drew.
        settle_s: from the accepted command to the settled draw; None where none was given.
        seconds: that this point took in all.
        settled: whether it held still.
    """

    mode: str
    way: str
    offered_w: float
    figures: Figures
    settle_s: float | None
    seconds: float
    settled: bool


class Walk:
    """One run.

    Attributes:
        done: it holds the machine down no more.
        aborted: why it ended early; None when it did not.
        visits: the points measured so far.
    """

    def __init__(
        self,
        asked: Asked,
        steps: Sequence[AsicPoint],
        now_s: float,
        *,
        points: Sequence[AsicPoint] = (),
        over: float = 1.05,
        tempo: Tempo | None = None,
    ) -> None:
        """Plan it.

        Args:
            asked: by the lease in force.
            steps: points to measure, falling; the first is the one that the lease asks for.
            now_s: boot clock, s.
            points: all that it has, to know a lease that falls; at least the steps.
            over: one and the share by which a draw may exceed its point.
            tempo: how long each point is looked at.
        """
        assert steps, "a walk has a point to begin with"
        self.done = False
        self.aborted: str | None = None
        self.visits: list[Visit] = []
        self.steps = tuple(steps)
        self._over, self._tempo = over, tempo or Tempo()
        self._asked = asked
        self._watts_w = {one.mode: one.watts_w for one in (*points, *steps)}
        self._lowered: str | None = None
        self._at = 0
        self._entered_s = self._began_s = now_s
        self._order: int | None = None
        self._accepted_s: float | None = None
        self._looks: list[Look] = []
        self._before: Levels = {}
        self._first: Levels = {}

    @property
    def at(self) -> AsicPoint | None:
        """The point that is measured now; None on the way back and after the end."""
        return self.steps[self._at] if not self.done and self._at < len(self.steps) else None

    @property
    def expected_s(self) -> float:
        """How long all of it takes if each point settles in its own time, s."""
        tempo = self._tempo
        moving_s = sum(one.transition_s for one in (*self.steps[1:], self.steps[0]))
        return moving_s + (len(self.steps) + 1) * max(tempo.window_s, float(tempo.looks))

    def under(self, asked: Asked) -> Asked:
        """What to ask of the machine while its lease asks this; never more."""
        self._asked, point = asked, self.at
        if point is None or asked.mode == point.mode:
            return asked
        most_w = self._watts_w.get(asked.mode, asked.watts_w)
        if min(most_w, asked.watts_w * (1.0 + LEASE_SLACK)) < point.watts_w:
            self._lowered = f"its lease fell to {asked.mode} at {asked.watts_w:,.0f} W"
            return asked
        if point.mode == SLEEP:
            return Asked(SLEEP, 0.0)
        return Asked(point.mode, min(asked.watts_w, point.watts_w * self._over))

    def stop(self, reason: str) -> None:
        """End it early; what was measured stays."""
        if not self.done:
            self.done, self.aborted = True, reason

    def looked(self, look: Look) -> bool:
        """Take one look; whether what the walk asks has changed, so that it must be commanded."""
        if self.done:
            return False
        if (trouble := self._trouble(look)) is not None:
            self.stop(trouble)
            return True
        self._follow(look)
        if not look.command.proven:
            return self._waits(look.now_s, look.command)
        return self._weigh(look.now_s)

    # What a look says

    def _wanted(self) -> str:
        point = self.at
        return self._asked.mode if point is None else point.mode

    def _trouble(self, look: Look) -> str | None:
        goal = look.command.goal
        if self._lowered is not None:
            return self._lowered
        if look.held is not None:
            return look.held
        if goal is None:
            return "nothing may be commanded"
        if look.command.state in (State.FAILED, State.DRIFTED):
            return look.command.explain(look.now_s)
        if goal.mode != self._wanted():
            return f"it is held at {goal.mode}"
        return None

    def _follow(self, look: Look) -> None:
        command = look.command
        if command.order != self._order:
            self._order, self._accepted_s = command.order, None
        if self._accepted_s is None and np.isfinite(command.proof_from_s):
            self._accepted_s = command.proof_from_s
        fresh = look.at_s is not None and (
            not self._looks or look.at_s > (self._looks[-1].at_s or 0.0)
        )
        if fresh and len(self._looks) < MOST_LOOKS:
            self._looks.append(look)

    def _waits(self, now_s: float, command: Command) -> bool:
        """The command is open: whether it has been so for too long."""
        tempo, point = self._tempo, self._point()
        if command.tries == 0 and now_s < self._entered_s + tempo.gate_s:
            self._began_s = now_s  # it rests, or waits for its turn to wake
            return False
        if now_s < self._began_s + tempo.patience_s + 3.0 * point.transition_s:
            return False
        self.stop(f"{point.mode} was not confirmed: {command.explain(now_s)}")
        return True

    def _weigh(self, now_s: float) -> bool:
        """It obeys: whether it holds still, so that the walk can go on."""
        point, tempo = self._point(), self._tempo
        from_s = self._began_s
        if self._at > 0 and self._accepted_s is not None:
            from_s = self._accepted_s + point.transition_s
        window = self._window(from_s)
        held_s = (window[-1].at_s or 0.0) - (window[0].at_s or 0.0) if window else 0.0
        later = window[len(window) // 2 :]
        whole, levels = levels_of(window), levels_of(later)
        full = len(window) >= tempo.looks and held_s >= tempo.window_s
        still = full and steady(window, whole) and steady(later, levels)
        if still and self._back(levels):
            return self._measured(later, levels, now_s, settled=True)
        if now_s < self._began_s + tempo.patience_s + 3.0 * point.transition_s + tempo.window_s:
            return False
        return self._measured(window or self._looks[-tempo.looks :], whole, now_s, settled=False)

    def _window(self, from_s: float) -> list[Look]:
        """The looks of the last window, all later than `from_s`."""
        after = [look for look in self._looks if (look.at_s or 0.0) > from_s]
        if not after:
            return []
        begins_s = (after[-1].at_s or 0.0) - self._tempo.window_s
        young = sum((look.at_s or 0.0) > begins_s for look in after)
        return after[-max(young + 1, self._tempo.looks) :]

    def _back(self, levels: Levels) -> bool:
        """On the way back: whether it draws again what it drew before, by what says so."""
        if self.at is not None or self._asked.mode != self.steps[0].mode:
            return True
        both = levels.keys() & self._first.keys()
        return all(levels[k].watts_w >= BACK_SHARE * self._first[k].watts_w for k in both)

    def _point(self) -> AsicPoint:
        """The point under way; on the way back the one that the walk began with."""
        return self.at or self.steps[0]

    # What follows

    def _measured(self, window: list[Look], levels: Levels, now_s: float, *, settled: bool) -> bool:
        """Write the point down and go on to the next."""
        point = self._point()
        took_s = None
        if settled and self._at > 0 and self._accepted_s is not None:
            took_s = settle_s(self._looks, self._before, levels, self._accepted_s)
        self.visits.append(
            Visit(
                mode=self._wanted(),
                way="back" if self.at is None else "down",
                offered_w=point.watts_w,
                figures=figures_of(window, levels),
                settle_s=took_s,
                seconds=now_s - self._entered_s,
                settled=settled,
            )
        )
        self._before = levels
        self._first = self._first or levels
        if self.at is None or len(self.steps) == 1:
            self.done = True
            return True
        self._at += 1
        self._looks = []
        self._entered_s = self._began_s = now_s
        return True


def steps_of(
    points: Sequence[AsicPoint], asked: Asked, *, most: int, with_sleep: bool
) -> tuple[AsicPoint, ...]:
    """The points of a walk, falling: from what is asked down, evenly chosen where they are many.

    Args:
        points: those that it may hold, ascending.
        asked: by its lease; without a point of that name there is no walk.
        most: points at most, at least 2; sleep is counted.
        with_sleep: whether it may be put to sleep.
    """
    top = next((one for one in points if one.mode == asked.mode), None)
    if top is None or top.mode == SLEEP:
        return ()
    lower = [one for one in points if one.watts_w < top.watts_w and one.mode != SLEEP]
    falling = [top, *reversed(lower)]
    if with_sleep:
        falling += [one for one in points if one.mode == SLEEP]
    if len(falling) <= most:
        return tuple(falling)
    chosen = np.unique(np.linspace(0, len(falling) - 1, most).round().astype(int))
    return tuple(falling[i] for i in chosen)
