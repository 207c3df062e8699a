"""Days long past lie in a folder of their month; nothing of a log is ever deleted or packed.

A month's folder is moved as one: to another disk, say, with a link left in its place. The chain
goes on through it, so a month that is missing is found like any other hole.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

DAY_PATTERN = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].jsonl"
MONTH_PATTERN = "[0-9][0-9][0-9][0-9]-[0-9][0-9]"
_MONTH = re.compile(r"\d{4}-\d{2}")


def day_files(folder: Path) -> list[Path]:
    """The files of a log or of one of its months, oldest first."""
    near, far = folder.glob(DAY_PATTERN), folder.glob(f"{MONTH_PATTERN}/{DAY_PATTERN}")
    return sorted([*near, *far], key=lambda path: path.name)


def is_month(folder: Path) -> bool:
    """Whether a folder is that of one month of a log, by its name."""
    return _MONTH.fullmatch(folder.name) is not None


def place_of(path: Path) -> Path:
    """Where a day's file lies: while somebody reads, it may have been put into its month."""
    later = path.parent / path.stem[:7] / path.name
    return later if not path.exists() and later.exists() else path


def put_away(folder: Path, today: str) -> list[Path]:
    """Move the days of months before the last one into their months; where they lie now.

    Args:
        folder: of the log.
        today: YYYY-MM-DD.

    Raises: OSError; what was moved stays moved, and the chain is whole at every moment.
    """
    moved: list[Path] = []
    for path in sorted(folder.glob(DAY_PATTERN)):
        if path.stem[:7] >= _month_before(today):
            break
        month = folder / path.stem[:7]
        month.mkdir(mode=0o700, exist_ok=True)
        if (month / path.name).exists():
            raise FileExistsError(
                17, "a file of that name is there already", str(month / path.name)
            )
        moved.append(path.rename(month / path.name))
    _synced({folder, *(path.parent for path in moved)} if moved else ())
    return moved


def _month_before(today: str) -> str:
    year, month = int(today[:4]), int(today[5:7])
    return f"{year:04d}-{month - 1:02d}" if month > 1 else f"{year - 1:04d}-12"


def _synced(folders: Iterable[Path]) -> None:
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
