"""The file that lines are appended to: a whole block of lines reaches it, or nothing does.

A write that a full disk cuts short is taken back, so that the lines before it stay readable and the
same block can be tried again.
"""

import contextlib
import os
from pathlib import Path

from wattshift_cluster.settle.months import place_of


class DayFile:
    """The open file of one UTC day. Every method may raise OSError and then has changed nothing."""

    def __init__(self, folder: Path, day: str) -> None:
        """Open or make the file of `day` (YYYY-MM-DD)."""
        self.day = day
        self.path = place_of(folder / f"{day}.jsonl")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size

    def append(self, block: bytes) -> None:
        """Write a block of lines."""
        left = memoryview(block)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            # If even this fails the next start cuts the torn line off.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(block)

    def sync(self) -> None:
        """Return once everything is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def replaced(path: Path, data: bytes) -> None:
    """Replace a small file as a whole. Raises: OSError."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
