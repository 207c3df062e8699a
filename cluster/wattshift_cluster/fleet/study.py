"""What one machine's own polls show of it: a settled draw now and then, and how long a change took.

Nothing is asked for it. A window of samples that hold still is a level; the first of them after an
accepted command also says when the draw had settled. Both are bounded: a window holds a few
samples, and a transition's trace is thinned as it grows. Pure: times and samples come in.
"""

from array import array
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.fleet.levels import GRAIN_W, Floats, Level, Step, Trace, level, settling_s

MOST_TRACE = 256
"""Samples of one transition; a longer one is kept at half the rate, and so on."""

DRIFT_SHARE = 0.02
"""Of the draw, by which the halves of a window may differ: in so few samples a ramp looks like
noise otherwise."""

STEP_SHARE = 0.05
"""Of the higher level: a smaller change does not show when it had settled."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """How much is looked at.

    Attributes:
        window_s, samples: a level rests on so many samples, spread over at least so long.
        again_s: pause after a level: the next minutes would only say the same.
        longest_s: a transition that has not settled by then is given up.
    """

    window_s: float = 60.0
    samples: int = 12
    again_s: float = 600.0
    longest_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One poll; None is unknown.

    Attributes:
        at_s: boot clock, s.
        watts_w: the best word on its draw, W.
        metered: whether that is an outlet's, and not its firmware's.
        claim_w: the firmware's own figure.
        h_per_s: hashes per second.
    """

    at_s: float
    watts_w: float
    metered: bool
    claim_w: float | None = None
    h_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A draw that held still.

    Attributes:
        mode: the set point.
        draw: its level.
        metered: every sample of it was an outlet's; None where they were of both kinds.
        claim_w, h_per_s: medians of the same window; None where one was missing.
        took_s: from the accepted command until then; None where that was told already or was not
            to be seen.
        woke: whether the machine was asleep before that command.
    """

    mode: str
    draw: Level
    metered: bool | None
    claim_w: float | None
    h_per_s: float | None
    took_s: float | None = None
    woke: bool = False


class Study:
    """The samples of one machine between two commands."""

    def __init__(self, tempo: Tempo | None = None) -> None:
        """Args: tempo: how much is looked at."""
        self._tempo = tempo or Tempo()
        self._last_w: float | None = None
        self.forget()

    def forget(self, watts_w: float | None = None) -> None:
        """What it does now is not known to be of ours; it draws so much, W, if that is known."""
        self._last_w = self._last_w if watts_w is None else watts_w
        self._mode: str | None = None
        self._since_s = self._due_s = 0.0
        self._woke = self._timing = False
        self._before: Level | None = None
        self._window: list[Sample] = []
        self._trace_s, self._trace_w = array("d"), array("d")
        self._every_s = 0.0

    def begin(self, mode: str, at_s: float, *, woke: bool) -> None:
        """The machine took a command; the same one again changes nothing while it is under way.

        Args:
            mode: the set point.
            at_s: boot clock, s.
            woke: whether it wakes by it.
        """
        if self._timing and mode == self._mode:
            return
        self.forget()
        self._mode, self._since_s, self._woke, self._timing = mode, at_s, woke, True
        if self._last_w is not None:
            self._before = Level(self._last_w, 0.0, 0.0)

    def add(self, sample: Sample) -> Settled | None:
        """Take one poll; a level once a window of them holds still.

        It comes again with the next window until it is `done`: a machine that has not begun yet, or
        that somebody holds back, stands still, too.
        """
        self._last_w = sample.watts_w
        if self._mode is None or sample.at_s <= self._since_s:
            return None
        self._follow(sample)
        window, tempo = self._window, self._tempo
        if sample.at_s < self._due_s:
            return None
        if window and sample.at_s < window[-1].at_s + tempo.window_s / tempo.samples:
            return None
        window.append(sample)
        if len(window) < tempo.samples:
            return None
        draw = _still(np.array([one.watts_w for one in window]))
        found = None if draw is None else self._settled(draw)
        del window[: len(window) // 2]
        return found

    def done(self, at_s: float) -> None:
        """The lesson was drawn: the next one is due in a while."""
        self._timing, self._due_s = False, at_s + self._tempo.again_s
        self._window.clear()
        self._drop_trace()

    def _follow(self, sample: Sample) -> None:
        """Keep the trace of a transition, thinned so that it stays within its bound."""
        if not self._timing:
            return
        if sample.at_s > self._since_s + self._tempo.longest_s:
            self._timing = False
            self._drop_trace()
            return
        at_s = self._trace_s
        if at_s and sample.at_s < at_s[-1] + self._every_s:
            return
        at_s.append(sample.at_s)
        self._trace_w.append(sample.watts_w)
        if len(at_s) >= MOST_TRACE:
            self._every_s = 1.5 * (at_s[-1] - at_s[0]) / MOST_TRACE
            del at_s[1::2], self._trace_w[1::2]

    def _drop_trace(self) -> None:
        del self._trace_s[:], self._trace_w[:]

    def _settled(self, draw: Level) -> Settled:
        assert self._mode is not None
        window = self._window
        kinds = {one.metered for one in window}
        return Settled(
            mode=self._mode,
            draw=draw,
            metered=kinds.pop() if len(kinds) == 1 else None,
            claim_w=_median([one.claim_w for one in window]),
            h_per_s=_median([one.h_per_s for one in window]),
            took_s=self._took_s(draw),
            woke=self._woke,
        )

    def _took_s(self, draw: Level) -> float | None:
        before = self._before
        if not self._timing or before is None or not self._trace_s:
            return None
        change_w = before.watts_w - draw.watts_w
        if abs(change_w) < STEP_SHARE * max(before.watts_w, draw.watts_w):
            return None
        trace = Trace(np.array(self._trace_s), np.array(self._trace_w))
        step = Step(change_w, draw.error_w, before, draw)
        return settling_s(trace, self._since_s, step)


def _still(watts_w: Floats) -> Level | None:
    draw, half = level(watts_w), len(watts_w) // 2
    if draw is None:
        return None
    drift_w = abs(float(np.median(watts_w[half:]) - np.median(watts_w[:half])))
    return draw if drift_w <= max(DRIFT_SHARE * draw.watts_w, 3.0 * GRAIN_W) else None


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if len(known) == len(values) else None
