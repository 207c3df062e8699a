"""What protects hardware and feeders from us: rest times, staggered wakes, temperature.

Only raising ever waits. A sleep is obeyed at once whatever it costs, because power safety beats
wear. Pure: the clock comes in with every call, chance through a seed.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

WINDOW_S = 60.0
COOL_BY_C = 5.0
"""A hot machine is let up again when it is so far below its limit: else it would swing about it."""

HEAT_STEP_S = 60.0
"""A temperature follows the watts within a minute or so; steps faster than that overshoot."""

HEAT_REST_S = 600.0
"""A machine that was too hot at its lowest point rests so long where it reports nothing asleep."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The least times asleep and awake of one machine, s.

    A machine that was put to sleep before its time awake was over stays asleep that much longer, so
    that a cycle is never shorter than both together.
    """

    min_off_s: float
    min_on_s: float

    def wake_s(self, slept_s: float | None, woke_s: float | None, now_s: float) -> float:
        """When it may be woken; a time that has passed if it may be now.

        Args:
            slept_s, woke_s: when it last fell asleep and woke; None where that is not known. A
                sleep that nobody has seen begin counts from now.
            now_s: of the same clock. A time in the future (the clock was set back) counts as now.
        """
        asleep_s = now_s if slept_s is None else min(slept_s, now_s)
        free_s = asleep_s + self.min_off_s
        if woke_s is not None and self.min_on_s > 0:
            free_s = max(free_s, min(woke_s, now_s) + self.min_on_s + self.min_off_s)
        return free_s


@dataclass(frozen=True, slots=True)
class _Waiting:
    device: str
    watts_w: float
    value: float
    number: int


class WakeQueue:
    """Lets machines wake one after another: the most valuable first, then the first come.

    In no window of a minute do more machines wake than allowed, nor more watts; a machine above all
    of the watts wakes alone. The pauses between them, and before the first, are of random length,
    so that the agents of a site share no rhythm.
    """

    def __init__(
        self, most: int | None, most_w: float | None, seed: int, window_s: float = WINDOW_S
    ) -> None:
        """Args: most, most_w: machines and watts in a window; None: no such bound."""
        self._most = most
        self._most_w = most_w
        self._window_s = window_s
        self._random = random.Random(seed)
        self._waiting: dict[str, _Waiting] = {}
        self._granted: deque[tuple[float, float]] = deque()
        self._next_s = 0.0
        self._asked = 0

    def ask(self, device: str, watts_w: float, value: float, now_s: float) -> None:
        """Queue up; one that waits already keeps its place among equals."""
        if not self._waiting and now_s >= self._next_s:
            self._next_s = now_s + self._random.uniform(0.0, self._pause_s(watts_w))
        before = self._waiting.get(device)
        if before is None:
            self._asked += 1
        number = self._asked if before is None else before.number
        self._waiting[device] = _Waiting(device, watts_w, value, number)

    def withdraw(self, device: str) -> None:
        """It wants to wake no more."""
        self._waiting.pop(device, None)

    def ahead_of(self, device: str) -> int:
        """How many go before it."""
        own = self._waiting[device]
        return sum(_place(one) < _place(own) for one in self._waiting.values())

    def grants(self, now_s: float) -> tuple[str, ...]:
        """Those whose turn has come; they have left the queue."""
        let_go: list[str] = []
        for one in sorted(self._waiting.values(), key=_place):
            if not self._room(one.watts_w, now_s):
                break
            self._granted.append((now_s, one.watts_w))
            pause_s = self._pause_s(one.watts_w)
            self._next_s = now_s + pause_s * self._random.uniform(0.5, 1.0)
            del self._waiting[one.device]
            let_go.append(one.device)
        return tuple(let_go)

    def _room(self, watts_w: float, now_s: float) -> bool:
        while self._granted and self._granted[0][0] <= now_s - self._window_s:
            self._granted.popleft()
        if now_s < self._next_s:
            return False
        if self._most is not None and len(self._granted) >= self._most:
            return False
        drawn_w = sum(granted_w for _, granted_w in self._granted)
        fits = self._most_w is None or drawn_w + watts_w <= self._most_w
        return fits or not self._granted

    def _pause_s(self, watts_w: float) -> float:
        """Even spacing of the window among those that fit into it."""
        by_count_s = self._window_s / self._most if self._most else 0.0
        by_watts_s = self._window_s * watts_w / self._most_w if self._most_w else 0.0
        return max(by_count_s, min(by_watts_s, self._window_s))


def _place(one: _Waiting) -> tuple[float, int]:
    return -one.value, one.number


def clock_text(utc_s: float) -> str:
    """A time of day as people read it."""
    return f"{datetime.fromtimestamp(utc_s, UTC):%H:%M:%S} UTC"


def too_hot(board_c: float | None, limit_c: float | None) -> str | None:
    """Why a machine must not be woken now; an unknown temperature forbids nothing.

    Firmware that sleeps often reports no temperature, and the machine would never wake.
    """
    if board_c is None or limit_c is None or board_c < limit_c:
        return None
    return f"its board has {board_c:.0f} °C, the limit is {limit_c:.0f} °C"


def too_warm(inlet_c: float | None, limit_c: float | None) -> str | None:
    """Why a machine must not be woken into the air around it; see too_hot."""
    if inlet_c is None or limit_c is None or inlet_c < limit_c:
        return None
    return f"the air at its inlet has {inlet_c:.0f} °C, the limit is {limit_c:.0f} °C"


@dataclass(frozen=True, slots=True)
class Heat:
    """How far a hot machine is held down.

    Attributes:
        cap_w: the highest point that it may hold, W; None: any.
        stepped_s: when that last changed.
    """

    cap_w: float | None = None
    stepped_s: float = -HEAT_STEP_S

    def felt(
        self,
        board_c: float | None,
        limit_c: float | None,
        points_w: Sequence[float],
        held_w: float,
        now_s: float,
    ) -> "Heat":
        """One temperature sample: a point down while it is hot, a point up once it has cooled.

        Args:
            board_c: hottest board, °C; None is no sample.
            limit_c: None: whatever the firmware allows.
            points_w: of all points, ascending, W; the first is sleep.
            held_w: of the point that it holds, W.
            now_s: the clock.
        """
        if limit_c is None or now_s < self.stepped_s + HEAT_STEP_S:
            return self
        if board_c is None:
            rested = self.cap_w == points_w[0] and now_s >= self.stepped_s + HEAT_REST_S
            return self._up(points_w, now_s) if rested else self
        if board_c >= limit_c:
            top_w = held_w if self.cap_w is None else min(held_w, self.cap_w)
            lower = [watts_w for watts_w in points_w if watts_w < top_w]
            return Heat(lower[-1], now_s) if lower else self
        if self.cap_w is None or board_c > limit_c - COOL_BY_C:
            return self
        return self._up(points_w, now_s)

    def _up(self, points_w: Sequence[float], now_s: float) -> "Heat":
        assert self.cap_w is not None
        higher = [watts_w for watts_w in points_w if watts_w > self.cap_w]
        return replace(self, cap_w=higher[0] if len(higher) > 1 else None, stepped_s=now_s)
