"""The highest of each month, kept in a small file: a restart must not forget what was reached.

A file that is missing or broken is as one that holds nothing; what follows from that is the careful
case for whoever asks.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

log = structlog.get_logger()

VERSION = 1
MAX_BYTES = 64 * 1024
PERIODS_MOST = 24
"""Two years of months."""


class KeptHighest:
    """Watts by the number of a period."""

    def __init__(self, path: Path | None) -> None:
        """Read the file, if there is one. None keeps nothing."""
        self._path = path
        self._highest_w = {} if path is None else _load(path)

    def of(self, period: int) -> float:
        """The highest of a period, W; NaN unknown."""
        return self._highest_w.get(period, math.nan)

    def all(self) -> Mapping[int, float]:
        """All that are known, W."""
        return self._highest_w

    def raise_to(self, period: int, watts_w: float) -> bool:
        """Keep a new highest; False where it is none. Writes the file."""
        if not watts_w >= 0 or watts_w <= self._highest_w.get(period, -1.0):
            return False
        self._highest_w = {**self._highest_w, period: watts_w}
        for old in sorted(self._highest_w)[:-PERIODS_MOST]:
            del self._highest_w[old]
        if self._path is not None:
            _save(self._path, self._highest_w)
        return True


def _load(path: Path) -> dict[int, float]:
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(MAX_BYTES))
        if body["version"] != VERSION:
            return {}
        rows = {int(period): float(watts_w) for period, watts_w in body["highest_w"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        log.warning("highest.unreadable", path=str(path), reason=type(fault).__name__)
        return {}
    return {period: w for period, w in rows.items() if math.isfinite(w) and w >= 0}


def _save(path: Path, highest_w: Mapping[int, float]) -> None:
    """Replace the file. A disk that refuses is told and no reason to stop."""
    body = {"version": VERSION, "highest_w": {str(key): w for key, w in highest_w.items()}}
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with new.open("w") as file:
            json.dump(body, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as fault:
        log.error("highest.unwritable", path=str(path), reason=str(fault))
