"""A large table on a device, built a slice at a time, kept while its height holds, freed on demand.

What a table is made of is a plan: its size, and stages of rows that are built in order, each cut
into slices of 0.5 to 1 ms. This module keeps the books: which slices are out, which came back
built, which were stopped and must be built again. Launching them is `launches`', and what they
compute the algorithm's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wattshift_kernels.hasher import HasherFailed

FREE_MARGIN_BYTES = 256 << 20
"""Of a device's free memory that a table leaves: contexts and others' small buffers grow."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows of one kind.

    Attributes:
        rows: how many.
        rows_per_slice: that take 0.5 to 1 ms.
        weight: of one row in the progress; what it costs against the other stages' rows.
        ordered: each slice needs those before it, so one is out at a time.
    """

    rows: int
    rows_per_slice: int
    weight: float = 1.0
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What one height's table is made of.

    Attributes:
        key: tables of equal keys are equal; an epoch, say.
        size_bytes: on the device.
        stages: built in this order; each begins when the one before is complete.
    """

    key: int
    size_bytes: int
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows to be built.

    Attributes:
        plan: of the table that they are of.
        stage: which of its stages.
        first, count: rows.
        address: of the table on the device.
    """

    plan: Plan
    stage: int
    first: int
    count: int
    address: int


class Memory(Protocol):
    """Where a table lies; `gpu.Gpu` is one."""

    def take(self, size: int) -> int:
        """That many bytes; their address. May raise."""
        ...

    def free(self, address: int) -> None:
        """Give back what `take` gave; whatever is queued there has ended then."""
        ...

    def free_bytes(self) -> int:
        """That `take` could still give."""
        ...


class SlicedTable:
    """One table at a time. Not for several threads.

    Attributes:
        address: on the device; 0 while there is none.
        size_bytes: of the table, built or not; 0 while there is none.
    """

    def __init__(self, plan_of: Callable[[int], Plan], memory: Memory) -> None:
        """Args: plan_of: a height to its table's plan; cheap, since every launch asks."""
        self.address = 0
        self.size_bytes = 0
        self._plan_of = plan_of
        self._memory = memory
        self._plan: Plan | None = None
        self._asked: tuple[int, Plan] | None = None
        self._stage = self._built = self._reached = self._out = 0
        self._built_weight = 0.0
        self._again: deque[tuple[int, int]] = deque()

    @property
    def progress(self) -> float:
        """Of the table last wanted, 0 to 1; 1 before any was."""
        plan = self._plan
        if plan is None:
            return 1.0
        total = sum(stage.rows * stage.weight for stage in plan.stages)
        return 1.0 if self.ready else min(1.0, self._built_weight / total)

    @property
    def ready(self) -> bool:
        """Whether every row of the table last wanted is built."""
        return self._plan is not None and self._stage == len(self._plan.stages)

    def want(self, height: int) -> bool:
        """Whether the table of a height is ready; if it is another one, that is begun anew.

        Raises:
            HasherFailed: the device's free memory does not hold it; the old one is freed by then.
        """
        if self._asked is None or self._asked[0] != height:
            self._asked = (height, self._plan_of(height))
        plan = self._asked[1]
        if self._plan is None or plan.key != self._plan.key:
            self._begin(plan)
        return self.ready

    def next(self) -> Slice | None:
        """Rows to build now; None while those that are out have to come back first."""
        assert self._plan is not None
        assert not self.ready
        stage = self._plan.stages[self._stage]
        if stage.ordered and self._out:
            return None
        if self._again:
            first, count = self._again.popleft()
        elif self._reached < stage.rows:
            first, count = self._reached, min(stage.rows_per_slice, stage.rows - self._reached)
            self._reached += count
        else:
            return None
        self._out += 1
        return Slice(self._plan, self._stage, first, count, self.address)

    def landed(self, piece: Slice, *, built: bool) -> None:
        """A slice came back. Args: built: all of it; otherwise it is handed out again."""
        if piece.plan is not self._plan:
            return  # of a table that is no longer wanted
        self._out -= 1
        stage = piece.plan.stages[self._stage]
        if built:
            self._built += piece.count
            self._built_weight += piece.count * stage.weight
        else:
            self._again.append((piece.first, piece.count))
        if self._built == stage.rows:
            self._stage += 1
            self._built = self._reached = 0

    def close(self) -> None:
        """Free it. Repeatable; the next `want` begins anew."""
        self._plan = self._asked = None  # what is left to do for a height may be less by then
        self._forget()
        if self.address:
            self._memory.free(self.address)
        self.address = self.size_bytes = 0

    def _begin(self, plan: Plan) -> None:
        if plan.size_bytes != self.size_bytes:
            self.close()  # first: there may be no room for both
            free = self._memory.free_bytes()
            if plan.size_bytes + FREE_MARGIN_BYTES > free:
                raise HasherFailed(
                    f"the table takes {_gib(plan.size_bytes)} of the device's memory, of which "
                    f"{_gib(free)} are free, and {_gib(FREE_MARGIN_BYTES)} must stay so"
                )
            self.address = self._memory.take(plan.size_bytes)
            self.size_bytes = plan.size_bytes
        self._plan = plan
        self._forget()

    def _forget(self) -> None:
        """Nothing is built, nothing is out."""
        self._stage = self._built = self._reached = self._out = 0
        self._built_weight = 0.0
        self._again.clear()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
