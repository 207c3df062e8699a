"""A chunk's items through the work, so that one bad item costs only itself.

    all at once ─ fails ─▶ halves, and their halves ─▶ items that fail alone ─▶ tried again, a few
    times with pauses between ─▶ dead letters

A job whose work fails for most of its items is broken, and a million dead letters would hide that:
`Health` ends it with the error that is met most.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch.callables import Work
from wattshift_cluster.workload.batch.formats import InputInvalid, Item
from wattshift_cluster.workload.batch.rows import Wrong, dead_row, output_row, wrong_of

RETRY_S = 0.5
"""Before the first repetition of what failed alone; twice that before the next, and so on."""

RETRY_MAX_S = 10.0
BROKEN_CHUNKS = 20
BROKEN_PART = 0.5
"""More than this part of the items of so many chunks in a row without output: the job is broken."""

ERRORS_MAX = 100

Pause = Callable[[float], bool]
"""Waits for some seconds; True if the job has to stop."""

Tell = Callable[[int, int, BaseException], None]
"""Index of the first item, number of items, and what went wrong with them."""


class Stopped(Exception):
    """A stop came before the chunk was done."""


class Broken(WattshiftError):
    """The work fails for most items."""


class Trial:
    """One chunk at a time through the work."""

    def __init__(self, work: Work, attempts: int, pause: Pause, tell: Tell) -> None:
        """Prepare.

        Args:
            work: the user's.
            attempts: times a lone item is tried.
            pause: waits between them.
            tell: called at each failure.
        """
        self._work = work
        self._attempts = attempts
        self._pause = pause
        self._tell = tell

    def rows(self, first: int, items: Sequence[Item]) -> list[bytes]:
        """The rows of a chunk, one per item.

        Args:
            first: index of the first item in the whole input.
            items: the chunk.

        Raises:
            Stopped: a stop came in between; nothing of the chunk counts.
            InputInvalid: the work cannot be done at all.
        """
        rows = [b""] * len(items)
        for offset, item in enumerate(items):
            if item.wrong is not None:
                wrong = Wrong("InvalidItem", item.wrong)
                rows[offset] = dead_row(first + offset, item.value, wrong, 0)
        good = [offset for offset, item in enumerate(items) if item.wrong is None]
        suspects = self._split(first, items, good, rows)
        for attempt in range(1, self._attempts + 1):
            if attempt > 1 and suspects:
                suspects = self._again(first, items, suspects, rows, attempt)
        for offset, wrong in suspects.items():
            rows[offset] = dead_row(first + offset, items[offset].value, wrong, self._attempts)
        return rows

    def _split(
        self, first: int, items: Sequence[Item], offsets: Sequence[int], rows: list[bytes]
    ) -> dict[int, Wrong]:
        """Do what can be done; the items that fail alone, with the error."""
        suspects: dict[int, Wrong] = {}
        parts = [offsets] if offsets else []
        while parts:
            part = parts.pop()
            wrong = self._try(first, items, part, rows)
            if wrong is None:
                continue
            if self._pause(0.0):
                raise Stopped
            if len(part) == 1:
                suspects[part[0]] = wrong
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return suspects

    def _again(
        self,
        first: int,
        items: Sequence[Item],
        suspects: dict[int, Wrong],
        rows: list[bytes],
        attempt: int,
    ) -> dict[int, Wrong]:
        """Try each suspect once more; those that fail again."""
        if self._pause(min(RETRY_MAX_S, RETRY_S * 2 ** (attempt - 2))):
            raise Stopped
        left: dict[int, Wrong] = {}
        for offset in suspects:
            if self._pause(0.0):
                raise Stopped
            wrong = self._try(first, items, [offset], rows)
            if wrong is not None:
                left[offset] = wrong
        return left

    def _try(
        self, first: int, items: Sequence[Item], part: Sequence[int], rows: list[bytes]
    ) -> Wrong | None:
        """Do some items at once; what went wrong, if anything did."""
        try:
            outputs: list[Any] = self._work([items[offset].value for offset in part])
            done = [
                output_row(first + offset, output)
                for offset, output in zip(part, outputs, strict=True)
            ]
        except InputInvalid:
            raise
        except (Exception, SystemExit) as fault:  # whatever the user's code raises
            self._tell(first + part[0], len(part), fault)
            return wrong_of(fault)
        for offset, row in zip(part, done, strict=True):
            rows[offset] = row
        return None


class Health:
    """Whether the work of a job does anything at all, seen by one worker."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[int, int]] = deque(maxlen=BROKEN_CHUNKS)
        self._errors: Counter[str] = Counter()

    def chunk(self, items: int, errors: Sequence[str]) -> None:
        """Note a chunk: its items, and the errors of those that have no output.

        Raises:
            Broken: most items of the last chunks have none.
        """
        self._chunks.append((items, len(errors)))
        for error in errors:
            if error in self._errors or len(self._errors) < ERRORS_MAX:
                self._errors[error] += 1
        total = sum(items for items, _ in self._chunks)
        dead = sum(dead for _, dead in self._chunks)
        if len(self._chunks) == BROKEN_CHUNKS and dead > BROKEN_PART * total:
            raise Broken(f"{dead} of {total} items in a row failed, most with: {self.commonest}")

    @property
    def commonest(self) -> str:
        """The error that is met most; "" if there is none."""
        return next((error for error, _ in self._errors.most_common(1)), "")
