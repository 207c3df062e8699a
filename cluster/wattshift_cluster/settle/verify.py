"""Check an evidence log: every byte, number, hash and signature, and how far it can be trusted.

The first fault ends the check: what follows a broken chain proves nothing. What stands before the
last signature that holds was not touched since it was signed by the holder of the key.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from wattshift_cluster.errors import NotFound
from wattshift_cluster.settle.checkpoints import HEAD_NAME, checked
from wattshift_cluster.settle.keys import PUBLIC_NAME, public_at
from wattshift_cluster.settle.lines import FIRST, LINE_BYTES_MOST, Kind, Line, LineInvalid, parsed
from wattshift_cluster.settle.months import day_files, is_month, place_of
from wattshift_cluster.settle.writer import LATE_S

DAYS_LISTED = 100


@dataclass(frozen=True, slots=True)
class FaultAt:
    """The first thing that is wrong: in which file and line of it, and what."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(slots=True)
class Verified:
    """What a check found.

    Attributes:
        fault: the first fault; None: none was found.
        files, lines: how many were read; lines that hold, up to the fault.
        first_seq, last_seq: numbers of the first and last line that hold; 0: none.
        signed_seq, signed_at_s: the last signature that holds: all up to it can be trusted.
        closed: whether the log was closed; an open one has an end that nobody has signed yet.
        torn_bytes: bytes of a last line that is not whole, as a kill leaves or a writer at work.
        keys: public keys that the signatures were checked against.
        key_told: whether these were given by whoever checks, and not found beside the log.
        head: the hash of the last line that holds; written down elsewhere it proves more.
        days_missing: days between the first and the last with no file; no fault while the chain
            goes on over them.
        gaps: spans in which nothing was logged, unix times, s.
        dropped: lines that could not be written, as the log tells.
        recovered: how often a torn end was cut off.
    """

    fault: FaultAt | None = None
    files: int = 0
    lines: int = 0
    first_seq: int = 0
    last_seq: int = 0
    signed_seq: int = 0
    signed_at_s: float | None = None
    closed: bool = False
    torn_bytes: int = 0
    keys: tuple[str, ...] = ()
    key_told: bool = False
    head: str = FIRST
    days_missing: list[str] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    dropped: int = 0
    recovered: int = 0

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return self.fault is None


@dataclass(frozen=True, slots=True)
class _At:
    """A line with its place."""

    file: str
    number: int
    raw: bytes
    last: bool


Each = Callable[[Line], None]


def verify(
    path: Path,
    keys: tuple[str, ...] = (),
    each: Each | None = None,
    *,
    expect: str | None = None,
) -> Verified:
    """Check a log's folder with its months, one of them, or one day's file of it.

    A month or a single file may begin and end anywhere in the chain; a log's folder begins with
    line 1 and reaches as far as its `head.json` says.

    Args:
        path: the folder or the file.
        keys: public keys to trust, hexadecimal; none takes the one beside the log.
        each: called with every line that holds, in order.
        expect: hash of a line that must be in the log, as `head` told it at an earlier check.

    Raises:
        NotFound: there is no log, or no key to check it against.
    """
    folder = path if path.is_dir() else path.parent
    part = is_month(folder) and not (folder / PUBLIC_NAME).exists()
    whole = path.is_dir() and not part
    files = day_files(path) if path.is_dir() else [path]
    if not files or not all(place_of(file).is_file() for file in files):
        raise NotFound(f"{path}: there is no evidence log")
    trusted = keys or (public_at((folder.parent if part else folder) / PUBLIC_NAME),)
    seen = Verified(files=len(files), keys=trusted, key_told=bool(keys))
    seen.days_missing = _days_missing(files)
    check = _Check(seen, frozenset(trusted), each, whole=whole)
    check.awaits = expect
    if whole:
        # Before the lines: whoever writes meanwhile takes the log past it, never short of it.
        check.read_head(folder / HEAD_NAME)
    for at in _lines_of(files):
        try:
            check.take(at)
        except LineInvalid as fault:
            seen.fault = FaultAt(at.file, at.number, str(fault))
            return seen
    seen.fault = check.end_fault(str(files[-1]))
    return seen


class _Check:
    """Walks along the chain. Raises LineInvalid at the first line that does not hold."""

    def __init__(
        self, seen: Verified, keys: frozenset[str], each: Each | None, *, whole: bool
    ) -> None:
        self._seen, self._keys, self._each, self._whole = seen, keys, each, whole
        self._newest_s: float | None = None
        self._place = 0
        self._head: Line | None = None
        self._head_file: Path | None = None
        self._head_fault = ""
        self.awaits: str | None = None

    def take(self, at: _At) -> None:
        """Take the next line."""
        seen = self._seen
        self._place = at.number
        if at.last and not at.raw.endswith(b"\n"):
            seen.torn_bytes = len(at.raw)
            return
        line = parsed(at.raw)
        self._chained(line)
        if self._head is not None and line.seq == self._head.seq and line.hash != self._head.hash:
            raise LineInvalid(f"line {line.seq} is not the one that was signed as the head")
        self._timed(line)
        seen.closed = False
        if line.kind is Kind.CHECKPOINT:
            seen.closed = checked(line, self._keys)
            seen.signed_seq, seen.signed_at_s = line.seq, line.at_s
        elif line.kind is Kind.RECOVERED:
            lost_to = line.body.get("lost_to", 0)
            if lost_to:
                raise LineInvalid(f"lines up to {lost_to} were signed once, and are lost before it")
            seen.recovered += 1
        self._counted(line)
        if self._each is not None:
            self._each(line)

    def _chained(self, line: Line) -> None:
        seen = self._seen
        if seen.lines:
            if line.seq != seen.last_seq + 1:
                raise LineInvalid(f"line {line.seq} follows line {seen.last_seq}")
            if line.prev != seen.head:
                raise LineInvalid(f"line {line.seq} does not follow from the line before it")
        elif self._whole and (line.seq != 1 or line.prev != FIRST):
            raise LineInvalid(f"the log begins with line {line.seq}: what came before is not here")

    def _timed(self, line: Line) -> None:
        newest_s = self._newest_s
        if line.kind is Kind.CLOCK or newest_s is None:
            self._newest_s = line.at_s
            return
        if newest_s - line.at_s > LATE_S:
            raise LineInvalid(f"it is {newest_s - line.at_s:.1f} s older than the line before it")
        self._newest_s = max(newest_s, line.at_s)

    def _counted(self, line: Line) -> None:
        seen = self._seen
        seen.first_seq = seen.first_seq or line.seq
        seen.last_seq, seen.head = line.seq, line.hash
        seen.lines += 1
        if line.hash == self.awaits:
            self.awaits = None
        try:
            if line.kind is Kind.GAP:
                seen.gaps.append((float(line.body["from_s"]), float(line.body["to_s"])))
            elif line.kind is Kind.DROPPED:
                seen.dropped += int(line.body["lines"])
        except (KeyError, TypeError, ValueError):
            raise LineInvalid(f"not what a line of kind {line.kind} holds") from None

    def read_head(self, path: Path) -> None:
        """Read the file that says how far the log came."""
        self._head_file = path
        try:
            with path.open("rb") as file:
                self._head = parsed(file.read(LINE_BYTES_MOST))
            checked(self._head, self._keys)
        except FileNotFoundError:
            return
        except (OSError, LineInvalid) as fault:
            self._head_fault = str(fault)

    def end_fault(self, last_file: str) -> FaultAt | None:
        """What is wrong with the end, once every line has held."""
        seen, head = self._seen, self._head
        if self.awaits is not None:
            return FaultAt(last_file, self._place, f"no line has the hash {self.awaits[:16]}…")
        if self._head_file is None:
            return None
        if self._head_fault:
            return FaultAt(str(self._head_file), 1, self._head_fault)
        if head is None:
            # The first signature and its head.json are written together.
            return FaultAt(str(self._head_file), 1, "it is missing") if seen.signed_seq else None
        if head.seq > seen.last_seq:
            reason = f"the log ends at line {seen.last_seq}, but line {head.seq} was signed"
            return FaultAt(last_file, self._place, reason)
        return None


def _lines_of(files: list[Path]) -> Iterator[_At]:
    """Every line with its place; a file's last one may be torn, which only the very last may be."""
    for path in files:
        with place_of(path).open("rb") as file:
            number = 0
            while raw := file.readline(LINE_BYTES_MOST):
                number += 1
                yield _At(str(path), number, raw, path == files[-1] and not file.peek(1))


def _days_missing(files: list[Path]) -> list[str]:
    try:
        days = [date.fromisoformat(path.stem) for path in files]
    except ValueError:
        return []
    span = (days[-1] - days[0]).days
    there = set(days)
    every = (days[0] + timedelta(n) for n in range(min(span, 100_000)))
    return [str(day) for day in every if day not in there][:DAYS_LISTED]
