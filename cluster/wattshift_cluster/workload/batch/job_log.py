"""What the user's code of a job printed: `log.txt` in the output folder, bounded, rotated once.

Each worker has a file of its own, because several hosts cannot append to one file safely: the first
writes log.txt, the others log.1.txt, log.2.txt, … A full file becomes log.old.txt and takes the
place of the one before it. Each line begins with its time and its worker:

    2026-11-28T14:20:22.120417Z 0 loading the model
"""

import io
import os
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LOG_BYTES_MAX = 4 << 20
LINE_CHARS_MAX = 8192
FILES_MAX = 64
TAIL_BYTES = 1 << 20
TAIL_LINES_MAX = 10_000


class JobLog:
    """One worker's log. Writing never fails the work: a full disk loses lines of a log, no more."""

    def __init__(self, folder: Path, worker: int = 0, size_max_b: int = LOG_BYTES_MAX) -> None:
        self._path = folder / _name(worker)
        self._worker = worker
        self._size_max_b = size_max_b
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Take text; whole lines are written at once, the rest when its line ends."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > LINE_CHARS_MAX:
                lines, self._rest = [*lines, self._rest], ""
            if lines:
                self._append(lines)

    def line(self, text: str) -> None:
        """Write lines of our own, whatever was begun before."""
        with self._lock:
            lines = [self._rest] if self._rest else []
            self._rest = ""
            self._append([*lines, *text.rstrip("\n").split("\n")])

    def _append(self, lines: list[str]) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        text = "".join(f"{now} {self._worker} {line[:LINE_CHARS_MAX]}\n" for line in lines)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(text.encode(errors="replace"))
                full = file.tell() >= self._size_max_b
            if full:
                os.replace(self._path, self._path.with_suffix(".old.txt"))


class Copied(io.TextIOBase):
    """A standard stream that writes to the job's log as well.

    A stream of Python and no file descriptor: a library that prints while it holds the interpreter
    would fill a pipe that nobody can then read.
    """

    def __init__(self, stream: TextIO, log: JobLog) -> None:
        super().__init__()
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        """To both."""
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream; the log needs none."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Whether it takes text: yes."""
        return True


def tail(folder: Path, lines: int) -> list[str]:
    """The last lines of all workers' logs, in the order of their times; [] if there are none."""
    lines = min(lines, TAIL_LINES_MAX)
    paths = [path for path in folder.glob("log*.txt") if not path.name.endswith(".old.txt")]
    found: list[str] = []
    for path in sorted(paths)[:FILES_MAX]:
        mine = _last(path, lines)
        if len(mine) < lines:
            mine = [*_last(path.with_suffix(".old.txt"), lines - len(mine)), *mine]
        found += mine
    found.sort(key=lambda line: line.partition(" ")[0])
    return found[-lines:] if lines > 0 else []


def _last(path: Path, lines: int) -> list[str]:
    """The last lines of one file; [] if it is not there."""
    with suppress(OSError), path.open("rb") as file:
        size_b = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_b - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode(errors="replace")
        if size_b > TAIL_BYTES:
            text = text.partition("\n")[2]
        return list(deque(text.splitlines(), maxlen=lines))
    return []


def _name(worker: int) -> str:
    return "log.txt" if worker == 0 else f"log.{worker}.txt"
