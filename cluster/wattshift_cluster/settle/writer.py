"""Turns what is handed over into lines of the chain, in the file of their day.

Numbers and hashes move on only when a block is in the file, so that a refused write can be tried
again and leaves no hole.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattshift_cluster.settle.checkpoints import HEAD_NAME, signed_line
from wattshift_cluster.settle.day_file import DayFile, replaced
from wattshift_cluster.settle.keys import Signer
from wattshift_cluster.settle.lines import Kind, day_of, hash_of, written
from wattshift_cluster.settle.tail import Tail

LATE_S = 5.0
"""A line may be so much older than the newest before it: feeds tell late. More is a clock set back,
and a line says so."""

DAY_S = 86_400.0
DAY_FULL, NO_LINE = "the day's file is full", "not a line"


@dataclass(frozen=True, slots=True)
class Put:
    """A line to be: kind, body and time."""

    kind: Kind
    body: Mapping[str, Any]
    at_s: float


@dataclass(slots=True)
class _Block:
    """Lines that are not in the file yet, and where the chain stands after them."""

    seq: int
    prev: str
    newest_s: float
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, body: Mapping[str, Any], at_s: float) -> None:
        line = written(self.seq + 1, at_s, kind, body, self.prev)
        self.lines.append(line)
        self.seq, self.prev, self.size = self.seq + 1, hash_of(line), self.size + len(line)
        self.newest_s = at_s


class Writer:
    """The end of the chain. One thread uses it; its figures may be read by any."""

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        tail: Tail,
        day_bytes_most: int,
        wall_s: Callable[[], float],
    ) -> None:
        """Go on after `tail`. Raises: OSError."""
        self._folder, self._signer, self._wall_s = folder, signer, wall_s
        self._most = day_bytes_most
        self._newest_s = -math.inf if tail.last is None else tail.last.at_s
        self._prev = tail.hash
        self._lost: Counter[str] = Counter()
        self.seq = tail.seq
        self.unsigned = 0
        self.dropped = 0
        day = day_of(wall_s())
        self._file = DayFile(folder, day if tail.file is None else max(day, tail.file.stem))

    @property
    def day_bytes(self) -> int:
        """Size of the present file."""
        return self._file.size

    def write(self, batch: deque[Put]) -> None:
        """Write `batch` and take out of it what is in the file. Raises: OSError; the rest stays."""
        while batch:
            first = batch[0]
            if not _timed(first.at_s):
                self._drop(NO_LINE, 1)
                batch.popleft()
                continue
            self._turn(first.at_s)
            block, count = self._block(batch)
            self._commit(block)
            for _ in range(count):
                batch.popleft()

    def checkpoint(self, *, end: bool = False) -> None:
        """Sign all lines so far, wait for the disk, note how far the log came. Raises: OSError."""
        at_s = max(self._wall_s(), self._newest_s)
        line = signed_line(self._signer, self.seq + 1, at_s, self._prev, end=end)
        self._file.append(line)
        self.seq, self._prev, self._newest_s = self.seq + 1, hash_of(line), at_s
        self._file.sync()
        self.unsigned = 0
        replaced(self._folder / HEAD_NAME, line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _turn(self, at_s: float) -> None:
        """Go on in the file of a new day; the old one ends in a signature."""
        if self._is_for(at_s):
            return
        if self.unsigned:
            self.checkpoint()
        new = DayFile(self._folder, day_of(self._file_s(at_s)))
        self._file.close()
        self._file = new

    def _is_for(self, at_s: float) -> bool:
        """Whether the present file is that of a line's day; never back to an earlier file."""
        return day_of(self._file_s(at_s)) <= self._file.day

    def _file_s(self, at_s: float) -> float:
        """The time that chooses the file: one that leaps years ahead for a moment must not."""
        return min(at_s, self._wall_s() + DAY_S)

    def _block(self, batch: deque[Put]) -> tuple[_Block, int]:
        """Lines for as many of `batch` as belong into the present file, and how many they are."""
        block = _Block(self.seq, self._prev, self._newest_s)
        if self._lost and self._file.size < self._most:
            told = {"lines": sum(self._lost.values()), "why": dict(self._lost)}
            block.add(Kind.DROPPED, told, max(self._newest_s, batch[0].at_s))
            block.lost.subtract(self._lost)
        count = 0
        for one in batch:
            if not (_timed(one.at_s) and self._is_for(one.at_s)):
                break
            count += 1
            self._add(block, one)
        return block, count

    def _add(self, block: _Block, one: Put) -> None:
        if self._file.size + block.size >= self._most:
            block.lost[DAY_FULL] += 1
            return
        back_s = block.newest_s - one.at_s
        try:
            if back_s > LATE_S:
                block.add(Kind.CLOCK, {"back_s": back_s}, one.at_s)
            newest_s = block.newest_s
            block.add(one.kind, one.body, one.at_s)
            block.newest_s = max(newest_s, one.at_s)
        except (ValueError, TypeError):
            block.lost[NO_LINE] += 1

    def _commit(self, block: _Block) -> None:
        self._file.append(b"".join(block.lines))
        self.unsigned += block.seq - self.seq
        self.seq, self._prev, self._newest_s = block.seq, block.prev, block.newest_s
        for why, count in block.lost.items():
            self._drop(why, count)

    def _drop(self, why: str, count: int) -> None:
        self.dropped += max(count, 0)
        self._lost[why] += count
        self._lost = +self._lost


def _timed(at_s: float) -> bool:
    """Whether it is a time at all: 1970 to 2100, as everywhere."""
    return 0.0 <= at_s < 4_102_444_800.0
