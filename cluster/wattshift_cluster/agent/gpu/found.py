"""The limits that were in force before our first write, on disk before that write.

They are what `release` restores, so they must outlive a killed agent. They mean nothing after a
reboot: the driver then starts with its default, and somebody may have set another one since.
"""

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from wattshift_cluster.bootclock import boot_id

log = structlog.get_logger()

FILE_NAME = "gpu_limits.json"
LIMIT_BYTES = 64 * 1024
"""Some hundred bytes a card."""


class FoundLimits:
    """The limits found, by card, W. Any thread may call."""

    def __init__(self, state_dir: Path) -> None:
        """Read those of this boot. A file that cannot be used holds none, with a warning."""
        self._path = state_dir / FILE_NAME
        self._lock = threading.Lock()
        self._boot_id = boot_id()
        self._found_w = self._read()

    def get(self, uuid: str) -> float | None:
        """Limit before our first write, W; None when we wrote none."""
        return self._found_w.get(uuid)

    def add(self, found_w: Mapping[str, float]) -> None:
        """Remember those of cards that are not yet known; returns once on disk. Raises: OSError."""
        with self._lock:
            if set(found_w) - set(self._found_w):
                self._write({**found_w, **self._found_w})

    def drop(self, uuid: str) -> None:
        """Forget a card whose limit was restored. Raises: OSError."""
        with self._lock:
            self._write({one: limit_w for one, limit_w in self._found_w.items() if one != uuid})

    def _read(self) -> dict[str, float]:
        try:
            with self._path.open("rb") as file:
                text = file.read(LIMIT_BYTES + 1)
            if len(text) > LIMIT_BYTES:
                raise ValueError("far too long")
            kept = json.loads(text)
            if kept["boot_id"] != self._boot_id:
                return {}
            found_w = {str(uuid): float(limit_w) for uuid, limit_w in kept["found_w"].items()}
            if not all(math.isfinite(limit_w) and limit_w > 0 for limit_w in found_w.values()):
                raise ValueError("not a limit")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            log.warning("gpu_limits.unusable", path=str(self._path), reason=str(fault))
            return {}
        return found_w

    def _write(self, found_w: dict[str, float]) -> None:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"boot_id": self._boot_id, "found_w": found_w}, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._found_w = found_w
