"""The highest epoch this agent ever took, on disk before it counts (the fencing token of I6).

A controller that lost its place to a newer one must stay refused after this agent restarts, also
when the restart was a power cut. So the file is replaced whole and synced, its directory too.
"""

import json
import os
from pathlib import Path

from wattshift_cluster.errors import WattshiftError

FILE_NAME = "epoch.json"


class EpochDamaged(WattshiftError):
    """The epoch file cannot be read; guessing a lower epoch could let an old controller in."""

    exit_code = 3


class EpochFile:
    """The persisted epoch of one agent.

    Attributes:
        highest: the highest epoch taken so far; 0 before the first.
    """

    def __init__(self, state_dir: Path) -> None:
        """Read it, making the directory if there is none. Raises: EpochDamaged, OSError."""
        state_dir.mkdir(parents=True, exist_ok=True)
        self._path = state_dir / FILE_NAME
        self.highest = self._read()

    def raise_to(self, epoch: int) -> None:
        """Remember a higher epoch; returns once it is on disk. Raises: OSError."""
        if epoch <= self.highest:
            return
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"epoch": epoch}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.highest = epoch

    def _read(self) -> int:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return 0
        try:
            epoch = json.loads(text)["epoch"]
        except (ValueError, KeyError, TypeError) as fault:
            raise EpochDamaged(self._damaged()) from fault
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise EpochDamaged(self._damaged())
        return epoch

    def _damaged(self) -> str:
        return (
            f"{self._path} is damaged. Once no other controller runs for this site, replace it "
            'with {"epoch": N}, N being the epoch that the controller logs at its start.'
        )
