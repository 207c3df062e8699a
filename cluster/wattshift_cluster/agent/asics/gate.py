"""When a sleeping ASIC may be woken: what it was before us, its rest, its temperature, its turn."""

from dataclasses import dataclass

from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Goal
from wattshift_cluster.fleet.memory import Memory
from wattshift_cluster.fleet.safety import Rest, clock_text, too_hot, too_warm

ASK_AGAIN_S = 1.0
LOOK_AGAIN_S = 5.0
AWAKE_POLLS = 2
WORTH_S = 15.0
"""A rest shorter than this is over before a controller could give its watts to anybody else."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """Why it may not be woken, and after how many seconds to ask again."""

    why: str
    wait_s: float


class WakeGate:
    """Stands between one sleeping machine and a command that wakes it.

    Attributes:
        found_asleep: whether it slept before us, and so is left; None until it was seen.
    """

    def __init__(self, asic: Asic, lanes: Lanes) -> None:
        self.found_asleep: bool | None = None if asic.left_asleep else False
        self._id = asic.id
        self._rest = Rest(*asic.rests_s)
        self._limit_c = lanes.section.board_limit_c
        self._inlet_limit_c = lanes.section.inlet_limit_c
        self._queue = lanes.queue_of(asic)
        self._let = -1
        self._awake_polls = 0

    def saw(self, *, asleep: bool | None, ours: bool) -> bool:
        """One sample; whether `found_asleep` has changed for those who are offered its points.

        Args:
            asleep: what it shows; None where that cannot be told.
            ours: whether sleep is what we wrote last.
        """
        self._awake_polls = self._awake_polls + 1 if asleep is False else 0
        if asleep is None:
            return False
        if self.found_asleep is None:
            self.found_asleep = asleep and not ours
            return self.found_asleep
        if self.found_asleep and self._awake_polls >= AWAKE_POLLS:
            self.found_asleep = False
            return True
        return False

    def rests(self, memory: Memory, wall_s: float) -> str | None:
        """Why a machine that sleeps cannot be woken for long enough that others may have its watts.

        Its turn in the queue is another matter: it comes within minutes, and only a lease gives a
        machine a place there.
        """
        if memory.slept_s is None:
            return None
        free_s = self._rest.wake_s(memory.slept_s, memory.woke_s, wall_s)
        return f"it rests until {clock_text(free_s)}" if free_s > wall_s + WORTH_S else None

    def forget(self) -> None:
        """Another wish: its place in the queue is free."""
        if self._queue is not None:
            self._queue.withdraw(self._id)

    def let(self, order: int) -> None:
        """The turn of this wish has come; it needs none for another try."""
        self._let = order

    def bars(
        self,
        wish: Goal,
        order: int,
        memory: Memory,
        board_c: float | None,
        inlet_c: float | None = None,
        *,
        wall_s: float,
        now_s: float,
    ) -> NotYet | None:
        """Why this wish must wait; None when it may go.

        Args:
            wish, order: what would be commanded, and the number of the wish.
            memory: when it last fell asleep and woke.
            board_c, inlet_c: its hottest board, and the air at its inlet, °C; None where unknown.
            wall_s, now_s: UTC and the queue's clock, s.
        """
        if self._let == order:
            return None
        if self.found_asleep is None:
            return NotYet("not seen yet: it may have been asleep before us", ASK_AGAIN_S)
        free_s = self._rest.wake_s(memory.slept_s, memory.woke_s, wall_s)
        if free_s > wall_s:
            wait_s = min(max(free_s - wall_s, ASK_AGAIN_S), LOOK_AGAIN_S)
            return NotYet(f"it rests until {clock_text(free_s)}", wait_s)
        hot = too_hot(board_c, self._limit_c) or too_warm(inlet_c, self._inlet_limit_c)
        if hot is not None:
            return NotYet(hot, LOOK_AGAIN_S)
        if self._queue is None:
            return None
        self._queue.ask(self._id, wish.most_w, wish.most_h_per_s / wish.most_w, now_s)
        ahead = self._queue.ahead_of(self._id)
        return NotYet(f"it waits for its turn to wake, {ahead} before it", ASK_AGAIN_S)
