"""Where a log ends: its last whole line, and what a kill or a power cut left torn behind it.

What is cut off is kept in a file beside the log and told in it; nothing is dropped silently.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.settle.checkpoints import HEAD_NAME
from wattshift_cluster.settle.lines import FIRST, LINE_BYTES_MOST, Kind, Line, LineInvalid, parsed
from wattshift_cluster.settle.months import day_files

TORN_BYTES_MOST = 4 * LINE_BYTES_MOST
"""More than this at the end of a file that is no line is no torn write but a damaged disk."""


class EvidenceFailed(WattshiftError):
    """The evidence log cannot be opened; the message says why."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut off a file: from which byte, how much, and the side file that holds it."""

    file: str
    offset: int
    bytes: int
    sha256: str
    kept_as: str


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log.

    Attributes:
        last: its last whole line; None where there is none yet.
        file: the file that goes on, None where there is none.
        cuts: what was cut off to get there.
        lost_to: number of the line that `head.json` says was there and is not; 0: nothing is lost.
    """

    last: Line | None
    file: Path | None
    cuts: tuple[Cut, ...]
    lost_to: int

    @property
    def seq(self) -> int:
        """Number of the last line; 0 before the first."""
        return 0 if self.last is None else self.last.seq

    @property
    def hash(self) -> str:
        """What the next line names as the one before."""
        return FIRST if self.last is None else self.last.hash

    @property
    def closed(self) -> bool:
        """Whether the last writer has closed the log."""
        return self.last is None or (
            self.last.kind is Kind.CHECKPOINT and self.last.body.get("end") is True
        )


def mended(folder: Path) -> Tail:
    """The end of a log after what is torn has been cut off. Raises: EvidenceFailed, OSError."""
    files = day_files(folder)
    cuts: list[Cut] = []
    last: Line | None = None
    for path in reversed(files):
        last, cut = _end_of(path)
        if cut is not None:
            cuts.append(cut)
        if last is not None:
            break
    lost_to = _lost_to(folder / HEAD_NAME, last)
    return Tail(last, files[-1] if files else None, tuple(cuts), lost_to)


def _end_of(path: Path) -> tuple[Line | None, Cut | None]:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        begin = max(0, size - TORN_BYTES_MOST)
        file.seek(begin)
        data = file.read(size - begin)
        end, last = len(data), None
        while end and last is None:
            start = data.rfind(b"\n", 0, end - 1) + 1
            try:
                last = parsed(data[start:end])
            except LineInvalid:
                end = start
        if last is None and begin:
            raise EvidenceFailed(
                f"{path}: its last {TORN_BYTES_MOST} bytes hold no line; move the folder away"
            )
        if end == len(data):
            return last, None
        torn = data[end:]
        cut = Cut(path.name, begin + end, len(torn), hashlib.sha256(torn).hexdigest(), "")
        kept = _kept(path, cut, torn)
        file.truncate(begin + end)
        file.flush()
        os.fsync(file.fileno())
    return last, kept


def _kept(path: Path, cut: Cut, torn: bytes) -> Cut:
    """Write the torn bytes beside the log, under a name that says what they are."""
    name = f"torn-{path.stem}-{cut.offset}-{cut.sha256[:8]}.bin"
    with path.with_name(name).open("wb") as side:
        side.write(torn)
        side.flush()
        os.fsync(side.fileno())
    return Cut(cut.file, cut.offset, cut.bytes, cut.sha256, name)


def _lost_to(head: Path, last: Line | None) -> int:
    """What `head.json` knows and the log does not. A head that cannot be read tells nothing."""
    try:
        with head.open("rb") as file:
            known = parsed(file.read(LINE_BYTES_MOST))
    except (OSError, LineInvalid):
        return 0
    if last is None or last.seq < known.seq:
        return known.seq
    return known.seq if last.seq == known.seq and last.hash != known.hash else 0
