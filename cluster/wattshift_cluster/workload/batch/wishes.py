"""What is wanted of each batch job, on disk before anybody is told that it was accepted.

A wish is replaced as a whole: commands make a new one in their own thread, and the engine's thread
sees the old one or the new one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.workload.specs import BatchSpec

RUN, PAUSE, CANCEL = "run", "pause", "cancel"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a job.

    Attributes:
        job: its id.
        spec: what it does; None for one that was cancelled unseen.
        wanted: RUN, PAUSE or CANCEL.
        nodes: workers by node; None means one on the node of the bridge's driver.
        hurry: watts are short: who has to end does so at once.
        number: counts the wishes for a job since this process began.
    """

    job: str
    spec: BatchSpec | None
    wanted: str
    nodes: Mapping[str, int] | None = None
    hurry: bool = False
    number: int = 0


class WishBook:
    """The wishes, a file each. A specification may hold credentials: only the owner may read it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> Iterator[Wish]:
        """All that were kept; a file that cannot be read is left out."""
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                row: dict[str, Any] = json.loads(path.read_text())
                spec = BatchSpec.kept(row["spec"]) if row["spec"] else None
                nodes = row.get("nodes")
                yield Wish(row["job"], spec, row["wanted"], nodes, bool(row.get("hurry")))

    def keep(self, wish: Wish) -> None:
        """Write a wish; durable when this returns. Raises: OSError."""
        path = self._folder / f"{wish.job}.json"
        attempt = path.with_suffix(".new")
        row = {
            "job": wish.job,
            "spec": asdict(wish.spec) if wish.spec else None,
            "wanted": wish.wanted,
            "nodes": None if wish.nodes is None else dict(wish.nodes),
            "hurry": wish.hurry,
        }
        handle = os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(row, file)
            file.flush()
            os.fsync(file.fileno())
        attempt.replace(path)

    def forget(self, job: str) -> None:
        """Remove what was kept of a job that is at its end."""
        (self._folder / f"{job}.json").unlink(missing_ok=True)
        self.seats(job).unlink(missing_ok=True)

    def seats(self, job: str) -> Path:
        """The file of a job's workers (`batch_crew`)."""
        return self._folder / f"{job}.seats"
