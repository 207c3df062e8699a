"""What Autolykos's kernels are given: their text, and a work as the struct that they take."""

import numpy as np

from wattshift_kernels.autolykos2 import reference
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Job
from wattshift_kernels.tables import Slice
from wattshift_kernels.texts import text

JOB = np.dtype(
    [
        ("table", "<u8"), ("message", "<u8", 5), ("reciprocal", "<u8"), ("target", "<u4", 8),
        ("rows", "<u4"), ("height", "<u4"),
    ]
)  # fmt: skip
"""WsJob of autolykos2.cuh."""


def source(name: str = "autolykos2.cu") -> str:
    """One text, its headers written in.

    Args:
        name: "autolykos2.cu" searches on a GPU, "build.cu" makes rows, "search.cpp" is a CPU's.
    """
    return text("autolykos2", name)


def job_of(work: Work, table: int) -> Job:
    """The struct for a work, and the address of its table if there is one."""
    job = _of_height(work.height, table)
    job["message"] = np.frombuffer(work.message + bytes(4), dtype="<u8")
    job["target"] = np.frombuffer(work.target.to_bytes(32, "big"), dtype=">u4")
    return job


def job_of_slice(piece: Slice) -> Job:
    """The struct for rows of a table, whose plan's key is its height."""
    return _of_height(piece.plan.key, piece.address)


def _of_height(height: int, table: int) -> Job:
    rows = reference.rows(height)
    job = np.zeros(1, dtype=JOB)
    job["table"], job["rows"], job["height"] = table, rows, height
    job["reciprocal"] = (2**64 - 1) // rows
    return job
