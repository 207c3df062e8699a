"""What a batch job works on, and how it ended: what its folder says first and last."""

import hashlib
from dataclasses import dataclass

from wattshift_cluster.workload.batch.datasets import Index

NAME_DIGITS = 8
RESULTS = "results"
"""What the one claims that joins the chunks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job works on.

    Attributes:
        job: id of the job that owns the folder.
        work: the callable or the command.
        input: path of the input.
        sha256: of the index of that input, hexadecimal.
        items: how many there are.
        chunk_items: items per chunk; the last may have fewer.
    """

    job: str
    work: str
    input: str
    sha256: str
    items: int
    chunk_items: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.items // self.chunk_items)

    def items_of(self, chunk: int) -> int:
        """Number of items of a chunk."""
        return min(self.chunk_items, self.items - chunk * self.chunk_items)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, "completed" or "failed", why, and the items that have no output."""

    state: str
    error: str | None = None
    items_failed: int = 0


def planned(job: str, work: str, source: str, index: Index) -> tuple[Plan, bytes]:
    """The plan for an input, and the index as it is kept."""
    document = index.document()
    sha256 = hashlib.sha256(document).hexdigest()
    return Plan(job, work, source, sha256, index.items, index.chunk_items), document


def chunk_name(chunk: int) -> str:
    """Name of a chunk's claim, and the stem of its file."""
    return f"{chunk:0{NAME_DIGITS}d}"
